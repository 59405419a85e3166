"""The counts, their file, and their comparison. K classes."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path

from iou_balanced.files import write_atomically

from .fractal_dimension import centers_of, fractal_dimensions
from .table import format_class_table

_NUM_EXAMPLES = 3


@dataclass(frozen=True)
class ClassCounts:
    """Instances and images of each class in a training set, crowd boxes left out.

    Raises:
        ValueError: the tuples' lengths differ, or the numbers cannot be counts of one data set.
    """

    class_names: tuple[str, ...]
    """K names, by contiguous class id."""
    instances: tuple[int, ...]
    """(K,) boxes of each class."""
    images: tuple[int, ...]
    """(K,) images with at least one box of the class."""
    num_images: int
    """All images, those without boxes included."""
    name: str = ""
    """The data set's."""
    fractal_dimensions: tuple[float, ...] | None = field(default=None, compare=False)
    """(K,) how each class is spread over the images, see `with_fractal_dimensions`."""

    def __post_init__(self):
        # From lists or arrays too; as tuples they can be compared and cannot be changed.
        object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))
        for key in ("instances", "images"):
            object.__setattr__(self, key, tuple(int(n) for n in getattr(self, key)))
        if self.fractal_dimensions is not None:
            numbers = tuple(float(x) for x in self.fractal_dimensions)
            object.__setattr__(self, "fractal_dimensions", numbers)
            if len(numbers) != len(self.class_names) or not all(x > 0 for x in numbers):
                raise ValueError(
                    "Expected argument `fractal_dimensions` to have a number above 0 for each of "
                    f"the {len(self.class_names)} classes, but got {list(numbers)}"
                )
        lengths = [len(self.class_names), len(self.instances), len(self.images)]
        if len(set(lengths)) > 1:
            raise ValueError(
                "Expected arguments `class_names`, `instances` and `images` to have the same "
                f"length, but got {lengths}"
            )
        rows = zip(self.class_names, self.instances, self.images, strict=True)
        for name, instances, images in rows:
            if not 0 <= images <= min(instances, self.num_images) or (instances and not images):
                raise ValueError(
                    f"Expected counts of one data set, but got {instances} instances of {name!r} "
                    f"in {images} of {self.num_images} images"
                )

    @classmethod
    def from_dicts(
        cls,
        dataset_dicts: Sequence[dict],
        class_names: Iterable[str],
        *,
        name: str = "",
        ignore_difficult: bool = False,
    ) -> "ClassCounts":
        """Count in one pass.

        Args:
            dataset_dicts: in Detectron2's format, as the training gets them. Boxes with iscrowd=1
                do not count, because training leaves them out.
            class_names: K names, by contiguous class id.
            name: of the data set.
            ignore_difficult: leave boxes with "difficult" out, as `BoxAwareDatasetMapper` does in
                training where its argument of this name is set.

        Raises:
            ValueError: a category_id is not in [0, K); names the image and the class.
        """
        class_names = tuple(class_names)
        instances, images = Counter(), Counter()
        for record in dataset_dicts:
            classes = [
                a.get("category_id")
                for a in record.get("annotations", ())
                if not a.get("iscrowd") and not (ignore_difficult and a.get("difficult"))
            ]
            instances.update(classes)
            images.update(set(classes))
        num_classes = len(class_names)
        for k in instances:
            if not isinstance(k, Integral) or not 0 <= k < num_classes:
                raise ValueError(_unknown_class(dataset_dicts, k, num_classes, name))
        return cls(
            class_names=class_names,
            instances=tuple(instances[k] for k in range(num_classes)),
            images=tuple(images[k] for k in range(num_classes)),
            num_images=len(dataset_dicts),
            name=name,
        )

    def with_fractal_dimensions(
        self, dataset_dicts: Sequence[dict], *, ignore_difficult: bool = False
    ) -> "ClassCounts":
        """The same counts with the box-counting dimension of each class's centres (FRACAL).

        Args:
            dataset_dicts: those that were counted.
            ignore_difficult: see `from_dicts`.

        Returns:
            these counts as they are, where images have no size or boxes are rotated.
        """
        found = centers_of(dataset_dicts, ignore_difficult=ignore_difficult)
        if found is None:
            return self
        numbers = fractal_dimensions(*found, len(self.class_names))
        return replace(self, fractal_dimensions=tuple(numbers.tolist()))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the counts as JSON, a line for each class; returns the path.

        Args:
            path: of the file; it is replaced as a whole.
        """
        rows = [
            {"name": name, "instances": instances, "images": images}
            for name, instances, images in zip(
                self.class_names, self.instances, self.images, strict=True
            )
        ]
        for row, number in zip(rows, self.fractal_dimensions or (), strict=False):
            row["fractal_dimension"] = number
        lines = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
        text = (
            f'{{\n  "data_set": {json.dumps(self.name, ensure_ascii=False)},\n'
            f'  "num_images": {self.num_images},\n  "classes": [\n{lines}\n  ]\n}}\n'
        )
        return write_atomically(path, lambda file: file.write(text))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ClassCounts":
        """Read what `save` wrote.

        Args:
            path: of the file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no such file.
        """
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            rows = data["classes"]
            has_dimensions = bool(rows) and all("fractal_dimension" in row for row in rows)
            return cls(
                class_names=[row["name"] for row in rows],
                instances=[row["instances"] for row in rows],
                images=[row["images"] for row in rows],
                num_images=int(data["num_images"]),
                name=str(data["data_set"]),
                fractal_dimensions=[row["fractal_dimension"] for row in rows]
                if has_dimensions
                else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is not a file of class counts: {what}") from error

    def reordered(self, class_names: Sequence[str], *, source: str = "") -> "ClassCounts":
        """The same counts in the order of `class_names`.

        Args:
            class_names: the same K names.
            source: where the counts come from, for the error.

        Raises:
            ValueError: other names, or a name that occurs twice.
        """
        known = set(self.class_names)
        faults = {
            "they lack": [name for name in class_names if name not in known],
            "they have also": sorted(known.difference(class_names)),
            "they have more than once": [n for n, c in Counter(self.class_names).items() if c > 1],
        }
        found = [f"{text} {_some(map(repr, names))}" for text, names in faults.items() if names]
        if found or len(class_names) != len(self.class_names):
            raise ValueError(
                f"Expected class counts {source or repr(self.name)} to have the "
                f"{len(class_names)} classes of the evaluation, but "
                f"{'; '.join(found) or 'a name occurs twice in these'}"
            )
        order = [self.class_names.index(name) for name in class_names]
        return replace(
            self,
            class_names=class_names,
            instances=[self.instances[k] for k in order],
            images=[self.images[k] for k in order],
            fractal_dimensions=self.fractal_dimensions
            and [self.fractal_dimensions[k] for k in order],
        )

    def table(
        self,
        alpha: Iterable[float] | None = None,
        final_weight: Iterable[float] | None = None,
        more: Mapping[str, Iterable[float]] | None = None,
    ) -> str:
        """A table of all classes, the rarest first, under a line with the totals.

        Args:
            alpha: (K,) weights of Eq. 5 or 2, where there are any; NaN is shown as "-".
            final_weight: (K,) weights in force when the schedule has ended, likewise.
            more: further columns of K numbers, by their headers.

        Raises:
            ValueError: they are not K.
        """
        headers = ["class", "instances", "images"]
        columns = [self.class_names, self.instances, self.images]
        weights = {"alpha": alpha, "final weight": final_weight}
        for header, values in {**weights, **(more or {})}.items():
            if values is None:
                continue
            headers.append(header)
            columns.append([float(value) for value in values])
            if len(columns[-1]) != len(self.class_names):
                raise ValueError(
                    f"Expected argument `{header.replace(' ', '_')}` to have "
                    f"{len(self.class_names)} values, but got {len(columns[-1])}"
                )
        order = sorted(
            range(len(self.class_names)), key=lambda k: (self.instances[k], self.images[k])
        )
        rows = [[column[k] for column in columns] for k in order]
        heading = (
            f"{self.name or 'data set'}: {_plural(sum(self.instances), 'instance')} of "
            f"{_plural(len(rows), 'class', 'classes')} in {_plural(self.num_images, 'image')}, "
            "the rarest class first"
        )
        return f"{heading}\n{format_class_table(headers, rows)}"


def _unknown_class(dataset_dicts, category_id, num_classes: int, name: str) -> str:
    for record in dataset_dicts:
        for i, annotation in enumerate(record.get("annotations", ())):
            if annotation.get("category_id") == category_id and not annotation.get("iscrowd"):
                image = record.get("file_name", record.get("image_id"))
                of = f"data set {name!r}, " if name else ""
                return (
                    f"{of}image {image}, box {i}: Expected category_id to be a class in "
                    f"[0, {num_classes}), but got {category_id!r}"
                )
    raise AssertionError(category_id)


def _plural(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _some(items: Iterable[str]) -> str:
    """The first items, and how many more there are."""
    items = list(items)
    more = len(items) - _NUM_EXAMPLES
    shown = items[:_NUM_EXAMPLES] + ([f"and {more} more"] if more > 0 else [])
    return "; ".join(shown) if any(", " in item for item in items) else ", ".join(shown)
