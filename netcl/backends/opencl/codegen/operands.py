"""The C form of operands: parameters, addresses and loads, for the generated part of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from netcl.backends.opencl.codegen.literals import c_type
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.codegen.writer import Names
from netcl.dtypes import DType
from netcl.expression import Expression

Access: TypeAlias = Literal["unit", "broadcast", "strided"]
"""How an operand lies along the axis of the lanes: next to each other, all the same element, or some way apart."""

SIZE_MASK = (1 << 64) - 1
"""Strides travel modulo 2**64: size_t arithmetic wraps, so a negative one works."""


def access(stride: int, *, written: bool = False) -> Access:
    """How the lanes of an operand are read or written."""
    if stride == 1:
        return "unit"
    return "broadcast" if stride == 0 and not written else "strided"


def load(dtype: DType, access: Access, position: int, address: str) -> str:
    """The statement that declares ``v<position>``, the lanes of input ``x<position>`` at element ``address``."""
    name = f"x{position}"
    verb = {"unit": "FETCH", "broadcast": "SPREAD", "strided": "GATHER"}[access]
    along = {"unit": " + i", "broadcast": "", "strided": f" + i * {name}_lane, {name}_lane"}[access]
    return f"{verb}({TAG[dtype]}, v{position}, {name}, {address}{along})"


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


def address(start: str, index: str, strides: Sequence[str]) -> str:
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
