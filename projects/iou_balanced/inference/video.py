"""Frames of a video, by PyAV or OpenCV, whichever is installed."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from iou_balanced.engine import UserError
from iou_balanced.formats.image_files import ImageError

__all__ = ["VideoWriter", "check_backend", "num_frames", "read_frames"]

_RATE = 25  # frames a second, where a file does not say its own


def check_backend() -> str:
    """The library that reads videos here, "av" or "cv2".

    Raises:
        UserError: neither can be imported.
    """
    for name in ("av", "cv2"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            return name
    raise UserError(
        "a video needs PyAV or OpenCV, and neither is installed: pip install -e '.[video]' or pip "
        "install av"
    )


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """The frames one after the other, (H, W, 3) uint8 RGB, turned as the file says.

    Raises:
        ImageError: the file is no video, or ends too early; names it.
    """
    count = 0
    for frame in _read_av(path) if check_backend() == "av" else _read_cv2(path):
        count += 1
        yield frame
    expected = num_frames(path) or 0
    # OpenCV takes damage for the end. Some containers know a rate and a duration only.
    if count < 0.98 * expected - 1:
        raise ImageError(f"video {path} ends after {count} of {expected} frames: it is damaged")


def num_frames(path: str | os.PathLike) -> int | None:
    """How many the file says that it has, which may be wrong; None where it does not say."""
    if check_backend() == "av":
        import av

        with contextlib.suppress(OSError, IndexError, ValueError), av.open(str(path)) as container:
            return container.streams.video[0].frames or None
        return None
    import cv2

    count = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def _rate(path: str | os.PathLike) -> Fraction:
    """Frames a second."""
    if check_backend() == "av":
        import av

        with av.open(str(path)) as container:
            return Fraction(container.streams.video[0].average_rate or _RATE)
    import cv2

    rate = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    return Fraction(rate if rate > 0 else _RATE).limit_denominator(1001)


def _read_av(path: str | os.PathLike) -> Iterator[np.ndarray]:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} has no video in it")
            for frame in container.decode(video=0):
                quarters = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
    except (OSError, ValueError) as e:  # FFmpeg's errors are of both kinds
        if isinstance(e, ImageError):
            raise
        raise ImageError(f"video {path} cannot be read ({type(e).__name__}: {e})") from e


def _read_cv2(path: str | os.PathLike) -> Iterator[np.ndarray]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        found, frame = capture.read()
        if not found:
            raise ImageError(f"video {path} cannot be read: OpenCV finds no frame in it")
        while found:
            yield np.ascontiguousarray(frame[:, :, ::-1])
            found, frame = capture.read()
    finally:
        capture.release()


class VideoWriter:
    """Writes frames to `path` at the rate of another video; the file appears when it is closed.

    Sides are made even by cutting a pixel, as most codecs need; all get the first frame's size.
    """

    def __init__(self, path: Path, like: str | os.PathLike):
        self.path, self.rate = path, _rate(like)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._backend = check_backend()
        self._file = self._stream = self._size = None

    def add(self, frame: np.ndarray) -> None:
        """Append (H, W, 3) uint8 RGB.

        Raises:
            UserError: OpenCV has no codec for the file.
        """
        height, width = (side - side % 2 for side in frame.shape[:2])
        frame = np.ascontiguousarray(frame[:height, :width])
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            frame = np.asarray(Image.fromarray(frame).resize(self._size))
        if self._backend == "av":
            self._add_av(frame)
        else:
            self._add_cv2(frame)

    def close(self) -> None:
        """Finish the file, if there were frames."""
        if self._file is None:
            return
        if self._backend == "av":
            self._file.mux(self._stream.encode())
            self._file.close()
        else:
            self._file.release()
        os.replace(self._partial, self.path)

    def _add_av(self, frame: np.ndarray) -> None:
        import av

        if self._file is None:
            self._file = av.open(str(self._partial), "w")
            self._stream = self._file.add_stream("mpeg4", rate=self.rate)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.bit_rate = 8 * frame.shape[0] * frame.shape[1]  # good enough to look at
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._file.mux(self._stream.encode(picture))

    def _add_cv2(self, frame: np.ndarray) -> None:
        import cv2

        if self._file is None:
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            file = cv2.VideoWriter(str(self._partial), codec, float(self.rate), self._size)
            if not file.isOpened():
                raise UserError(f"OpenCV cannot write the video {self.path}: give --no-draw")
            self._file = file
        self._file.write(np.ascontiguousarray(frame[:, :, ::-1]))
