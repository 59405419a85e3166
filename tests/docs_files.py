"""Files that the code blocks of the docs take for granted."""

import json

import numpy as np
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from iou_balanced.data import register_voc_dir
from iou_balanced.evaluation import load_ground_truth

from .inference.detectors import save_weights, small_config, write_images


def make_photos(tmp_path):
    """What the tutorial takes for granted: photographs, and two runs' results."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos/JPEGImages/1.jpg")
    (tmp_path / "photos/Annotations/1.xml").write_text(
        "<annotation><filename>1.jpg</filename><size><width>80</width><height>60</height></size>"
        "<object><name>cat</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax>"
        "<ymax>50</ymax></bndbox></object></annotation>"
    )
    for split in ("train", "val"):
        (tmp_path / f"photos/ImageSets/Main/{split}.txt").write_text("1\n")
    if "photos_val" in DatasetCatalog:  # of another test in this process
        DatasetCatalog.remove("photos_val")
        MetadataCatalog.remove("photos_val")
    name = register_voc_dir(root=str(tmp_path / "photos"), split="val")
    (image_id,) = load_ground_truth(name).imgs
    for run, ap in (("plain", 40.0), ("balanced", 50.0)):
        folder = tmp_path / "output/photos" / run
        (folder / "inference").mkdir(parents=True)
        metrics = {f"bbox/{key}": ap for key in ("AP", "AP50", "AP75", "AP80", "AP90")}
        (folder / "metrics.json").write_text(f'{{"iteration": 0}}\n{json.dumps(metrics)}\n')
        box = {"image_id": image_id, "category_id": 0, "bbox": [10, 10, 30, 40], "score": 0.9}
        (folder / "inference/coco_instances_results.json").write_text(json.dumps([box]))


def make_detector(tmp_path):
    """What the page about predictions takes for granted: a photograph, and a small detector."""
    cfg = small_config("retinanet_small_iou_balanced")
    folder = tmp_path / "output/photos"
    folder.mkdir(parents=True)
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    save_weights(cfg, folder / "model_final.pth")
    (file,) = write_images(tmp_path / "photos", (60, 80))
    Image.open(file).save(tmp_path / "photos/1.jpg")
