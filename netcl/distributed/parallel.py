"""Data parallel: every rank has the whole model, sees its share of the data, and takes the same steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from netcl.arena import GradientArena
from netcl.array import Array
from netcl.backends.base import CHUNK, Span
from netcl.distributed.buckets import BUCKET_BYTES, GradientLayout, Place
from netcl.distributed.channel import Channel
from netcl.distributed.synchronizer import Synchronizer, check_consistent, describe
from netcl.distributed.world import current_world
from netcl.dtypes import DType, as_dtype, bfloat16, float16
from netcl.errors import ArgumentError, DistributedError, DTypeError
from netcl.nn import Module
from netcl.optim.engine.partition import Partition
from netcl.optim.optimizer import Optimizer
from netcl.tensor import Tensor
from netcl.validation import integer, shown


class DataParallel:
    """Keeps the replicas of a model identical: starts all from rank 0's, and averages gradients in every backward pass.

    At the end of ``tape.backward`` each gradient is the mean over the ranks, with the same bits on all of them. So
    whatever follows (unscaling, clipping, the step) does the same everywhere, with no further message. Buckets of
    gradients are started while the backward goes on; the division is folded into the step.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
        Whose parameters' gradients are averaged.
    bucket_bytes : int, default 4 MiB
        How much is reduced at once.
    communication_dtype : {None, "float16", "bfloat16"}
        Send gradients in 16 bits, which halves what is sent and rounds twice. The sums are formed in float32 all the
        same. Choose bfloat16 where gradients may exceed 65504.

    Raises
    ------
    DistributedError
        If the ranks' models differ in number, names, shapes or dtypes, or have other settings; on every rank.

    Notes
    -----
    **Blocks** at the end of each backward until the gradients of all ranks have arrived. Every rank must call backward
    the same number of times, each time with a loss that depends on a parameter. A parameter that one rank did not use
    counts as zero there; one that no rank used keeps ``grad`` None.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl import distributed, nn
    >>> from netcl.optim import AdamW
    >>> _ = distributed.init("numpy")
    >>> model = nn.Linear(2, 1)
    >>> opt = AdamW(model.named_parameters(), lr=1e-3)
    >>> parallel = distributed.DataParallel(model, opt)
    >>> with ag.Tape() as tape:
    ...     loss = netcl.sum(parallel(netcl.ones((4, 2))))
    >>> tape.backward(loss)
    >>> opt.step()
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        *,
        bucket_bytes: int = BUCKET_BYTES,
        communication_dtype: DType | str | None = None,
    ) -> None:
        if not isinstance(model, Module):
            raise ArgumentError(f"model must be a Module, got {shown(model)}")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"optimizer must be one of netcl.optim, got {shown(optimizer)}")
        bucket_bytes, communication_dtype = check_transfer(bucket_bytes, communication_dtype)
        self.model = model
        self.optimizer = optimizer
        channel = current_world().channel.duplicate()
        # What takes memory, and may find none, comes before any parameter is changed or hooked.
        self._hook = _Hook(model, optimizer, channel, bucket_bytes, communication_dtype) if channel.peers else None
        broadcast_parameters(model)
        if self._hook is not None:
            self._hook.attach()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def no_sync(self) -> AbstractContextManager[None]:
        """Inside this block every backward adds to the gradients of this rank alone; the next one outside averages all.

        Examples
        --------
        >>> import netcl
        >>> from netcl import distributed, nn
        >>> from netcl.optim import SGD
        >>> model = nn.Linear(2, 1)
        >>> parallel = distributed.DataParallel(model, SGD(model.parameters()))
        >>> with parallel.no_sync():
        ...     pass  # backward of all but the last part of a batch
        """
        return nullcontext() if self._hook is None else self._hook.paused()


def check_transfer(bucket_bytes: int, communication_dtype: DType | str | None) -> tuple[int, DType | None]:
    """How much is reduced at once, and the 16-bit dtype that it is sent in, if any."""
    size = integer("bucket_bytes", bucket_bytes, least=1)
    if communication_dtype is None:
        return size, None
    sent = as_dtype(communication_dtype)
    if sent not in (float16, bfloat16):
        raise DistributedError(f"communication_dtype must be float16, bfloat16 or None, got {sent}")
    return size, sent


