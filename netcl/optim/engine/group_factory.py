"""GroupFactory: what a user hands to an optimizer, as checked parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from netcl.array import Array
from netcl.backends import Selection, get_backend
from netcl.errors import DTypeError, HyperParameterError, NetclError, TapeError
from netcl.optim import options, validation
from netcl.optim.engine.group import NOTES, ParameterGroup, is_note
from netcl.optim.engine.host_parameters import HostParameters
from netcl.optim.rule import RuleChoice
from netcl.validation import shown

Check: TypeAlias = Callable[[str, Any], Any]


class GroupFactory:
    """Makes the parameter groups of one optimizer.

    Parameters
    ----------
    kind : str
        The name of its class, for messages.
    defaults : mapping
        Every hyper-parameter with its value.
    check : mapping of str to callable
        ``check[name](name, value)`` returns the value to keep or raises HyperParameterError.
    check_group : callable or None
        Refuses combinations that do not go together.
    choose_rule : RuleChoice
    fixed : tuple of str
        The hyper-parameters of a group that are chosen when it is made.
    selection : str, Device or Backend, optional
        Where to compute, for parameters that are arrays of other libraries.

    Attributes
    ----------
    defaults : dict
        Checked.
    host : HostParameters or None
        The parameters, if they are arrays of other libraries.
    """

    def __init__(
        self,
        kind: str,
        defaults: Mapping[str, Any],
        check: Mapping[str, Check],
        check_group: Callable[[Mapping[str, Any]], None] | None,
        choose_rule: RuleChoice,
        fixed: tuple[str, ...],
        selection: Selection,
    ) -> None:
        self._kind = kind
        self._check = {"lr": validation.not_negative, **NOTES, **check}
        self._check_group = check_group
        self._choose_rule = choose_rule
        self._fixed = fixed
        self._selection = selection
        self._has_unchecked = not set(defaults) <= set(self._check)
        self._has_tensors = False
        self.host: HostParameters | None = None
        self.defaults = self._each_checked(dict(defaults), defaults)

    def made(self, group: Mapping[str, Any], where: str) -> ParameterGroup:
        """A parameter group, as a user gives it, with everything in it checked."""
        group = dict(group)
        options.take_out_torchs(group)
        known = {*self.defaults, "params", "names"}
        unknown = {name for name in group if name not in known and not is_note(name, self.defaults)}
        if unknown:
            raise HyperParameterError(
                f"{where} has unknown hyper-parameter(s) {', '.join(sorted(map(str, unknown)))}; "
                f"{self._kind} has {', '.join(self.defaults)}"
            )
        names, params = self._named(group["params"], where)
        return self.held({**self.defaults, **group, "params": params, "names": names})

    def held(self, values: Mapping[str, Any]) -> ParameterGroup:
        """A parameter group of these values, tensors and names among them."""
        return ParameterGroup(values, self._checked, self._fixed)

    def extend(self, settings: Mapping[str, tuple[Any, Check]]) -> Callable[[], None]:
        """Have further hyper-parameters, each with its default and check; returns what takes that back.

        Raises
        ------
        HyperParameterError
            If there is one of that name, or a default does not pass its check; nothing is changed then.
        """
        for name in settings:
            if name in self.defaults or name in ("params", "names", *NOTES):
                raise HyperParameterError(
                    f"{self._kind} has a hyper-parameter {name!r} already; give this one another name, or build the "
                    "optimizer anew"
                )
        checked = {name: check(name, default) for name, (default, check) in settings.items()}
        self.defaults.update(checked)
        self._check.update({name: check for name, (_, check) in settings.items()})

        def take_back() -> None:
            for name in settings:
                del self.defaults[name], self._check[name]

        return take_back

    def _named(self, params: Any, where: str) -> tuple[list[str | None], list[Array]]:
        """Names and tensors of one group; a tensor given under two names is tied and kept once."""
        single = isinstance(params, Array) or hasattr(params, "__dlpack__")
        given = [params] if single else validation.listed(f'"params" of {where}', params)
        if not given:
            raise HyperParameterError(f"{where} has an empty parameter list; leave the group out or give it tensors")
        names: list[str | None] = []
        tensors: list[Array] = []
        for position, item in enumerate(given):
            name, tensor = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
            if name is not None and not isinstance(name, str):
                raise HyperParameterError(
                    f"{where}, parameter {position} is a pair whose first item must be a name, got {shown(name)}; give "
                    "tensors, or (name, tensor) pairs"
                )
            label = name or f"{where}, parameter {position}"
            tensor = self._as_parameter(tensor, label)
            if not tensor.dtype.is_floating:
                raise DTypeError(f"{label} has dtype {tensor.dtype}; only floating-point parameters can be optimized")
            if tensor.node is not None:
                raise TapeError(f"{label} was computed on a tape; optimize the leaves it was computed from")
            if name is not None and any(tensor is known for known in tensors):
                continue
            if name is not None and name in names:
                raise HyperParameterError(
                    f"{where} has two parameters of the name {name!r}; checkpoints tell parameters apart by name"
                )
            names.append(name)
            tensors.append(tensor)
        return names, tensors

    def _as_parameter(self, x: Any, label: str) -> Array:
        """A Tensor itself; what stands for a host array."""
        if isinstance(x, Array):
            if self.host is not None:
                raise DTypeError(f"{label} is a Tensor among host arrays; give an optimizer one kind")
            if self._selection is not None:
                raise HyperParameterError(
                    f"backend={self._selection!r} is for host arrays, and {label} is a Tensor on {x.device}, where it "
                    "is updated; move the model with to() before building the optimizer"
                )
            self._has_tensors = True
            return x
        if self.host is None:
            if self._has_tensors:
                raise DTypeError(f"{label} is a {type(x).__name__} among Tensors; give an optimizer one kind")
            self.host = HostParameters(get_backend(self._selection))
        return self.host.take(x, label)

    def _each_checked(self, values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        for name in names:
            if name not in self._check:
                if is_note(name, values):
                    values[name] = validation.real(name, values[name])
            else:
                try:
                    values[name] = self._check[name](name, values[name])
                except NetclError:
                    raise
                except (TypeError, ValueError) as error:  # an author's check for numbers got something else
                    raise HyperParameterError(
                        f"{name}={shown(values[name])} does not pass its check: {error}"
                    ) from error
        return values

    def _checked(self, values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """The values of a group, with those of ``names`` checked: the others were when they were set."""
        checked = self._each_checked(values, names)
        if self._check_group is not None:
            self._check_group(checked)
        if self._has_unchecked:
            validation.columns(self._choose_rule([checked]).hyper, checked)
        return checked
