"""What becomes of the config that an earlier start has left in the output folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils import comm

from iou_balanced.files import write_atomically

__all__ = ["former_config_kept"]


@contextlib.contextmanager
def former_config_kept(output_dir: str, eval_only: bool) -> Iterator[None]:
    """Detectron2 writes config.yaml at every start: keep what the runs before wrote.

    That of an evaluation goes to config_eval.yaml, and a training's former one to config.yaml.1
    and so on, once for each that is another.

    Args:
        output_dir: of the run.
        eval_only: whether it is an evaluation.
    """
    path = os.path.join(output_dir, "config.yaml")
    kept, content, copies = None, b"", []
    if comm.is_main_process() and os.path.exists(path):
        while os.path.exists(f"{path}.{len(copies) + 1}"):
            copies.append(f"{path}.{len(copies) + 1}")
        content = Path(path).read_bytes()
        name = f"{path}.{len(copies) + 1}"
        kept = write_atomically(name, lambda file: file.write(content), mode="wb")
    yield
    if comm.is_main_process() and eval_only:
        os.replace(path, os.path.join(output_dir, "config_eval.yaml"))
        if kept is not None:
            os.replace(kept, path)
    elif kept is not None and any(Path(x).read_bytes() == content for x in (path, *copies)):
        os.remove(kept)
