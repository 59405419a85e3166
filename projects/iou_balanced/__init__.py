"""IoU-balanced losses for Detectron2. Importing this package imports nothing heavy.

`iou_balanced.balance` and `iou_balanced.Predictor` are loaded when they are first used, because
they need Detectron2.
"""

from .config_files import get_config_file

__version__ = "0.2.0"

__all__ = ["Predictor", "__version__", "balance", "get_config_file"]  # noqa: F822


def __getattr__(name):
    if name == "balance":
        from iou_balanced.modeling import balance

        return balance
    if name == "Predictor":
        from iou_balanced.inference import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
