"""A trained model put to use: predictions for images and videos, and exported files."""

from .predictor import Predictor
from .run import Summary, predict_files

__all__ = ["Predictor", "Summary", "predict_files"]
