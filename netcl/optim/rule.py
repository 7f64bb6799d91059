"""Rule: what an optimizer author writes. The state each parameter keeps, and the arithmetic of one update."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import unwrap
from traceback import walk_tb
from typing import Any

from netcl.backends.base import ADAM_COLUMNS, COUNTERS, ROW
from netcl.dtypes import DType
from netcl.errors import ArgumentError, HyperParameterError, TraceError
from netcl.expression import Expression, Node, build, caller
from netcl.expression_text import python_text
from netcl.optim import validation
from netcl.optim.engine.group import NOTES
from netcl.validation import flag, shown

Update = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One elementwise update, written once for every backend.

    Parameters
    ----------
    update : callable
        ``update(p, g, s, h) -> (p, *state)``: plain arithmetic (``+ - * /`` and the functions of
        :mod:`netcl.expression`) on one element of the parameter ``p``, its gradient ``g``, the state ``s.<name>`` and
        the hyper-parameters ``h.<name>``. Besides the rule's own names ``h`` has ``step`` (from 1), and
        ``bias_correction1`` and ``bias_correction2`` if ``hyper`` gives ``log_beta1`` and ``log_beta2``.
        It must map zeros to zeros, which is what padding holds.
    hyper : callable
        ``hyper(group) -> dict``: the numbers that ``h`` holds, made in double from a parameter group.
    state : tuple of str, or mapping of str to float
        Names of the state fields, in the parameter's compute dtype. Each starts at zero, or at the number that a
        mapping has for it. Afterwards the attribute holds the names.
    fused_adam : bool, default False
        The backend's own ``fused_adam`` runs this update; ``update`` then only states what it computes.

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
        flag("fused_adam", self.fused_adam)

    def started(self) -> dict[str, float]:
        """What each state field starts at, by name."""
        return dict(zip(self.state, self.starts, strict=True))

    def columns(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The hyper-parameter columns, in the order in which the device holds them."""
        return ADAM_COLUMNS if self.fused_adam else (*ROW, *self.hyper(group))

    def expression(self, parameter: DType, gradient: DType, columns: tuple[str, ...]) -> Expression:
        """The traced update for parameters and gradients of these dtypes.

        Raises
        ------
        TraceError
            If the update branches on a value, calls what is not an operator, or returns the wrong number of values;
            the message names the line.
        """
        return _trace(self.update, tuple(self.state), parameter, gradient, columns)

    def text(self, dtype: DType, columns: tuple[str, ...]) -> str:
        """The update as it was traced for parameters and gradients of a dtype: a Python function of one element."""
        expression = self.expression(dtype, dtype, columns)
        names: dict[tuple[str, int | str], str] = {("input", 0): "p", ("input", 1): "g"}
        names |= {("input", i): f"s.{name}" for i, name in enumerate(self.state, 2)}
        names |= {("hyper", name): f"h.{name}" for name in (*columns, *COUNTERS)}
        lines, results = python_text(expression.outputs, names)
        name = self.update.__qualname__.rpartition(".")[2]
        name = name if name.isidentifier() else "update"  # a lambda
        head = f"def {name}(p, g, s, h):  # {dtype}, computed in {dtype.compute}"
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
    update: Update, state: tuple[str, ...], parameter: DType, gradient: DType, columns: tuple[str, ...]
) -> Expression:
    compute = parameter.compute
    inputs = (parameter, gradient, *(compute for _ in state))
    p, g, *fields = (Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs))
    hyper = {name: Node("hyper", (), compute, name) for name in (*columns[len(ROW) :], *COUNTERS[:3])}
    s = _Names("s", "state field", dict(zip(state, fields, strict=True)))
    h = _Names("h", "hyper-parameter", hyper)
    try:
        returned = update(p, g, s, h)
    except TraceError:
        raise
    except Exception as error:  # whatever goes wrong in a rule, its author is told the line
        raise TraceError(
            f"{update.__qualname__} cannot be traced: {error} {_line_of(error, update)}; a rule is arithmetic on p, g, "
            "s.<name> and h.<name> with the functions of netcl.expression"
        ) from error
    outputs = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    if len(outputs) != 1 + len(state):
        raise TraceError(
            f"{update.__qualname__} must return {_results(state)}: {1 + len(state)} value(s), got {len(outputs)} "
            f"{_place(update)}"
        )
    for name, output in zip(("p", *state), outputs, strict=True):
        if not isinstance(output, Node | int | float) or (isinstance(output, Node) and output.dtype.kind == "c"):
            got = f"a {output.dtype} value" if isinstance(output, Node) else type(output).__name__
            raise TraceError(
                f"{update.__qualname__} must return {_results(state)} as real traced values, got {got} for {name} "
                f"{_place(update)}"
            )
    return build(outputs, inputs, stored=(parameter, *(compute for _ in state)), name=update.__qualname__)


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


def _results(state: tuple[str, ...]) -> str:
    return f"({', '.join(('p', *state))})"


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