def listed_parameters(name: str, parameters: Iterable[Any]) -> list[Any]:
    """The Tensors of an iterable."""
    if hasattr(parameters, "shape") or not isinstance(parameters, Iterable):
        raise ArgumentError(f"{name} takes Tensors in an iterable, got {shown(parameters)}")
    found = list(parameters)
    for p in found:
        if not isinstance(p, Array):
            raise DTypeError(f"{name} takes Tensors, got {shown(p)}; pass model.parameters()")
    return found


class _Hook:
    """A :class:`~netcl.array.GradientHook` of an optimizer's parameters, those of later groups included."""

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        channel: Channel,
        bucket_bytes: int,
        communication_dtype: DType | str | None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._channel = channel
        self._bucket_bytes = bucket_bytes
        self._communication_dtype = communication_dtype
        self._enabled = True
        self._prepare()

    def _prepare(self) -> None:
        self._partitions = self._optimizer.partitions
        names = {id(p): name for name, p in self._model.named_parameters()}
        self._synchronizer = synchronizer_of(
            self._partitions, self._channel, names, self._bucket_bytes, self._communication_dtype
        )

    def attach(self) -> None:
        """Set the gradient hook of these parameters."""
        for partition in self._partitions:
            for p in partition.parameters:
                p.grad_hook = self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block every backward leaves the gradients of this rank alone."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    @property
    def writes(self) -> bool:
        """It reads gradients alone."""
        return False

    def gradient_ready(self, leaf: Array) -> None:
        """Note a gradient, and start the buckets that it completes."""
        if self._enabled:
            if self._optimizer.partitions != self._partitions:
                self._prepare()
                self.attach()
            self._synchronizer.gradient_ready(leaf)

    def backward_done(self) -> None:
        """Reduce what is left. **Blocks** until all buckets are."""
        if self._enabled:
            self._synchronizer.backward_done()


def synchronizer_of(
    partitions: Sequence[Partition],
    channel: Channel,
    names: dict[int, str],
    bucket_bytes: int,
    communication_dtype: DType | str | None,
) -> Synchronizer:
    """What sums up the gradient arenas of an optimizer, and has it take their mean."""

    def finished(_: bool) -> None:
        for partition in partitions:
            partition.average(channel.size)

    layouts = [_layout(partition) for partition in partitions]
    return Synchronizer(channel, layouts, names, finished, bucket_bytes, communication_dtype)


def _layout(partition: Partition) -> GradientLayout:
    places = []
    for index, segment in enumerate(partition.arena.layout.segments):
        if segment.array.grad_buffer is None:
            raise DistributedError(
                f"a parameter of shape {segment.array.shape} has left its optimizer; build the optimizer after "
                "model.to(...)"
            )
        places.append(Place(segment.array, partition.arena.buffer_of(index), segment.offset))
    return GradientLayout(partition.backend, partition.arena.gradients, places)


def broadcast_parameters(model: Module | Iterable[Array]) -> None:
    """Give every rank the parameters and buffers of rank 0. **Blocks**.

    Parameters
    ----------
    model : Module or iterable of Tensor
        The same on every rank, but for the values.

    Raises
    ------
    DistributedError
        If they differ between ranks in number, name, shape or dtype; on every rank, and nothing is changed then.

    Examples
    --------
    >>> from netcl import distributed, nn
    >>> distributed.broadcast_parameters(nn.Linear(2, 3))
    """
    if isinstance(model, Module):
        named = [*model.named_parameters(), *model.named_buffers()]
        names = {id(tensor): name for name, tensor in named}
        tensors: list[Array] = [tensor for _, tensor in named]
    else:
        names, tensors = {}, listed_parameters("broadcast_parameters", model)
    world = current_world()
    check_consistent(world.channel, [describe(x, names) for x in tensors])
    spans = [x.span() for x in tensors]
    for tensor, span in zip(tensors, spans, strict=True):
        mapping = tensor.backend.map_host(span)
        world.channel.broadcast(mapping.array(), "broadcast_parameters()")
        mapping.release()
        tensor.storage.version += 1


