"""Adam with L2 weight decay, as in "Balance-Oriented Focal Loss": 5e-4 for a batch of 128."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

# Not AdamW: the decay is a part of the gradient. It holds for all parameters, those of BatchNorm
# too, because the paper gives one number and the authors of CenterNet one group of parameters.
optimizer = L(torch.optim.Adam)(
    params=L(get_default_optimizer_params)(), lr=5e-4, weight_decay=1e-4
)
