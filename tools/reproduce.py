#!/usr/bin/env python
"""The tables and figures of both papers: what they report, how to train it, and what came out.

tools/reproduce.py list                             the tables and figures
tools/reproduce.py show bofl/10                     rows, commands and published numbers
tools/reproduce.py run bofl/10 --rows baseline eql  trains what has not run or has broken off
tools/reproduce.py run bofl/10 --profile quick      the same on digits and a CPU, minutes a run
tools/reproduce.py report bofl/10                   published numbers and ours
tools/reproduce.py run photos/fod_iou --seeds 3     our own experiments, on data in datasets/
tools/reproduce.py claims                           the papers' claims, and what ours say of them
tools/reproduce.py figure iou/2 --output norms.png  a figure; some need runs or result files

A run lies in OUTPUT_DIR/profile/config/overrides/seed; rows that are the same run share it. One
that finished has record.json: overrides, versions, commit, hardware, seed and metrics. A row of
COCO test-dev is evaluated on val2017, and where test-dev is in place the file for COCO's server is
written, below test_dev. Several processes may run the same tables in one folder: each takes the
runs that no other has.
"""

import json
import shlex
import signal
import sys
from pathlib import Path

from tabulate import tabulate

from iou_balanced.analysis.run_folder import read_run_folder
from iou_balanced.files import write_atomically
from iou_balanced.reproduction import (
    RecordError,
    all_experiments,
    all_tables,
    as_record,
    command,
    draw_figure,
    find_experiment,
    find_table,
    format_report,
    plan_runs,
    report_rows,
    run_all,
    server_lines,
    write_intervals,
    write_server_files,
)
from iou_balanced.reproduction.claims import claims_record
from iou_balanced.reproduction.listing import list_records, show_experiment, show_table
from iou_balanced.reproduction.records import Row, Table
from iou_balanced.reproduction.run_files import read_json
from iou_balanced.reproduction.server_files import DATA

sys.path.insert(0, str(Path(__file__).resolve().parent))
from reproduce_parts.options import make_parser

ROOT = Path(__file__).resolve().parents[1]


def chosen_tables(names: list[str]) -> list[Table]:
    """These tables of the papers; "all": every one.

    Raises:
        RecordError: there is no such table, nor an experiment of that name.
    """
    if names == ["all"]:
        return all_tables()
    known = [table.id for table in all_tables()]
    for name in names:
        if name not in known:
            raise RecordError(
                f"there is no table or experiment {name!r}; there are "
                f"{', '.join([*known, *all_experiments()])}"
            )
    return [find_table(name) for name in names]


def own_experiments(args) -> list[str]:
    """The names that are of experiments.

    Raises:
        RecordError: there are some, and a profile that they do not have.
    """
    own = [name for name in args.tables if name in all_experiments()]
    if own and args.profile != "full":
        raise RecordError(f"{own[0]}: the profile {args.profile} is for tables of the papers only")
    return own


def chosen_rows(names: list[str], short_ids: list[str] | None) -> list[Row]:
    """The rows of these tables ("all": of every table), or some of them.

    Raises:
        RecordError: there is no such table or row.
    """
    tables = chosen_tables(names)
    if short_ids is None:
        return [row for table in tables for row in table.rows]
    if len(tables) != 1:
        raise RecordError("--rows are those of one table: name one")
    return [tables[0].row(short_id) for short_id in short_ids]


def run(args) -> int:
    """Run the rows; 1 where one has failed."""
    own = own_experiments(args)
    if own and (len(own) != len(args.tables) or (args.rows and len(own) != 1)):
        raise RecordError("give tables of the papers or experiments; --rows are those of one")
    rows = [] if own else chosen_rows(args.tables, args.rows)
    runs = plan_runs(rows, profile=args.profile, seeds=args.seeds)
    for name in own:
        runs += find_experiment(name).runs(seeds=args.seeds, rows=args.rows)
    for row in rows:
        if row.config is None:
            print(f"{row.id}: cited ({row.cited}); not trained here")
    if args.dry_run:
        for one in runs:
            words = command(one, args.output_dir, num_gpus=args.num_gpus)
            print(shlex.join(words))
        return 0
    for overrides in {one.profile_overrides: None for one in runs if one.profile_overrides}:
        print(f"Overrides of the profile {args.profile}:\n  " + "\n  ".join(overrides))
    outcomes = run_all(
        runs,
        output_dir=args.output_dir,
        root=ROOT,
        num_gpus=args.num_gpus,
        say=say,
    )
    if args.profile == "full":
        outcomes += write_server_files(
            rows,
            seeds=args.seeds,
            output_dir=args.output_dir,
            root=ROOT,
            num_gpus=args.num_gpus,
            say=say,
        )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    left = [outcome for outcome in outcomes if outcome.status == "left"]
    done = len(outcomes) - len(failed) - len(left)
    print(f"{done} of {len(outcomes)} runs have finished, {len(failed)} failed.")
    for outcome in [*left, *failed]:
        rows = ", ".join(outcome.run.rows) or "a run that others start from"
        print(f"  {outcome.status}: {outcome.run.name} ({rows}): {outcome.message}")
    return 1 if failed else 0


