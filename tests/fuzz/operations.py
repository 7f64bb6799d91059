"""The elementwise operations of the array programs, each with NumPy's answer and its bound; and the list of all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

import netcl
import netcl.functional as F
from tests.fuzz import manipulation, reductions, special
from tests.fuzz.arrays import (
    COMPLEX,
    FLOATS,
    INTEGERS,
    SIGNED,
    Expected,
    Host,
    Operation,
    Pool,
    kind,
    shape,
)
from tests.fuzz.bounds import compute_format
from tests.fuzz.case import stored
from tests.fuzz.promotion import converted, floating, promoted, with_scalar
from tests.fuzz.roundoff import bound, overflown

erf = np.vectorize(math.erf, otypes=[np.float64])


# What OpenCL grants a full-profile device, doubled: 1 ulp is 2 units of roundoff. NumPy's own last digit is in it.
UNARY = {
    "sqrt": (np.sqrt, 8), "exp": (np.exp, 8), "expm1": (np.expm1, 8), "log": (np.log, 8), "log1p": (np.log1p, 6),
    "log2": (np.log2, 8), "log10": (np.log10, 8), "sin": (np.sin, 10), "cos": (np.cos, 10), "tan": (np.tan, 12),
    "asin": (np.arcsin, 10), "acos": (np.arccos, 10), "atan": (np.arctan, 12), "sinh": (np.sinh, 10),
    "cosh": (np.cosh, 10), "tanh": (np.tanh, 12), "asinh": (np.arcsinh, 10), "acosh": (np.arccosh, 10),
    "atanh": (np.arctanh, 12), "erf": (erf, 34), "rsqrt": (lambda x: 1 / np.sqrt(x), 10),
    "reciprocal": (lambda x: 1 / x, 7),
}  # fmt: skip
EXACT = {
    "negative": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "round": np.round, "positive": np.positive,
}  # fmt: skip
TESTS = {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "logical_not": np.logical_not}
SINGULAR = ("log", "log2", "log10", "rsqrt", "reciprocal")
"""Where a flushed operand makes all the difference."""


def _unary(name: str) -> Operation:
    function, units = UNARY[name]

    def draw(r: random.Random, pool: Pool) -> Any:
        return (pool.operand("f" if r.random() < 0.9 else "fiu", FLOATS if r.random() < 0.9 else FLOATS + SIGNED),), {}

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        dtype = floating(operands[0].dtype)
        x = converted(operands[0], dtype)
        values = overflown(function(x), dtype)
        error = bound(values, dtype, units)
        if name in SINGULAR:
            error = np.where((x != 0) & (np.abs(x) < 2 * compute_format(dtype).normal), np.inf, error)
        return Expected(values, dtype, error)

    return Operation(draw, lambda x, o: getattr(netcl, name)(x[0]), oracle)


def _exact(name: str, function: Any, kinds: str, dtypes: Sequence[str], *, test: bool = False) -> Operation:
    def draw(r: random.Random, pool: Pool) -> Any:
        return (pool.operand(kinds, dtypes),), {}

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        x = operands[0]
        return Expected(function(x.values), "bool" if test else x.dtype)

    return Operation(draw, lambda x, o: getattr(netcl, name)(x[0]), oracle, 0.6)


BINARY = {
    "add": (np.add, 1), "subtract": (np.subtract, 1), "multiply": (np.multiply, 1), "divide": (np.divide, 7),
    "pow": (np.power, 36), "atan2": (np.arctan2, 14), "hypot": (np.hypot, 10), "logaddexp": (np.logaddexp, 24),
    "maximum": (np.maximum, 0), "minimum": (np.minimum, 0), "copysign": (np.copysign, 0),
    "remainder": (np.remainder, 0), "floor_divide": (np.floor_divide, 0),
}  # fmt: skip
BITS = {
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "bitwise_left_shift": np.left_shift, "bitwise_right_shift": np.right_shift,
}  # fmt: skip
COMPARISONS = {
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal,
}  # fmt: skip
SCALARS = (0.5, 2.0, -3.0, 2, -1, 0.1)


def broadcastable(r: random.Random, target: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with ``target``."""
    made = tuple(1 if r.random() < 0.25 else extent for extent in target)
    return made[r.choice([0, 0, 0, r.randint(0, len(made))]) :]


def _pair(
    r: random.Random, pool: Pool, kinds: str, dtypes: Sequence[str], *, mixed: bool, second: str | None = None
) -> Any:
    left = pool.operand(kinds, dtypes)
    x = pool.host(left)
    if r.random() < 0.2 and second is None and kind(x.dtype) == "f":
        return (left,), {"scalar": r.choice(SCALARS), "reflected": r.random() < 0.3}
    other = r.choice(dtypes) if mixed and r.random() < 0.4 else x.dtype
    if promoted(x.dtype, other) is None:
        other = x.dtype
    right = pool.leaf(broadcastable(r, x.shape), other, second)
    return ((right, left) if r.random() < 0.3 and second is None else (left, right)), {}


