"""PASCAL VOC in its official layout, made small."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (120, 90)  # width, height

ANNOTATION = """<annotation>
	<folder>{year}</folder>
	<filename>{stem}.jpg</filename>
	<source><database>The {year} Database</database><image>flickr</image></source>
	<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
	<segmented>0</segmented>
{objects}
</annotation>
"""
OBJECT = """	<object>
		<name>{name}</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>{difficult}</difficult>
		<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
	</object>"""


def write_voc(folder, images, splits, *, size=SIZE, seed=0) -> Path:
    """Write or extend a folder such as VOC2007.

    Args:
        folder: its path.
        images: {stem: [(class, (xmin, ymin, xmax, ymax), difficult?), ...]}, pixels from 1,
            inclusive. A text in the place of the list is what the xml file has below <segmented>.
        splits: {split: stems}.
        size: width and height of the images, which are noise.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    for sub in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation", "JPEGImages"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for stem, objects in images.items():
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{stem}.jpg")
        if not isinstance(objects, str):
            objects = "\n".join(
                OBJECT.format(*box, name=name, difficult=int(*difficult))
                for name, box, *difficult in objects
            )
        text = ANNOTATION.format(
            year=folder.name, stem=stem, width=size[0], height=size[1], objects=objects
        )
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    for split, stems in splits.items():
        lines = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets/Main" / f"{split}.txt").write_text(lines)
        # As in the official data: whether each image has the class.
        one_class = "".join(f"{stem}  1\n" for stem in stems)
        (folder / "ImageSets/Main" / f"person_{split}.txt").write_text(one_class)
    return folder
