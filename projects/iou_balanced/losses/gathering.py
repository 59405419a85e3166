"""Rows of all processes, for what is no sum over them."""

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks; gradient flows into one's own.

    Every process has to call it, also one without rows. Where there is one process only the rows
    come back as they are; otherwise the CPU waits for a GPU, because all have to know how many
    rows the others have.

    Args:
        rows: (P, C); the others may have another P.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    # All ranks send equally many.
    sent = rows.new_zeros(max(sizes), rows.shape[1])
    sent[: len(rows)] = rows.detach()
    received = [torch.empty_like(sent) for _ in sizes]
    dist.all_gather(received, sent)
    parts = [part[:size] for part, size in zip(received, sizes, strict=True)]
    parts[dist.get_rank()] = rows
    return torch.cat(parts)
