"""Rule: what an optimizer author writes. The state each parameter keeps, and the arithmetic of one update."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import unwrap
from traceback import walk_tb
from typing import Any

from netcl.backends.base import ADAM_COLUMNS, COUNTERS, ROW, BlockFormat, TensorRule
from netcl.dtypes import DType, int32
from netcl.errors import ArgumentError, HyperParameterError, TraceError
from netcl.expression import (
    Expression,
    Node,
    build,
    caller,
    cast,
    constant,
    equal,
    nodes_of,
    rewrite,
    rounded,
    where,
)
from netcl.expression_text import python_text
from netcl.optim import validation
from netcl.optim.engine.group import NOTES
from netcl.validation import flag, shown

Update = Callable[..., Any]

RATIO = "ratio"
"""What the second pass calls the factor of a tensor."""

OF_TENSORS = ("p", "u", "size")
"""What the ratio of a rule may read of a tensor: two norms, and its number of elements."""


@dataclass(frozen=True, slots=True)
class PerTensor:
    """What a rule takes over each whole tensor, between two passes over its elements.

    The first pass makes a direction ``u`` and moves the state on; then come the norms of each tensor; the second pass
    is the rule's ``update``, which gets ``u`` in place of the gradient, and the factor of its tensor as ``h.ratio``
    beside the rest of ``h``.

    Parameters
    ----------
    direction : callable
        ``direction(p, g, s, h) -> (u, *state)``: what the first pass computes of each element; it leaves ``p`` alone.
        ``p``, ``g``, ``s`` and ``h`` are those of :class:`Rule`.
    ratio : callable
        ``ratio(n, h) -> number``: one value for each tensor, in plain arithmetic, of the norms ``n.p`` and ``n.u`` (of
        the parameter before the step and of the direction), the number of elements ``n.size``, and ``h``. A norm that
        it does not read is not taken.
    between : callable, optional
        ``between(table) -> object`` whose ``run(u)`` replaces the direction of whole tensors in place, after the first
        pass and before the norms, and whose ``prepare()`` takes memory beforehand. ``table`` is a
        :class:`~netcl.optim.engine.tensor_passes.TensorTable`, whose ``gather()`` brings the hyper-parameters and
        counters of each tensor.
    fields : callable, optional
        ``fields(shape) -> {name: shape}``: state of ``between`` for a tensor of this shape, for checkpoints.
        ``between``'s object has it as ``stored``, a list of :class:`~netcl.optim.engine.shaped_state.Stored`.

    Raises
    ------
    ArgumentError
        If a piece is not a function.

    Notes
    -----
    On OpenCL a step is two launches for one tensor and for thousands: both passes, of which the first leaves what the
    second makes the norms and the ratio of each tensor from. No finite element's square overflows or underflows. What
    ``between`` launches comes in addition, and a launch for norms after it. Memory: one more field, the direction, that
    checkpoints do not hold.
    """

    direction: Update
    ratio: Callable[..., Any]
    between: Callable[..., Any] | None = None
    fields: Callable[[tuple[int, ...]], Mapping[str, tuple[int, ...]]] | None = None

    def __post_init__(self) -> None:
        for name in ("direction", "ratio", "between", "fields"):
            value = getattr(self, name)
            if not callable(value) and not (name in ("between", "fields") and value is None):
                raise ArgumentError(f"{name} of a PerTensor must be a function, got {shown(value)}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One elementwise update, written once for every backend.

    Parameters
    ----------
    update : callable
        ``update(p, g, s, h) -> (p, *state)``: plain arithmetic (``+ - * /`` and the functions of
        :mod:`netcl.expression`) on one element of the parameter ``p``, its gradient ``g``, the state ``s.<name>`` and
        the hyper-parameters ``h.<name>``. Besides the rule's own names ``h`` has ``step`` (from 1), and
        ``bias_correction1`` and ``bias_correction2`` if ``hyper`` gives ``log_beta1`` and ``log_beta2``; for random
        numbers (:mod:`netcl.stochastic`) also the exact digits of the step's number and the number of the element.
        It must map zeros to zeros, which is what padding holds.
    hyper : callable
        ``hyper(group) -> dict``: the numbers that ``h`` holds, made in double from a parameter group.
    state : tuple of str, or mapping of str to float
        Names of the state fields, in the parameter's compute dtype. Each starts at zero, or at the number that a
        mapping has for it. Afterwards the attribute holds the names.
    fused_adam : bool, default False
        The backend's own ``fused_adam`` runs this update; ``update`` then only states what it computes.
    per_tensor : PerTensor, optional
        What is taken over whole tensors before the update. Then ``update(p, u, s, h)`` gets the direction in place of
        the gradient, and ``h`` has ``ratio`` besides; neither pass has what random numbers take.

    signed, unsigned : tuple of str, default ()
        The state fields that ``state_dtype`` may keep in fewer bits, for they are averages of what they get: those of
        either sign, and those that are never negative.
    kept_as : tuple of (str, DType or BlockFormat), default ()
        State fields with another storage than the parameter's compute dtype. They are widened before the update and
        rounded after it.

    Raises
    ------
    ArgumentError
        If a piece is of another kind, or a state field has no proper name or start.

    Attributes
    ----------
    starts : tuple of float
        What each state field starts at, which a mapping says.
    """

    update: Update
    hyper: Callable[[Mapping[str, Any]], Mapping[str, float]]
    state: tuple[str, ...] | Mapping[str, float] = ()
    fused_adam: bool = False
    starts: tuple[float, ...] = ()
    per_tensor: PerTensor | None = None
    signed: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    kept_as: tuple[tuple[str, DType | BlockFormat], ...] = ()

    def __post_init__(self) -> None:
        for name in ("update", "hyper"):
            if not callable(getattr(self, name)):
                raise ArgumentError(f"{name} of a rule must be a function, got {shown(getattr(self, name))}")
        fields: Any = self.state
        if isinstance(fields, str) or not isinstance(fields, Sequence | Mapping):
            raise ArgumentError(
                'state must be a tuple of names such as ("exp_avg",), or a dict of the number that each starts at, got '
                f"{shown(fields)}"
            )
        for name in fields:
            if not isinstance(name, str) or not name.isidentifier() or name == "step":
                raise ArgumentError(
                    f"state must name its fields as Python names other than step, got {shown(name)}; a rule reads them "
                    "as s.<name>, and the step as h.step"
                )
        if len(set(fields)) != len(fields):
            raise ArgumentError(f"state must name each field once, got {shown(fields)}")
        starts = tuple(fields.values()) if isinstance(fields, Mapping) else self.starts or (0.0,) * len(fields)
        if len(starts) != len(fields):
            raise ArgumentError(f"starts must have a number for each of {len(fields)} field(s), got {shown(starts)}")
        checked = [validation.real(f"the start of {name}", start) for name, start in zip(fields, starts, strict=True)]
        object.__setattr__(self, "state", tuple(fields))
        object.__setattr__(self, "starts", tuple(checked))
        for kind in ("signed", "unsigned"):
            names = getattr(self, kind)
            if not isinstance(names, tuple) or not set(names) <= set(fields):
                raise ArgumentError(
                    f"{kind} must be a tuple of names of the state, which is {', '.join(fields) or 'empty'}, got "
                    f"{shown(names)}"
                )
        flag("fused_adam", self.fused_adam)
        if self.per_tensor is not None and (self.fused_adam or not isinstance(self.per_tensor, PerTensor)):
            raise ArgumentError(
                f"per_tensor must be a PerTensor or None, without fused_adam, got {shown(self.per_tensor)} with "
                f"fused_adam={self.fused_adam}"
            )

    def started(self) -> dict[str, float]:
        """What each state field starts at, by name."""
        return dict(zip(self.state, self.starts, strict=True))

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shape of each state field of a parameter of this shape, by name."""
        own = None if self.per_tensor is None else self.per_tensor.fields
        return dict.fromkeys(self.state, shape) | ({} if own is None else dict(own(shape)))

    def columns(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The hyper-parameter columns, in the order in which the device holds them."""
        if self.fused_adam:
            return ADAM_COLUMNS
        own = tuple(self.hyper(group))
        if self.per_tensor is not None and RATIO in own:
            raise ArgumentError(
                f"hyper of a rule with per_tensor must not return {RATIO!r}, which is each tensor's own factor; give "
                "it another name"
            )
        return (*ROW, *own)

    def expression(self, parameter: DType, gradient: DType, columns: tuple[str, ...]) -> Expression:
        """The traced update for parameters and gradients of these dtypes.

        Raises
        ------
        TraceError
            If the update branches on a value, calls what is not an operator, or returns the wrong number of values;
            the message names the line.
        """
        state = tuple(self.state)
        if self.per_tensor is not None:
            return _trace_direction(self.per_tensor.direction, state, self.starts, parameter, gradient, columns)
        return _trace(self.update, state, parameter, gradient, (*columns, *COUNTERS), self.kept_as)

    def second_expression(self, parameter: DType, columns: tuple[str, ...]) -> Expression:
        """The traced update of a rule with ``per_tensor``: its inputs are ``(p, u, *state)``."""
        return _trace_second(self.update, tuple(self.state), self.starts, parameter, columns)

    def tensor_rule(self, parameter: DType, gradient: DType, columns: tuple[str, ...]) -> TensorRule:
        """Both passes of a rule with ``per_tensor``, and what comes between.

        Raises
        ------
        TraceError
            As :meth:`expression`.
        """
        ratio, taken = self._ratio(parameter.compute, columns)
        dtypes = (parameter, *(parameter.compute for _ in (*self.state, "u")))
        p, *fields = (Node("input", (), dtype.compute, i) for i, dtype in enumerate(dtypes))
        if "master" in self.state:  # the parameter is its master weight wherever that rounds to it
            master = fields[tuple(self.state).index("master")]
            p = where(equal(rounded(master, parameter), p), master, p)
        measured = [build([{"p": p, "u": fields[-1]}[name]], dtypes, name="measured") for name in taken]
        direction = self.expression(parameter, gradient, columns)
        return TensorRule(direction, tuple(measured), ratio, self.second_expression(parameter, columns))

    def _ratio(self, compute: DType, columns: tuple[str, ...]) -> tuple[Expression, list[str]]:
        """What ``per_tensor.ratio`` computes of the norms and the size, and of what it reads norms, in that order."""
        assert self.per_tensor is not None
        ratio = self.per_tensor.ratio
        n = _Names("n", "value of a tensor", {name: Node("hyper", (), compute, f".{name}") for name in OF_TENSORS})
        names = (*columns[len(ROW) :], *COUNTERS[:3])
        h = _Names("h", "hyper-parameter", {name: Node("hyper", (), compute, name) for name in names})
        returned = _called(ratio, (n, h))
        if isinstance(returned, int | float) and not isinstance(returned, bool):
            returned = constant(returned, compute)
        if not isinstance(returned, Node) or returned.dtype.kind != "f":
            raise TraceError(f"{ratio.__qualname__} must return one real number {_place(ratio)}, got {shown(returned)}")
        read = {str(node.value) for node in nodes_of([returned]) if node.op == "hyper"}
        taken = [name for name in OF_TENSORS[:2] if f".{name}" in read]
        places = {f".{name}": i for i, name in enumerate((*taken, "size"))}

        def given(node: Node) -> Node:
            is_input = node.op == "hyper" and node.value in places
            return Node("input", (), compute, places[str(node.value)]) if is_input else node

        (made,) = rewrite([returned], given)
        return build([cast(made, compute)], (compute,) * len(places), stored=(compute,), name="ratio"), taken

    def text(self, dtype: DType, columns: tuple[str, ...]) -> str:
        """The update as it was traced for parameters and gradients of a dtype: a Python function of one element."""
        fields = tuple(self.state)
        first = self.expression(dtype, dtype, columns)
        if self.per_tensor is None:
            return _function_text(self.update, first.outputs, "g", fields, dtype, columns)
        # The first pass has the parameter first and the direction last.
        outputs = (first.outputs[-1], *first.outputs[1:-1])
        second = self.second_expression(dtype, columns).outputs
        return "\n\n".join(
            [
                _function_text(self.per_tensor.direction, outputs, "g", fields, dtype, columns),
                _function_text(self.update, second, "u", fields, dtype, (*columns, RATIO)),
            ]
        )


