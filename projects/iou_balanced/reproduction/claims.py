"""What the papers claim, held against the records of our own experiments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .experiments import FOLDER, find_experiment
from .numbers import format_difference
from .parse import RecordError, check_keys, read_yaml


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper that a difference between two rows can show."""

    paper: str
    """ "iou" or "bofl"."""
    text: str
    """The sentence, with the published number."""
    row: str
    """Whose difference to the baseline shows it."""
    metric: str
    """Of which metric."""
    sign: int
    """1 where the paper has a rise, -1 for a fall."""
    experiments: tuple[str, ...]
    """Those that show it."""


def all_claims() -> list[Claim]:
    """Of all files of experiments, in their order.

    Raises:
        RecordError: a claim is not as it should be; names the file, the claim and the key.
    """
    return [claim for file in sorted(FOLDER.glob("*.yaml")) for claim in _claims(file)]


def _claims(file) -> list[Claim]:
    found = []
    keys = {"paper": str, "text": str, "row": str, "metric": str, "sign": int, "experiments": list}
    for i, item in enumerate(read_yaml(file).get("claims", [])):
        where = f"{file.name}, claims[{i}]"
        check_keys(item, where, keys, {})
        if item["sign"] not in (1, -1):
            raise RecordError(f"{where}: sign is {item['sign']}; it has to be 1 or -1")
        names = tuple(f"{file.stem}/{name}" for name in item["experiments"])
        for name in names:
            find_experiment(name).row(item["row"])
        found.append(Claim(**{**item, "experiments": names}))
    return found


def judge(claim: Claim, difference: Mapping[str, float | None]) -> str:
    """ "confirmed", "refuted" or "undecided".

    Args:
        claim: of `all_claims`.
        difference: value, low and high, in percent, None where undefined. It decides where its
            interval leaves out 0.
    """
    low, high = difference["low"], difference["high"]
    if low is None or high is None or not (low > 0 or high < 0):
        return "undecided"
    return "confirmed" if (low > 0) == (claim.sign > 0) else "refuted"


def claims_record(load: Callable[[str], Mapping | None]) -> dict:
    """The table of all claims, as benchmarks/records has it.

    Args:
        load: name of an experiment's record -> the record, or None where there is none.
    """
    rows = []
    for claim in all_claims():
        for name in claim.experiments:
            record = load(name.replace("/", "_"))
            differences = {} if record is None else record["differences"].get(claim.row, {})
            found = differences.get(claim.metric)
            data = find_experiment(name).data
            if found is None:
                rows.append([claim.text, data, "-", "-", "not run"])
                continue
            seeds = len([run for run in record["runs"] if run["row"] == claim.row])
            text = format_difference(found)
            verdict = judge(claim, found)
            if seeds == 1 and verdict != "undecided":
                verdict = f"{verdict} for one seed, which says little"
            rows.append([claim.text, data, seeds, text, verdict])
    return {
        "name": "photos_claims",
        "settings": "from the records of the experiments: tools/reproduce.py claims",
        "blank_repeats": "claim",
        "columns": ["claim", "data", "seeds", "difference, 95% interval", "here"],
        "rows": rows,
    }
