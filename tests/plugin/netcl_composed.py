"""A backend that has ten members of its own, and everything else from ``ComposedOperations``."""

import math

import array_api_compat.numpy as xp
import numpy as np

from netcl.backends.base import EXTENSION_DEVICE, NAMED_ONLY, Device, Span
from netcl.backends.composed import ComposedOperations
from netcl.complex_pairs import expanded
from netcl.dtypes import bfloat16, float16
from netcl.host_dtypes import STORAGE, stored_as, values_of
from netcl.rounding import odd_float32, stochastic

FUNCTIONS = {
    "where": np.where,
    "round": np.rint,
    "erf": np.vectorize(math.erf, otypes=[float]),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "narrow": odd_float32,
    "round_float16": lambda x: x.astype(np.float16).astype(np.float32),
    "round_bfloat16": lambda x: values_of(stored_as(x, bfloat16), bfloat16),
    "stochastic_float16": lambda x, bits: stochastic(x, bits, float16),
    "stochastic_bfloat16": lambda x, bits: stochastic(x, bits, bfloat16),
    "real": np.real,
    "imag": np.imag,
    "complex": lambda x, y: np.stack(np.broadcast_arrays(x, y), -1).view(np.result_type(x, np.complex64))[..., 0],
}

UNLIKE_THE_STANDARD = frozenset({"log1p", "expm1", "divide", "reciprocal", "rsqrt", "sign", "pow", "tan", "tanh"})
"""What NumPy computes otherwise on complex numbers: it is written out over their parts."""

ROUNDING = ("floor", "ceil", "trunc", "round")


class Memory:
    """A flat NumPy array."""

    def __init__(self, array, dtype):
        self.array, self.dtype, self.size = array, dtype, array.size


class ComposedBackend(ComposedOperations):
    """The host, one expression at a time."""

    device = Device("composed", name="composed card", platform="toys")

    def supports(self, dtype):
        return True

    def alloc(self, n, dtype):
        return Memory(np.empty(n, STORAGE[dtype]), dtype)

    def upload(self, host, out):
        array(out)[:] = host.reshape(-1)

    def download(self, x):
        return array(x).copy()

    def synchronize(self):
        pass

    def map(self, expression, inputs, outputs, scalars=()):
        with np.errstate(all="ignore"):
            for out, value in zip(outputs, evaluated(expression, inputs, scalars), strict=True):
                array(out)[...] = stored_as(value, out.dtype)

    def reduce(self, op, expression, inputs, axes, out, scalars=()):
        with np.errstate(all="ignore"):
            (value,) = evaluated(expression, inputs, scalars)
            value = np.broadcast_to(value, inputs[0].shape)
            if op == "sum" and value.dtype == np.float32:
                value = value.astype(np.float64)
            options = {"dtype": value.dtype} if op in ("sum", "prod") else {}
            result = getattr(np, op)(value, axis=axes, **options)
            array(out)[...] = stored_as(np.asarray(result), out.dtype)

    def gather(self, x, indices, out):
        if out.shape[1] and math.prod(out.shape):
            array(out)[...] = np.take_along_axis(array(x), array(indices), axis=1)

    def scatter_add(self, updates, indices, out):
        o, _, i = np.indices(updates.shape, sparse=True)
        total = loaded(out)
        np.add.at(total, (o, array(indices), i), loaded(updates))
        array(out)[...] = stored_as(total, out.dtype)


def array(x):
    """The elements of a span or view, in place."""
    if isinstance(x, Span):
        x = x.view()
    memory, item = x.buffer.array, x.buffer.array.itemsize
    if 0 in x.shape:
        return np.empty(x.shape, memory.dtype)
    return np.ndarray(x.shape, memory.dtype, memory, x.offset * item, [stride * item for stride in x.strides])


def loaded(x):
    """The elements of a view in their compute dtype, as a new array."""
    return values_of(array(x), x.dtype).astype(x.dtype.compute.name)


def evaluated(expression, inputs, scalars):
    """Every output of an expression, before it is rounded to its storage; a number may stand for equal elements."""
    expression = expanded(expression, UNLIKE_THE_STANDARD)
    # Before anything is stored, for an output may be an input.
    given = [loaded(x) for x in inputs]
    numbers = [np.dtype(dtype.compute.name).type(a) for a, dtype in zip(scalars, expression.scalars, strict=True)]
    values = {}
    for node in expression.nodes():
        args = [values[id(arg)] for arg in node.args]
        if node.op in ("input", "scalar"):
            values[id(node)] = (given if node.op == "input" else numbers)[node.value]
        elif node.op == "constant":
            values[id(node)] = np.dtype(node.dtype.name).type(node.value)
        elif node.op in ROUNDING and node.dtype.kind in "biu":
            values[id(node)] = args[0]
        elif node.op == "cast":
            real = node.args[0].dtype.kind == "c" and node.dtype.kind not in "bc"
            values[id(node)] = (args[0].real if real else args[0]).astype(node.dtype.name)
        else:
            function = FUNCTIONS.get(node.op) or getattr(np, node.op, None) or getattr(xp, node.op)
            values[id(node)] = np.asarray(function(*args)).astype(node.dtype.name)
    return [np.asarray(values[id(output)]) for output in expression.outputs]


class ComposedProvider:
    """One device, used only when it is named."""

    def __init__(self):
        self.backend = ComposedBackend()

    def devices(self):
        return [self.backend.device]

    def open(self, device):
        return self.backend

    def preference(self, device):
        return NAMED_ONLY

    def dlpack_device_type(self, device):
        return EXTENSION_DEVICE
