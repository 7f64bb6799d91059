"""The all-reduce of 10 million float32 gradients, beside one plain Allreduce of mpi4py and torch's gloo, in one run.

    mpiexec -n 2 python benchmarks/all_reduce.py

Times are medians in ms, taken in turns. ``ratio`` is to mpi4py's Allreduce in place.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

import netcl
from netcl import distributed
from netcl.backends import available, get_backend
from netcl.distributed.buckets import BUCKET_BYTES
from netcl.distributed.parallel import synchronizer_of
from netcl.distributed.world import current_world
from netcl.optim import SGD

MEBIBYTE = 1 << 20


def of_netcl(n: int, device: str, bucket_bytes: int, communication_dtype: str | None) -> Callable[[], None]:
    """The reduction as it follows a backward: of an optimizer's arena, where it lies."""
    backend = get_backend(device)
    p = netcl.zeros(n, device=backend, requires_grad=True)
    opt = SGD([p], lr=0.1)
    channel = current_world().channel.duplicate()
    synchronizer = synchronizer_of(opt.partitions, channel, {}, bucket_bytes, communication_dtype)
    p.grad = p.grad_buffer.claim()
    backend.fill(p.grad.span(), 0.5)

    def call() -> None:
        synchronizer.synchronize()
        opt.partitions[0].pending.drop()  # the division waits for the step
        backend.synchronize()

    return call


def of_mpi(n: int) -> dict[str, Callable[[], None]]:
    from mpi4py import MPI  # here, for asv imports every file of this folder where there may be none

    values, result = np.full(n, 0.5, np.float32), np.empty(n, np.float32)

    def requests() -> None:
        step = BUCKET_BYTES // 4
        MPI.Request.Waitall([MPI.COMM_WORLD.Iallreduce(MPI.IN_PLACE, values[i : i + step]) for i in range(0, n, step)])

    def buckets() -> None:
        for i in range(0, n, BUCKET_BYTES // 4):
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, values[i : i + BUCKET_BYTES // 4])

    return {
        "mpi4py Allreduce, in place": lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, values),
        "mpi4py Allreduce": lambda: MPI.COMM_WORLD.Allreduce(values, result),
        "mpi4py Allreduce, in buckets": buckets,
        "mpi4py Iallreduce, in buckets": requests,
    }


def of_gloo(n: int) -> dict[str, Callable[[], None]]:
    try:
        import torch
        import torch.distributed as gloo
    except ModuleNotFoundError:
        return {}
    folder = tempfile.mkdtemp() if distributed.rank() == 0 else ""
    where = os.path.join(distributed.broadcast_object(folder), "store")
    gloo.init_process_group(
        "gloo", init_method=f"file://{where}", rank=distributed.rank(), world_size=distributed.world_size()
    )
    torch.set_num_threads(1)
    values = torch.full((n,), 0.5)
    return {"torch gloo all_reduce": lambda: gloo.all_reduce(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    distributed.init("numpy")
    cases = of_mpi(options.n) | of_gloo(options.n)
    for nbytes in (MEBIBYTE, 2 * MEBIBYTE, BUCKET_BYTES, 8 * MEBIBYTE, 4 * options.n):
        cases[f"netcl numpy, buckets of {nbytes / MEBIBYTE:.0f} MiB"] = of_netcl(options.n, "numpy", nbytes, None)
    for dtype in ("float16", "bfloat16"):
        cases[f"netcl numpy, as {dtype}"] = of_netcl(options.n, "numpy", BUCKET_BYTES, dtype)
    if "opencl" in available():
        name = get_backend("opencl").device.platform
        cases[f"netcl {name}"] = of_netcl(options.n, "opencl", BUCKET_BYTES, None)

    from mpi4py import MPI

    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(options.repeat + 2):
        for name, call in cases.items():
            MPI.COMM_WORLD.Barrier()
            started = time.perf_counter()
            call()
            MPI.COMM_WORLD.Barrier()
            if turn >= 2:
                times[name].append(time.perf_counter() - started)
    if distributed.rank() == 0:
        plain = statistics.median(times["mpi4py Allreduce, in place"])
        print(f"{options.n:,} float32, {distributed.world_size()} ranks, {options.repeat} turns")
        for name, taken in times.items():
            median = statistics.median(taken)
            print(f"{name:36} {1e3 * median:8.2f} ms   best {1e3 * min(taken):7.2f}   ratio {median / plain:5.2f}")


if __name__ == "__main__":
    main()