def _function_text(
    update: Update,
    outputs: tuple[Node, ...],
    gradient: str,
    state: tuple[str, ...],
    dtype: DType,
    columns: tuple[str, ...],
) -> str:
    names: dict[tuple[str, int | str], str] = {("input", 0): "p", ("input", 1): gradient}
    names |= {("input", i): f"s.{name}" for i, name in enumerate(state, 2)}
    names |= {("hyper", name): f"h.{name}" for name in (*columns, *COUNTERS)}
    lines, results = python_text(outputs, names)
    name = update.__qualname__.rpartition(".")[2]
    name = name if name.isidentifier() else "update"  # a lambda
    head = f"def {name}(p, {gradient}, s, h):  # {dtype}, computed in {dtype.compute}"
    return "\n    ".join([head, *lines, f"return {', '.join(results)}"])


@dataclass(frozen=True, slots=True)
class RuleChoice:
    """Which rule an optimizer runs: always the same one, or what a function of its groups returns."""

    choice: Rule | Callable[[Sequence[Mapping[str, Any]]], Rule]

    def __call__(self, groups: Sequence[Mapping[str, Any]]) -> Rule:
        rule = self.choice if isinstance(self.choice, Rule) else self.choice(groups)
        if not isinstance(rule, Rule):
            raise ArgumentError(f"the function that chooses an optimizer's rule must return a Rule, got {shown(rule)}")
        return rule