def _operands(operands: Sequence[Host], options: dict[str, Any]) -> tuple[Any, Any, str]:
    """Both operands in the dtype of the operation."""
    if "scalar" in options:
        dtype = with_scalar(operands[0].dtype, options["scalar"])
        x = converted(operands[0], dtype), np.float64(stored(options["scalar"], compute_format(dtype).name))
        return (*(x[::-1] if options["reflected"] else x), dtype)
    dtype = promoted(operands[0].dtype, operands[1].dtype)
    return converted(operands[0], dtype), converted(operands[1], dtype), dtype


def _call(name: str) -> Any:
    def call(x: Sequence[Any], options: dict[str, Any]) -> Any:
        if "scalar" in options:
            pair = (options["scalar"], x[0]) if options["reflected"] else (x[0], options["scalar"])
            return getattr(netcl, name)(*pair)
        return getattr(netcl, name)(*x)

    return call


def _binary(name: str) -> Operation:
    function, units = BINARY[name]
    only_floats = name in ("divide", "pow", "atan2", "hypot", "logaddexp", "copysign")

    def draw(r: random.Random, pool: Pool) -> Any:
        if only_floats or r.random() < 0.6:
            return _pair(r, pool, "f", FLOATS, mixed=True)
        if name in ("remainder", "floor_divide"):  # a divisor of zero is undefined for integers
            return _pair(r, pool, "iu", INTEGERS, mixed=True, second="ones")
        if name in ("add", "subtract", "multiply") and r.random() < 0.3:
            return _pair(r, pool, "c", COMPLEX, mixed=True)
        return _pair(r, pool, "iu", INTEGERS, mixed=True)

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        a, b, dtype = _operands(operands, options)
        values = function(a, b)
        if kind(dtype) in "iu":
            return Expected(values.astype(dtype), dtype)
        scale: Any = 0.0
        if kind(dtype) == "c":
            scale = np.abs(a) * np.abs(b) if name == "multiply" else 0.0
            return Expected(values, dtype, bound(values, dtype, 8, scale) if np.isfinite(values).all() else np.inf)
        if name == "logaddexp":
            scale = np.where(np.isfinite(a) & np.isfinite(b), np.maximum(np.maximum(np.abs(a), np.abs(b)), 1), 0)
        values = overflown(values, dtype)
        error = bound(values, dtype, units, scale)
        normal = compute_format(dtype).normal
        if name in ("divide", "pow", "atan2"):
            flushed = ((a != 0) & (np.abs(a) < 2 * normal)) | ((b != 0) & (np.abs(b) < 2 * normal))
            error = np.where(flushed, np.inf, error)
        if name in ("remainder", "floor_divide"):
            error = _division_bound(a, b, values, dtype, name)
        if name in ("maximum", "minimum", "copysign") and dtype == operands[0].dtype:
            return (
                Expected(values, dtype)
                if kind(dtype) == "f" and "scalar" not in options
                else Expected(values, dtype, error)
            )
        return Expected(values, dtype, error)

    return Operation(draw, _call(name), oracle, 1.5)


def _division_bound(a: Any, b: Any, values: Any, dtype: str, name: str) -> Any:
    """Of a quotient that is nearly whole either neighbour may be taken for its floor; of large ones nothing is left."""
    format = compute_format(dtype)
    quotient = np.abs(a / b)
    blurred = 8 * format.unit * quotient + format.unit
    whole = np.abs(a / b - np.rint(a / b)) <= blurred
    sane = (
        np.isfinite(a)
        & np.isfinite(b)
        & (b != 0)
        & (quotient < 2 / format.unit)
        & ~whole
        & (np.abs(b) > 2 * format.normal)
    )
    error = bound(values, dtype, 4, 0.0 if name == "floor_divide" else np.where(np.isfinite(a), np.abs(a), 0) * 2)
    return np.where(sane, error, np.inf)


def _bits(name: str) -> Operation:
    shift = "shift" in name

    def draw(r: random.Random, pool: Pool) -> Any:
        left = pool.operand("iu", INTEGERS)
        x = pool.host(left)
        right = pool.leaf(broadcastable(r, x.shape), x.dtype, "ones" if shift else None)
        return (left, right), {}

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        values = BITS[name](operands[0].values, operands[1].values)
        return Expected(values.astype(operands[0].dtype), operands[0].dtype)

    return Operation(draw, lambda x, o: getattr(netcl, name)(*x), oracle, 0.3)


def _comparison(name: str) -> Operation:
    def draw(r: random.Random, pool: Pool) -> Any:
        if r.random() < 0.3:
            return _pair(r, pool, "iu", INTEGERS, mixed=True)
        return _pair(r, pool, "f", FLOATS, mixed=True)

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        a, b, _ = _operands(operands, options)
        return Expected(COMPARISONS[name](a, b), "bool")

    return Operation(draw, _call(name), oracle, 0.4)


