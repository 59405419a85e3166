"""The error for what a user can mend on the command line or in a config."""

import contextlib

from iou_balanced.formats.image_files import ImageError


class UserError(ValueError):
    """Says in one message what is wrong and what would be right; shown without a traceback."""


@contextlib.contextmanager
def data_errors_as_user_errors():
    """Turn the errors that are raised on purpose where data is read into `UserError`.

    They name the file, the image or the package at fault; an error from anywhere else is left
    alone, with its traceback.

    Raises:
        UserError: in the place of such an error.
    """  # noqa: DOC501
    try:
        yield
    except (OSError, ValueError, ImportError) as e:
        if isinstance(e, UserError) or not _is_of_data(e):
            raise
        raise UserError(str(e)) from e


_PACKAGES = ("iou_balanced.data", "iou_balanced.evaluation", "iou_balanced.formats")


def _is_of_data(error: Exception) -> bool:
    if isinstance(error, ImageError):  # may come from a worker, without its traceback
        return True
    if any(is_from(package, error) for package in _PACKAGES):
        return True
    # A file that cannot be opened is named by the error itself, wherever it was raised.
    return isinstance(error, OSError) and bool(error.filename) and _passed_through_data(error)


def _passed_through_data(error: Exception) -> bool:
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith(_PACKAGES):
            return True
        traceback = traceback.tb_next
    return False


def is_from(package: str, error: Exception) -> bool:
    """Whether it was a module of `package` that raised the error."""
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__", "").startswith(package)