def check_author(defaults: Any, rule: Any, check: Any, check_group: Any) -> None:
    """Refuse what the author of an optimizer may hand to the base class by mistake."""
    if not isinstance(defaults, Mapping) or not all(isinstance(name, str) for name in defaults):
        raise HyperParameterError(f"defaults must be a dict of hyper-parameters by name, got {shown(defaults)}")
    if taken := [name for name in ("params", "names", *NOTES) if name in defaults]:
        raise HyperParameterError(f"a hyper-parameter cannot be called {taken[0]!r}; that key of a group is taken")
    if not isinstance(rule, Rule) and not callable(rule):
        raise HyperParameterError(
            f"rule must be a Rule, or a function of the groups that returns one, got {shown(rule)}"
        )
    if check is not None and not (isinstance(check, Mapping) and all(map(callable, check.values()))):
        raise HyperParameterError(f"check must be a dict of functions by hyper-parameter, got {shown(check)}")
    validation.function("check_group", check_group)


@lru_cache(maxsize=256)
def _trace(
    update: Update,
    state: tuple[str, ...],
    parameter: DType,
    gradient: DType,
    names: tuple[str, ...],
    kept_as: tuple[tuple[str, DType | BlockFormat], ...] = (),
) -> Expression:
    """The update with ``h`` of these names, but for :data:`ROW`, which the launch reads itself.

    If it reads ``h.element``, that is one more input behind the others.
    """
    outputs, inputs = _traced(update, state, parameter, gradient, names, "p", dict(kept_as))
    stored = (parameter, *inputs[2:])
    nodes = nodes_of([output for output in outputs if isinstance(output, Node)])
    if any(node.op == "input" and node.value == len(inputs) for node in nodes):
        inputs = (*inputs, int32)
    return build(outputs, inputs, stored=stored, name=update.__qualname__)


