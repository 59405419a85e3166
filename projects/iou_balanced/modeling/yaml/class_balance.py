"""Class weights for yaml (yacs) users."""

import inspect
import numbers

from detectron2.config import CfgNode

from iou_balanced.losses import (
    BalanceOriented,
    ClassBalance,
    ClassBalanced,
    ConstantSchedule,
    Equalization,
    LinearSchedule,
)

from .losses import add_trainer_config

_KINDS = {kind.__name__: kind for kind in (BalanceOriented, ClassBalanced, Equalization)}
_SCHEDULES = {"linear": LinearSchedule, "constant": ConstantSchedule}
_SCHEDULE_KEYS = ("TOTAL_EPOCHS", "DEFERRED_EPOCHS", "UPDATE", "READING")
# As all defaults are None, yacs lets any type pass.
_TYPES = {
    "a string": (str, ("SCHEDULE", "UPDATE", "READING", "COUNT_OVER", "COUNTED", "HAT")),
    "True or False": (bool, ("NORMALIZE", "PER_SAMPLE", "ALLOW_OTHER_COUNTS")),
    "a whole number": (numbers.Integral, ("TOTAL_EPOCHS", "DEFERRED_EPOCHS")),
    "a number": (
        numbers.Real,
        ("INTENSITY", "FLOOR", "ETA", "BETA", "POWER", "TAIL_RATIO", "BACKGROUND_WEIGHT"),
    ),
}


def add_class_balance_config(cfg: CfgNode) -> None:
    """Add the keys of `MODEL.CLASS_BALANCE`, weights of the classes, to Detectron2's config.

    `SOLVER.ACCUMULATION_STEPS` and `TEST.REPORT` are added too.

    `MODEL.META_ARCHITECTURE` BalancedRetinaNet and CenterNet read them. Each key is an argument of
    the class of `iou_balanced.losses` that NAME says, or of its schedule, and means what it does
    there. None is the class's own default; any other value of a key that the class does not have is
    an error. The training set's counts come from `iou_balanced.engine.BalancedDefaultTrainer`, or
    in a trainer of one's own from `iou_balanced.engine.ClassBalanceHook`.

    Args:
        cfg: Detectron2's config; changed in place.
    """
    node = CfgNode()
    # "BalanceOriented", "ClassBalanced" or "Equalization"; "" for none, whatever the other keys.
    node.NAME = ""
    # "linear", "constant", or "": the full weights throughout. BalanceOriented has no default.
    node.SCHEDULE = None
    # Of the schedule: the training's length, and how long the weights wait, in epochs; whether they
    # change by "epoch" or "iteration"; for "linear", what lambda is: "last", "total" or "next".
    node.TOTAL_EPOCHS = None
    node.DEFERRED_EPOCHS = None
    node.UPDATE = None
    node.READING = None
    # Factor on alpha - 1; not of Equalization.
    node.INTENSITY = None
    # Instances that a rarer class counts as having; not of Equalization.
    node.FLOOR = None
    # A resumed run may have another training set.
    node.ALLOW_OTHER_COUNTS = None
    # Of BalanceOriented: eta of Eq. 8; "image", "process" or "batch"; "instances" or "locations";
    # the reading of the hat on eta.
    node.ETA = None
    node.COUNT_OVER = None
    node.COUNTED = None
    node.HAT = None
    # Of ClassBalanced: beta of the effective number, 1.0 being its limit, the inverse frequency
    # (None for the class); whether these weights add up to K; and by sample, or by class.
    node.BETA = None
    # In its place, the power of the inverse frequency.
    node.POWER = None
    node.NORMALIZE = None
    node.PER_SAMPLE = None
    # Of Equalization: share of the tail, and its weight in background rows.
    node.TAIL_RATIO = None
    node.BACKGROUND_WEIGHT = None
    cfg.MODEL.CLASS_BALANCE = node
    add_trainer_config(cfg)


def class_balance_from_config(cfg: CfgNode, num_classes: int) -> ClassBalance | None:
    """What `MODEL.CLASS_BALANCE` stands for; None where there is no such node, or no NAME in it.

    Raises:
        ValueError: a value is not possible, a key is not of this NAME or schedule, or a choice is
            left open that the class demands.
    """
    node = cfg.MODEL.get("CLASS_BALANCE")
    if node is None or node.NAME == "":
        return None
    if node.NAME not in _KINDS:
        raise ValueError(
            f"Expected MODEL.CLASS_BALANCE.NAME to be one of {list(_KINDS)} or '', but got "
            f"{node.NAME!r}"
        )
    kind = _KINDS[node.NAME]
    keys = {key: value for key, value in node.items() if key != "NAME" and value is not None}
    _check_types(keys)
    schedule_keys = {key: keys.pop(key) for key in _SCHEDULE_KEYS if key in keys}
    arguments = {}
    try:
        if "SCHEDULE" in keys or schedule_keys:
            arguments["schedule"] = _schedule(keys.pop("SCHEDULE", ""), schedule_keys)
        elif inspect.signature(kind).parameters["schedule"].default is inspect.Parameter.empty:
            raise ValueError(
                f"Expected SCHEDULE to be given with {node.NAME}: one of {list(_SCHEDULES)}, or "
                "'' for the full weights throughout, but got None"
            )
        arguments.update(_arguments(kind, keys, f"NAME {node.NAME!r}"))
        if arguments.get("beta") == 1:
            arguments["beta"] = None
        return kind(num_classes=num_classes, **arguments)
    except ValueError as e:
        raise ValueError(f"MODEL.CLASS_BALANCE: {e}") from e


def _schedule(name: str, keys: dict) -> LinearSchedule | ConstantSchedule | None:
    if name == "":
        _arguments(None, keys, "SCHEDULE ''")
        return None
    if name not in _SCHEDULES:
        raise ValueError(
            f"Expected SCHEDULE to be one of {list(_SCHEDULES)} or '', but got {name!r}"
        )
    kind = _SCHEDULES[name]
    return kind(**_arguments(kind, keys, f"SCHEDULE {name!r}"))


def _arguments(kind: type | None, keys: dict, reader: str) -> dict:
    """The keys as arguments of `kind`.

    Raises:
        ValueError: it does not have one of them.
    """
    known = () if kind is None else inspect.signature(kind).parameters
    for key, value in keys.items():
        if key.lower() not in known:
            raise ValueError(
                f"Expected {key} to be None, because {reader} does not read it, but got {value!r}"
            )
    return {key.lower(): value for key, value in keys.items()}


def _check_types(keys: dict) -> None:
    """Check the type of each key's value.

    Raises:
        ValueError: it is another one than the key has.
    """
    for description, (kind, names) in _TYPES.items():
        for key in names:
            value = keys.get(key)
            if value is None:
                continue
            # To Python, True is a number.
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(
                    f"Expected MODEL.CLASS_BALANCE.{key} to be {description}, but got {value!r}"
                )
