"""Sharding: each rank optimizes its share of the flat parameters, and keeps optimizer state for that share alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, TypeAlias, overload

from netcl.array import Array, Storage
from netcl.backends.base import CHUNK, View
from netcl.distributed.buckets import BUCKET_BYTES, even_shares
from netcl.distributed.channel import Channel
from netcl.distributed.parallel import broadcast_parameters, check_transfer, chunked, flat_layout, listed_parameters
from netcl.distributed.synchronizer import Synchronizer, check_consistent, describe
from netcl.distributed.world import current_world
from netcl.dtypes import DType
from netcl.errors import ArgumentError, DistributedError, HyperParameterError
from netcl.expression import Expression, conversion, trace
from netcl.optim.clip import combined, measured_norm
from netcl.tensor import Tensor
from netcl.validation import real, shown

_UNIT = 16
"""Shares start at multiples of so many elements, so that kernels read them aligned."""


Named: TypeAlias = list[tuple[str | None, Tensor]]
"""Parameters, each with its name if they have such."""


class Flat:
    """The parameters of one device and dtype in one buffer; this rank owns one stretch of it.

    Attributes
    ----------
    view : Tensor
        What this rank owns.
    parameters : list of Tensor
    offsets : list of int
        Where each of them begins.
    size : int
        Elements of the buffer.
    shares : list of (int, int)
        Start and size of each rank's stretch.
    """

    def __init__(
        self, parameters: list[Tensor], channel: Channel, bucket_bytes: int, communication_dtype: DType | str | None
    ):
        self._channel = channel
        self.parameters = parameters
        backend, dtype = parameters[0].backend, parameters[0].dtype
        offsets, total = chunked(parameters)
        total = max(total, -(-_UNIT * channel.size // CHUNK) * CHUNK)
        self.offsets, self.size = offsets, total
        self._storage = Storage.empty(backend, total, dtype)
        backend.fill(self._storage.span(), 0)
        self.shares = [(_UNIT * start, _UNIT * size) for start, size in even_shares(total // _UNIT, channel.size)]
        self._start, self._size = self.shares[channel.rank]
        self.view = type(parameters[0])(self._storage, (self._size,), (1,), self._start)
        self.view.requires_grad = True
        layout = flat_layout(parameters, total)
        self._gradients = layout.gradients
        owned = [(start, start + size) for start, size in self.shares]
        self.synchronizer = Synchronizer(
            channel, [layout], {}, self._finished, bucket_bytes, communication_dtype, owned
        )
        self._places = layout.places

    def adopt(self) -> None:
        """Move the parameters in. Until then nothing outside has changed; takes no memory."""
        for p, offset in zip(self.parameters, self.offsets, strict=True):
            target = View(self._storage.buffer, offset, p.shape, Array(self._storage, p.shape).strides)
            p.backend.map(conversion(p.dtype, p.dtype), (p.view(),), (target,))
            p.relocate(self._storage)
            p.offset = offset
        for place in self._places:
            place.parameter.grad_buffer = place.gradient_buffer
            place.parameter.grad_hook = self.synchronizer

    def _finished(self, any_gradient: bool) -> None:
        """Make the mean the gradient of the view, and make non-finite values visible to all ranks."""
        for p in self.parameters:
            p.gradient = None
        if not any_gradient:
            return
        if self.view.grad is not None:
            raise DistributedError(
                "a second backward came before the gradients of the first were cleared; call optimizer.zero_grad() "
                "after each step, and accumulate inside no_sync()"
            )
        view, gradients = self.view, self._gradients
        target = view.grad_buffer.claim() if view.grad_buffer is not None else view.empty_like()
        mean = gradients.part(self._start, self._size).view()
        factor = 1.0 / self._channel.size
        target.backend.map(_times(view.dtype), (mean,), (target.view(),), (factor,))
        target.storage.version += 1
        finite = self._channel.exchange(self.synchronizer.finite, "the reduction of gradients")
        if not all(finite) and finite[self._channel.rank]:
            # Seen by every rank, it makes all of them skip a step that one has to skip.
            target.backend.fill(target.span().element(0), math.nan)
        view.gradient = target

    def gather(self) -> None:
        """Give every rank the parameters of all shares. **Blocks**."""
        channel = self._channel
        if not channel.peers:
            return
        mapping = self._storage.backend.map_host(self._storage.span())
        whole = mapping.array()
        own = whole[self._start : self._start + self._size]
        requests = []
        for rank in channel.peers:
            start, size = self.shares[rank]
            requests.append((rank, channel.receive(whole[start : start + size], rank, 0)))
            requests.append((rank, channel.send(own, rank, 0)))
        channel.finish(requests, "gather()")
        mapping.release()
        self._storage.version += 1


class Shards(Sequence[Tensor]):
    """What :func:`shard` returns: this rank's views, one for each device and dtype, to be given to an optimizer."""

    def __init__(self, flats: list[Flat], named: Named) -> None:
        self._flats = flats
        self._named = named

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        return [flat.view for flat in self._flats][index]

    def __len__(self) -> int:
        return len(self._flats)

    def __iter__(self) -> Iterator[Tensor]:
        return (flat.view for flat in self._flats)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside this block every backward adds to the gradients of this rank alone; the next one outside averages all.

        Examples
        --------
        >>> import netcl
        >>> from netcl import distributed
        >>> shards = distributed.shard([netcl.ones(3, requires_grad=True)])
        >>> with shards.no_sync():
        ...     pass  # backward of all but the last part of a batch
        """
        with ExitStack() as paused:
            for flat in self._flats:
                paused.enter_context(flat.synchronizer.paused())
            yield

    def gather(self) -> None:
        """Give every rank the parameters of all shares, after a step. **Blocks**."""
        for flat in self._flats:
            flat.gather()


def shard(
    parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
    *,
    bucket_bytes: int = BUCKET_BYTES,
    communication_dtype: DType | str | None = None,
) -> Shards:
    """Lay parameters out in one flat buffer, and give each rank a view of its share, to be optimized there. **Blocks**.

    An optimizer over the views keeps state for 1/world_size of the elements (ZeRO stage 1). Every backward then leaves
    the mean gradient over all ranks in the ``grad`` of the views, and None in that of the parameters themselves. After
    ``step()``, :func:`gather` makes the parameters whole on every rank.

    Parameters
    ----------
    parameters : iterable of Tensor, or of (name, Tensor)
        The same on every rank; rank 0's values are broadcast. They become views of the flat buffer. The names are those
        that :func:`gather_state` gives their state.
    bucket_bytes, communication_dtype
        As for :class:`~netcl.distributed.DataParallel`.

    Returns
    -------
    Shards
        A sequence of flat Tensors, one for each device and dtype.

    Raises
    ------
    DistributedError
        If there are none, or the ranks' parameters differ; on every rank.

    Notes
    -----
    Rules that treat each element alone give the same weights as without sharding. What looks at all gradients together
    needs all shares: clip with :func:`netcl.distributed.clip_grad_norm`, not with ``step(max_norm=...)``. A loss scaler
    works: a gradient that is not finite on one rank is seen on all. For parameter groups, shard each group's parameters
    apart. A parameter without a gradient is treated as if its gradient were zero, for a view has one step count.

    Source: S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020.

    Examples
    --------
    >>> import netcl
    >>> from netcl import distributed, nn
    >>> from netcl.optim import AdamW
    >>> model = nn.Linear(64, 32).to("numpy")
    >>> shards = distributed.shard(model.parameters())
    >>> opt = AdamW(shards, lr=1e-3)
    >>> [view.shape for view in shards]
    [(3072,)]
    """
    bucket_bytes, communication_dtype = check_transfer(bucket_bytes, communication_dtype)
    named = _named(parameters)
    given: list[Tensor] = [p for _, p in named]
    if not given:
        raise DistributedError("shard() got no parameters; pass model.parameters() of a model that has some")
    names = {id(p): name for name, p in named if name is not None}
    check_consistent(current_world().channel, [describe(x, names) for x in given])
    groups: dict[tuple[str, str], list[Tensor]] = {}
    for p in given:
        groups.setdefault((str(p.device), p.dtype.name), []).append(p)
    channel = current_world().channel
    # What takes memory, and may find none, comes before any parameter is changed.
    flats = [Flat(group, channel.duplicate(), bucket_bytes, communication_dtype) for group in groups.values()]
    broadcast_parameters(given)
    for flat in flats:
        flat.adopt()
    return Shards(flats, named)


def _named(parameters: Iterable[Any]) -> Named:
    """The Tensors of an iterable, each with its name if all of them have one."""
    if hasattr(parameters, "shape") or not isinstance(parameters, Iterable):
        return [(None, p) for p in listed_parameters("shard", parameters)]  # which refuses them
    items: list[Any] = list(parameters)
    if not items or not all(isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) for x in items):
        return [(None, p) for p in listed_parameters("shard", items)]
    names = [name for name, _ in items]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DistributedError(f"shard() got two parameters called {twice!r}; give each a name of its own")
    return list(zip(names, listed_parameters("shard", [p for _, p in items]), strict=True))


def contents(shards: Shards) -> tuple[list[Flat], Named]:
    """The buffers of shards, and the parameters in the order in which :func:`shard` got them, with their names."""
    return shards._flats, shards._named


def check_shards(shards: object) -> None:
    """Refuse what :func:`shard` did not return."""
    if not isinstance(shards, Shards):
        raise ArgumentError(f"shards must be what shard() returned, got {shown(shards)}")


def gather(shards: Shards) -> None:
    """Give every rank the parameters of all shares, after a step. **Blocks**.

    Parameters
    ----------
    shards : Shards
        What :func:`shard` returned. All ranks call this.

    Examples
    --------
    >>> import netcl
    >>> from netcl import distributed
    >>> distributed.gather(distributed.shard([netcl.ones(3, requires_grad=True)]))
    """
    check_shards(shards)
    shards.gather()


def clip_grad_norm(shards: Shards, max_norm: float) -> float:
    """Scale the gradients of all shares by ``min(1, max_norm / norm)``, where norm is that of all ranks' together.

    **Blocks**. All ranks call it.

    Parameters
    ----------
    shards : Shards
    max_norm : float
        At least 0.

    Returns
    -------
    float
        The L2 norm before clipping, of all shares together; infinite if float64 does not hold it. If a gradient is not
        finite they are left as they are.

    Raises
    ------
    HyperParameterError
        If ``max_norm`` is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl import distributed
    >>> shards = distributed.shard([netcl.zeros(2, requires_grad=True, device="numpy")])
    >>> shards[0].grad = netcl.ones(shards[0].shape, device="numpy")
    >>> distributed.clip_grad_norm(shards, max_norm=1.0)
    32.0
    """
    check_shards(shards)
    limit = real("max_norm", max_norm, least=0.0, finite=False, error=HyperParameterError)
    with_gradients = [view for view in shards if view.grad is not None]
    own = [measured_norm([view]) for view in with_gradients]
    everywhere = current_world().channel.exchange(own, "clip_grad_norm()")
    total = combined([norm for norms in everywhere for norm in norms])
    if total.exceeds(limit):
        for view in with_gradients:
            assert view.grad is not None
            total.scale_to(limit, view.grad)
    return total.value


@cache
def _times(dtype: DType) -> Expression:
    return trace(lambda x, factor: x * factor, (dtype,), (dtype.compute,), stored=(dtype,))