def say(line: str) -> None:
    """Print it at once, also into a file."""
    print(line, flush=True)


def report_experiment(name: str, args) -> None:
    """Analyze the runs of an experiment, print the table, and write page and record."""
    from iou_balanced.analysis.page import make_page
    from iou_balanced.reproduction.experiment_report import (
        analyze_experiment,
        experiment_record,
        finished_rows,
    )

    one = find_experiment(name)
    rows = finished_rows(one, args.output_dir)
    analysis = analyze_experiment(one, args.output_dir, draws=args.draws, progress=True)
    record = experiment_record(one, rows, analysis)
    print(f"{one.id}: {one.title}. On {one.data_title}.")
    print(
        tabulate(record["rows"], record["columns"], tablefmt="github"), *analysis.verdict, sep="\n"
    )
    if args.json:
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_atomically(args.json, lambda f: f.write(text))
    if args.page:
        options = {"num_images": 0}
        if not args.no_images:
            options = {"images": read_run_folder(rows[0].folders[0]).images}
        page = make_page(analysis, **options)
        print(*page.write(args.page), *analysis.write(args.page), sep="\n")


def claims(args) -> None:
    """Print what the records of the experiments say of the papers' claims, and write it."""
    record = claims_record(lambda name: read_json(ROOT / "benchmarks/records" / f"{name}.json"))
    print(tabulate(record["rows"], record["columns"], tablefmt="github"))
    if args.json:
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_atomically(args.json, lambda f: f.write(text))


def report(args) -> None:
    """Print the report of each table, and write the record of one."""
    own = own_experiments(args)
    if own:
        if len(args.tables) != 1:
            raise RecordError("one experiment at a time, and no table beside it")
        if args.intervals:
            raise RecordError("--intervals is for tables; the report of an experiment has them")
        report_experiment(own[0], args)
        return
    if args.page:
        raise RecordError("--page is for experiments; a table of the papers has none")
    tables = chosen_tables(args.tables or ["all"])
    if args.json and len(tables) != 1:
        raise RecordError("--json holds the report of one table: name one")
    for table in tables:
        if args.intervals:
            write_intervals(
                table.rows,
                output_dir=args.output_dir,
                profile=args.profile,
                say=say,
                draws=args.draws,
                permutations=0,
            )
        rows = report_rows(table, output_dir=args.output_dir, profile=args.profile)
        print(format_report(table, rows, profile=args.profile) + "\n")
        lines = list(server_lines(table.rows, args.output_dir)) if args.profile == "full" else []
        if lines:
            print(f"Files for COCO's server, from {' and '.join(DATA)}:\n", *lines, "", sep="\n")
        if args.json:
            text = json.dumps(as_record(table, rows, profile=args.profile), indent=2) + "\n"
            write_atomically(args.json, lambda f, text=text: f.write(text))


def figure(args) -> None:
    """Draw a figure, and print the names of its files."""
    values = vars(args)
    keys = ("output_dir", "profile", "ground_truth", "images", "image_ids", "score")
    results = dict(map(named_file, args.results))
    if len(results) != len(args.results):
        raise RecordError("--results has a name twice")
    for path in draw_figure(
        args.name, args.output, results=results, **{key: values[key] for key in keys}
    ):
        print(path)


def named_file(text: str) -> tuple[str, Path]:
    """Split "name=file.json".

    Raises:
        RecordError: there is no name or no file.
    """
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise RecordError(f"--results {text}: give name=file.json")
    return name, Path(file)


def main(argv: list[str] | None = None) -> int:
    args = make_parser(__doc__).parse_args(argv)
    try:
        if args.command == "list":
            print(*list_records(), sep="\n")
        elif args.command == "show":
            own = own_experiments(args)
            for name in own:
                print(*show_experiment(find_experiment(name), args.output_dir), sep="\n")
            names = [name for name in args.tables if name not in own]
            for table in chosen_tables(names):
                print(*show_table(table, args.profile, args.output_dir), sep="\n")
        elif args.command == "run":
            return run(args)
        elif args.command == "report":
            report(args)
        elif args.command == "claims":
            claims(args)
        else:
            figure(args)
    except (ValueError, OSError, ImportError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run again to go on")
    return 0


if __name__ == "__main__":
    # A training that was started here ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM; run again to go on"))
    sys.exit(main())
