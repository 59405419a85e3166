"""Videos by OpenCV, which a stand-in of its interface replaces: its "videos" are NumPy files.

The stand-in does what OpenCV 5.0 was seen to do: BGR frames; damage, or no video at all, reads as
the end; a frame of another size than the first is dropped when written.
"""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from iou_balanced.engine import UserError
from iou_balanced.formats.image_files import ImageError
from iou_balanced.inference import video

FPS, COUNT = 5, 7


class Capture:
    def __init__(self, path):
        try:
            with np.load(path) as file:
                self.frames, self.fps, self.count = list(file["bgr"]), *file["numbers"]
        except (OSError, ValueError):
            self.frames, self.fps, self.count = [], 0.0, 0.0

    def get(self, key):
        return {FPS: self.fps, COUNT: self.count}[key]

    def read(self):
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self):
        pass


class Writer:
    has_codec = True

    def __init__(self, path, codec, fps, size):
        assert codec == "mp4v" and isinstance(fps, float)
        self.path, self.fps, self.size, self.frames = path, fps, size, []

    def isOpened(self):
        return self.has_codec

    def write(self, frame):
        assert frame.flags["C_CONTIGUOUS"]
        if frame.shape[1::-1] == self.size:
            self.frames.append(frame)

    def release(self):
        save(Path(self.path), self.frames, self.fps)


def save(path, frames, fps=10.0, count=None):
    count = len(frames) if count is None else count
    with open(path, "wb") as file:
        np.savez(file, bgr=np.array(frames), numbers=np.array([fps, count]))


@pytest.fixture(autouse=True)
def cv2(monkeypatch):
    module = types.ModuleType("cv2")
    module.VideoCapture, module.VideoWriter = Capture, type("W", (Writer,), {})
    module.VideoWriter_fourcc = lambda *letters: "".join(letters)
    module.CAP_PROP_FPS, module.CAP_PROP_FRAME_COUNT = FPS, COUNT
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "cv2", module)
    return module


def blue(n=3, size=(64, 96)):
    frames = np.zeros((n, *size, 3), np.uint8)
    frames[..., 0] = 200
    return frames


def test_frames_are_rgb(tmp_path):
    save(tmp_path / "clip.mp4", blue(), fps=29.97)
    assert video.check_backend() == "cv2"
    assert video.num_frames(tmp_path / "clip.mp4") == 3
    frames = list(video.read_frames(tmp_path / "clip.mp4"))
    assert len(frames) == 3 and frames[0].flags["C_CONTIGUOUS"]
    assert (frames[0] == [0, 0, 200]).all()


@pytest.mark.parametrize(("fps", "rate"), [(29.97, 29.97), (0.0, 25), (float("nan"), 25)])
def test_a_written_video_has_the_rate_of_the_first(tmp_path, fps, rate):
    save(tmp_path / "clip.mp4", blue(), fps=fps)
    writer = video.VideoWriter(tmp_path / "new/out.mp4", tmp_path / "clip.mp4")
    # A frame of odd sides loses a pixel; one of another size gets that of the first.
    for frame in (blue(1, (65, 97)), blue(1, (32, 48))):
        writer.add(frame[0, :, :, ::-1])
    assert not (tmp_path / "new/out.mp4").exists()
    writer.close()
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["out.mp4"]
    written = Capture(tmp_path / "new/out.mp4")
    assert written.fps == pytest.approx(rate) and len(written.frames) == 2
    assert all(
        frame.shape == (64, 96, 3) and (frame == [200, 0, 0]).all() for frame in written.frames
    )


def test_what_is_no_video_and_what_ends_early(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"text\.mp4 cannot be read: OpenCV finds no frame"):
        list(video.read_frames(tmp_path / "text.mp4"))
    assert video.num_frames(tmp_path / "text.mp4") is None
    save(tmp_path / "cut.mp4", blue(3), count=6)
    frames = video.read_frames(tmp_path / "cut.mp4")
    assert [next(frames).shape for _ in range(3)] == [(64, 96, 3)] * 3
    with pytest.raises(ImageError, match=r"cut\.mp4 ends after 3 of 6 frames"):
        next(frames)


@pytest.mark.parametrize(("n", "count"), [(3, 0), (3, 4), (5, 3), (99, 102)])
def test_a_count_that_is_a_guess_is_no_damage(tmp_path, n, count):
    save(tmp_path / "clip.mkv", blue(n, (2, 2)), count=count)
    assert len(list(video.read_frames(tmp_path / "clip.mkv"))) == n


def test_no_codec_is_an_error(tmp_path, cv2):
    cv2.VideoWriter.has_codec = False
    save(tmp_path / "clip.mp4", blue())
    writer = video.VideoWriter(tmp_path / "out.mp4", tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"OpenCV cannot write the video .*out\.mp4.*--no-draw"):
        writer.add(blue()[0])
    writer.close()
    assert not (tmp_path / "out.mp4").exists()
