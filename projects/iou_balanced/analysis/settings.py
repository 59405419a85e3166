"""What an analysis is asked for."""

from dataclasses import asdict, dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Args:
    draws: bootstrap draws of the images.
    permutations: swaps of the runs, image by image; 0 leaves them out, and p values are those
        of a t test.
    seed: of the draws. The same seed gives the same numbers.
    confidence: of the intervals.
    processes: that share the work.
    progress: show a bar on stderr.
    same_weights: see `analyze`.

    Raises:
        ValueError: a number that makes no sense.
    """

    draws: int = 1000
    permutations: int = 1000
    seed: int = 0
    confidence: float = 0.95
    processes: int = 1
    progress: bool = False
    same_weights: tuple[str, ...] = ()

    def __post_init__(self):
        for name, least in (("draws", 2), ("permutations", 0), ("seed", 0), ("processes", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f"Expected argument `{name}` to be a whole number from {least} on, but got "
                    f"{value!r}"
                )
        if not 0.5 <= self.confidence < 1:
            raise ValueError(
                f"Expected argument `confidence` to be in [0.5, 1), such as 0.95, but got "
                f"{self.confidence!r}"
            )

    def to_dict(self) -> dict:
        """What the numbers depend on."""
        result = asdict(self)
        del result["processes"], result["progress"]
        if not self.same_weights:
            del result["same_weights"]
        return result
