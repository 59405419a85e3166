"""How the processes of one start under torchrun find each other, and none that is gone.

With --max-restarts torchrun keeps its store of addresses, with those of the processes that it has
killed. One that is quicker than its peer reads the former peer's address, and both wait for the
other until the time is up (torch 2.11; its numbers of restarts can differ between nodes).
"""

import hashlib
import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

__all__ = ["fresh_part", "init_from_environment"]

_PAUSE = 0.05  # seconds


def init_from_environment(rank: int, world_size: int, *, backend: str, timeout: timedelta) -> None:
    """`torch.distributed.init_process_group` by the environment.

    Args:
        rank: of this process.
        world_size: processes of the job.
        backend: "nccl" or "gloo".
        timeout: for this and for all that the processes exchange.
    """
    kwargs = {"backend": backend, "rank": rank, "world_size": world_size, "timeout": timeout}
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        dist.init_process_group(init_method="env://", **kwargs)
        return
    store, *_ = next(dist.rendezvous("env://", rank, world_size, timeout=timeout))
    dist.init_process_group(store=fresh_part(store, rank, world_size, timeout), **kwargs)


def fresh_part(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """A part of a store that only the processes of this start know.

    Each process says its own new name. Its part is called by the names of all, as soon as all have
    seen the same ones: a name that is left from a former start has nobody who sees it.

    Args:
        store: that all of them share, used in an earlier start or not.
        rank: of this process.
        world_size: of this start.
        timeout: until all have to be there.

    Raises:
        TimeoutError: they are not.
    """
    end = time.monotonic() + timeout.total_seconds()
    names = [f"iou_balanced/name/{i}" for i in range(world_size)]
    store.set(names[rank], uuid.uuid4().hex)
    while time.monotonic() < end:
        part = hashlib.sha256(b" ".join(store.multi_get(names))).hexdigest()
        seen = [f"iou_balanced/seen/{part}/{i}" for i in range(world_size)]
        store.set(seen[rank], "1")
        if store.check(seen):
            return dist.PrefixStore(part, store)
        time.sleep(_PAUSE)
    raise TimeoutError(f"{world_size} processes have not met within {timeout}")
