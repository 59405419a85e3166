"""Two CPU processes over GLOO, with a limit to how long they may wait for each other."""

import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = 240  # seconds, on a busy machine too; a deadlock would wait for GLOO's half hour

# Forks need not import everything again. With a GPU, autograd's threads forbid them to train.
START_METHOD = "spawn" if torch.cuda.is_available() else "fork"


def run_in_two_processes(work, folder, start_method="fork") -> list:
    """[work(0), work(1)], called in a process group of two.

    Args:
        work: a function of the rank, importable at top level; its result survives torch.save.
        folder: an empty one, for the meeting point and the results.
    """
    context = mp.start_processes(
        _worker, (work, str(folder)), nprocs=2, join=False, start_method=start_method
    )
    end = time.monotonic() + TIMEOUT
    try:
        while not context.join(timeout=5):
            assert time.monotonic() < end, "the processes wait for each other"
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


def _worker(rank, work, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.save(work(rank), f"{folder}/{rank}.pt")
    # As the launcher does: together, and with nothing left that holds the group.
    dist.barrier()
    comm = sys.modules.get("detectron2.utils.comm")  # the losses need no Detectron2
    if comm is not None:
        comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
