"""One start for all ways to run: one process, Detectron2's flags, torchrun, CPU or GPU.

Detectron2's own `launch` differs between v0.6 (CUDA and NCCL only) and the main branch (GLOO
without GPUs), and neither reads the environment that torchrun, SLURM or Kubernetes set.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from detectron2.utils import comm

from . import preemption
from .errors import UserError
from .rendezvous import init_from_environment

TIMEOUT = timedelta(minutes=30)
logger = logging.getLogger(__name__)


def launch(
    main_func: Callable,
    *,
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "cuda",
    args: tuple = (),
) -> None:
    """Call `main_func(*args)` in every process of the job.

    Under torchrun (or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT) this
    process is one of them, and the other arguments are not looked at. Else `num_gpus` processes
    are started here: one for each GPU, or on a machine without GPUs CPU processes over GLOO.

    Args:
        main_func: importable at top level, because processes are spawned.
        num_gpus: processes on this machine.
        num_machines: as Detectron2's flag.
        machine_rank: as Detectron2's flag.
        device: "cpu" uses GLOO and no GPU where there is one; "cuda" uses NCCL where there is one.
        dist_url: where the processes meet, for example "tcp://127.0.0.1:8686"; "auto" takes a
            free port, on one machine only.
        args: must survive pickling.

    Raises:
        UserError: the arguments do not fit the machine, or each other.
        SystemExit: a process ended with a `UserError`, which it has printed; or the run was asked
            to stop, see `preemption`.
    """
    use_gpu = torch.cuda.is_available() and not str(device).startswith("cpu")
    if all(key in os.environ for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        _run_from_environment(main_func, args, use_gpu)
        return
    _check_flags(num_gpus, num_machines, machine_rank, dist_url)
    world_size = num_machines * num_gpus
    if world_size <= 1:  # also --num-gpus 0, which people type who have none
        main_func(*args)
        return
    if use_gpu and num_gpus > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus {num_gpus}, but this machine shows {torch.cuda.device_count()} GPUs"
        )
    if dist_url == "auto":
        if num_machines > 1:
            raise UserError("--dist-url auto works on one machine only: give tcp://HOST:PORT")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    asked = torch.multiprocessing.get_context("spawn").RawValue("b", 0)
    context = torch.multiprocessing.start_processes(
        _spawned_worker,
        args=(asked, main_func, world_size, num_gpus, machine_rank, dist_url, use_gpu, args),
        nprocs=num_gpus,
        start_method="spawn",
        join=False,
    )
    try:
        with preemption.pass_on(asked, context.processes):
            while not context.join():
                pass
    except torch.multiprocessing.ProcessExitedException as e:
        sys.exit(e.exit_code)


def _check_flags(num_gpus: int, num_machines: int, machine_rank: int, dist_url: str) -> None:
    if num_machines < 1:
        raise UserError(f"--num-machines {num_machines}: give a whole number from 1 on")
    if num_gpus < (1 if num_machines > 1 else 0):
        raise UserError(
            f"--num-gpus {num_gpus}: give the processes of this machine, a whole number from 1 on"
        )
    if not 0 <= machine_rank < num_machines:
        raise UserError(
            f"--machine-rank {machine_rank} is none of --num-machines {num_machines}: give a whole "
            f"number from 0 to {num_machines - 1}"
        )
    if dist_url != "auto" and "://" not in dist_url:
        raise UserError(f"--dist-url {dist_url}: give auto, or an address such as tcp://HOST:PORT")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _spawned_worker(
    local_rank, asked, main_func, world_size, local_size, machine_rank, dist_url, use_gpu, args
):
    preemption.asked_by_parent = asked
    rank = machine_rank * local_size + local_rank
    try:
        _run(main_func, args, rank, world_size, local_rank, local_size, dist_url, use_gpu)
    except UserError as e:
        # Here, because multiprocessing would wrap it in a traceback.
        sys.exit(f"error: {e}")


def _run_from_environment(main_func: Callable, args: tuple, use_gpu: bool) -> None:
    rank, world_size = _number_of("RANK"), _number_of("WORLD_SIZE")
    local_rank = _number_of("LOCAL_RANK", "SLURM_LOCALID", default=0)
    local_size = _number_of("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", default=1)
    fits = 0 <= rank < world_size and 0 <= local_rank < local_size
    if not fits or world_size % local_size:
        raise UserError(
            f"the environment has WORLD_SIZE={world_size}, LOCAL_WORLD_SIZE={local_size}, "
            f"RANK={rank} and LOCAL_RANK={local_rank}, which do not fit together: start with "
            "torchrun, or set them"
        )
    _run(main_func, args, rank, world_size, local_rank, local_size, "env://", use_gpu)


def _number_of(*names: str, default: int = 0) -> int:
    """The first of these environment variables that is set.

    Raises:
        UserError: it is no whole number.
    """
    name = next((name for name in names if name in os.environ), None)
    if name is None:
        return default
    try:
        return int(os.environ[name])
    except ValueError as e:
        raise UserError(f"the environment has {name}={os.environ[name]}: give a number") from e


def _run(main_func, args, rank, world_size, local_rank, local_size, init_method, use_gpu) -> None:
    if use_gpu:
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Every process would take all cores otherwise.
        torch.set_num_threads(max((os.cpu_count() or 1) // local_size, 1))
    kwargs = {"backend": "nccl" if use_gpu else "gloo", "timeout": TIMEOUT}
    try:
        if init_method == "env://":
            init_from_environment(rank, world_size, **kwargs)
        else:
            dist.init_process_group(
                init_method=init_method, world_size=world_size, rank=rank, **kwargs
            )
    except Exception:
        logger.error(
            "Process %d of %d could not join the group at %s", rank, world_size, init_method
        )
        raise
    _create_local_process_group(local_size)
    comm.synchronize()
    stopped = None
    try:
        main_func(*args)
    except preemption.Stopped as e:
        stopped = e
    # All processes together, and with the cached group let go: one that is only destroyed when the
    # interpreter exits can abort the process.
    comm.synchronize()
    comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
    if stopped is not None:
        raise stopped


def _create_local_process_group(local_size: int) -> None:
    """Detectron2's group of the processes on this machine; v0.6 has no function for it."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(local_size)
        return
    for machine in range(comm.get_world_size() // local_size):
        ranks = list(range(machine * local_size, (machine + 1) * local_size))
        group = dist.new_group(ranks)
        if comm.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
