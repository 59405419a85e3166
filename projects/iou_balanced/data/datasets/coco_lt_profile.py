"""The class profile of SimCal's COCO-LT (arXiv 2007.11978): how many annotations a class has.

The numbers are the authors' own, of the annotation file that they publish. Their repository
(github.com/twangnh/SimCal, commit e5f3076) has them, with the ids of each class's images, in
class_to_imageid_and_inscount_coco_sampled.pt, which tools/train.py made of that file. They count
all annotations, crowd regions included. In sum they are 666,493, in 99,411 images.

The 20 classes of 8,000 and more are the most frequent ones of COCO train2017 and are whole: their
numbers are those of train2017. Of the other 60 a part is there, from 0.5% (frisbee) to 98%
(sports ball), in an order that is not train2017's: there are more hair driers than stop signs.
"""

from bisect import bisect_right

__all__ = ["COCO_LT_BINS", "COCO_LT_BIN_EDGES", "COCO_LT_PROFILE", "coco_lt_targets"]

COCO_LT_PROFILE = {
    "person": 262_465,
    "bicycle": 3_530,
    "car": 43_867,
    "motorcycle": 8_725,
    "airplane": 686,
    "bus": 248,
    "train": 408,
    "truck": 9_973,
    "boat": 10_759,
    "traffic light": 12_884,
    "fire hydrant": 11,
    "stop sign": 22,
    "parking meter": 12,
    "bench": 9_838,
    "bird": 10_806,
    "cat": 198,
    "dog": 167,
    "horse": 1_518,
    "sheep": 9_509,
    "cow": 7_079,
    "elephant": 374,
    "bear": 61,
    "zebra": 420,
    "giraffe": 383,
    "backpack": 8_720,
    "umbrella": 11_431,
    "handbag": 12_354,
    "tie": 6_112,
    "suitcase": 5_360,
    "frisbee": 14,
    "skis": 2_902,
    "snowboard": 22,
    "sports ball": 6_221,
    "kite": 9_076,
    "baseball bat": 67,
    "baseball glove": 52,
    "skateboard": 547,
    "surfboard": 4_678,
    "tennis racket": 793,
    "bottle": 24_342,
    "wine glass": 5_047,
    "cup": 20_650,
    "fork": 774,
    "knife": 7_190,
    "spoon": 1_025,
    "bowl": 14_358,
    "banana": 9_458,
    "apple": 589,
    "sandwich": 657,
    "orange": 4_042,
    "broccoli": 6_394,
    "carrot": 2_746,
    "hot dog": 48,
    "pizza": 100,
    "donut": 6_594,
    "cake": 4_684,
    "chair": 38_491,
    "couch": 629,
    "potted plant": 2_689,
    "bed": 51,
    "dining table": 15_714,
    "toilet": 73,
    "tv": 710,
    "laptop": 286,
    "mouse": 52,
    "remote": 765,
    "keyboard": 21,
    "cell phone": 4_699,
    "microwave": 52,
    "oven": 65,
    "toaster": 47,
    "sink": 114,
    "refrigerator": 50,
    "book": 24_715,
    "clock": 4_004,
    "vase": 1_473,
    "scissors": 24,
    "teddy bear": 693,
    "hair drier": 71,
    "toothbrush": 15,
}
"""Class name -> annotations of the published file, in the order of COCO's category ids."""

COCO_LT_BIN_EDGES = (1, 20, 400, 8000)
"""Where the bins of the paper's Table 7 begin: [1, 20), [20, 400), [400, 8000), [8000, inf)."""

COCO_LT_BINS = tuple(
    tuple(c for c, n in COCO_LT_PROFILE.items() if bisect_right(COCO_LT_BIN_EDGES, n) == i)
    for i in range(1, len(COCO_LT_BIN_EDGES) + 1)
)
"""The classes of the paper's AP_1, AP_2, AP_3 and AP_4: 4, 24, 32 and 20 of them."""


def coco_lt_targets(scale: float = 1.0) -> dict[str, int | None]:
    """Class name -> how many instances to keep of it; None for all, in the classes of the last bin.

    Args:
        scale: a factor on the numbers, for a source that is a part of train2017; at least 1 stays.

    Raises:
        ValueError: it is not a number in (0, 1].
    """
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= 1:
        raise ValueError(f"Expected argument `scale` to be a number in (0, 1], but got {scale!r}")
    whole = COCO_LT_BINS[-1]
    return {c: None if c in whole else max(1, round(n * scale)) for c, n in COCO_LT_PROFILE.items()}