_used: WeakKeyDictionary[Optimizer, tuple[Sequence[Partition], Synchronizer]] = WeakKeyDictionary()


def all_reduce_gradients(target: Optimizer | Iterable[Tensor]) -> None:
    """Make every gradient its mean over all ranks, with the same bits on each. **Blocks**.

    For loops that do not use :class:`DataParallel`: call it after ``tape.backward`` and before anything reads the
    gradients. All ranks call it.

    Parameters
    ----------
    target : Optimizer or iterable of Tensor
        An optimizer's gradients are reduced where they lie; those of other parameters are first brought together.

    Raises
    ------
    DistributedError
        If the ranks' parameters differ, or a rank does not take part; on every rank.

    Notes
    -----
    A gradient that is None on some ranks counts as zero there; if it is None on all, it stays so.

    Examples
    --------
    >>> import netcl
    >>> from netcl import distributed
    >>> w = netcl.zeros(2, requires_grad=True)
    >>> w.grad = netcl.asarray([3.0, 4.0])
    >>> distributed.all_reduce_gradients([w])
    >>> w.grad.tolist()
    [3.0, 4.0]
    """
    if isinstance(target, Optimizer):
        _reduce_optimizer(target)
        return
    parameters = listed_parameters("all_reduce_gradients", target)
    world = current_world()
    if world.size == 1:
        return
    layouts = _gathered(parameters)

    def finished(_: bool) -> None:
        for layout in layouts:
            layout.backend.scale(1.0 / world.size, layout.gradients)

    Synchronizer(world.channel, layouts, {}, finished, BUCKET_BYTES, None).synchronize()


def _reduce_optimizer(optimizer: Optimizer) -> None:
    world = current_world()
    if world.size == 1:
        return
    partitions = optimizer.partitions
    known = _used.get(optimizer)
    if known is None or known[0] != partitions:
        made = synchronizer_of(partitions, world.channel, {}, BUCKET_BYTES, None)
        known = _used[optimizer] = partitions, made
    known[1].synchronize()


def _gathered(parameters: Iterable[Tensor]) -> list[GradientLayout]:
    """Memory for the gradients of parameters that no optimizer has, one stretch for each device and dtype."""
    groups: dict[tuple[str, str], list[Tensor]] = {}
    for p in parameters:
        groups.setdefault((str(p.device), p.dtype.name), []).append(p)
    return [flat_layout(group) for group in groups.values()]


def flat_layout(parameters: list[Tensor], total: int = 0) -> GradientLayout:
    """A new zeroed stretch of gradients for parameters of one device and dtype, of ``total`` elements at least."""
    backend, dtype = parameters[0].backend, parameters[0].dtype
    offsets, needed = chunked(parameters)
    total = max(needed, total)
    span = Span(backend.alloc(total, dtype), 0, total)
    backend.fill(span, 0)
    arena = GradientArena(
        backend, span, [(type(p), p.shape, offset) for p, offset in zip(parameters, offsets, strict=True)]
    )
    places = [
        Place(p, arena.buffer_of(i), offset) for i, (p, offset) in enumerate(zip(parameters, offsets, strict=True))
    ]
    return GradientLayout(backend, span, places)


def chunked(parameters: Iterable[Tensor]) -> tuple[list[int], int]:
    """Where each parameter starts if all are laid out one after the other in whole chunks, and where the last ends."""
    offsets, total = [], 0
    for p in parameters:
        offsets.append(total)
        total += -(-p.size // CHUNK) * CHUNK
    return offsets, total


def broadcast_object(value: Any) -> Any:
    """Rank 0's ``value`` on every rank, such as a checkpoint that only rank 0 can read. **Blocks**.

    Parameters
    ----------
    value : object
        Anything that can be pickled; what the other ranks pass is ignored.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.broadcast_object({"epoch": 3})
    {'epoch': 3}
    """
    world = current_world()
    return world.channel.exchange(value if world.rank == 0 else None, "broadcast_object()")[0]
