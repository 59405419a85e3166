"""Curves of trainings and the class weights in force, from Detectron2's metrics.json."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .ap_charts import begin_at_zero, finish, short
from .charts import MARKERS, Chart, draw, plain, run_color
from .numbers import is_defined, number

__all__ = ["read_training_log", "training_parts"]

_AP = re.compile(r"(?:.+/)?bbox/AP")
_WEIGHT = re.compile(r"class_weight(\w*)/(?!min$|max$)(.+)")


def read_training_log(path: str | os.PathLike) -> list[dict]:
    """The records of a metrics.json, by iteration; records of a run that was resumed replace those
    that it did again. Empty where the file is missing.
    """
    records: dict[int, dict] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        if not isinstance(record, dict) or not isinstance(record.get("iteration"), int):
            continue
        iteration = record["iteration"]
        if "total_loss" in record and iteration in records:
            records = {i: x for i, x in records.items() if i < iteration} | {
                iteration: records[iteration]
            }
        records.setdefault(iteration, {}).update(record)
    return [records[i] for i in sorted(records)]


def training_parts(trainings: Mapping[str, str | os.PathLike], runs: Sequence[str]) -> dict | None:
    """Charts and tables of trainings; None where no file has anything to show.

    Args:
        trainings: run -> metrics.json.
        runs: all, whose order gives the colors.
    """
    logs = {run: read_training_log(trainings[run]) for run in runs if run in trainings}
    losses = {run: _losses(log) for run, log in logs.items()}
    aps = {run: _series(log, _AP) for run, log in logs.items()}
    charts = [
        _loss_chart(losses, runs),
        _line_chart("training_ap", "AP [%]", "AP while training", aps, runs),
    ]
    charts = [chart for chart in charts if chart is not None]
    weights = [table for run, log in logs.items() if (table := _weights(run, log))]
    return {"charts": charts, "weights": weights} if charts or weights else None


def _series(log: Sequence[Mapping], key: re.Pattern) -> list[tuple[int, float]]:
    found = []
    # The evaluation at the end of a training counts one iteration more than there were.
    last = max((r["iteration"] for r in log if "total_loss" in r), default=math.inf)
    for record in log:
        # Of several test sets the mean of what there is.
        values = [v for k, v in record.items() if key.fullmatch(k) and is_defined(v)]
        if values:
            found.append((min(record["iteration"], last) + 1, sum(values) / len(values)))
    return found


def _losses(log: Sequence[Mapping]) -> dict[str, list[tuple[int, float]]]:
    """Loss -> its values, the sum first."""
    names = dict.fromkeys(
        k for record in log for k in record if k == "total_loss" or k.startswith("loss")
    )
    names = sorted(names, key=lambda name: name != "total_loss")
    return {name: _series(log, re.compile(re.escape(name))) for name in names}


def _loss_chart(losses: Mapping[str, Mapping], runs: Sequence[str]) -> Chart | None:
    """The sum of the losses; of a single run its terms too."""
    lines = {run: x["total_loss"] for run, x in losses.items() if x.get("total_loss")}
    if len(runs) > 1 or not lines:
        return _line_chart("training_loss", "loss", "Loss", lines, runs)
    return _line_chart("training_loss", "loss", "Loss", losses[runs[0]], list(losses[runs[0]]))


def _line_chart(
    name: str,
    label: str,
    title: str,
    lines: Mapping[str, Sequence[tuple[int, float]]],
    order: Sequence[str],
) -> Chart | None:
    lines = {key: points for key, points in lines.items() if points}
    if not lines:
        return None

    def paint(axes):
        for key, points in lines.items():
            index = order.index(key)
            axes.plot(
                *zip(*points, strict=True),
                label=plain(short(key)),
                color=run_color(index),
                marker=MARKERS[index % len(MARKERS)] if len(points) <= 12 else None,
                markersize=4,
                linewidth=1.6,
            )
        axes.set_xlabel("Iteration")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(label)
        axes.set_title(title)
        values = [x for points in lines.values() for _, x in points if math.isfinite(x)]
        begin_at_zero(axes, least=1.05 * max(values, default=0) or 1.0)  # no marker is cut off
        begin_at_zero(axes, axis="x")
        finish(axes)

    ends = "; ".join(
        f"{key} from {number(points[0][1], 2)} to {number(points[-1][1], 2)}"
        for key, points in lines.items()
    )
    return draw(name, f"{title} by iteration: {ends}.", paint)


def _weights(run: str, log: Sequence[Mapping]) -> dict | None:
    """The last ones that were logged."""
    for record in reversed(log):
        found = [(m, v) for k, v in record.items() if (m := _WEIGHT.fullmatch(k))]
        if found:
            rows = [
                (f"{m[2]}{f' ({m[1].strip(chr(95))})' if m[1] else ''}", number(v, 3))
                for m, v in found
            ]
            return {"run": run, "iteration": record["iteration"] + 1, "rows": rows}
    return None
