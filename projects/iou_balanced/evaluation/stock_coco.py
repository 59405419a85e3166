"""What Detectron2's COCO evaluator cannot be told by arguments, in v0.6 and in main alike."""

import contextlib
import tempfile
from pathlib import Path

import detectron2.evaluation.coco_evaluation as stock
from detectron2.data import MetadataCatalog

__all__ = ["NoCategoryMap", "empty_json_file", "scored_by"]


class NoCategoryMap:
    """In the place of metadata: no map between categories and classes."""

    def get(self, key, default=None):
        """Return `default`.

        Args:
            key: of a metadata entry.
            default: what to return.
        """
        return default


@contextlib.contextmanager
def empty_json_file(dataset_name: str):
    """Let the stock class find an empty ground truth when it is made; ours takes its place then.

    Args:
        dataset_name: of Detectron2's catalogs.
    """
    metadata = MetadataCatalog.get(dataset_name)
    previous = metadata.get("json_file")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.json"
        path.write_text('{"images": [], "categories": []}')
        if previous is not None:
            del metadata.json_file
        metadata.json_file = str(path)
        try:
            yield
        finally:
            del metadata.json_file
            if previous is not None:
                metadata.json_file = previous


@contextlib.contextmanager
def scored_by(scorer):
    """Let Detectron2 score with another class.

    Args:
        scorer: called as `(coco_gt, coco_dt, iou_type)`; see `find_scorer`.

    In v0.6 and in main alike, the class that scores is looked up under this name in the module when
    it is needed, and no argument or method of the evaluator reaches it.
    """
    previous = stock.COCOeval_opt
    stock.COCOeval_opt = scorer
    try:
        yield
    finally:
        stock.COCOeval_opt = previous
