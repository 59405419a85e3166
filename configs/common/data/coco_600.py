"""COCO 2017 at the scale of the paper's ablations, [600, 1000]."""

from .coco import dataloader, datasets

for _mapper in (dataloader.train.mapper, dataloader.test.mapper):
    _mapper.augmentations[0].short_edge_length = 600
    _mapper.augmentations[0].max_size = 1000
