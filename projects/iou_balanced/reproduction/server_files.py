"""The file of a trained row for COCO's server, which alone has the annotations of test-dev.

It lies below the run's folder, `test_dev/inference/detections_test-dev2017_NAME_results.json`, with
a zip of it beside; test_dev/record.json says what it was made of, and is written last.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from iou_balanced.files import exclusive_lock

from . import run_files as files
from .records import Row
from .runner import Outcome, run_command
from .runs import Run, quote, run_of

FOLDER = "test_dev"
DATA = ("coco/annotations/image_info_test-dev2017.json", "coco/test2017")
PATTERN = "inference/detections_*_results.json"


def missing_data(root: Path) -> list[str]:
    """What of test-dev is not below $DETECTRON2_DATASETS (default: datasets).

    Args:
        root: where a relative path starts from.
    """
    datasets = Path(root) / os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    return [str(datasets / name) for name in DATA if not (datasets / name).exists()]


def server_command(row: Row, run: Run, output_dir: Path, *, num_gpus: int = 1) -> list[str]:
    """Arguments of tools/train_net.py that write the file, and its name before them.

    Args:
        row: has `test_dev`.
        run: its training.
        output_dir: of all runs.
        num_gpus: processes of the evaluation.
    """
    words = ["tools/train_net.py", "--config-file", f"configs/{row.test_dev}.py", "--eval-only"]
    words += ["--num-gpus", str(num_gpus)] if num_gpus != 1 else []
    weights = quote(str(run.weights(output_dir)))
    folder = quote(str(run.folder(output_dir) / FOLDER))
    return [
        *words,
        *run.overrides,
        f"train.init_checkpoint={weights}",
        f"train.output_dir={folder}",
    ]


def server_file(run_folder: Path) -> Path | None:
    """The file that was written for the server; None where there is none.

    Args:
        run_folder: of the training.
    """
    folder = Path(run_folder) / FOLDER
    name = (files.read_json(folder / files.RECORD) or {}).get("file")
    return folder / name if name and (folder / name).is_file() else None


def write_server_files(
    rows: list[Row],
    *,
    seeds: int,
    output_dir: Path,
    root: Path,
    num_gpus: int = 1,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Write the file of each row that has a config for it and weights, where test-dev is in place.

    Args:
        rows: those without `test_dev` are passed over.
        seeds: the trainings have the seeds 0 to seeds - 1.
        output_dir: of all runs.
        root: the folder of tools/ and configs/.
        num_gpus: processes of the evaluation.
        say: gets the lines of progress.

    Returns:
        One for each file that was tried, or was there.
    """
    output_dir = Path(output_dir).absolute()
    trained = [
        (row, run)
        for row in rows
        if row.test_dev
        for run in [run_of(row, profile="full", seed=seed) for seed in range(seeds)]
        if files.state(run.folder(output_dir)) == "finished"
    ]
    missing = missing_data(root) if trained else []
    outcomes = []
    for row, run in trained:
        place = f"{run.name}/{FOLDER}"
        if missing and server_file(run.folder(output_dir)) is None:
            words = shlex.join(server_command(row, run, output_dir, num_gpus=num_gpus))
            say(f"{place}: no file for COCO's server, as {missing[0]} is missing. Later: {words}")
            continue
        outcome = _write_one(row, run, output_dir, Path(root), num_gpus, say)
        say(f"{place}: {outcome.status}{outcome.message and ': ' + outcome.message}")
        outcomes.append(outcome)
    return outcomes


def _write_one(row, run, output_dir, root, num_gpus, say) -> Outcome:
    folder = run.folder(output_dir) / FOLDER
    there = server_file(run.folder(output_dir))
    if there is not None:
        return Outcome(run, "was finished", f"file for COCO's server: {there}")
    try:
        with exclusive_lock(folder / files.LOCK) as lock:
            if lock is None:
                return Outcome(run, "left", "another process writes the file for COCO's server")
            words = server_command(row, run, output_dir, num_gpus=num_gpus)
            say(f"{run.name}/{FOLDER}: starts (the file for COCO's server)")
            ended = run_command(words, folder, root, say, lock)
            if ended.status:
                error = files.error_of(ended.output)
                return Outcome(run, "failed", f"{error} ({folder / files.OUTPUT})")
            return _record(run, folder, words)
    except OSError as e:
        return Outcome(run, "failed", str(e))


def _record(run: Run, folder: Path, words: list[str]) -> Outcome:
    found = sorted(folder.glob(PATTERN))
    if len(found) != 1:
        message = f"the evaluation left {len(found)} files {folder / PATTERN}, and not one"
        return Outcome(run, "failed", message)
    name = found[0].relative_to(folder).as_posix()
    files.write_json(
        folder / files.RECORD, {"file": name, "command": words, "finished": files.now()}
    )
    return Outcome(run, "finished", f"file for COCO's server: {found[0]}")


def server_lines(rows: list[Row], output_dir: Path) -> Iterator[str]:
    """A line for each row that has a config for test-dev: its file, or how it is made.

    Args:
        rows: of a table.
        output_dir: of all runs.
    """
    for row in rows:
        if not row.test_dev:
            continue
        seeds = run_of(row, profile="full").folder(output_dir).parent
        found = [file for file in map(server_file, sorted(seeds.glob("seed_*"))) if file]
        made = f"`tools/reproduce.py run {row.id.rpartition('/')[0]} --rows {row.short_id}`"
        none = f"none yet; {made} writes it after the training, where test-dev is in place"
        yield f"- {row.name}: {', '.join(map(str, found)) or none}"
