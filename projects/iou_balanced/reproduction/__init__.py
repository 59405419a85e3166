"""The papers' tables and figures as data, and what trains, reports and draws them.

The records are in records/*.yaml; `records` says what their keys mean. tools/reproduce.py is the
command line. The names are loaded when they are first used: the records need no torch.
"""

import importlib

_MODULES = {
    "Experiment": "experiments",
    "Figure": "records",
    "Measured": "report",
    "Outcome": "runner",
    "Paper": "records",
    "RecordError": "parse",
    "Row": "records",
    "RowReport": "report",
    "Run": "runs",
    "Table": "records",
    "Variant": "records",
    "Variation": "experiments",
    "all_rows": "records",
    "all_tables": "records",
    "as_record": "report",
    "command": "runs",
    "draw_figure": "figures",
    "all_experiments": "experiments",
    "find_experiment": "experiments",
    "find_figure": "records",
    "find_table": "records",
    "format_report": "report",
    "load_paper": "records",
    "papers": "records",
    "plan_runs": "runs",
    "quick_overrides": "quick",
    "read_intervals": "report",
    "report_rows": "report",
    "run_all": "runner",
    "server_lines": "server_files",
    "write_intervals": "intervals",
    "write_server_files": "server_files",
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