@lru_cache(maxsize=256)
def _trace_direction(
    direction: Update,
    state: tuple[str, ...],
    starts: tuple[float, ...],
    parameter: DType,
    gradient: DType,
    columns: tuple[str, ...],
) -> Expression:
    """The first pass of a rule with per-tensor values: its inputs are ``(p, g, *state, u)``."""
    names = (*columns, *COUNTERS[:3])
    (u, *moved), inputs = _traced(direction, state, parameter, gradient, names, "u")
    compute = parameter.compute
    inputs = (*inputs, compute)
    outputs = (Node("input", (), compute, 0), *moved, u)
    traced = build(outputs, inputs, stored=(parameter, *inputs[2:]), name=direction.__qualname__)
    kept = [Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs[:-1]) if i != 1]
    return _keeping_zeros(traced, starts, [*kept, constant(0.0, compute)])


@lru_cache(maxsize=256)
def _trace_second(
    update: Update, state: tuple[str, ...], starts: tuple[float, ...], parameter: DType, columns: tuple[str, ...]
) -> Expression:
    """The second pass of a rule with per-tensor values: its inputs are ``(p, u, *state)``."""
    names = (*columns, *COUNTERS[:3], RATIO)
    outputs, inputs = _traced(update, state, parameter, parameter.compute, names, "p")
    traced = build(outputs, inputs, stored=(parameter, *inputs[2:]), name=update.__qualname__)
    kept = [Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs) if i != 1]
    return _keeping_zeros(traced, starts, kept)


def _keeping_zeros(traced: Expression, starts: Sequence[float], kept: Sequence[Node]) -> Expression:
    """A pass that returns ``kept`` where whatever it reads is zero, or of the state as it started.

    That is what padding holds. A rule maps it to itself, but for 0/0 and 0·inf, whose NaN would reach a tensor's norm.
    An output that is ``kept`` anyway stays so, and what only such outputs read is not looked at.
    """
    pairs = list(zip(kept, traced.outputs, strict=True))
    moved = [pair for pair in pairs if not _same_leaf(*pair)]
    read = {node.value for node in nodes_of([node for pair in moved for node in pair]) if node.op == "input"}
    untouched: Node | None = None
    for i, (dtype, begun) in enumerate(zip(traced.inputs, (0.0, 0.0, *starts), strict=False)):
        if i in read:
            as_begun = equal(Node("input", (), dtype.compute, i), begun)
            untouched = as_begun if untouched is None else untouched & as_begun
    outputs = [new if untouched is None or _same_leaf(old, new) else where(untouched, old, new) for old, new in pairs]
    return build(outputs, traced.inputs, stored=traced.stored, name=traced.name)


