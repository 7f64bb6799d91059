"""Expressions as OpenCL C: exact operators against NumPy at every width, constants, edge cases."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyopencl as cl
import pytest

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.opencl.codegen.literals import c_literal, c_type
from netcl.backends.opencl.codegen.storage import lanes
from netcl.backends.opencl.codegen.writer import statements, value_dtypes
from netcl.backends.opencl.device.program import source
from netcl.dtypes import bool_, complex64, float16, float32, float64, int8, int32, int64, uint8, uint16, uint32, uint64
from netcl.errors import DTypeError

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, 1e30, -1e-30, math.inf, -math.inf, math.nan]
BINARY = ("add", "multiply", "maximum", "minimum", "floor_divide", "remainder")
COMPARED = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
FLOAT = ("subtract", "divide", "copysign", "nextafter")
FLOAT_UNARY = (
    "negative", "abs", "sign", "square", "sqrt", "reciprocal", "floor", "ceil", "trunc", "round", "isnan", "isinf",
    "isfinite", "signbit",
)  # fmt: skip
INTEGER = ("subtract", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift")
INTEGER_UNARY = ("negative", "abs", "sign", "square", "bitwise_invert", "floor", "round")
NUMPY = {
    "round": np.rint, "bitwise_left_shift": np.left_shift, "bitwise_right_shift": np.right_shift,
    "bitwise_invert": np.invert,
}  # fmt: skip


def compute(opencl, expression, operands, width, scalars=()):
    """The outputs of a kernel that loads ``width`` elements per item and holds nothing but the statements."""
    size = len(operands[0])
    assert size % width == 0
    names = {("input", k): f"v{k}" for k in range(len(operands))} | {
        ("scalar", k): f"s{k}" for k in range(len(scalars))
    }
    lines, outputs = statements(expression, names, width)
    parameters, body = [], []
    load = "x{k}[i]" if width == 1 else f"vload{width}(i, x{{k}})"
    for k, dtype in enumerate(expression.inputs):
        parameters.append(f"const __global {c_type(dtype)} *x{k}")
        body.append(f"const {c_type(dtype, width)} v{k} = {load.format(k=k)};")
    parameters += [f"const {c_type(dtype)} s{k}" for k, dtype in enumerate(expression.scalars)]
    for k, (dtype, name) in enumerate(zip(expression.stored, outputs, strict=True)):
        parameters.append(f"__global {c_type(dtype)} *r{k}")
        lines.append(f"r{k}[i] = {name};" if width == 1 else f"vstore{width}({name}, i, r{k});")
    text = source("trigonometry.clh") + (
        "#ifdef cl_khr_fp64\n#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n#endif\n#pragma OPENCL FP_CONTRACT OFF\n"
        f"__kernel void f({', '.join(parameters)}) {{\nconst size_t i = get_global_id(0);\n"
        + "\n".join([*body, *lines, "}"])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)  # for any output of a compiler
        kernel = cl.Kernel(cl.Program(opencl.queue.context, text).build(["-w", "-cl-std=CL1.2"]), "f")
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    buffers = [cl.Buffer(opencl.queue.context, flags, hostbuf=np.ascontiguousarray(x)) for x in operands]
    results = [np.zeros(size, dtype.name) for dtype in expression.stored]
    written = [cl.Buffer(opencl.queue.context, flags, hostbuf=result) for result in results]
    kernel.set_args(*buffers, *scalars, *written)
    cl.enqueue_nd_range_kernel(opencl.queue.cl_queue, kernel, (size // width,), (1,))
    for result, buffer in zip(results, written, strict=True):
        cl.enqueue_copy(opencl.queue.cl_queue, result, buffer)
    return results


def values(dtype, seed):
    """512 values, half of them special."""
    rng = np.random.default_rng(seed)
    if dtype is bool_:
        return rng.integers(0, 2, 512).astype(bool)
    if dtype.kind == "f":
        plain = (rng.normal(size=512) * 10 ** rng.uniform(-3, 3, 512)).astype(dtype.name)
        return np.where(rng.random(512) < 0.5, rng.choice(np.array(SPECIAL, dtype.name), 512), plain)
    info = np.iinfo(dtype.name)
    small = rng.integers(max(info.min, -10), 11, 512).astype(dtype.name)
    wide = rng.integers(info.min, info.max, 512, dtype=dtype.name, endpoint=True)
    ends = rng.choice(np.array([info.min, info.max, info.min + 1, 0, 1], dtype.name), 512)
    choice = rng.random(512)
    return np.where(choice < 0.4, small, np.where(choice < 0.6, ends, wide))


def operators(dtype):
    if dtype is bool_:
        return (*COMPARED, "logical_and", "logical_or", "logical_xor", "bitwise_xor", "maximum", "minimum"), (
            "logical_not", "bitwise_invert", "isnan", "isfinite",
        )  # fmt: skip
    if dtype.kind == "f":
        return (*BINARY, *COMPARED, *FLOAT), FLOAT_UNARY
    return (*BINARY, *COMPARED, *INTEGER), INTEGER_UNARY


@pytest.mark.short(width=(1, 8))
@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [bool_, int8, uint16, int32, uint64, float32, float64], ids=str)
def test_exact_operators_are_numpys(opencl, dtype, width):
    if not opencl.supports(dtype):
        pytest.skip(f"{opencl.device} does not compute with {dtype}")
    if width == 8 and dtype.itemsize == 8:
        width = 4  # what kernels use
    binary, unary = operators(dtype)
    expression = ex.trace(
        lambda x, y: [ex.apply(op, x, y) for op in binary] + [ex.apply(op, x) for op in unary], (dtype, dtype)
    )
    x, y = values(dtype, 1), values(dtype, 2)
    results = compute(opencl, expression, (x, y), width)
    for op, result in zip((*binary, *unary), results, strict=True):
        function = NUMPY.get(op) or getattr(np, op)
        with np.errstate(all="ignore"):
            expected = function(x, y) if op in binary else function(x)
        np.testing.assert_array_equal(result, expected, op)
        if dtype.kind == "f" and result.dtype.kind == "f" and op not in ("maximum", "minimum"):
            zeros = expected == 0
            np.testing.assert_array_equal(np.signbit(result[zeros]), np.signbit(expected[zeros]), f"{op}: sign of zero")


@pytest.mark.parametrize("width", [1, 8])
def test_integer_powers(opencl, width):
    x = np.tile(np.array([-3, -2, -1, 0, 1, 2, 3, 7], np.int32), 8)
    y = np.repeat(np.array([0, 1, 2, 3, 5, 19, 31, 40], np.int32), 8)
    expression = ex.trace(lambda a, b: [a**b, a**3, a**0, ex.apply("pow", a, -1 * b - 1)], (int32, int32))
    general, cube, one, negative = compute(opencl, expression, (x, y), width)
    np.testing.assert_array_equal(general, np.power(x, y))
    np.testing.assert_array_equal(cube, x**3)
    np.testing.assert_array_equal(one, np.ones_like(x))
    units = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, -1, 1), 0))
    np.testing.assert_array_equal(negative, units)


@pytest.mark.parametrize("source", [bool_, int8, uint32, int64, float32], ids=str)
def test_casts(opencl, source):
    targets = [dtype for dtype in dtypes.ALL if dtype.kind != "c" and dtype is dtype.compute and opencl.supports(dtype)]
    expression = ex.trace(lambda x: [ex.cast(x, target) for target in targets], (source,), stored=targets)
    x = values(source, 3)
    if source.kind == "f":  # what no integer holds is up to the machine; up to 2**31, with its sign, it is not
        x = np.where(np.isfinite(x) & (np.abs(x) < 2**31), x, 0).astype("f4")
    for target, result in zip(targets, compute(opencl, expression, (x,), 4), strict=True):
        np.testing.assert_array_equal(result, x.astype(target.name), str(target))


def test_nan_is_true(opencl):
    x = np.array([np.nan, 0.0, -0.0, 1e-40, np.inf, -1.0, 2.0, 3.0], np.float32)
    (result,) = compute(opencl, ex.trace(lambda x: ex.cast(x, bool_), (float32,)), (x,), 8)
    np.testing.assert_array_equal(result, [True, False, False, True, True, True, True, True])


@pytest.mark.parametrize("width", [1, 4, 8])
def test_where_takes_masks_of_any_width(opencl, width):
    condition, small, x = values(bool_, 4), values(int8, 5), values(float32, 6)

    def function(c, n, a):
        both = ex.logical_and(c, n > 0)
        return [
            ex.where(both, a, 0.5), ex.where(a > 1.0, n, 3), ex.where(c, n > 0, a < 0.0),
            ex.where(c, ex.cast(a, float64) if width == 4 else a, a),
        ]  # fmt: skip

    if width == 4 and not opencl.supports(float64):
        pytest.skip("no float64")
    a, b, c, d = compute(opencl, ex.trace(function, (bool_, int8, float32)), (condition, small, x), width)
    np.testing.assert_array_equal(a, np.where(condition & (small > 0), x, np.float32(0.5)))
    np.testing.assert_array_equal(b, np.where(x > 1, small, np.int8(3)))
    np.testing.assert_array_equal(c, np.where(condition, small > 0, x < 0))
    np.testing.assert_array_equal(d, x.astype(d.dtype))


def test_a_large_angle_does_not_spoil_its_neighbours(opencl):
    x = np.array([1e-30, 3e-3, 1e30, -2.0, 5e5, 0.0, -1e-3, 100.0], np.float32)
    expression = ex.trace(lambda x: [ex.sin(x), ex.cos(x), ex.apply("tan", x)], (float32,))
    for result, function in zip(compute(opencl, expression, (x,), 8), (np.sin, np.cos, np.tan), strict=True):
        np.testing.assert_allclose(result, function(x.astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    "op", ["exp", "expm1", "log", "log1p", "tanh", "erf", "sinh", "cosh", "asinh", "atan", "rsqrt"]
)
def test_functions_are_good_to_a_few_ulps(opencl, op):
    rng = np.random.default_rng(7)
    x = (np.abs(rng.normal(size=4096)) * 10 ** rng.uniform(-4, 1.5, 4096)).astype("f4")
    (result,) = compute(opencl, ex.trace(lambda x: ex.apply(op, x), (float32,)), (x,), 8)
    wide = x.astype(float)
    named = {"erf": np.vectorize(math.erf), "asinh": np.arcsinh, "atan": np.arctan, "rsqrt": lambda x: 1 / np.sqrt(x)}
    with np.errstate(over="ignore"):
        expected = (named.get(op) or getattr(np, op))(wide)
    finite = expected < np.finfo("f4").max
    ulps = np.abs(result[finite] - expected[finite]) / np.spacing(np.abs(expected[finite]).astype("f4"))
    assert ulps.max() <= 4


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_constants_are_exact(opencl, dtype):
    if not opencl.supports(dtype):
        pytest.skip("no float64")
    rng = np.random.default_rng(8)
    numbers = [*SPECIAL, math.pi, 1e300, 1e-320, 16777217.0, 0.1, *(10.0 ** rng.uniform(-44, 38, 30)).tolist()]
    expression = ex.trace(lambda x: [ex.constant(number, dtype) for number in numbers], (dtype,))
    results = compute(opencl, expression, (np.zeros(8, dtype.name),), 4)
    with np.errstate(over="ignore"):
        expected = np.array(numbers).astype(dtype.name)
    np.testing.assert_array_equal([result[0] for result in results], expected)
    signs = np.signbit([result[3] for result in results])
    np.testing.assert_array_equal(signs[~np.isnan(expected)], np.signbit(expected[~np.isnan(expected)]))


def test_integer_constants_are_exact(opencl):
    numbers = [0, -1, 2**31, -(2**31), 2**63 - 1, -(2**63)]
    expression = ex.trace(lambda x: [ex.constant(number, int64) for number in numbers], (int64,))
    assert [int(r[0]) for r in compute(opencl, expression, (np.zeros(4, "i8"),), 4)] == numbers
    large = ex.trace(lambda x: [x + (2**64 - 1), ex.cast(x, uint8) + 255], (uint64,))
    wide, narrow = compute(opencl, large, (np.full(4, 2, "u8"),), 4)
    assert (wide[0], narrow[0]) == (1, 1)


def test_scalars_are_spread(opencl):
    expression = ex.trace(lambda x, a, b: ex.where(b, x * a, x), (float32,), (float32, bool_))
    x = np.arange(8, dtype="f4")
    for truth in (0, 1):
        (result,) = compute(opencl, expression, (x,), 8, (np.float32(3), np.uint8(truth)))
        np.testing.assert_array_equal(result, x * 3 if truth else x)


def test_a_value_used_twice_is_written_once():
    def function(x):
        y = ex.exp(x)
        return y * y + ex.exp(x), y

    lines, outputs = statements(ex.trace(function, (float32,)), {("input", 0): "x"}, 8)
    assert sum("exp(" in line for line in lines) == 1
    assert outputs[1] == "t0"
    assert lines[0] == "const float8 t0 = exp(x);"


def test_a_long_sum_needs_no_recursion():
    def function(x):
        total = x
        for _ in range(3000):
            total = total + x
        return total

    lines, _ = statements(ex.build([function(ex.Node("input", (), float32, 0))], (float32,)), {("input", 0): "x"}, 1)
    assert len(lines) == 3000


def test_width_follows_the_widest_value():
    def width(expression):
        return lanes(*value_dtypes(expression))

    assert width(ex.trace(lambda x: x + 1.0, (float16,))) == 8
    assert width(ex.trace(lambda x: ex.cast(ex.cast(x, int64), float32), (float32,))) == 4
    assert width(ex.trace(lambda x: ex.cast(x, uint32), (float32,))) == 4


def test_literals():
    assert c_literal(1e300, float32) == "INFINITY"
    assert c_literal(-0.0, float32) == "(-0.0f)"
    assert c_literal(1e-8, float32) == "1e-08f"
    assert c_literal(2**64 - 1, uint64) == "18446744073709551615UL"
    assert c_literal(300, int8) == "44"
    assert c_literal(True, bool_) == "1"


def test_complex_is_refused():
    with pytest.raises(DTypeError, match=r"complex64.*real and imaginary"):
        c_type(complex64)
    with pytest.raises(DTypeError, match="complex64"):
        statements(ex.trace(lambda x: x * x, (complex64,)), {("input", 0): "x"}, 8)


@pytest.mark.parametrize(("op", "dtype"), [("negative", bool_), ("pow", bool_)])
def test_operators_that_a_dtype_does_not_have_are_refused(op, dtype):
    arity = ex.OPERATORS[op][0]
    expression = ex.trace(lambda *x: ex.apply(op, *x), [dtype] * arity)
    with pytest.raises(DTypeError, match=rf"{op} is not defined for {dtype}; cast"):
        statements(expression, {("input", k): f"x{k}" for k in range(arity)}, 8)
