"""ParameterGroup: the hyper-parameters that some parameters share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

from netcl.errors import HyperParameterError


class ParameterGroup(dict[str, Any]):
    """Hyper-parameters by name, checked whenever one is set.

    ``fixed`` names those that stay as they were given.

    Attributes
    ----------
    version : int
        Counts the assignments, so that a step need not compare values to see that there were none.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        check: Callable[[Mapping[str, Any]], dict[str, Any]],
        fixed: Collection[str] = (),
    ) -> None:
        self._check = check
        self._fixed = fixed
        self.version = 0
        super().__init__(check(values))

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        changes = dict(*args, **kwargs)
        for name, value in changes.items():
            if name not in self and name not in ("name", "initial_lr"):
                known = ", ".join(key for key in self if key not in ("params", "names"))
                raise HyperParameterError(f"{name!r} is no hyper-parameter of this group; it has {known}")
            if name in self._fixed and value != self[name]:
                raise HyperParameterError(
                    f"{name} of a parameter group is chosen when it is made and cannot become {value!r}; give it "
                    "to the optimizer, or to add_param_group()"
                )
        super().update(self._check({**self, **changes}))
        self.version += 1