def _same_leaf(one: Node, other: Node) -> bool:
    return one.op == other.op == "input" and one.value == other.value


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What an author's function returns for traced values."""
    try:
        return function(*arguments)
    except TraceError:
        raise
    except Exception as error:  # whatever goes wrong in a rule, its author is told the line
        raise TraceError(
            f"{function.__qualname__} cannot be traced: {error} {_line_of(error, function)}; a rule is arithmetic on "
            "p, g, s.<name> and h.<name> with the functions of netcl.expression"
        ) from error


def _traced(
    update: Update,
    state: tuple[str, ...],
    parameter: DType,
    gradient: DType,
    names: tuple[str, ...],
    first: str,
    kept_as: Mapping[str, DType | BlockFormat] | None = None,
) -> tuple[tuple[Any, ...], tuple[DType, ...]]:
    """What an update returns, checked, and the dtypes of its inputs; ``first`` is what it returns before its state."""
    compute = parameter.compute
    kept = [(kept_as or {}).get(name, compute) for name in state]
    inputs = (parameter, gradient, *(dtype.compute if isinstance(dtype, BlockFormat) else dtype for dtype in kept))
    p, g, *fields = (Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs))
    hyper = {name: Node("hyper", (), compute, name) for name in names[len(ROW) :]}
    if kept_as is not None and "element" not in hyper:
        hyper["element"] = Node("input", (), int32, len(inputs))
    s = _Names("s", "state field", dict(zip(state, fields, strict=True)))
    h = _Names("h", "hyper-parameter", hyper)
    returned = _called(update, (p, g, s, h))
    outputs = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    results = f"({', '.join((first, *state))})"
    if len(outputs) != 1 + len(state):
        raise TraceError(
            f"{update.__qualname__} must return {results}: {1 + len(state)} value(s), got {len(outputs)} "
            f"{_place(update)}"
        )
    for name, output in zip((first, *state), outputs, strict=True):
        if not isinstance(output, Node | int | float) or (isinstance(output, Node) and output.dtype.kind == "c"):
            got = f"a {output.dtype} value" if isinstance(output, Node) else type(output).__name__
            raise TraceError(
                f"{update.__qualname__} must return {results} as real traced values, got {got} for {name} "
                f"{_place(update)}"
            )
    return outputs, inputs


class _Names:
    """The values that a rule reads as ``s.<name>`` or ``h.<name>``."""

    __slots__ = ("_called", "_kind", "_values")
    _called: str
    _kind: str
    _values: Mapping[str, Node]

    def __init__(self, called: str, kind: str, values: Mapping[str, Node]) -> None:
        for slot, value in (("_called", called), ("_kind", kind), ("_values", values)):
            object.__setattr__(self, slot, value)

    def __getattr__(self, name: str) -> Node:
        if name.startswith("__"):  # Python asks for such names too, and may go without
            raise AttributeError(name)
        found = self._values.get(name)
        if found is None:
            known = ", ".join(f"{self._called}.{known}" for known in self._values) or "none"
            raise TraceError(
                f"{self._called}.{name} is not a {self._kind} of this rule {caller(__file__)}; there are: {known}"
            )
        return found

    def __setattr__(self, name: str, value: object) -> None:
        raise TraceError(
            f"{self._called}.{name} cannot be assigned to {caller(__file__)}; an update returns its new values: "
            "(p, *state)"
        )


def _line_of(error: BaseException, update: Update) -> str:
    """The last line of the rule's own file that was reached, or where the rule left this one."""
    frames = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)][1:]
    own = [(code, line) for code, line in frames if code.co_filename == _file(update)] or frames[:1]
    if not own:  # its arguments did not fit
        return _place(update)
    code, line = own[-1]
    return f"(in {code.co_name}, line {line}: {linecache.getline(code.co_filename, line).strip() or '?'!r})"


def _file(update: Update) -> str:
    code = getattr(unwrap(update), "__code__", None)
    return "" if code is None else str(code.co_filename)


def _place(update: Update) -> str:
    code = getattr(unwrap(update), "__code__", None)
    return "" if code is None else f"(defined in {code.co_filename}, line {code.co_firstlineno})"
