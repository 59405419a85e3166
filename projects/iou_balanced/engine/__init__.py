"""The training loop that tools/train_net.py and the tests call."""

from .class_balance import ClassBalanceHook
from .config import apply_overrides, load_config
from .errors import UserError
from .hooks import BestCheckpointer, ResumeStateHook
from .launch import launch
from .train import do_test, do_train, main
from .trainer import Trainer
from .yaml_trainer import BalancedDefaultTrainer

__all__ = [
    "BalancedDefaultTrainer",
    "BestCheckpointer",
    "ClassBalanceHook",
    "ResumeStateHook",
    "Trainer",
    "UserError",
    "apply_overrides",
    "do_test",
    "do_train",
    "launch",
    "load_config",
    "main",
]