def _draw_where(r: random.Random, pool: Pool) -> Any:
    left = pool.operand("fiuc", FLOATS + INTEGERS + COMPLEX)
    x = pool.host(left)
    other = r.choice(FLOATS) if x.kind == "f" else x.dtype
    return (pool.leaf(broadcastable(r, x.shape), "bool"), left, pool.leaf(broadcastable(r, x.shape), other)), {}


def _where(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    dtype = promoted(operands[1].dtype, operands[2].dtype)
    return Expected(np.where(operands[0].values, converted(operands[1], dtype), converted(operands[2], dtype)), dtype)


def _draw_clip(r: random.Random, pool: Pool) -> Any:
    x = pool.operand("f", FLOATS)
    low, high = sorted(r.sample([-2.0, -0.5, 0.0, 1.0, 3.0], 2))
    return (x,), r.choice([{"min": low}, {"max": high}, {"min": low, "max": high}])


def _clip(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    values = operands[0].values
    if "min" in options:
        values = np.maximum(values, options["min"])
    if "max" in options:
        values = np.minimum(values, options["max"])
    return Expected(values, operands[0].dtype)


def _sigmoid(x: Any) -> Any:
    return np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))


ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, np.where(x <= 0, 0.0, x)),
    "sigmoid": _sigmoid,
    "silu": lambda x: np.where(x == -np.inf, 0.0, x * _sigmoid(x)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
}


def _activation(name: str) -> Operation:
    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        x, dtype = operands[0].values, operands[0].dtype
        values = ACTIVATIONS[name](x)
        if name == "relu":
            return Expected(values, dtype)
        # An exponential of x is off by x times its last digit; erf by 16 ulp of 1, beside which its tail is lost.
        size = np.where(np.isfinite(x), np.abs(x), 0)
        scale = {"gelu": size, "silu": np.abs(values) * (1 + size), "sigmoid": np.abs(values) * (1 + size)}[name]
        error = bound(values, dtype, 40, scale)
        return Expected(values, dtype, np.where(np.isinf(x), np.inf, error) if name != "sigmoid" else error)

    return Operation(lambda r, pool: ((pool.operand("f", FLOATS),), {}), lambda x, o: getattr(F, name)(x[0]), oracle)


def _draw_astype(r: random.Random, pool: Pool) -> Any:
    target = r.choice([*FLOATS, *INTEGERS, "bool", *COMPLEX])
    what = kind(target)
    if what in "iu":
        # Whole numbers that fit, or what lies between them.
        x = pool.leaf(shape(r), r.choice([*FLOATS, *INTEGERS, "bool"]), r.choice(["integers", "positive"]))
        values = pool.host(x).values
        if values.size and (values.min() < 0 and what == "u"):
            target = "int64"
    else:
        if what == "f" and r.random() < 0.3:
            return (pool.leaf(shape(r), "float64", "halfway"),), {"dtype": target}
        x = pool.operand("fiuc" if what == "c" else "fiub", FLOATS + INTEGERS + (COMPLEX if what == "c" else ()))
    return (x,), {"dtype": target}


def _astype(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    x, target = operands[0], options["dtype"]
    what = kind(target)
    if what == "f":
        return Expected(stored(x.values.astype(np.float64), target), target)
    if what == "c":
        return Expected(x.values.astype(np.complex128).astype(target).astype(np.complex128), target)
    return Expected(x.values != 0 if what == "b" else x.values.astype(target), target)


def _draw_asarray(r: random.Random, pool: Pool) -> Any:
    return (pool.leaf(shape(r), "float64", r.choice(["normal", "wide", "tiny", "special", "halfway"]), views=False),), {
        "dtype": r.choice(FLOATS)
    }


OPERATIONS: dict[str, Operation] = {
    **{name: _unary(name) for name in UNARY},
    **{
        name: _exact(name, f, "f" if name in ("floor", "ceil", "trunc", "round") else "fi", FLOATS + SIGNED)
        for name, f in EXACT.items()
    },
    **{name: _exact(name, f, "f", FLOATS, test=True) for name, f in TESTS.items()},
    "square": _exact("square", np.square, "i", SIGNED),
    **{name: _binary(name) for name in BINARY},
    **{name: _bits(name) for name in BITS},
    **{name: _comparison(name) for name in COMPARISONS},
    "where": Operation(_draw_where, lambda x, o: netcl.where(*x), _where),
    "clip": Operation(_draw_clip, lambda x, o: netcl.clip(x[0], **o), _clip),
    **{name: _activation(name) for name in ACTIVATIONS},
    "astype": Operation(_draw_astype, lambda x, o: netcl.astype(x[0], o["dtype"]), _astype, 3),
    "asarray": Operation(
        _draw_asarray, lambda x, o: netcl.asarray(x[0].numpy(), dtype=o["dtype"], device=x[0].device), _astype, 1
    ),
    **special.OPERATIONS,
    **reductions.OPERATIONS,
    **manipulation.OPERATIONS,
}
