"""IoU-balanced losses for Detectron2. Importing this package imports nothing heavy.

`iou_balanced.balance` is loaded when it is first used, because it needs Detectron2.
"""

from .config_files import get_config_file

__version__ = "0.2.0"

__all__ = ["__version__", "balance", "get_config_file"]  # noqa: F822


def __getattr__(name):
    if name == "balance":
        from iou_balanced.modeling import balance

        return balance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
