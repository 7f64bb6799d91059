"""L-BFGS: a quasi-Newton method whose memory is the last few steps and the changes of gradient along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from netcl.backends.base import Span
from netcl.errors import ArgumentError, DTypeError, HyperParameterError, NetclError, StateError
from netcl.optim import validation
from netcl.optim.engine import checkpoint
from netcl.optim.engine.flat_vectors import FlatVectors
from netcl.optim.engine.strong_wolfe import Point, search
from netcl.optim.extensions import Extension
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.rule import Rule
from netcl.validation import shown

T = TypeVar("T")

LEAST_CURVATURE = 1e-10
"""Steps along which the gradient changes by less are not remembered."""


def descent(p: Any, g: Any, s: Any, h: Any) -> Any:
    """A step against the gradient, which the base class wants to know; L-BFGS makes its own."""
    return p - h.lr * g


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {"lr": group["lr"]}


_RULE = Rule(descent, _hyper)


def _count(name: str, value: Any) -> int:
    return validation.integer(name, value, 1)


def _line_search(name: str, value: Any) -> str | None:
    if value not in (None, "strong_wolfe"):
        raise HyperParameterError(f"{name} must be None or 'strong_wolfe', got {shown(value)}")
    chosen: str | None = value
    return chosen


_CHECKS = {
    "lr": validation.not_negative,
    "max_iter": _count,
    "max_eval": _count,
    "tolerance_grad": validation.not_negative,
    "tolerance_change": validation.not_negative,
    "history_size": _count,
    "line_search_fn": _line_search,
}


@dataclass
class _Memory:
    """What one iteration leaves to the next: vectors on the device, numbers on the host."""

    func_evals: int = 0
    n_iter: int = 0
    t: float = 0.0
    H_diag: float = 1.0
    prev_loss: float = 0.0
    d: Span | None = None
    prev_flat_grad: Span | None = None
    old_dirs: list[Span] = field(default_factory=list)
    old_stps: list[Span] = field(default_factory=list)
    ro: list[float] = field(default_factory=list)


_NUMBERS = {"func_evals": int, "n_iter": int, "t": float, "H_diag": float, "prev_loss": float}
_VECTORS = ("d", "prev_flat_grad")
_LISTS = ("old_dirs", "old_stps")


class LBFGS(Optimizer):
    """L-BFGS, with steps of a fixed length or with a line search for the strong Wolfe conditions.

    For the vector θ of all parameters, with loss f and gradient g, in each iteration::

        d = -H·g                                  H from the last history_size pairs s = Δθ, y = Δg by two loops
        t = lr                                    min(1, 1/Σ|g|)·lr in the first iteration
        t ← line search from t                    with line_search_fn="strong_wolfe"
        θ ← θ + t·d

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of one dict
        What to optimize: float32 or float64 Tensors of one dtype on one device, in one group.
    lr : float, default 1.0
        Step length, or the first one that a line search tries; at least 0.
    max_iter : int, default 20
        Iterations in each call of :meth:`step`, at least 1.
    max_eval : int, optional
        Evaluations of the closure in each call of :meth:`step`; by default ``max_iter * 5 // 4``.
    tolerance_grad : float, default 1e-7
        Stop where no element of the gradient is larger.
    tolerance_change : float, default 1e-9
        Stop where no parameter moves by more, or the loss changes by less.
    history_size : int, default 100
        How many pairs are kept, at least 1: two vectors of all parameters each.
    line_search_fn : {None, "strong_wolfe"}, default None
        None takes steps of length ``lr``.

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range, or there is more than one group, device or dtype.
    DTypeError
        If the parameters are 16-bit, or arrays of another library.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl.optim import LBFGS
    >>> w = netcl.asarray([3.0, -2.0], requires_grad=True)
    >>> opt = LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     with ag.Tape() as tape:
    ...         loss = ((w - 1.0) ** 2).sum()
    ...     tape.backward(loss)
    ...     return loss
    >>> float(opt.step(closure))
    13.0
    >>> [round(x, 4) for x in w.tolist()]
    [1.0, 1.0]

    Notes
    -----
    The decisions are the host's: a step **blocks** for the loss at every evaluation of the closure, and twice or three
    times in an iteration for a few numbers read together. The two loops over the history run on the device without a
    read, in four launches for each pair, whatever the number of tensors. Memory: two vectors of all parameters for each
    pair, and six more.

    It takes no ``max_norm``, no ``grads``, no loss scale: each would change the function between two evaluations.
    A loss that is NaN counts as too high in a line search, where torch goes on with it.

    Source: D. C. Liu and J. Nocedal, "On the limited memory BFGS method for large scale optimization", 1989; the search
    as in J. Nocedal and S. Wright, "Numerical Optimization", 2nd edition, 2006. Stopping rules are torch's.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        max_iter = _count("max_iter", max_iter)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max(1, max_iter * 5 // 4) if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        self._memory = _Memory()
        super().__init__(params, defaults, _RULE, _CHECKS)

    def _build(self, groups: Any) -> None:
        if len(groups) != 1:
            _refuse_groups(len(groups))
        parameters = groups[0]["params"]
        kinds = {(id(p.backend), p.dtype.name) for p in parameters}
        if len(kinds) > 1:
            held = ", ".join(sorted({f"{p.dtype} on {p.device}" for p in parameters}))
            raise HyperParameterError(
                f"LBFGS takes parameters of one device and dtype, for they are one vector, got {held}; give the others "
                "an optimizer of their own"
            )
        first = parameters[0]
        if first.storage.fixed or first.dtype.compute is not first.dtype:
            held = "arrays of another library" if first.storage.fixed else str(first.dtype)
            raise DTypeError(
                f"LBFGS takes float32 or float64 Tensors, whose loss a closure evaluates again and again, got {held}; "
                "convert them with netcl.asarray(...)"
            )
        super()._build(groups)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Refused: all parameters are one vector, with one history.

        Raises
        ------
        HyperParameterError
            Always.
        """
        _refuse_groups(len(self.param_groups) + 1)

    def extend(self, extension: Extension) -> None:
        """Refused: a step is several moves along a line, not one pass that an extension could join.

        Raises
        ------
        HyperParameterError
            Always.
        """
        raise HyperParameterError(
            f"LBFGS moves along lines of its own and runs no rule that could be extended, got "
            f"{type(extension).__name__}; use another optimizer, or average copies of the parameters after each step"
        )

    def release_gradients(self, max_norm: float | None = None) -> None:
        """Refused: a step looks at all gradients, several times.

        Raises
        ------
        NetclError
            Always.
        """
        raise NetclError("LBFGS looks at all gradients of a step together; release those of another optimizer")

    def scaled_step(self, loss_scale: Span, max_norm: float | None = None) -> list[Span]:
        """Refused: a scaler cannot decide a step that evaluates the loss itself."""
        raise NetclError(
            "LBFGS cannot be stepped by a GradScaler, for it evaluates the loss itself; call step(closure)"
        )

    def step(
        self,
        closure: Callable[[], T] | None = None,
        *,
        max_norm: float | None = None,
        grads: Iterable[Any] | None = None,
    ) -> T:
        """Take up to ``max_iter`` iterations. **Blocks**.

        Parameters
        ----------
        closure : callable
            Clears the gradients, computes them anew and returns the loss, a number or a Tensor of one element.
        max_norm, grads : None
            Not for this optimizer.

        Returns
        -------
        What the first call of ``closure`` returned.

        Raises
        ------
        ArgumentError
            If there is no closure, or ``max_norm`` or ``grads`` is given, or the closure returns no number.
        NetclError
            If no parameter has a gradient afterwards.
        """
        if closure is None or not callable(closure):
            raise ArgumentError(
                f"step of LBFGS needs a function that computes gradients and returns the loss, got {shown(closure)}"
            )
        for name, value in (("max_norm", max_norm), ("grads", grads)):
            if value is not None:
                raise ArgumentError(
                    f"step of LBFGS takes no {name}, got {shown(value)}; change the gradients in the closure, each "
                    "time alike"
                )
        group, memory = self.param_groups[0], self._memory
        first = closure()
        loss = _number(first)
        vectors = self._vectors()
        g = vectors.gradient()
        self._refuse_no_gradient()
        memory.func_evals += 1
        evaluations, iterations = 1, 0
        largest, total = vectors.numbers(("largest", g), ("sum", g))
        while largest > group["tolerance_grad"] and iterations < group["max_iter"]:
            iterations += 1
            memory.n_iter += 1
            d = self._direction(vectors, g)
            memory.d, memory.prev_flat_grad, memory.prev_loss = d, g, loss
            memory.t = group["lr"] * (min(1.0, 1.0 / total) if memory.n_iter == 1 else 1.0)
            slope, reach = vectors.numbers(("dot", g, d), ("largest", d))
            if slope > -group["tolerance_change"]:
                break
            used = 0
            if group["line_search_fn"] is not None:
                start = Point(0.0, loss, slope, g)
                most = group["max_eval"] - evaluations
                point, used = self._search(vectors, closure, start, d, reach, most)
                memory.t, loss, g = point.t, point.loss, point.gradient
                largest = vectors.numbers(("largest", g))[0]
            else:
                vectors.move(vectors.parameters(), memory.t, d)
                if iterations != group["max_iter"]:
                    loss = _number(closure())
                    g, used = vectors.gradient(), 1
                    largest = vectors.numbers(("largest", g))[0]
            evaluations += used
            memory.func_evals += used
            if evaluations >= group["max_eval"]:
                break
            if abs(memory.t) * reach <= group["tolerance_change"]:
                break
            if abs(loss - memory.prev_loss) < group["tolerance_change"]:
                break
        return first

    def _refuse_no_gradient(self) -> None:
        if all(p.gradient is None for p in self.param_groups[0]["params"]):
            raise NetclError(
                "LBFGS.step() found no gradient on any of its parameters after the closure; call "
                "tape.backward(loss) in it, and make sure that the loss depends on them"
            )

    def _vectors(self) -> FlatVectors:
        return FlatVectors(self._engine.partitions[0])

    def _direction(self, vectors: FlatVectors, g: Span) -> Span:
        """-H·g, after the last step was remembered."""
        memory = self._memory
        if memory.n_iter == 1 or memory.d is None or memory.prev_flat_grad is None:
            memory.old_dirs, memory.old_stps, memory.ro, memory.H_diag = [], [], [], 1.0
            return vectors.combined(-1.0, g, 0.0, g)
        y = vectors.combined(1.0, g, -1.0, memory.prev_flat_grad)
        s = vectors.combined(memory.t, memory.d, 0.0, memory.d)
        along, length = vectors.numbers(("dot", y, s), ("dot", y, y))
        if along > LEAST_CURVATURE:
            excess = len(memory.ro) - self.param_groups[0]["history_size"] + 1
            for kept, new in ((memory.old_dirs, y), (memory.old_stps, s)):
                del kept[: max(0, excess)]
                kept.append(new)
            del memory.ro[: max(0, excess)]
            memory.ro.append(1.0 / along)
            memory.H_diag = along / length
        q = vectors.combined(-1.0, g, 0.0, g)
        pairs = list(zip(memory.old_dirs, memory.old_stps, memory.ro, strict=True))
        first = []
        for y, s, ro in reversed(pairs):
            first.append(vectors.dot(s, q))
            vectors.add_share(q, -ro, first[-1:], y)
        vectors.backend.scale(memory.H_diag, q)
        for (y, s, ro), number in zip(pairs, reversed(first), strict=True):
            vectors.add_share(q, ro, [number, vectors.dot(y, q)], s)
        return q

    def _search(
        self, vectors: FlatVectors, closure: Callable[[], Any], start: Point, d: Span, reach: float, most: int
    ) -> tuple[Point, int]:
        """The line search; the parameters end where it does, also if the closure fails on the way."""
        x = vectors.parameters()

        def evaluate(t: float) -> Point:
            vectors.move(x, t, d)
            loss = _number(closure())
            g = vectors.gradient()
            return Point(t, loss, vectors.numbers(("dot", g, d))[0], g)

        try:
            point, used = search(evaluate, start, self._memory.t, reach, most)
        except BaseException:
            vectors.restore(x)
            raise
        vectors.move(x, point.t, d)
        return point, used

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit, as NumPy arrays in the layout of ``torch.optim.LBFGS``. **Blocks**.

        Its vectors have all parameters one after the other, in the order of the group.
        """
        packed = checkpoint.pack(self._kind(), self.param_groups, self._engine.read_state())
        packed["state"] = {0: self._packed()} if self._memory.func_evals else {}
        return packed

    def _packed(self) -> dict[str, Any]:
        memory, vectors, order = self._memory, self._vectors(), self.param_groups[0]["params"]
        packed: dict[str, Any] = {name: getattr(memory, name) for name in (*_NUMBERS, "ro")}
        packed["ro"] = list(memory.ro)
        for name in _VECTORS:
            x = getattr(memory, name)
            packed[name] = None if x is None else vectors.read(x, order)
        for name in _LISTS:
            packed[name] = [vectors.read(x, order) for x in getattr(memory, name)]
        return packed

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, or from one of ``torch.optim.LBFGS``. **Blocks**.

        Raises
        ------
        StateError
            At the first thing that does not fit. Nothing is changed then.
        """
        with self._engine.lock:
            own = dict(state) if isinstance(state, Mapping) else state
            found: Mapping[str, Any] = {}
            if isinstance(own, dict) and isinstance(own.get("state"), Mapping):
                entries = dict(own["state"])
                found = entries.pop(0, entries.pop("0", {}))
                if entries or not isinstance(found, Mapping):
                    raise StateError(
                        f"the checkpoint's state of LBFGS is one dict, of index 0, got {shown(own['state'])}"
                    )
                # The groups are checked as those of any optimizer, without state of single parameters.
                own["state"] = {i: {"step": 0} for i in range(len(self.param_groups[0]["params"]))}
            loaded = checkpoint.read(own, self._kind(), self.param_groups, self._choose_rule)
            memory = self._unpacked(found) if found else _Memory()
            self._engine.restore(loaded.groups, loaded.entries)
            self._memory = memory

    def _unpacked(self, found: Mapping[str, Any]) -> _Memory:
        vectors, order = self._vectors(), self.param_groups[0]["params"]
        size, dtype = sum(p.size for p in order), order[0].dtype.name
        known = {*_NUMBERS, *_VECTORS, *_LISTS, "ro", "al"}
        for name in found:
            if name not in known:
                raise StateError(
                    f"the checkpoint has {shown(name)}, which LBFGS does not keep; it keeps {sorted(known)}"
                )

        def vector(name: str, value: Any) -> Span:
            host = checkpoint.as_host(value, f"{name} of the checkpoint")
            if host.shape != (size,) or host.dtype.name != dtype:
                raise StateError(
                    f"{name} of the checkpoint has shape {host.shape} and dtype {host.dtype}; all parameters together "
                    f"are ({size},) of {dtype}"
                )
            return vectors.written(host, order)

        def number(name: str, value: Any) -> float:
            try:
                return float(value)
            except Exception:  # every library refuses in its own way
                raise StateError(f"{name} of the checkpoint must be a number, got {shown(value)}") from None

        made = _Memory()
        for name, kind in _NUMBERS.items():
            value = number(name, found.get(name, getattr(made, name)) or 0)
            if kind is int and not (value >= 0 and math.isfinite(value) and value == int(value)):
                raise StateError(f"{name} of the checkpoint must be a count, got {shown(found.get(name))}")
            setattr(made, name, kind(value))
        for name in _VECTORS:
            if found.get(name) is not None:
                setattr(made, name, vector(name, found[name]))
        for name in (*_LISTS, "ro"):
            items = validation.listed(name, found.get(name) or (), error=StateError)
            setattr(made, name, [(number if name == "ro" else vector)(f"{name}[{i}]", x) for i, x in enumerate(items)])
        if not len(made.old_dirs) == len(made.old_stps) == len(made.ro):
            raise StateError(
                f"old_dirs, old_stps and ro of the checkpoint must have one length, got {len(made.old_dirs)}, "
                f"{len(made.old_stps)} and {len(made.ro)}"
            )
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made from. **Blocks**."""
        state = super().__getstate__()
        state["attributes"].pop("_memory")
        return {**state, "memory": self._packed() if self._memory.func_evals else {}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__({name: value for name, value in state.items() if name != "memory"})
        self._memory = self._unpacked(state["memory"]) if state["memory"] else _Memory()


def _refuse_groups(count: int) -> NoReturn:
    raise HyperParameterError(
        f"LBFGS has one parameter group, for all parameters are one vector, got {count}; give the others an optimizer "
        "of their own"
    )


def _number(loss: Any) -> float:
    try:
        return float(loss)
    except Exception:  # whatever a closure returns
        raise ArgumentError(
            f"the closure of LBFGS must return the loss, a number or a Tensor of one element, got {shown(loss)}"
        ) from None
