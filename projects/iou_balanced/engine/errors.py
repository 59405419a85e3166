"""The error for what a user can mend on the command line or in a config."""

import contextlib


class UserError(ValueError):
    """Says in one message what is wrong and what would be right; shown without a traceback."""


@contextlib.contextmanager
def data_errors_as_user_errors():
    """Turn the errors that `iou_balanced.data` raises on purpose into `UserError`.

    They name the file, the image or the package at fault; an error from anywhere else is left
    alone, with its traceback.
    """
    try:
        yield
    except (OSError, ValueError, ImportError) as e:
        if isinstance(e, UserError) or not is_from("iou_balanced.data", e):
            raise
        raise UserError(str(e)) from e


def is_from(package: str, error: Exception) -> bool:
    """Whether it was a module of `package` that raised the error."""
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__", "").startswith(package)
