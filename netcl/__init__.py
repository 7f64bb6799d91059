"""netcl: training for every device that speaks OpenCL, with a NumPy reference.

The module is an Array API namespace (version 2025.12): ``netcl.asarray``, ``netcl.sum``, ``netcl.matmul`` and their
kin work on Tensors of any backend. ``netcl.autograd`` records and differentiates, ``netcl.nn``
holds layers, ``netcl.optim`` optimizers.

>>> import netcl
>>> x = netcl.asarray([1.0, 2.0], requires_grad=True)
>>> with netcl.autograd.Tape() as tape:
...     loss = netcl.sum(x * x)
>>> tape.backward(loss)
>>> x.grad.tolist()
[2.0, 4.0]
"""

from math import e, inf, nan, pi

from netcl import amp, autograd, backends, data, errors, functional, linalg, nn, optim, random
from netcl.backends import available, devices, get_backend, set_backend, use_backend
from netcl.creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from netcl.dtypes import (
    DType,
    bfloat16,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from netcl.dtypes import bool_ as bool
from netcl.functional import (
    abs,
    acos,
    acosh,
    add,
    all,
    any,
    argmax,
    argmin,
    asin,
    asinh,
    astype,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    broadcast_arrays,
    broadcast_to,
    ceil,
    clip,
    concat,
    copysign,
    cos,
    cosh,
    count_nonzero,
    divide,
    equal,
    erf,
    exp,
    expand_dims,
    expm1,
    flip,
    floor,
    floor_divide,
    greater,
    greater_equal,
    hypot,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    logsumexp,
    matmul,
    matrix_transpose,
    max,
    maximum,
    mean,
    min,
    minimum,
    moveaxis,
    multiply,
    negative,
    nextafter,
    not_equal,
    permute_dims,
    positive,
    pow,
    prod,
    reciprocal,
    remainder,
    repeat,
    reshape,
    roll,
    round,
    rsqrt,
    sign,
    signbit,
    sin,
    sinh,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    subtract,
    sum,
    take,
    take_along_axis,
    tan,
    tanh,
    tensordot,
    tile,
    trunc,
    unstack,
    var,
    vecdot,
    where,
)
from netcl.info import __array_namespace_info__, can_cast, finfo, iinfo, isdtype, result_type
from netcl.random import manual_seed
from netcl.tensor import Tensor
from netcl.version import __version__

__array_api_version__ = "2025.12"
newaxis = None

__all__ = [
    "DType", "Tensor", "__array_api_version__", "__array_namespace_info__", "__version__", "abs", "acos", "acosh",
    "add", "all", "amp", "any", "arange", "argmax", "argmin", "asarray", "asin", "asinh", "astype", "atan", "atan2",
    "atanh", "autograd", "available", "backends", "bfloat16", "bitwise_and", "bitwise_invert", "bitwise_left_shift",
    "bitwise_or", "bitwise_right_shift", "bitwise_xor", "bool", "broadcast_arrays", "broadcast_to", "can_cast", "ceil",
    "clip", "complex128", "complex64", "concat", "copysign", "cos", "cosh", "count_nonzero", "data", "devices",
    "divide", "e", "empty", "empty_like", "equal", "erf", "errors", "exp", "expand_dims", "expm1", "eye", "finfo",
    "flip", "float16", "float32", "float64", "floor", "floor_divide", "from_dlpack", "full", "full_like", "functional",
    "get_backend", "greater", "greater_equal", "hypot", "iinfo", "inf", "int16", "int32", "int64", "int8", "isdtype",
    "isfinite", "isinf", "isnan", "less", "less_equal", "linalg", "linspace", "log", "log10", "log1p", "log2",
    "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "manual_seed", "matmul",
    "matrix_transpose", "max", "maximum", "mean", "meshgrid", "min", "minimum", "moveaxis", "multiply", "nan",
    "negative", "newaxis", "nextafter", "nn", "not_equal", "ones", "ones_like", "optim", "permute_dims", "pi",
    "positive", "pow", "prod", "random", "reciprocal", "remainder", "repeat", "reshape", "result_type", "roll",
    "round", "rsqrt", "set_backend", "sign", "signbit", "sin", "sinh", "sqrt", "square", "squeeze", "stack", "std",
    "subtract", "sum", "take", "take_along_axis", "tan", "tanh", "tensordot", "tile", "tril", "triu", "trunc",
    "uint16", "uint32", "uint64", "uint8", "unstack", "use_backend", "var", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip
