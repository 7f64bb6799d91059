"""World: which rank this process is, how it came to be one, and how it ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from netcl.backends import Selection, set_backend
from netcl.backends.base import Device
from netcl.distributed.channel import Channel, ExitNotices
from netcl.distributed.placement import place
from netcl.errors import ArgumentError, BackendError, DistributedError, NetclError
from netcl.validation import real, shown

if TYPE_CHECKING:
    from mpi4py import MPI

P = ParamSpec("P")
T = TypeVar("T")

LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PALS_NRANKS", "MV2_COMM_WORLD_SIZE")
"""Environment variables in which launchers say how many ranks they started."""

TIMEOUT = 300.0
"""Seconds, unless ``init`` is told otherwise."""

_GRACE = 2.0
"""Seconds that a failing rank gives the others to say what they know before it takes them down."""


class World:
    """The ranks that were launched together, seen from one of them.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm or None
        None for a process on its own.
    timeout : float
        Seconds.
    """

    def __init__(self, communicator: MPI.Comm | None, timeout: float) -> None:
        self._comm = None if communicator is None else communicator.Dup()
        self._exit_notices = ExitNotices(None if communicator is None else communicator.Dup())
        self.channel = Channel(communicator, self._exit_notices, timeout)
        self.rank = self.channel.rank
        self.size = self.channel.size
        self.local_rank: int = 0
        if communicator is None:
            return
        from mpi4py import MPI

        self.local_rank = communicator.Split_type(MPI.COMM_TYPE_SHARED).rank
        self._failed = False
        self._print_error = sys.excepthook
        sys.excepthook = self._fail
        atexit.register(self._end)

    def _fail(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Print an error that nobody caught, let the others print theirs, and end all ranks."""
        self._failed = True
        print(f"rank {self.rank} of {self.size}:", file=sys.stderr)
        self._print_error(kind, error, trace)
        sys.stdout.flush()
        sys.stderr.flush()
        self._exit_notices.broadcast_exit(f"ended with {kind.__name__}: {error}", _GRACE)
        assert self._comm is not None
        self._comm.Abort(1)

    def _end(self) -> None:
        """Wait for the others to end too, as MPI's finalisation would, but let them know."""
        if not self._failed:
            self._exit_notices.broadcast_exit("has ended", None)


_world: World | None = None


def launched_size() -> int:
    """How many ranks a launcher says it started; 1 without one."""
    sizes = [os.environ.get(name, "") for name in LAUNCHERS]
    return max((int(size) for size in sizes if size.isdecimal()), default=1)


def init(device: Selection = None, *, timeout: float = TIMEOUT) -> Device:
    """Join the ranks that were launched together, and take this rank's device. **Blocks** until all have joined.

    Without a launcher this is a world of one rank, which needs no MPI. Call it first, on every rank. From then on
    an exception that nobody catches on one rank is printed and ends all of them.

    Parameters
    ----------
    device : str, Device or Backend, optional
        Which device, or which kind of device if there are several like it on this machine: rank ``i`` of the machine
        takes the ``i``-th of them, modulo their number. By default what the environment variable ``NETCL_DEVICE``
        names, which may be a list with commas, one entry for each rank of the machine; else the default device. A name
        that ends in ``/n`` divides a CPU device into n parts (OpenCL sub-devices), and the rank takes one of them.
    timeout : float, default 300.0
        Seconds for which a rank waits for another before it raises an error that names it.

    Returns
    -------
    Device
        This rank's device, which is the default one from now on.

    Raises
    ------
    DistributedError
        If ranks were launched and mpi4py is missing, or belongs to another MPI than the launcher; if ``timeout`` is
        not greater than 0.
    BackendError
        If a rank does not get its device; on every rank, with the names of those.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.init("numpy").backend, distributed.rank(), distributed.world_size()
    ('numpy', 0, 1)
    """
    global _world
    timeout = real("timeout", timeout, above=0.0, error=DistributedError)
    world = _world = _join(timeout) if _world is None else _world
    world.channel.timeout = timeout
    backend, problem = None, ""
    try:
        backend = place(device, world.local_rank)
    except NetclError as error:
        problem = str(error)
    problems = world.channel.exchange(problem, "init()")
    failed = [f"rank {rank}: {text}" for rank, text in enumerate(problems) if text]
    if failed or backend is None:
        raise BackendError(f"{len(failed)} of {world.size} ranks have no device; {'; '.join(failed)}")
    return set_backend(backend).device


def _join(timeout: float) -> World:
    launched = launched_size()
    if launched == 1 and "mpi4py.MPI" not in sys.modules:
        return World(None, timeout)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DistributedError(
            f"this process was launched as one of {launched} ranks, but MPI cannot be used: {error}; "
            'pip install "netcl[mpi]", or start one process without a launcher'
        ) from error
    size = MPI.COMM_WORLD.Get_size()
    if size != launched and launched > 1:
        raise DistributedError(
            f"the launcher started {launched} ranks, but {MPI.Get_library_version().splitlines()[0]} sees {size}; use "
            "the mpiexec that belongs to the MPI that mpi4py was installed with (python -m pip list)"
        )
    return World(MPI.COMM_WORLD if size > 1 else None, timeout)


def current_world() -> World:
    """The ranks that were launched together.

    Raises
    ------
    DistributedError
        If there are several and ``init`` was not called.
    """
    global _world
    if _world is None:
        if launched_size() > 1:
            raise DistributedError(
                f"this process is one of {launched_size()} ranks; call netcl.distributed.init() first, on all of them"
            )
        _world = World(None, TIMEOUT)
    return _world


def rank() -> int:
    """The number of this rank, from 0.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.rank()
    0
    """
    return current_world().rank


def world_size() -> int:
    """How many ranks there are.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.world_size()
    1
    """
    return current_world().size


def local_rank() -> int:
    """The number of this rank among those of its machine, from 0.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.local_rank()
    0
    """
    return current_world().local_rank


def barrier() -> None:
    """Return when all ranks have called this. **Blocks**.

    Raises
    ------
    DistributedError
        If a rank has ended or does not come within the timeout; the message names it.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.barrier()
    """
    current_world().channel.exchange(None, "barrier()")


def rank_zero_only(function: Callable[P, T]) -> Callable[P, T | None]:
    """A decorator: the function runs on rank 0 and does nothing on the others, where it returns None.

    For printing and for writing files. It must not contain anything in which all ranks take part.

    Examples
    --------
    >>> from netcl import distributed
    >>> @distributed.rank_zero_only
    ... def report(loss):
    ...     print(f"loss {loss:.2f}")
    >>> report(0.5)
    loss 0.50
    """

    if not callable(function):
        raise ArgumentError(f"rank_zero_only decorates a function, got {shown(function)}")

    @wraps(function)
    def only_there(*args: P.args, **kwargs: P.kwargs) -> T | None:
        return function(*args, **kwargs) if rank() == 0 else None

    return only_there
