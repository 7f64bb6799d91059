"""ParameterGroup: the hyper-parameters that some parameters share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self


class ParameterGroup(dict[str, Any]):
    """Hyper-parameters by name, checked whenever one is set.

    Attributes
    ----------
    version : int
        Counts the assignments, so that a step need not compare values to see that there were none.
    """

    def __init__(self, values: Mapping[str, Any], check: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._check = check
        self.version = 0
        super().__init__(check(values))

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(self._check({**self, **dict(*args, **kwargs)}))
        self.version += 1
