"""CommonOptions: what every optimizer takes besides its own hyper-parameters, declared and documented once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from netcl.backends import Selection
from netcl.optim import validation

CHECKS: Mapping[str, Callable[[str, Any], Any]] = {"maximize": validation.flag, "master_weights": validation.flag}
"""The checks of those options that are hyper-parameters of a group."""

DEFAULTS: Mapping[str, Any] = {"maximize": False, "master_weights": True}


class CommonOptions(TypedDict, total=False):
    """The keyword arguments of every optimizer."""

    maximize: bool
    master_weights: bool
    backend: Selection


_PLACE = "    **common\n"
"""The line of a class's docstring that the documentation of the options replaces."""

_DOCUMENTED = """\
    maximize : bool, default False
        Ascend instead of descend.
    master_weights : bool, default True
        Keep a float32 copy of float16 and bfloat16 parameters and update that, so that small steps are not rounded
        away; 4 bytes per element. Without effect on wider parameters.
    backend : str, Device or Backend, optional
        Where host arrays are updated; Tensors are updated where they are.
"""


def declare(cls: type) -> None:
    """Show the common options in the signature and docstring of an optimizer that takes them as ``**common``."""
    constructor = cls.__dict__.get("__init__")
    if constructor is None:
        return
    signature = inspect.signature(constructor)
    *parameters, last = signature.parameters.values()
    if last.kind is not inspect.Parameter.VAR_KEYWORD or last.name != "common":
        return
    for name, annotation in CommonOptions.__annotations__.items():
        kind, default = inspect.Parameter.KEYWORD_ONLY, DEFAULTS.get(name)
        shown = getattr(annotation, "__forward_arg__", annotation)
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=shown))
    constructor.__signature__ = signature.replace(parameters=parameters)
    if cls.__doc__ is not None:
        cls.__doc__ = cls.__doc__.replace(_PLACE, _DOCUMENTED)


def refuse_unknown(cls: type, common: Mapping[str, Any]) -> None:
    """Refuse a keyword argument that no optimizer has, as Python does."""
    for name in common:
        if name not in CommonOptions.__annotations__:
            raise TypeError(f"{cls.__name__}.__init__() got an unexpected keyword argument {name!r}")
