"""ParameterGroup: the hyper-parameters that some parameters share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Self

from netcl.array import Array
from netcl.errors import HyperParameterError
from netcl.optim import validation
from netcl.validation import shown

NOTES: Mapping[str, Callable[[str, Any], Any]] = {"name": validation.text, "initial_lr": validation.not_negative}
"""What a group may hold besides hyper-parameters, each with its check: a name, and where schedules start from."""

_BASE = "initial_"
"""What the name of a note begins with that holds where the schedules of a hyper-parameter start from."""

_BETAS = {"beta1": 0, "beta2": 1}
"""What schedules call the items of ``betas``."""

_FIXED = ("params", "names")


def is_note(name: Any, values: Mapping[str, Any]) -> bool:
    """Whether a group of these hyper-parameters may hold ``name`` without its being one of them."""
    if name in NOTES:
        return True
    if not isinstance(name, str) or not name.startswith(_BASE):
        return False
    value = read(values, name.removeprefix(_BASE))
    return isinstance(value, float | int) and not isinstance(value, bool)


def base_name(hyper: str) -> str:
    """The name of the note that holds where the schedules of a hyper-parameter start from."""
    return _BASE + hyper


def read(values: Mapping[str, Any], hyper: str) -> Any:
    """A hyper-parameter, or ``beta1`` or ``beta2``; None where there is none of that name."""
    if hyper in _BETAS and hyper not in values and "betas" in values:
        return values["betas"][_BETAS[hyper]]
    return values.get(hyper)


def written(values: Mapping[str, Any], hyper: str, value: float) -> dict[str, Any]:
    """The assignment that gives :func:`read` this value."""
    if hyper in _BETAS and hyper not in values:
        betas = list(values["betas"])
        betas[_BETAS[hyper]] = value
        return {"betas": tuple(betas)}
    return {hyper: value}


class ParameterGroup(dict[str, Any]):
    """Hyper-parameters by name, checked whenever one is set.

    A name that the group does not have is refused, but for ``name`` and ``initial_lr``, and ``initial_`` before any
    other hyper-parameter's name. Copies, pickles among them, are plain dicts.

    Parameters
    ----------
    values : mapping
        ``"params"``, ``"names"`` and every hyper-parameter.
    check : callable
        ``check(values, names)`` returns ``values``, which it may change, with those of these names checked, or raises
        HyperParameterError.
    fixed : collection of str
        Those that stay as they were given; only a checkpoint may bring another value.

    Attributes
    ----------
    version : int
        Counts the assignments, so that a step need not compare values to see that there were none.
    schedules : list
        What scales its hyper-parameters, in the order in which it is applied. Copies have none.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        check: Callable[[dict[str, Any], Iterable[str]], dict[str, Any]],
        fixed: Collection[str] = (),
    ) -> None:
        self._check = check
        self._fixed = fixed
        self.version = 0
        self.schedules: list[Any] = []
        super().__init__(check(dict(values), values))

    def over(self, parameters: Sequence[Array], names: Sequence[str | None]) -> ParameterGroup:
        """A group of other parameters with these hyper-parameters."""
        values = {**self, "params": list(parameters), "names": list(names)}
        return ParameterGroup(values, self._check, self._fixed)

    def checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What the group would hold after these assignments. Changes nothing.

        Raises
        ------
        HyperParameterError
            If a name is unknown or a value out of range.
        """
        for name, value in changes.items():
            if name not in self and not is_note(name, self):
                known = ", ".join(key for key in self if key not in _FIXED)
                raise HyperParameterError(f"{shown(name)} is not a hyper-parameter of this group; it has {known}")
            if name in _FIXED and value is not self[name]:
                raise HyperParameterError(
                    f'group["{name}"] cannot be replaced, got {shown(value)}; use add_param_group(), or build another '
                    "optimizer"
                )
        return self._check({**self, **changes}, changes)

    def assigned(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`checked`, without a change of what is fixed. What schedules start from is rescaled alike."""
        for name in self._fixed:
            if name in changes and changes[name] is not self[name]:
                raise HyperParameterError(
                    f"{name} of a parameter group is chosen when it is made and cannot become {shown(changes[name])}; "
                    "give it to the optimizer, or to add_param_group()"
                )
        return self.checked({**changes, **self._rebased(changes)})

    def _rebased(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Where schedules start from after these assignments: scaled as the value is, or the value if none scales it.

        So what a schedule has made of the value goes on to hold, and the assignment with it.
        """
        names = [name for name in self if name.startswith(_BASE) and name not in changes]
        if not names:
            return {}
        checked = self.checked(changes)
        rebased = {}
        for name in names:
            hyper = name.removeprefix(_BASE)
            before, after = read(self, hyper), read(checked, hyper)
            if not {hyper, "betas" if hyper in _BETAS else hyper} & set(changes):
                continue
            scaled = any(schedule.hyper == hyper for schedule in self.schedules)
            # Where the schedules have made it 0, no ratio says what the base was meant to be.
            base = self[name] * (after / before) if scaled and before != 0.0 else after
            rebased[name] = base if abs(base) <= validation.LARGEST else after
        return rebased

    def replace(self, values: Mapping[str, Any]) -> None:
        """Hold what :meth:`checked` returned."""
        if len(values) < len(self):
            super().clear()
        super().update(values)
        self.version += 1

    def __setitem__(self, name: str, value: Any) -> None:
        self.replace(self.assigned({name: value}))

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        try:
            changes = dict(*args, **kwargs)
        except (TypeError, ValueError):
            raise HyperParameterError(
                f"a group is updated from a dict of hyper-parameters, got {', '.join(map(shown, args))}"
            ) from None
        self.replace(self.assigned(changes))

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def __delitem__(self, name: str) -> None:
        self._refuse_removal(name)
        super().__delitem__(name)

    def pop(self, name: str, *default: Any) -> Any:
        self._refuse_removal(name)
        return super().pop(name, *default)

    def popitem(self) -> tuple[str, Any]:
        self._refuse_removal(next(reversed(self)))
        return super().popitem()

    def clear(self) -> None:
        self._refuse_removal(next(iter(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def _refuse_removal(self, name: str) -> None:
        if name in self and not is_note(name, self):
            raise HyperParameterError(f"{shown(name)} cannot be taken out of its group; assign another value")


def assign(groups: Sequence[ParameterGroup], changes: Iterable[Mapping[str, Any]]) -> None:
    """Make these assignments, some for each group, or none of them if one is refused."""
    values = [group.assigned(each) for group, each in zip(groups, changes, strict=True)]
    for group, held in zip(groups, values, strict=True):
        group.replace(held)


def as_groups(params: Any) -> list[Mapping[str, Any]]:
    """What an optimizer was given to optimize, as parameter groups."""
    if isinstance(params, Array) or hasattr(params, "__dlpack__"):
        raise HyperParameterError(
            f"params must be an iterable of tensors, got a single {type(params).__name__}; write [tensor]"
        )
    if isinstance(params, Mapping):
        raise HyperParameterError(
            "params must be an iterable of tensors, of (name, tensor) pairs or of parameter groups, got a single "
            f"{type(params).__name__}; write [group], or model.parameters()"
        )
    given = validation.listed("params", params)
    if not given:
        raise HyperParameterError(
            "the optimizer got an empty parameter list; pass model.parameters() of a model that has some"
        )
    if isinstance(given[0], Mapping):
        for group in given:
            if not isinstance(group, Mapping) or "params" not in group:
                raise HyperParameterError('a parameter group is a dict with "params" and hyper-parameters')
        return given
    return [{"params": given}]


def refuse_duplicates(groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a parameter that was given twice."""
    seen: dict[int, str] = {}
    for number, group in enumerate(groups):
        for position, p in enumerate(group["params"]):
            where = f"parameter {position} of group {number}"
            if id(p) in seen:
                raise HyperParameterError(f"{where} is also {seen[id(p)]}; give each parameter once")
            seen[id(p)] = where
