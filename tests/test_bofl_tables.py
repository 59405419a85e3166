"""Every row of Tables 1 to 12 of "Balance-Oriented Focal Loss" is a file, or a file and overrides
that docs/reproduction.md lists: what tests/reproduction/test_rows.py does not say of the records.
"""

import pytest
from detectron2.config import instantiate

from iou_balanced.losses import BalanceOriented, ClassBalanced, ConstantSchedule, Equalization
from iou_balanced.reproduction import papers

from .docs_blocks import read
from .reproduction.loading import load_once
from .test_configs import FILES

TABLES = papers()["bofl"].tables
CASES = [(table.number, row) for table in TABLES for row in table.rows]


@pytest.mark.parametrize(("table", "row"), CASES, ids=lambda x: getattr(x, "id", None))
def test_a_row(table, row):
    file, overrides = row.config, list(row.overrides)
    assert f"{file}.py" in FILES
    if overrides:
        shown = " ".join(overrides).replace("model.class_balance.", "CB.")
        assert f"(`{row.short_id}`) | [{file}](../configs/{file}.py) | `{shown}` |" in read(
            "docs/reproduction.md"
        )
    model = load_once(file, row.overrides).model
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
            expected = float(row.name)
        elif "model.class_balance.eta=1" in overrides:
            expected = 1
        assert (module.eta, module.count_over) == (expected, "image")
    if module.schedule is not None:
        epochs = (12, 3) if table == 9 else (140, 5)
        if table == 4:
            epochs = (140, int(row.name))
        elif (table, row.name) == (5, "linear"):
            epochs = (140, 0)
        assert (module.schedule.total_epochs, module.schedule.deferred_epochs) == epochs
        is_constant = (table, row.name) == (5, "deferred")
        assert isinstance(module.schedule, ConstantSchedule) == is_constant


def test_no_table_is_left_out():
    assert [table.number for table in TABLES] == list(range(1, 13))
    counts = [len(table.rows) for table in TABLES]
    assert counts == [6, 4, 8, 4, 4, 4, 2, 4, 4, 7, 2, 5]  # as many as the paper's have


def test_rows_with_the_same_name_and_result_are_the_same():
    """The paper repeats some rows from table to table; a row of another AP is another run."""
    runs = {}
    for table, row in CASES:
        if "AP" in row.published and table < 12:
            runs.setdefault((row.config, row.overrides), set()).add(row.published["AP"])
    assert {run for run, aps in runs.items() if len(aps) > 1} == set()
