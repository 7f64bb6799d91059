"""CommonOptions: what every optimizer takes besides its own hyper-parameters, declared and documented once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict
from warnings import warn

from netcl.backends import Selection
from netcl.errors import HyperParameterError
from netcl.optim import validation
from netcl.optim.engine.narrow_storage import ROUNDINGS, STATE_DTYPES
from netcl.validation import shown

CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "maximize": validation.flag,
    "master_weights": validation.flag,
    "rounding": validation.one_of(ROUNDINGS),
    "state_dtype": validation.one_of((None, *STATE_DTYPES)),
    "rounding_seed": validation.seed,
}
"""The checks of those options that are hyper-parameters of a group."""

DEFAULTS: Mapping[str, Any] = {
    "maximize": False, "master_weights": True, "rounding": "nearest", "state_dtype": None, "rounding_seed": 0
}  # fmt: skip

FIXED = ("state_dtype",)
"""Those that are chosen when a group is made."""

WITHOUT_EFFECT: Mapping[str, bool | None] = {
    "foreach": None, "fused": None, "capturable": False, "differentiable": False
}  # fmt: skip
"""How torch is told to run a step, with its defaults. Every step of netcl is one launch that waits for nothing."""

_said: set[str] = set()
"""The warning that was given, which a process gets once."""


class CommonOptions(TypedDict, total=False):
    """The keyword arguments of every optimizer."""

    maximize: bool
    master_weights: bool
    rounding: str
    state_dtype: str | None
    rounding_seed: int
    backend: Selection
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool


_PLACE = "    **common\n"
"""The line of a class's docstring that the documentation of the options replaces."""

_DOCUMENTED = """\
    maximize : bool, default False
        Ascend instead of descend.
    master_weights : bool, default True
        Keep a float32 copy of float16 and bfloat16 parameters and update that, so that small steps are not rounded
        away; 4 bytes per element. Without effect on wider parameters.
    rounding : {"nearest", "kahan", "stochastic"}, default "nearest"
        How float16 and bfloat16 parameters are rounded after a step. The latter two take the place of master weights:
        ``"kahan"`` keeps what was rounded away in bfloat16, 2 bytes per element, and ``"stochastic"`` rounds up or down
        at random, right on average, and keeps nothing. Without effect on wider parameters.
    state_dtype : {None, "bfloat16", "8bit", "4bit"}, optional
        What the averages of the rule are kept in, for parameters that are computed with in float32. ``"bfloat16"`` is
        rounded stochastically, 2 bytes per element. ``"8bit"`` keeps 8 bits per element and a float32 for each 256,
        ``"4bit"`` 4 bits and a float32 for each 128. Chosen when a group is made.
    rounding_seed : int, default 0
        What the random bits of roundings depend on besides the step and the element: from 0 to 2^32 - 1.
    backend : str, Device or Backend, optional
        Where host arrays are updated; Tensors are updated where they are.
    foreach, fused, capturable, differentiable : bool, optional
        Taken for torch's sake and without effect, which is said once in a process: every step is fused, and waits for
        nothing. ``differentiable=True`` is refused.
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
        kind, default = inspect.Parameter.KEYWORD_ONLY, {**DEFAULTS, **WITHOUT_EFFECT}.get(name)
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


def take_out_torchs(values: dict[str, Any]) -> None:
    """Take out of some options, or of a group, those that are without effect, after they were checked.

    Raises
    ------
    HyperParameterError
        If one of them is no bool, or ``differentiable`` is True.
    """
    given = {name: values.pop(name) for name in WITHOUT_EFFECT if name in values}
    for name, value in given.items():
        if value is not None and not validation.flag(name, value):
            continue
        if value is not None and name == "differentiable":
            raise HyperParameterError(
                f"differentiable must be False, got {shown(value)}; a step is not recorded on a tape, so write the "
                "update with functions of netcl to differentiate through it"
            )
    if any(given.values()) and not _said:
        _said.add("without effect")
        asked = ", ".join(f"{name}={value}" for name, value in given.items() if value)
        warn(
            f"{asked} has no effect: every step is one fused launch that waits for nothing; leave it out. This is said "
            "once",
            stacklevel=2,
        )
