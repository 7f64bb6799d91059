"""The C form of operands: parameters, places and loads, for the generated part of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netcl.backends.opencl.codegen.literals import c_type
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.codegen.writer import Names
from netcl.dtypes import DType
from netcl.expression import Expression

WORD = (1 << 64) - 1
"""Strides travel modulo 2**64: size_t arithmetic wraps, so a negative one works."""


def kind(stride: int, *, written: bool = False) -> str:
    """How an operand lies along an axis of lanes: v(ector), s(ame element) or g(ather)."""
    if stride == 1:
        return "v"
    return "s" if stride == 0 and not written else "g"


def load(dtype: DType, kind: str, position: int, place: str) -> str:
    """The statement that declares ``v<position>``, the lanes of input ``x<position>`` at element ``place``."""
    name = f"x{position}"
    verb = {"v": "FETCH", "s": "SPREAD", "g": "GATHER"}[kind]
    along = {"v": " + i", "s": "", "g": f" + i * {name}_lane, {name}_lane"}[kind]
    return f"{verb}({TAG[dtype]}, v{position}, {name}, {place}{along})"


def names(expression: Expression) -> Names:
    """What the leaves of an expression are called in kernels."""
    found: dict[tuple[str, int | str], str] = {("input", k): f"v{k}" for k in range(len(expression.inputs))}
    return found | {("scalar", k): f"s{k}" for k in range(len(expression.scalars))}


def parameters(operands: Sequence[tuple[str, DType]], scalars: Sequence[DType]) -> tuple[list[str], list[Any]]:
    """C parameters for buffers with their offsets (an operand called r… is written), then scalars; and their types."""
    text: list[str] = []
    types: list[Any] = []
    for name, dtype in operands:
        text.append(f"{'WRITES' if name.startswith('r') else 'READS'}({TAG[dtype]}, {name})")
        types += [None, np.uint64]
    for k, dtype in enumerate(scalars):
        text.append(f"const {c_type(dtype)} s{k}")
        types.append(SCALAR[dtype])
    return text, types


def place(start: str, index: str, strides: Sequence[str]) -> str:
    """``start`` moved by indices ``index0``, ``index1``, … times ``strides``."""
    return " + ".join([start, *(f"{index}{axis} * {stride}" for axis, stride in enumerate(strides))])


def indices(index: str, rank: int, extent: str) -> list[str]:
    """Statements that take ``rest`` apart into an index per axis; ``extent1``, … belong to all axes but the first."""
    text = []
    for axis in range(rank - 1, 0, -1):
        name, by = f"{index}{axis}", f"{extent}{axis}"
        # Not with %: what LLVM makes of / and % together, Oclgrind cannot check for uninitialised values.
        text.append(f"const size_t {name}_left = rest / {by}, {name} = rest - {name}_left * {by}; rest = {name}_left;")
    return [*text, f"const size_t {index}0 = rest;"] if rank else []


def define(name: str, lines: Sequence[str]) -> str:
    """A macro of several lines."""
    return " \\\n    ".join([f"#define {name}", *lines]) + "\n"
