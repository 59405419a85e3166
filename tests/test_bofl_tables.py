"""Every row of Tables 1 to 12 of "Balance-Oriented Focal Loss" is a file, or a file and overrides
that docs/reproduction.md lists.
"""

import pytest
from detectron2.config import instantiate

from iou_balanced.losses import BalanceOriented, ClassBalanced, ConstantSchedule, Equalization

from .engine.test_class_balance import ROWS
from .test_configs import FILES, load

BASE, BOFL = "COCO/centernet_MNV2_140e", "COCO/centernet_MNV2_140e_bofl"
LONG_TAIL = "COCO_LT/centernet_MNV2_140e"
TARGET = "CB._target_=iou_balanced.losses."
CBL, EQL = f"{TARGET}ClassBalanced", f"{TARGET}Equalization CB.schedule=null"
SIGMOID = "model.cls_loss.alpha=0 model.head.prior_prob=0.005"
# Table, row, file, overrides, and the paper's AP.
TABLES = [
    (1, "Baseline", BASE, "", 26.4),
    (1, "+WF", BOFL, "CB.eta=1 CB.schedule=null", 25.9),
    (1, "+WF +LS", BOFL, "CB.eta=1", 27.2),
    (1, "+BB", BOFL, "CB.intensity=0 CB.schedule=null", 26.3),
    (1, "+BB +LS", BOFL, "CB.intensity=0", 27.1),
    (1, "+WF +BB +LS", BOFL, "", 27.6),
    (2, "0.6", BOFL, "CB.eta=0.6 CB.count_over=image", 27.5),
    (2, "0.7", BOFL, "CB.eta=0.7 CB.count_over=image", 27.4),
    (2, "0.8", BOFL, "", 27.6),
    (2, "0.9", BOFL, "CB.eta=0.9 CB.count_over=image", 27.1),
    *(
        (3, f"{name}{ending}", f"COCO/centernet_{name}_140e{ending}", "", ap)
        for name, *aps in (
            ("MNV3", 26.2, 27.3),
            ("R_18", 30.0, 30.4),
            ("R_101", 35.0, 35.0),
            ("DLA_34", 37.2, 37.6),
        )
        for ending, ap in zip(("", "_bofl"), aps, strict=True)
    ),
    (4, "1", BOFL, "CB.schedule.deferred_epochs=1", 27.6),
    (4, "5", BOFL, "", 27.6),
    (4, "15", BOFL, "CB.schedule.deferred_epochs=15", 27.3),
    (4, "25", BOFL, "CB.schedule.deferred_epochs=25", 27.3),
    (5, "constant", BOFL, "CB.eta=1 CB.schedule=null", 25.9),
    (5, "deferred", BOFL, "CB.schedule._target_=iou_balanced.losses.ConstantSchedule", 26.0),
    (5, "linear", BOFL, "CB.schedule.deferred_epochs=0", 27.4),
    (5, "ours", BOFL, "", 27.6),
    (6, "step decay", f"{BASE}_step", "", 26.4),
    (6, "step decay +BOFL", f"{BASE}_step_bofl", "", 26.9),
    (6, "cosine", BASE, "", 26.4),
    (6, "cosine +BOFL", BOFL, "", 27.6),
    (7, "Step", BOFL, "CB.schedule.update=iteration", 27.3),
    (7, "Epoch", BOFL, "", 27.6),
    (8, "Sigmoid", BASE, SIGMOID, 26.0),
    (8, "Sigmoid +BOFL", BOFL, SIGMOID, 26.6),
    (8, "Focal loss", BASE, "", 26.4),
    (8, "Focal loss +BOFL", BOFL, "", 27.6),
    (9, "FCOS R50", "COCO/fcos_R_50_FPN_1x", "", 36.4),
    (9, "FCOS R50 +BOFL", "COCO/fcos_R_50_FPN_1x_bofl", "", 36.8),
    (9, "FCOS MV2", "COCO/fcos_MNV2_FPN_1x", "", 30.4),
    (9, "FCOS MV2 +BOFL", "COCO/fcos_MNV2_FPN_1x_bofl", "", 31.1),
    (10, "Baseline", BASE, "", 26.4),
    (10, "CBL", BOFL, f"{CBL} CB.schedule=null", 25.1),
    (10, "+linear", BOFL, CBL, 26.5),
    (10, "+approx.", BOFL, f"{CBL} CB.beta=null", 26.6),
    (10, "+class-wise", BOFL, f"{CBL} CB.beta=null CB.per_sample=False", 27.2),
    (10, "EQL", BOFL, EQL, 25.7),
    (10, "Ours", BOFL, "", 27.6),
    (11, "Baseline", BASE, "", None),  # AP_tail and AP_head are metrics of every evaluation
    (11, "EQL", BOFL, EQL, None),
    (12, "Baseline", LONG_TAIL, "", 14.1),
    (12, "EQL", f"{LONG_TAIL}_bofl", EQL, 13.3),
    (12, "EQL (bg. 50%)", f"{LONG_TAIL}_bofl", f"{EQL} CB.background_weight=0.5", 13.6),
    (12, "Ours", f"{LONG_TAIL}_bofl", "CB.intensity=1", 10.8),
    (12, "Ours (intensity 5%)", f"{LONG_TAIL}_bofl", "", 15.0),
]


def keys(overrides):
    """What is overridden; a class is its own, other values may vary."""
    return {x if "_target_" in x else x.partition("=")[0] for x in overrides}


@pytest.mark.parametrize(("table", "row", "file", "overrides"), [x[:4] for x in TABLES])
def test_a_row(table, row, file, overrides):
    assert f"{file}.py" in FILES
    overrides = overrides.replace("CB.", "model.class_balance.").split()
    if overrides and overrides != ["model.class_balance.intensity=1"]:  # which a row's text names
        listed = [keys(given) for _, given in ROWS.values()]
        assert keys(overrides) in listed
    model = load(f"{file}.py", *overrides).model
    balance = None if "class_balance" not in model else model.class_balance
    if not file.endswith("_bofl"):
        assert balance is None
        return
    kind = next((k for k in (ClassBalanced, Equalization) if k.__name__ in str(overrides)), None)
    module = instantiate({**balance, "num_classes": 80})
    assert type(module) is (kind or BalanceOriented)
    if table == 9:
        assert (module.eta, module.count_over) == (0.999, "process")
    elif kind is None:
        expected = 0.8
        if table == 2:
            expected = float(row)
        elif "model.class_balance.eta=1" in overrides:
            expected = 1
        assert (module.eta, module.count_over) == (expected, "image")
    if module.schedule is not None:
        epochs = (12, 3) if table == 9 else (140, 5)
        if table == 4:
            epochs = (140, int(row))
        elif (table, row) == (5, "linear"):
            epochs = (140, 0)
        assert (module.schedule.total_epochs, module.schedule.deferred_epochs) == epochs
        assert isinstance(module.schedule, ConstantSchedule) == ((table, row) == (5, "deferred"))


def test_no_table_is_left_out():
    assert {x[0] for x in TABLES} == set(range(1, 13))
    counts = [sum(x[0] == table for x in TABLES) for table in range(1, 13)]
    assert counts == [6, 4, 8, 4, 4, 4, 2, 4, 4, 7, 2, 5]  # as many as the paper's have


def test_rows_with_the_same_name_and_result_are_the_same():
    """The paper repeats some rows from table to table; a row of another AP is another run."""
    runs = {}
    for table, _, file, overrides, ap in TABLES:
        if ap is not None and table < 12:
            runs.setdefault((file, overrides), set()).add(ap)
    assert {run for run, aps in runs.items() if len(aps) > 1} == set()
