"""Which rows are worked on together.

Shapes: N images, R rows of an image (anchors, points, or lines of a heat map).
"""

from collections.abc import Iterator

import torch

Place = tuple[slice, slice]

# Elements worked on at a time: on a CPU the temporaries stay in the cache, on a GPU it bounds
# their memory while kernels stay large.
_CHUNK = {"cpu": 1 << 17, "cuda": 1 << 22}


def chunks_of(
    num_images: int, num_rows: int, row_size: int, device: torch.device
) -> Iterator[Place]:
    """Whole images, or rows of one image.

    Args:
        num_images: N.
        num_rows: R.
        row_size: elements of one row of one image.
        device: decides how many elements are worked on at a time.
    """
    if not num_images * num_rows * row_size:
        return
    size = _CHUNK.get(device.type, 1 << 22)
    images = min(max(size // (num_rows * row_size), 1), num_images)
    rows = min(max(size // row_size, 1), num_rows)
    for image in range(0, num_images, images):
        for row in range(0, num_rows, rows):
            yield (
                slice(image, min(image + images, num_images)),
                slice(row, min(row + rows, num_rows)),
            )
