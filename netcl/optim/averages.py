"""Averages of the parameters, Lookahead, and gradients without NaN: in the launches of the optimizer's own step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, final

from netcl.backends.base import Span
from netcl.errors import HyperParameterError, NetclError
from netcl.expression import conversion
from netcl.optim import validation
from netcl.optim.engine.partition import Partition
from netcl.optim.engine.started_fields import put_averages, start_fields
from netcl.optim.extensions import Averaging, SlowWeights, ZeroedNaNs, from_one, share
from netcl.optim.optimizer import Optimizer
from netcl.validation import flag, shown

O = TypeVar("O", bound=Optimizer)  # noqa: E741


@final
class AveragedParameters:
    """An average of the parameters that each step of the optimizer updates in its own launches.

    With a decay it is an exponential moving average (EMA), without one the mean (stochastic weight averaging, SWA).
    With θ the parameter after step t, u = t - start, n = u / every::

        a ← θ                                     up to n = 1
        a ← a + w·(θ - a)                         from then on, at the steps where n is whole

        w = 1 - decay                             with a decay
        w = max(1 - decay, 9 / (9 + n))           with warmup
        w = 1 / n                                 without a decay

    Parameters
    ----------
    optimizer : Optimizer
        It gets a state field for the average, 4 bytes for each element of a parameter of at most 32 bits, and the
        hyper-parameters ``{name}_decay``, ``{name}_start`` and ``{name}_every`` in each group. So the average is part
        of its ``state_dict()``, and groups may differ.
    decay : float, optional
        Share of the average that is kept, in [0, 1). By default every entry has the same weight.
    start : int, default 0
        Steps before the first that counts, from now on. Until then the average is the parameters themselves.
    every : int, default 1
        Every how many steps the parameters enter the average, at least 1.
    warmup : bool, default False
        Let early parameters count less, as the average of few steps moves faster; needs a decay.
    name : str, optional
        Of the state field; by default ``"ema"`` or ``"swa"``. An optimizer may have several averages.

    Raises
    ------
    HyperParameterError
        If a value is out of range, the name is taken, or the optimizer is an LBFGS or updates arrays of another
        library.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, AveragedParameters
    >>> w = netcl.asarray([1.0], requires_grad=True)
    >>> opt = SGD([w], lr=0.5)
    >>> averages = AveragedParameters(opt)
    >>> for _ in range(3):
    ...     w.grad = netcl.ones(1)
    ...     opt.step()
    >>> with averages.applied():
    ...     w.item()
    0.0
    >>> w.item()
    -0.5

    Notes
    -----
    Making one **blocks**: it reads how many steps were taken. Steps are counted for each parameter, exactly up to 2**24
    of them, and a step that a GradScaler skips does not count. For 16-bit parameters the average is of their master
    weights, in float32.

    It costs one read and one write of the average in the pass that updates the parameters: of LAMB, LARS, Adafactor and
    Muon the last. The backend's hand-written Adam gives way to the traced rule, which computes the same.

    As ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn`` or ``get_swa_avg_fn``, which take a pass
    and launches of their own. Sources: B. T. Polyak and A. B. Juditsky, 1992; P. Izmailov et al., "Averaging Weights
    Leads to Wider Optima and Better Generalization", 2018; the warm-up is TensorFlow's.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float | None = None,
        *,
        start: int = 0,
        every: int = 1,
        warmup: bool = False,
        name: str | None = None,
    ) -> None:
        _check_optimizer("AveragedParameters", optimizer)
        if flag("warmup", warmup, error=HyperParameterError) and decay is None:
            raise HyperParameterError("warmup=True is for a moving average; give it a decay such as 0.999")
        kept = 0.0 if decay is None else validation.fraction("decay", decay)
        first, often = validation.integer("start", start, 0), from_one("every", every)
        self.name = ("swa" if decay is None else "ema") if name is None else _field_name(name)
        self.optimizer = optimizer
        taken = max((count for each in optimizer.partitions for count in each.step.table.steps().values()), default=0)
        optimizer.extend(Averaging(self.name, decay is None, warmup, kept, taken + first, often))

    @property
    def n_averaged(self) -> int:
        """How many entries the average has, of the parameter that has most. Reading it **blocks**."""
        counts = [0]
        for group in self.optimizer.param_groups:
            start, every = group[f"{self.name}_start"], group[f"{self.name}_every"]
            members = set(map(id, group["params"]))
            for partition in self.optimizer.partitions:
                steps = partition.step.table.steps()
                counts += [(steps[i] - start) // every for i, p in enumerate(partition.parameters) if id(p) in members]
        return max(counts)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the averages within a ``with`` block, on the device. Does not block.

        At its end, also by an exception, they hold again what they held before. Within it ``model.state_dict()`` is
        that of the averages; what is written to a parameter there is lost. The copy that is kept takes the memory of
        the parameters.

        Raises
        ------
        NetclError
            If the parameters hold averages already. Within the block, ``step()`` and ``add_param_group()`` raise too.
        """
        optimizer = self.optimizer
        with optimizer._engine.lock:
            optimizer._refuse_if_held("applied()")
            partitions = self._ready()
            kept = [_copied(partition) for partition in partitions]
            for partition in partitions:
                put_averages(partition, self.name)
            optimizer._held_by = f"the averages' applied() ({self.name})"
        try:
            yield
        finally:
            with optimizer._engine.lock:
                optimizer._held_by = None
                for partition, copies in zip(self._ready(), kept, strict=True):
                    _put_back(partition, copies)

    def adopt(self) -> None:
        """Let the parameters be the averages from now on. The optimizer's state goes on as it is. Does not block.

        Raises
        ------
        NetclError
            Within :meth:`applied`.
        """
        with self.optimizer._engine.lock:
            self.optimizer._refuse_if_held("adopt()")
            for partition in self._ready():
                put_averages(partition, self.name)

    def restart(self) -> None:
        """Average anew from the parameters as they are. **Blocks**: it reads how many steps were taken.

        Raises
        ------
        NetclError
            Within :meth:`applied`.
        """
        optimizer = self.optimizer
        with optimizer._engine.lock:
            optimizer._refuse_if_held("restart()")
            partitions = self._ready()
            taken = max((count for each in partitions for count in each.step.table.steps().values()), default=0)
            for group in optimizer.param_groups:
                group[f"{self.name}_start"] = taken
            start_fields(partitions, [self.name])

    def _ready(self) -> list[Partition]:
        """The partitions, with their parameters in the arena."""
        self.optimizer._engine.adapt()
        for partition in self.optimizer.partitions:
            partition.arena.check()
            partition.prepare(measured=False)
        return list(self.optimizer.partitions)

    def __repr__(self) -> str:
        return f"AveragedParameters({self.name!r} of {type(self.optimizer).__name__})"


def Lookahead(optimizer: O, k: int = 5, alpha: float = 0.5) -> O:  # a class elsewhere, and written like one
    """Let slow weights follow the optimizer's, which go back to them at every k-th step. Returns the optimizer.

    With θ the parameter after the optimizer's own step t, at the steps that k divides::

        slow ← slow + alpha·(θ - slow)
        θ ← slow

    Parameters
    ----------
    optimizer : Optimizer
        Any, also one that has steps behind it. It gets the state field ``slow``, which starts as a copy of the
        parameters, and the hyper-parameters ``lookahead_k`` and ``lookahead_alpha`` in each group.
    k : int, default 5
        At least 1.
    alpha : float, default 0.5
        In [0, 1].

    Returns
    -------
    Optimizer
        The one that was given. A step takes as many launches as before. Does not block.

    Raises
    ------
    HyperParameterError
        If a value is out of range, the optimizer has slow weights already, or it is an LBFGS or updates arrays of
        another library.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, Lookahead
    >>> w = netcl.asarray([1.0], requires_grad=True)
    >>> opt = Lookahead(SGD([w], lr=0.5), k=2)
    >>> for _ in range(2):
    ...     w.grad = netcl.ones(1)
    ...     opt.step()
    >>> w.item()
    0.5

    Notes
    -----
    Steps are counted for each parameter, exactly up to 2**24 of them. Source: M. R. Zhang, J. Lucas, G. Hinton and J.
    Ba, "Lookahead Optimizer: k steps forward, 1 step back", 2019.
    """
    _check_optimizer("Lookahead", optimizer)
    optimizer.extend(SlowWeights(from_one("k", k), share("alpha", alpha)))
    return optimizer


def zero_nans(optimizer: O) -> O:
    """Let elements of gradients that are NaN count as zero in each step, in its own launches. Returns the optimizer.

    Parameters
    ----------
    optimizer : Optimizer

    Raises
    ------
    HyperParameterError
        If it is no optimizer, or an LBFGS.

    Examples
    --------
    >>> import math
    >>> import netcl
    >>> from netcl.optim import SGD, zero_nans
    >>> w = netcl.asarray([1.0, 1.0], requires_grad=True)
    >>> opt = zero_nans(SGD([w], lr=0.5))
    >>> w.grad = netcl.asarray([math.nan, 1.0])
    >>> opt.step()
    >>> w.tolist()
    [1.0, 0.5]

    Notes
    -----
    The gradients themselves keep their NaN. Infinite elements are left. A norm that is taken of such gradients is NaN,
    and clipping leaves them as they are; a GradScaler skips the step. As ``optax.zero_nans``, which has a pass of its
    own.
    """
    _check_optimizer("zero_nans", optimizer)
    optimizer.extend(ZeroedNaNs())
    return optimizer


def _check_optimizer(call: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise HyperParameterError(f"{call} takes an optimizer of netcl.optim, got {shown(optimizer)}")


def _field_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name == "step":
        raise HyperParameterError(f"name must be a Python name other than step, for a state field, got {shown(name)}")
    return name


def _copied(partition: Partition) -> list[Span]:
    """The parameters' memory, copied on the device, run by run."""
    backend, dtype = partition.backend, partition.dtype
    copies = []
    for run in partition.arena.layout.runs:
        copy = Span(backend.alloc(run.parameters.size, dtype), 0, run.parameters.size)
        if copy.size:
            backend.map(conversion(dtype, dtype), (run.parameters.view(),), (copy.view(),))
        copies.append(copy)
    return copies


def _put_back(partition: Partition, copies: list[Span]) -> None:
    runs = partition.arena.layout.runs
    if [run.parameters.size for run in runs] != [copy.size for copy in copies]:
        raise NetclError("the parameters were moved while they held averages; move a model before or after the block")
    for run, copy in zip(runs, copies, strict=True):
        if copy.size:
            partition.backend.map(
                conversion(partition.dtype, partition.dtype), (copy.view(),), (run.parameters.view(),)
            )
    partition.arena.count_step()
