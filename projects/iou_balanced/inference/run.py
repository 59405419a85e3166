"""Predictions for files: the loop behind tools/predict.py."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from iou_balanced.data.image_reading import read_image
from iou_balanced.engine import UserError
from iou_balanced.files import write_atomically
from iou_balanced.formats.image_files import ImageError

from .drawing import draw
from .inputs import Input, find_inputs, picture_names
from .predictor import Predictor
from .results import Ids, Results
from .video import VideoWriter, check_backend, num_frames, read_frames

PICTURES = "pictures"


class Summary(NamedTuple):
    """What `predict_files` did."""

    num_images: int
    """Images and frames that were predicted on."""
    num_detections: int
    """In all of them together."""
    unreadable: list[str]
    """What is wrong with each file that was left out; one line each, which names it."""
    seconds: float
    """For reading, running and drawing."""

    @property
    def images_per_second(self) -> float:
        """Images and frames per second, with reading and drawing."""
        return self.num_images / max(self.seconds, 1e-9)


class _Item(NamedTuple):
    """An image on its way through the model."""

    path: Path
    frame: int | None
    prepared: dict
    pixels: np.ndarray | None
    """(H, W, 3) RGB of a frame; those of a file are read when they are drawn."""
    picture: Path


def predict_files(
    predictor: Predictor,
    inputs: Iterable[str | os.PathLike],
    output_dir: str | os.PathLike,
    *,
    draw_pictures: bool = True,
    overwrite: bool = False,
    ids_from: str | os.PathLike | None = None,
    progress: bool = True,
) -> Summary:
    """Predict on files, and write pictures and results; see docs/predict.md for the files.

    An image that cannot be read is left out, and said so. When it is interrupted, the results so
    far are written.

    Args:
        predictor: the model.
        inputs: files, folders and globs, see `find_inputs`.
        output_dir: is made where it is missing.
        draw_pictures: False writes the results only.
        overwrite: an output folder with files in it is used; those of the same name are replaced.
        ids_from: a COCO file with the numbers of images and categories, see `Ids`.
        progress: a bar where a person looks on.

    Raises:
        UserError: an input or the COCO file is not there or not fit; the output folder is not
            empty, or not writable; or a video needs a package.
    """
    found = find_inputs(inputs)
    if any(x.is_video for x in found):
        check_backend()
    names = predictor.class_names if predictor.has_names else None
    ids = Ids(names, ids_from)
    if ids_from is not None:
        if any(x.is_video for x in found):
            raise UserError("--ids-from has numbers of images, and not of the frames of a video")
        for x in found:
            ids.image(x.path, 0)  # rather now than after an hour
    output_dir = Path(output_dir)
    make_output_dir(output_dir, overwrite=overwrite)
    results = Results(predictor.class_names, None if names is None else len(names), ids)
    run = _Run(predictor, results, output_dir, draw_pictures)
    start = time.monotonic()
    with _bar(found, progress) as bar:
        try:
            run.predict(found, bar)
        finally:  # also when interrupted
            try:
                run.close()
            finally:
                results.write(output_dir)
    seconds = time.monotonic() - start
    return Summary(len(results.images), len(results.detections), run.unreadable, seconds)


def make_output_dir(folder: Path, *, overwrite: bool) -> None:
    """Make the folder.

    Raises:
        UserError: there are files in it and `overwrite` is false; or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_used = any(folder.iterdir())
    except OSError as e:
        raise UserError(f"--output {folder} is no folder that can be written to: {e}") from e
    if is_used and not overwrite:
        raise UserError(
            f"--output {folder} is not empty: give another folder, or --overwrite to replace the "
            "files of the same name in it"
        )
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output {folder} is no folder that can be written to")


class _Run:
    def __init__(self, predictor: Predictor, results: Results, folder: Path, draw_pictures: bool):
        self.predictor, self.results = predictor, results
        self.folder, self.draw_pictures = folder, draw_pictures
        self.unreadable: list[str] = []
        self.writers: dict[Path, VideoWriter] = {}

    def predict(self, found: Sequence[Input], bar: tqdm) -> None:
        batch: list[_Item] = []
        for item in self._items(found, bar):
            batch.append(item)
            if len(batch) == self.predictor.batch_size:
                self._finish(batch, bar)
                batch = []
        self._finish(batch, bar)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def _items(self, found: Sequence[Input], bar: tqdm) -> Iterator[_Item]:
        suffixes = [".mp4" if x.is_video else ".jpg" for x in found]
        pictures = picture_names([x.path for x in found], suffixes)
        for x, picture in zip(found, pictures, strict=True):
            try:
                if x.is_video:
                    for i, frame in enumerate(read_frames(x.path)):
                        prepared = self.predictor.images.from_array(frame, "RGB")
                        yield _Item(x.path, i, prepared, frame, picture)
                else:
                    prepared = self.predictor.images.from_file(x.path)
                    yield _Item(x.path, None, prepared, None, picture)
            except ImageError as e:
                self.unreadable.append(str(e))
                bar.write(f"left out: {e}", file=sys.stderr)

    def _finish(self, batch: Sequence[_Item], bar: tqdm) -> None:
        outputs = self.predictor.run([item.prepared for item in batch])
        for item, output in zip(batch, outputs, strict=True):
            instances, picture = output["instances"], ""
            if self.draw_pictures:
                picture = f"{PICTURES}/{item.picture.as_posix()}"
                self._draw(item, instances)
            image_id = self.results.ids.image(item.path, len(self.results.images) + 1)
            self.results.add(image_id, item.path, instances, picture=picture, frame=item.frame)
        bar.update(len(batch))

    def _draw(self, item: _Item, instances) -> None:
        pixels = item.pixels
        if pixels is None:
            pixels = read_image(str(item.path), "RGB")
        drawn = draw(pixels, instances, self.predictor.class_names)
        path = self.folder / PICTURES / item.picture
        if item.frame is None:
            image = Image.fromarray(drawn)
            write_atomically(path, lambda f: image.save(f, "JPEG", quality=90), mode="wb")
            return
        if path not in self.writers:
            self.close()  # of the video before
            self.writers = {path: VideoWriter(path, item.path)}
        self.writers[path].add(drawn)


def _bar(found: Sequence[Input], progress: bool) -> tqdm:
    total = sum((num_frames(x.path) or 1) if x.is_video else 1 for x in found)
    # None: not where the output goes to a file.
    return tqdm(total=total, unit="image", disable=None if progress else True)
