"""In words: what can be told apart and what cannot."""

import math
from collections.abc import Mapping, Sequence

from .metric_names import MAIN_METRICS, class_metric

__all__ = ["is_told_apart", "verdict"]


def is_told_apart(number: Mapping, confidence: float) -> bool:
    """Whether a difference is more than noise: its interval leaves out 0, and its p value, of
    classes the corrected one, is at most 1 - confidence.
    """
    p = number.get("p_holm", number.get("p"))
    if p is None or not math.isfinite(number["low"]):
        return False
    return p <= 1 - confidence and not number["low"] <= 0 <= number["high"]


def verdict(
    runs: Mapping[str, Mapping],
    differences: Mapping[str, Mapping],
    num_seeds: Mapping[str, int],
    class_names: Sequence[str],
    confidence: float,
    localization: Mapping,
    errors: Mapping,
) -> list[str]:
    """Sentences, the most important first."""
    first, *others = runs
    sentences = []
    for name in others:
        sentences += _of_difference(name, first, differences[name], class_names, confidence)
        sentences += _of_localization(name, localization, confidence)
    for name in runs if not others else ():
        sentences.append(f"{name}: AP {_with_interval(runs[name]['AP'])}.")
    sentences += _of_seeds(differences, num_seeds)
    for name in runs:
        gains = {kind: x["value"] for kind, x in errors["runs"][name].items()}
        gains = {kind: x for kind, x in gains.items() if math.isfinite(x) and x > 0}
        if gains:
            most = max(gains, key=gains.__getitem__)
            sentences.append(
                f"{name} loses most AP50 to {_ERRORS[most]}: mending these alone would give "
                f"{gains[most]:.1f} points."
            )
    return sentences


_ERRORS = {
    "classification": "boxes of the wrong class",
    "localization": "badly localized boxes",
    "both": "boxes of the wrong class that are badly localized too",
    "duplicate": "duplicates",
    "background": "boxes on the background",
    "missed": "missed objects",
}


def _of_difference(
    name: str, first: str, numbers: Mapping, class_names: Sequence[str], confidence: float
) -> list[str]:
    ap = numbers["AP"]
    if not math.isfinite(ap["low"]):
        return [f"{name} and {first} cannot be compared: the difference of AP has no interval."]
    half = (ap["high"] - ap["low"]) / 2
    if is_told_apart(ap, confidence):
        side = "higher" if ap["value"] > 0 else "lower"
        text = (
            f"{name} has the {side} AP: {_with_interval(ap, sign=True)} points against {first}"
            f"{_p(ap)}, more than noise."
        )
    elif ap["low"] == ap["high"] == 0:
        text = f"{name} and {first} have the same AP."
    else:
        text = (
            f"{name} and {first} cannot be told apart by AP: {_with_interval(ap, sign=True)} "
            f"points{_p(ap)}. A difference has to be about {half:.1f} points to be seen with these "
            "images."
        )
        permuted = str(ap.get("p_method")).startswith("permutation")
        if permuted and ap["p"] <= 1 - confidence:
            text += " The permutation test alone would tell them apart; the interval has 0 in it."
    return [
        text,
        *_of_metrics(name, numbers, confidence),
        *_of_classes(name, numbers, class_names, confidence),
    ]


def _of_metrics(name: str, numbers: Mapping, confidence: float) -> list[str]:
    metrics = [m for m in MAIN_METRICS[1:] if math.isfinite(numbers[m]["low"])]
    told = [m for m in metrics if is_told_apart(numbers[m], confidence)]
    parts = []
    for side, sign in (("higher", 1), ("lower", -1)):
        chosen = [m for m in told if sign * numbers[m]["value"] > 0]
        if chosen:
            listed = ", ".join(f"{m} {_with_interval(numbers[m], sign=True)}" for m in chosen)
            parts.append(f"{side} {listed}")
    rest = [m for m in metrics if m not in told]
    text = f"{name}: {'; '.join(parts)}." if parts else ""
    if rest:
        text += f"{' ' if text else name + ': '}Not told apart: {', '.join(rest)}."
    return [text] if text else []


def _of_classes(
    name: str, numbers: Mapping, class_names: Sequence[str], confidence: float
) -> list[str]:
    classes = {c: numbers[class_metric(c)] for c in class_names}
    classes = {c: x for c, x in classes.items() if x.get("p") is not None}
    if len(classes) < 2:
        return []
    told = {c: x for c, x in classes.items() if is_told_apart(x, confidence)}
    before = sum(x["p"] <= 1 - confidence for x in classes.values())
    parts = []
    for side, sign in (("higher", 1), ("lower", -1)):
        chosen = sorted(
            (c for c, x in told.items() if sign * x["value"] > 0),
            key=lambda c: -abs(told[c]["value"]),
        )
        if chosen:
            listed = ", ".join(f"{c} {_with_interval(told[c], sign=True)}" for c in chosen[:5])
            more = f" and {len(chosen) - 5} more" if len(chosen) > 5 else ""
            parts.append(f"{len(chosen)} {side} ({listed}{more})")
    text = f"{name}: of {len(classes)} classes, corrected for their number (Holm), "
    text += ", ".join(parts) if parts else "none can be told apart"
    if before > len(told):
        text += f"; uncorrected it would be {before}, of which some are chance"
    return [text + "."]


def _of_localization(name: str, localization: Mapping, confidence: float) -> list[str]:
    number = localization["differences"][name][localization["shown"]]["rank_correlation"]
    if not math.isfinite(number["low"]):
        return []
    interval = _with_interval(number, sign=True, digits=3)
    if not is_told_apart(number, confidence):
        return [
            f"{name}: how well scores tell the IoU is not told apart: rank correlation {interval}."
        ]
    side = "better" if number["value"] > 0 else "worse"
    return [f"{name}: scores tell the IoU {side}: rank correlation {interval}."]


def _of_seeds(differences: Mapping, num_seeds: Mapping[str, int]) -> list[str]:
    single = [name for name, number in num_seeds.items() if number == 1]
    if len(single) == len(num_seeds):
        return [
            "Each run is one training: the intervals hold for other images, and say nothing of "
            "another seed. Give result files of several seeds to have that in them."
        ]
    sentences = []
    for name, numbers in differences.items():
        ap = numbers["AP"]
        if ap.get("se_seeds") is not None:
            sentences.append(
                f"{name}: of the difference of AP, the standard error from the choice of images is "
                f"{ap['se_images']:.2f} points and from the choice of seeds {ap['se_seeds']:.2f}; "
                "both are in the interval."
            )
    if single:
        sentences.append(
            f"One seed only: {', '.join(single)}. The spread over its seeds is taken to be that of "
            "the run it is compared with."
        )
    return sentences


def _with_interval(number: Mapping, *, sign: bool = False, digits: int = 1) -> str:
    form = f"{{:{'+' if sign else ''}.{digits}f}}".format
    return f"{form(number['value'])} [{form(number['low'])}, {form(number['high'])}]"


def _p(number: Mapping) -> str:
    p = number.get("p")
    return "" if p is None else " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"
