"""One valid call of every public function, class, method and operator: what tests/test_bad_arguments.py spoils.

Each entry makes its arguments anew. Names are those under which a function is found first, in the order of
:data:`MODULES`; methods follow their class after a dot.
"""

from __future__ import annotations

import importlib
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import data, distributed, nn, optim
from netcl.optim.extensions import ZeroedNaNs
from netcl.optim.hooks import Hookable
from netcl.optim.releasing import Releasing
from netcl.random import Generator

MODULES = (
    "netcl.functional", "netcl", "netcl.linalg", "netcl.fft", "netcl.special", "netcl.autograd", "netcl.nn",
    "netcl.nn.init",
    "netcl.data", "netcl.random", "netcl.backends", "netcl.optim", "netcl.amp", "netcl.distributed",
    "netcl.opencl",
)  # fmt: skip

NOT_CALLED_BY_USERS = {
    "netcl.DType": "a description that netcl makes; users name dtypes",
    "netcl.Tensor": "takes a storage; users call asarray",
    "netcl.Tensor.empty_like": "takes what an operation has worked out",
    "netcl.Tensor.restride": "takes what an operation has worked out",
    "netcl.Tensor.relocate": "takes the storage of an arena",
    "netcl.Tensor.view": "without arguments, for backends",
    "netcl.Tensor.span": "without arguments, for backends",
    "netcl.autograd.Tape.add": "what operations report to, once for each of them",
    "netcl.data.Dataset": "a protocol",
    "netcl.data.Sampler": "a protocol",
    "netcl.data.Sampler.order": "a protocol's method",
    "netcl.nn.Module.forward": "what subclasses write",
    "netcl.optim.Optimizer": "abstract; its subclasses are called",
    "netcl.optim.LBFGS.add_param_group": "refuses every group",
    "netcl.optim.LBFGS.scaled_step": "refuses every scaler",
    "netcl.optim.LBFGS.release_gradients": "refuses every call",
    "netcl.optim.LBFGS.extend": "refuses every extension",
    "netcl.optim.Rule.second_expression": "what an optimizer calls, with its groups",
    "netcl.optim.Rule.tensor_rule": "what an optimizer calls, with its groups",
    "netcl.optim.Rule.shapes": "what an optimizer calls, with its groups",
    "netcl.optim.MultiSteps.scaled_step": "what the scaler calls, with device memory",
    "netcl.optim.MultiSteps.unscale_gradients": "what the scaler calls, with device memory",
    "netcl.optim.PerLabel.scaled_step": "what the scaler calls, with device memory",
    "netcl.optim.PerLabel.unscale_gradients": "what the scaler calls, with device memory",
    "netcl.optim.Optimizer.scaled_step": "what the scaler calls, with device memory",
    "netcl.optim.Optimizer.unscale_gradients": "what the scaler calls, with device memory",
    **{
        f"netcl.optim.{name}.lr_at": "what step calls, with numbers that are checked already"
        for name, kind in vars(optim).items()
        if isinstance(kind, type) and issubclass(kind, optim.Schedule) and "lr_at" in vars(kind)
    },
    **{
        f"netcl.optim.{name}.lr_at": "what step calls, with numbers that are checked already"
        for name in ("CyclicLR", "OneCycleLR", "SequentialLR", "ChainedScheduler")
    },
    "netcl.optim.Schedule": "abstract; its subclasses are called",
    "netcl.optim.Rule.expression": "what an optimizer calls, with its groups",
    "netcl.optim.Rule.text": "what an optimizer calls, with its groups",
    "netcl.data.ImageSet": "a record that load_fashion_mnist makes",
    "netcl.backends.DeviceStatus": "a record that devices makes",
    "netcl.distributed.Shards": "what shard makes",
    "netcl.load": "reads files; its bad arguments are in test_saved_runs.py",
    "netcl.save": "writes files; its bad arguments are in test_saved_runs.py",
    "netcl.opencl.queue": "needs an OpenCL device; its bad arguments are in kernels/test_sharing.py",
    "netcl.opencl.from_pyopencl": "needs an OpenCL device; its bad arguments are in kernels/test_sharing.py",
    "netcl.opencl.to_pyopencl": "needs an OpenCL device; its bad arguments are in kernels/test_sharing.py",
    "netcl.optim.Rule.columns": "what an optimizer calls, with its groups",
    "netcl.optim.Rule.started": "takes nothing",
}

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def public() -> dict[str, Any]:
    """Every public callable of the modules, and every public method of their classes, each once."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        own = [name for name in vars(module) if getattr(getattr(module, name), "__module__", "") == module_name]
        for name in getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]:
            thing = getattr(module, name)
            if not callable(thing) or id(thing) in seen:
                continue
            seen.add(id(thing))
            found[f"{module_name}.{name}"] = thing
            if isinstance(thing, type):
                found |= {f"{module_name}.{name}.{method}": f for method, f in _methods(thing)}
    return found


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    """The methods that a class defines itself; a subclass of Module, Optimizer or Schedule shares those of its base."""
    seen: set[str] = set()
    for base in cls.__mro__:
        shared = (base in (nn.Module, optim.Optimizer, optim.Schedule) and cls is not base) or (
            base in (Hookable, Releasing) and cls is not optim.Optimizer
        )
        if base.__module__.startswith("netcl") and not shared:
            for name, method in vars(base).items():
                public_name = not name.startswith("_") or name == "__call__"
                if inspect.isfunction(method) and public_name and name not in seen:
                    seen.add(name)
                    yield name, method


def f32(*shape: int) -> netcl.Tensor:
    """Numbers from 0.25 upwards."""
    return netcl.asarray((np.arange(np.prod(shape), dtype=np.float32) / 8 + 0.25).reshape(shape))


def regular(n: int) -> netcl.Tensor:
    """A positive definite matrix."""
    return netcl.asarray(np.ones((n, n), np.float32) + np.diag(np.arange(1, n + 1, dtype=np.float32)))


def i64(*shape: int) -> netcl.Tensor:
    """The integers 0 and 1 in turn."""
    return netcl.asarray((np.arange(np.prod(shape)) % 2).reshape(shape))


def mask(*shape: int) -> netcl.Tensor:
    """True and False in turn."""
    return netcl.asarray((np.arange(np.prod(shape)) % 2 == 0).reshape(shape))


def leaf(*shape: int) -> netcl.Tensor:
    """A parameter with a gradient."""
    x = netcl.asarray(f32(*shape), copy=True, requires_grad=True)
    x.grad = netcl.ones(shape)
    return x


ENTRIES: dict[str, Callable[[], Call]] = {}


def _add(prefix: str, **entries: Callable[[], tuple[Any, ...]]) -> None:
    """Entries of one module: each makes the positional arguments, with a dict of named ones at their end."""
    functions = public()
    for name, make in entries.items():
        full = f"{prefix}.{name.replace('__dot__', '.')}"
        ENTRIES[full] = _entry(functions.get(full), make)


def _entry(function: Any, make: Callable[[], tuple[Any, ...]]) -> Callable[[], Call]:
    def call() -> Call:
        made = make()
        if made and type(made[-1]) is dict:
            return function, made[:-1], made[-1]
        return function, made, {}

    return call


_UNARY_FLOAT = (
    "negative", "positive", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "log", "log1p",
    "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    "erf", "floor", "ceil", "trunc", "round", "isnan", "isinf", "isfinite", "signbit", "relu", "sigmoid", "silu",
    "clone", "real", "imag", "conj",
    "erfc", "erfinv", "gammaln", "digamma", "expit", "logit", "ndtr", "log_ndtr", "ndtri", "entr", "i0", "i0e",
    "i1", "i1e",
)  # fmt: skip
_BINARY_FLOAT = (
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "pow", "atan2", "hypot", "logaddexp",
    "copysign", "nextafter", "maximum", "minimum", "equal", "not_equal", "less", "less_equal", "greater",
    "greater_equal", "betaln", "xlogy", "xlog1py", "rel_entr",
)  # fmt: skip
_REDUCTIONS = ("mean", "max", "min", "all", "any", "count_nonzero", "logsumexp")
_add("netcl.functional", **{name: lambda: (f32(2, 3),) for name in _UNARY_FLOAT})
_add("netcl.functional", **{name: lambda: (f32(2, 3), f32(3)) for name in _BINARY_FLOAT})
_add("netcl.functional", **{name: lambda: (mask(3), mask(3)) for name in ("logical_and", "logical_or", "logical_xor")})
_add("netcl.functional", logical_not=lambda: (mask(3),), bitwise_invert=lambda: (i64(3),))
_add(
    "netcl.functional",
    **{name: lambda: (i64(3), i64(3)) for name in (
        "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift")},
)  # fmt: skip
_add("netcl.functional", **{name: lambda: (f32(2, 3), {"axis": 1, "keepdims": True}) for name in _REDUCTIONS})
_add(
    "netcl.functional",
    **{name: lambda: (f32(2, 3), {"axis": (1,), "dtype": "float32", "keepdims": True}) for name in ("sum", "prod")},
    **{name: lambda: (f32(2, 3), {"axis": 1, "correction": 1.0, "keepdims": True}) for name in ("var", "std")},
    **{name: lambda: (f32(2, 3), {"axis": 1, "keepdims": True}) for name in ("argmax", "argmin")},
    **{name: lambda: (f32(2, 3), {"axis": 1}) for name in ("softmax", "log_softmax", "unstack", "flip")},
    **{name: lambda: (f32(1, 1, 4, 4), 2, {"stride": (1, 2), "padding": 1}) for name in ("max_pool2d", "avg_pool2d")},
    where=lambda: (mask(3), f32(3), f32(3)),
    clip=lambda: (f32(3), 0.5, f32(3)),
    astype=lambda: (f32(3), "float16", {"copy": True, "device": None}),
    reshape=lambda: (f32(2, 3), (3, 2), {"copy": True}),
    flatten=lambda: (f32(2, 3), 0, 1),
    permute_dims=lambda: (f32(2, 3), (1, 0)),
    matrix_transpose=lambda: (f32(2, 3),),
    moveaxis=lambda: (f32(2, 3), 0, (1,)),
    expand_dims=lambda: (f32(2, 3), {"axis": 1}),
    squeeze=lambda: (f32(1, 3), {"axis": 0}),
    broadcast_to=lambda: (f32(3), (2, 3)),
    broadcast_arrays=lambda: (f32(2, 1), f32(3)),
    concat=lambda: ([f32(2, 3), f32(2, 3)], {"axis": 1}),
    stack=lambda: ([f32(2, 3), f32(2, 3)], {"axis": 1}),
    split=lambda: (f32(4, 3), (1, 3), {"axis": 0}),
    roll=lambda: (f32(2, 3), (1, 1), {"axis": (0, 1)}),
    tile=lambda: (f32(2, 3), (2, 1)),
    repeat=lambda: (f32(2, 3), 2, {"axis": 1}),
    broadcast_shapes=lambda: ((2, 1), (3,)),
    nonzero=lambda: (f32(2, 3),),
    einsum=lambda: ("ij,jk->ik", f32(2, 3), f32(3, 2)),
    transpose=lambda: (f32(2, 3), (1, 0)),
    scatter_add=lambda: (f32(3, 2), i64(2), f32(2, 2), {"axis": 0}),
    searchsorted=lambda: (f32(3), f32(2), {"side": "right", "sorter": i64(3)}),
    isin=lambda: (f32(3), f32(2), {"invert": True}),
    diff=lambda: (f32(2, 3), {"axis": 1, "n": 2, "prepend": f32(2, 1), "append": f32(2, 1)}),
    **{name: lambda: (f32(2, 3), {"axis": 1, "descending": True, "stable": False}) for name in ("argsort", "sort")},
    **{name: lambda: (f32(2, 3), {"axis": 1, "dtype": "float32", "include_initial": True}) for name in (
        "cumulative_sum", "cumulative_prod")},
    **{name: lambda: (f32(3),) for name in ("unique_all", "unique_counts", "unique_inverse", "unique_values")},
    take=lambda: (f32(2, 3), i64(2), {"axis": 1}),
    take_along_axis=lambda: (f32(2, 3), i64(2, 2), {"axis": 1}),
    embedding=lambda: (i64(3), f32(2, 4)),
    cross_entropy=lambda: (f32(2, 3), i64(2), {"reduction": "sum", "ignore_index": 7, "label_smoothing": 0.1}),
    nll_loss=lambda: (f32(2, 3), i64(2), {"reduction": "sum", "ignore_index": 7}),
    mse_loss=lambda: (f32(2, 3), f32(2, 3), {"reduction": "sum"}),
    layer_norm=lambda: (f32(2, 3), (3,), f32(3), f32(3), 1e-5),
    gelu=lambda: (f32(3), {"approximate": "tanh"}),
    dropout=lambda: (f32(3), 0.5, {"training": True, "generator": Generator(3)}),
    conv2d=lambda: (
        f32(1, 1, 4, 4), f32(2, 1, 2, 2), f32(2), {"stride": (1, 2), "padding": 1, "dilation": 1}),
    matmul=lambda: (f32(2, 3), f32(3, 2)),
    vecdot=lambda: (f32(2, 3), f32(2, 3), {"axis": -1}),
    outer=lambda: (f32(2), f32(3)),
    tensordot=lambda: (f32(2, 3), f32(3, 2), {"axes": ((1,), (0,))}),
    linear=lambda: (f32(2, 3), f32(4, 3), f32(4)),
    **{name: lambda: (regular(3),) for name in (
        "inv", "det", "slogdet", "eig", "eigh", "eigvals", "eigvalsh", "svdvals")},
    cholesky=lambda: (regular(3), {"upper": True}),
    qr=lambda: (f32(3, 2), {"mode": "complete"}),
    svd=lambda: (f32(3, 2), {"full_matrices": False}),
    solve=lambda: (regular(3), f32(3, 2)),
    pinv=lambda: (f32(2, 3), {"rtol": 0.5}), matrix_rank=lambda: (f32(2, 3), {"rtol": 0.5}),
    matrix_power=lambda: (regular(3), 3),
    matrix_norm=lambda: (f32(2, 3), {"keepdims": True, "ord": "fro"}),
    vector_norm=lambda: (f32(2, 3), {"axis": (0, 1), "keepdims": True, "ord": 3}),
    cross=lambda: (f32(2, 3), f32(2, 3), {"axis": -1}),
    diagonal=lambda: (f32(2, 3), {"offset": 1}),
    trace=lambda: (f32(2, 3), {"offset": 1, "dtype": "float32"}),
    **{name: lambda: (f32(2, 4), {"n": 3, "axis": 1, "norm": "ortho"}) for name in (
        "fft", "ifft", "rfft", "irfft", "hfft", "ihfft")},
    **{name: lambda: (f32(2, 4), {"s": (3, 4), "axes": (0, 1), "norm": "ortho"}) for name in (
        "fftn", "ifftn", "rfftn", "irfftn")},
    **{name: lambda: (f32(2, 4), {"axes": (0, 1)}) for name in ("fftshift", "ifftshift")},
)  # fmt: skip

_PLACE = {"dtype": "float32", "device": "numpy", "backend": "numpy"}
_NEW = {**_PLACE, "requires_grad": True}
_add(
    "netcl",
    asarray=lambda: ([1.0, 2.0], {**_NEW, "copy": True}),
    from_dlpack=lambda: (np.ones(2, np.float32), {"device": "numpy", "copy": True}),
    empty=lambda: ((2, 3), dict(_NEW)), zeros=lambda: ((2, 3), dict(_NEW)), ones=lambda: ((2, 3), dict(_NEW)),
    full=lambda: ((2, 3), 1.5, dict(_NEW)),
    empty_like=lambda: (f32(3), {"dtype": "float32", "device": "numpy"}),
    zeros_like=lambda: (f32(3), {"dtype": "float32", "device": "numpy"}),
    ones_like=lambda: (f32(3), {"dtype": "float32", "device": "numpy"}),
    full_like=lambda: (f32(3), 1.5, {"dtype": "float32", "device": "numpy"}),
    arange=lambda: (1, 7, 2, dict(_PLACE)),
    linspace=lambda: (1.0, 2.0, 3, {**_PLACE, "endpoint": True}),
    eye=lambda: (2, 3, {**_PLACE, "k": 1}),
    tril=lambda: (f32(2, 3), {"k": 1}), triu=lambda: (f32(2, 3), {"k": 1}),
    meshgrid=lambda: (f32(2), f32(3), {"indexing": "ij"}),
    result_type=lambda: (f32(2), "int32", 1.0),
    can_cast=lambda: (f32(2), "float64"),
    finfo=lambda: ("float32",), iinfo=lambda: ("int32",), isdtype=lambda: ("float32", "real floating"),
    __array_namespace_info__=lambda: (),
    available=lambda: (), devices=lambda: ({"probe": False},), get_backend=lambda: ("numpy",),
    to_torch_state_dict=lambda: (_net(),),
    set_backend=lambda: (netcl.get_backend(),), use_backend=lambda: ("numpy",), manual_seed=lambda: (3,),
)  # fmt: skip
_add(
    "netcl.fft",
    **{name: lambda: (4, {"d": 0.5, "dtype": "float32", "device": "numpy"}) for name in ("fftfreq", "rfftfreq")},
)
_add("netcl.backends", default_backend=lambda: ())
_add(
    "netcl.random",
    Generator=lambda: (3,), Generator__dot__manual_seed=lambda: (Generator(3), 4),
    Generator__dot__take=lambda: (Generator(3), 4), Generator__dot__state=lambda: (Generator(3),),
    Generator__dot__set_state=lambda: (Generator(3), {"seed": 1, "offset": 4}, {}),
    host_generator=lambda: (), get_state=lambda: (), set_state=lambda: (netcl.random.get_state(), {}),
)  # fmt: skip
_add(
    "netcl.Tensor",
    numpy=lambda: (f32(3),), item=lambda: (f32(1),), tolist=lambda: (f32(3),), detach=lambda: (f32(3),),
    clone=lambda: (f32(3),), to=lambda: (f32(3), "numpy"), to_device=lambda: (f32(3), "numpy", {"stream": None}),
    astype=lambda: (f32(3), "float16", {"copy": True}), reshape=lambda: (f32(2, 3), (3, 2)),
    flatten=lambda: (f32(2, 3), 0, 1), sum=lambda: (f32(2, 3), 1, {"dtype": "float32", "keepdims": True}),
    mean=lambda: (f32(2, 3), 1, {"keepdims": True}), max=lambda: (f32(2, 3), 1, {"keepdims": True}),
    min=lambda: (f32(2, 3), 1, {"keepdims": True}), argmax=lambda: (f32(2, 3), 1, {"keepdims": True}),
)  # fmt: skip


def _set_requires_grad(x: Any, value: Any) -> None:
    x.requires_grad = value


def _named(function: Callable[..., Any], *make: Callable[[], Any]) -> Callable[[], Call]:
    return lambda: (function, tuple(each() for each in make), {})


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lt", "le", "gt", "ge", "eq", "ne")
for _name in _OPERATORS:
    ENTRIES[f"operator.{_name}"] = _named(getattr(operator, _name), lambda: f32(2, 3), lambda: f32(3))
for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"):
    ENTRIES[f"operator.{_name}"] = _named(getattr(operator, _name), lambda: f32(3), lambda: f32(3))
for _name in ("and_", "or_", "xor", "lshift", "rshift", "iand", "ior", "ixor", "ilshift", "irshift"):
    ENTRIES[f"operator.{_name}"] = _named(getattr(operator, _name), lambda: i64(3), lambda: i64(3))
for _name in ("matmul", "imatmul"):
    ENTRIES[f"operator.{_name}"] = _named(getattr(operator, _name), lambda: f32(3, 3), lambda: f32(3, 3))
ENTRIES["operator.getitem"] = _named(operator.getitem, lambda: f32(4, 3), lambda: (slice(0, 3, 2), 1))
ENTRIES["operator.getitem by Tensor"] = _named(operator.getitem, lambda: f32(2, 3), lambda: i64(2))
ENTRIES["operator.setitem"] = _named(operator.setitem, lambda: f32(4, 3), lambda: (slice(0, 3, 2), 1), lambda: 2.5)
ENTRIES["operator.setitem by mask"] = _named(operator.setitem, lambda: f32(4), lambda: mask(4), lambda: 2.5)
ENTRIES["Tensor.requires_grad"] = _named(_set_requires_grad, lambda: f32(3), lambda: True)
ENTRIES["Tensor.__array_namespace__"] = lambda: (
    netcl.Tensor.__array_namespace__, (f32(3),), {"api_version": "2025.12"})  # fmt: skip
ENTRIES["Tensor.__dlpack__"] = lambda: (
    netcl.Tensor.__dlpack__, (f32(3),),
    {"stream": None, "max_version": (1, 0), "dl_device": (1, 0), "copy": True},
)  # fmt: skip


def _recorded() -> tuple[Any, ...]:
    w = leaf(3)
    with ag.Tape(retain=True) as tape:
        loss = w * 2.0
    return tape, loss, f32(3)


_add(
    "netcl.autograd",
    Tape=lambda: ({"retain": True},), Tape__dot__backward=_recorded, is_recording=lambda: (), no_grad=lambda: (),
)  # fmt: skip

_WHERE = {"device": "numpy", "dtype": "float32"}
_MADE = {**_WHERE, "generator": 3}


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2, generator=0))


def _call(make: Callable[[], Any], *arguments: Callable[[], Any]) -> Callable[[], tuple[Any, ...]]:
    return lambda: (make(), *(each() for each in arguments))


_LAYERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "Linear": (lambda: nn.Linear(3, 2, generator=0), lambda: f32(2, 3)),
    "Conv2d": (lambda: nn.Conv2d(1, 2, 2, generator=0), lambda: f32(1, 1, 4, 4)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), lambda: f32(1, 1, 4, 4)),
    "Embedding": (lambda: nn.Embedding(3, 2, generator=0), lambda: i64(3)),
    "LayerNorm": (lambda: nn.LayerNorm(3), lambda: f32(2, 3)),
    "Dropout": (lambda: nn.Dropout(0.5, generator=Generator(0)), lambda: f32(2, 3)),
    "Flatten": (nn.Flatten, lambda: f32(2, 3)), "GELU": (nn.GELU, lambda: f32(2, 3)),
    "ReLU": (nn.ReLU, lambda: f32(2, 3)), "Tanh": (nn.Tanh, lambda: f32(2, 3)),
    "Sigmoid": (nn.Sigmoid, lambda: f32(2, 3)), "Sequential": (_net, lambda: f32(2, 3)),
}  # fmt: skip
for _name, (_layer, _input) in _LAYERS.items():
    _add("netcl.nn", **{
        f"{_name}__dot__forward": _call(_layer, _input), f"{_name}__dot__extra_repr": _call(_layer),
    })  # fmt: skip
for _name in ("ReLU", "Tanh", "Sigmoid", "Sequential"):
    del ENTRIES[f"netcl.nn.{_name}.extra_repr"]  # they have none of their own
_add(
    "netcl.nn",
    Linear=lambda: (3, 2, True, dict(_MADE)),
    Conv2d=lambda: (1, 2, 2, (1, 2), 1, 1, True, dict(_MADE)),
    MaxPool2d=lambda: (2, (1, 2), 1),
    Embedding=lambda: (3, 2, dict(_MADE)),
    LayerNorm=lambda: ((3,), 1e-5, True, True, dict(_WHERE)),
    Dropout=lambda: (0.5, {"generator": Generator(0)}),
    Flatten=lambda: (1, -1), GELU=lambda: ("tanh",), ReLU=lambda: (), Tanh=lambda: (), Sigmoid=lambda: (),
    Sequential=lambda: (nn.ReLU(), nn.ReLU()),
    CrossEntropyLoss=lambda: ("sum", 7, 0.1), MSELoss=lambda: ("sum",),
    CrossEntropyLoss__dot__forward=lambda: (nn.CrossEntropyLoss(), f32(2, 3), i64(2)),
    CrossEntropyLoss__dot__extra_repr=lambda: (nn.CrossEntropyLoss(),),
    MSELoss__dot__forward=lambda: (nn.MSELoss(), f32(2, 3), f32(2, 3)),
    MSELoss__dot__extra_repr=lambda: (nn.MSELoss(),),
    Module=lambda: (),
    Module__dot____call__=lambda: (_net(), f32(2, 3)),
    Module__dot__register_buffer=lambda: (_net(), "count", f32(2)),
    **{f"Module__dot__{name}": lambda: (_net(),) for name in (
        "named_children", "modules", "parameters", "buffers", "eval", "zero_grad", "state_dict", "extra_repr",
        "named_state")},
    **{f"Module__dot__{name}": lambda: (_net(), "prefix") for name in (
        "named_modules", "named_parameters", "named_buffers")},
    Module__dot__train=lambda: (_net(), True),
    Module__dot__to=lambda: (_net(), "numpy"),
    Module__dot__load_state_dict=lambda: (_net(), _net().state_dict(), True),
    Module__dot__prepared_state=lambda: (_net(), _net().state_dict(), True),
)  # fmt: skip
_RANDOM = {"generator": 3}
_add(
    "netcl.nn.init",
    calculate_gain=lambda: ("leaky_relu", 0.5), constant_=lambda: (f32(2, 3), 0.5), zeros_=lambda: (f32(2, 3),),
    ones_=lambda: (f32(2, 3),), uniform_=lambda: (f32(2, 3), 0.0, 1.0, dict(_RANDOM)),
    normal_=lambda: (f32(2, 3), 0.0, 1.0, dict(_RANDOM)),
    trunc_normal_=lambda: (f32(2, 3), 0.0, 1.0, -2.0, 2.0, dict(_RANDOM)),
    xavier_uniform_=lambda: (f32(2, 3), 1.5, dict(_RANDOM)), xavier_normal_=lambda: (f32(2, 3), 1.5, dict(_RANDOM)),
    kaiming_uniform_=lambda: (f32(2, 3), 0.5, "fan_out", "leaky_relu", dict(_RANDOM)),
    kaiming_normal_=lambda: (f32(2, 3), 0.5, "fan_out", "leaky_relu", dict(_RANDOM)),
    as_generator=lambda: (3,),
)  # fmt: skip


def _rows() -> np.ndarray:
    return np.arange(6.0, dtype=np.float32).reshape(3, 2)


_add(
    "netcl.data",
    ArrayDataset=lambda: (_rows(), _rows()), shuffled=lambda: (4, 1, 2),
    DataLoader=lambda: (_rows(), 2, {
        "shuffle": False, "seed": 1, "drop_last": True, "sampler": distributed.DistributedSampler(3),
        "device": "numpy", "progress": False}),
    DataLoader__dot__set_epoch=lambda: (data.DataLoader(_rows()), 2),
    DataLoader__dot__state_dict=lambda: (data.DataLoader(_rows()),),
    DataLoader__dot__load_state_dict=lambda: (data.DataLoader(_rows()), data.DataLoader(_rows()).state_dict(), {}),
    load_fashion_mnist=lambda: ("test", {"root": None, "subset": True}),
)  # fmt: skip


def _model_and_optimizer() -> tuple[nn.Module, optim.Optimizer]:
    model = _net()
    return model, optim.SGD(model.parameters())


def _shards() -> distributed.Shards:
    return distributed.shard([leaf(3)])


def _over_shards() -> tuple[optim.Optimizer, distributed.Shards]:
    shards = _shards()
    return optim.SGD(shards, momentum=0.9), shards


def _parallel() -> distributed.DataParallel:
    return distributed.DataParallel(*_model_and_optimizer())


_PLAIN = {"maximize": True, "master_weights": True, "backend": "numpy"}


def _plain() -> list[Any]:
    return [np.ones(3, np.float32)]


def _scaler() -> optim.AMPGradScaler:
    scaler = optim.AMPGradScaler(64.0)
    scaler.scale(f32(1))
    return scaler


def _sgd() -> optim.SGD:
    return optim.SGD([leaf(3)], lr=0.1, momentum=0.9)


def _nothing(*_: Any) -> None:
    """A hook."""


def _every_step() -> optim.MultiSteps:
    return optim.MultiSteps(_sgd(), 1)


def _made(params: Any) -> optim.SGD:
    return optim.SGD(params, momentum=0.5)


def _labelled() -> optim.PerLabel:
    return optim.PerLabel([("w", leaf(3))], {"all": _made}, {"*": "all"})


def _stepped() -> optim.SGD:
    opt = _sgd()
    opt.step()
    return opt


def _lbfgs() -> optim.LBFGS:
    return optim.LBFGS([leaf(3)])


def _lbfgs_step() -> tuple[Any, ...]:
    optimizer = _lbfgs()
    (p,) = optimizer.param_groups[0]["params"]

    def closure() -> float:
        p.grad = netcl.ones_like(p)
        return 1.0

    return optimizer, closure, {}


def _plateau() -> optim.ReduceLROnPlateau:
    return optim.ReduceLROnPlateau(_sgd())


def _cosine() -> optim.CosineAnnealingLR:
    return optim.CosineAnnealingLR(_sgd(), 10)


def _with(*kinds: Callable[[optim.Optimizer], Any]) -> tuple[optim.Optimizer, list[Any]]:
    """An optimizer, and schedules of it."""
    opt = _sgd()
    return opt, [kind(opt) for kind in kinds]


def _two() -> tuple[optim.Optimizer, list[Any]]:
    return _with(optim.ConstantLR, lambda opt: optim.ExponentialLR(opt, 0.5))


_COMMON = {"last_epoch": -1, "hyper": "lr", "scaler": None, "read_every": 2}
_add(
    "netcl.optim",
    Schedule__dot__step=lambda: (_cosine(),), Schedule__dot__get_last_lr=lambda: (_cosine(),),
    Schedule__dot__preview=lambda: (_cosine(), 3), Schedule__dot__detach=lambda: (_cosine(),),
    Schedule__dot__state_dict=lambda: (_cosine(),),
    Schedule__dot__load_state_dict=lambda: (_cosine(), _cosine().state_dict(), {}),
    ConstantLR=lambda: (_sgd(), 0.5, 4, dict(_COMMON)), LinearLR=lambda: (_sgd(), 0.5, 0.25, 4, dict(_COMMON)),
    StepLR=lambda: (_sgd(), 3, 0.5, dict(_COMMON)), MultiStepLR=lambda: (_sgd(), [3, 5], 0.5, dict(_COMMON)),
    ExponentialLR=lambda: (_sgd(), 0.5, dict(_COMMON)), PolynomialLR=lambda: (_sgd(), 4, 0.5, dict(_COMMON)),
    LambdaLR=lambda: (_sgd(), [lambda step: 0.5], dict(_COMMON)),
    MultiplicativeLR=lambda: (_sgd(), [lambda step: 0.5], dict(_COMMON)),
    CosineAnnealingWarmRestarts=lambda: (_sgd(), 3, 2, 0.25, dict(_COMMON)),
    WarmupStableDecay=lambda: (_sgd(), 2, 3, 4, 0.25, 0.5, "cos", dict(_COMMON)),
    SWALR=lambda: (_sgd(), [0.25], 3, "linear", dict(_COMMON)),
    CyclicLR=lambda: (_sgd(), [0.25], [0.5], 3, 4, "exp_range", 0.5, None, "cycle", True, [0.5], [0.75], dict(_COMMON)),
    OneCycleLR=lambda: (
        _sgd(), [0.5], 10, 2, 3, 0.25, "cos", True, [0.5], [0.75], 20.0, 100.0, True, dict(_COMMON)),
    SequentialLR=lambda: (*_two(), [3], dict(_COMMON)),
    ChainedScheduler=lambda: (*_two()[::-1], {"hyper": "lr", "scaler": None, "read_every": 2}),
    ReduceLROnPlateau__dot__detach=lambda: (_plateau(),), plot_schedule=lambda: (_cosine(), 3, None),
)  # fmt: skip
_add(
    "netcl.optim",
    SGD=lambda: (_plain(), 0.1, 0.5, 0.0, 0.25, True, dict(_PLAIN)),
    Momentum=lambda: (_plain(), 0.1, 0.5, 0.25, True, dict(_PLAIN)),
    Adam=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, {**_PLAIN, "amsgrad": True}),
    AdamW=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, {**_PLAIN, "amsgrad": True}),
    RMSProp=lambda: (_plain(), 0.1, 0.5, 1e-8, 0.25, 0.5, True, dict(_PLAIN)),
    Adagrad=lambda: (_plain(), 0.1, 0.25, 0.5, 0.125, 1e-8, dict(_PLAIN)),
    Adadelta=lambda: (_plain(), 0.1, 0.5, 1e-8, 0.25, dict(_PLAIN)),
    Adamax=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, dict(_PLAIN)),
    NAdam=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, 0.125, True, dict(_PLAIN)),
    RAdam=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, True, dict(_PLAIN)),
    ASGD=lambda: (_plain(), 0.1, 0.25, 0.5, 3.0, 0.125, dict(_PLAIN)),
    Rprop=lambda: (_plain(), 0.1, (0.5, 1.5), (0.25, 2.0), dict(_PLAIN)),
    Lion=lambda: (_plain(), 0.1, (0.5, 0.75), 0.25, dict(_PLAIN)),
    Adan=lambda: (_plain(), 0.1, (0.5, 0.75, 0.25), 1e-8, 0.25, True, dict(_PLAIN)),
    AdaBelief=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 1e-8, 0.25, True, dict(_PLAIN)),
    ScheduleFreeSGD=lambda: (_plain(), 0.1, 0.5, 0.25, 3, 0.5, 1.5, dict(_PLAIN)),
    ScheduleFreeAdamW=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, 3, 0.5, 1.5, dict(_PLAIN)),
    ScheduleFreeSGD__dot__eval=lambda: (optim.ScheduleFreeSGD([leaf(3)]),),
    ScheduleFreeSGD__dot__train=lambda: (optim.ScheduleFreeSGD([leaf(3)]),),
    ScheduleFreeAdamW__dot__eval=lambda: (optim.ScheduleFreeAdamW([leaf(3)]),),
    ScheduleFreeAdamW__dot__train=lambda: (optim.ScheduleFreeAdamW([leaf(3)]),),
    LAMB=lambda: (_plain(), 0.1, (0.5, 0.75), 1e-8, 0.25, dict(_PLAIN)),
    LARS=lambda: (_plain(), 0.1, 0.5, 0.25, 0.5, 1e-8, True, False, dict(_PLAIN)),
    Adafactor=lambda: (_plain(), 0.1, -0.5, (None, 1e-3), 1.5, 0.25, dict(_PLAIN)),
    Muon=lambda: ([np.ones((2, 3), np.float32)], 0.1, 0.25, 0.5, True, (3.0, -4.0, 2.0), 1e-7, 5, "original",
                  dict(_PLAIN)),
    LBFGS=lambda: ([leaf(3)], 0.5, 4, 5, 1e-7, 1e-9, 10, "strong_wolfe"),
    LBFGS__dot__step=_lbfgs_step,
    LBFGS__dot__state_dict=lambda: (_lbfgs(),),
    LBFGS__dot__load_state_dict=lambda: (_lbfgs(), _lbfgs().state_dict(), {}),
    PerTensor=lambda: (lambda p, g, s, h: g, lambda n, h: n.u),
    Rule=lambda: (lambda p, g, s, h: (p,), lambda group: {}, ("velocity",), False),
    Optimizer__dot__add_param_group=lambda: (_sgd(), {"params": [leaf(2)], "lr": 0.5}, {}),
    Optimizer__dot__step=lambda: (_sgd(), {"max_norm": 1.5}),
    Optimizer__dot__zero_grad=lambda: (_sgd(), True), Optimizer__dot__release_gradients=lambda: (_sgd(), 1.5),
    Optimizer__dot__source=lambda: (_stepped(),),
    Optimizer__dot__state_dict=lambda: (_stepped(),),
    Optimizer__dot__load_state_dict=lambda: (_sgd(), _stepped().state_dict(), {}),
    CosineAnnealingLR=lambda: (_sgd(), 10, 0.5), WarmupCosine=lambda: (_sgd(), 2, 10, 0.5, 0.25),
    ReduceLROnPlateau=lambda: (_sgd(), "max", 0.5, 3, 0.25, "abs", 2, 0.125, 1e-8),
    ReduceLROnPlateau__dot__step=lambda: (_plateau(), 0.5),
    ReduceLROnPlateau__dot__get_last_lr=lambda: (_plateau(),),
    ReduceLROnPlateau__dot__state_dict=lambda: (_plateau(),),
    ReduceLROnPlateau__dot__load_state_dict=lambda: (_plateau(), _plateau().state_dict(), {}),
    Optimizer__dot__extend=lambda: (_sgd(), ZeroedNaNs()),
    Optimizer__dot__register_step_pre_hook=lambda: (_sgd(), _nothing),
    Optimizer__dot__register_step_post_hook=lambda: (_sgd(), _nothing),
    Optimizer__dot__register_state_dict_pre_hook=lambda: (_sgd(), _nothing, True),
    Optimizer__dot__register_state_dict_post_hook=lambda: (_sgd(), _nothing, True),
    Optimizer__dot__register_load_state_dict_pre_hook=lambda: (_sgd(), _nothing, True),
    Optimizer__dot__register_load_state_dict_post_hook=lambda: (_sgd(), _nothing),
    AveragedParameters=lambda: (_sgd(), 0.5, {"start": 1, "every": 2, "warmup": True, "name": "mean"}),
    AveragedParameters__dot__adopt=lambda: (optim.AveragedParameters(_sgd()),),
    AveragedParameters__dot__applied=lambda: (optim.AveragedParameters(_sgd()),),
    AveragedParameters__dot__restart=lambda: (optim.AveragedParameters(_sgd()),),
    Lookahead=lambda: (_sgd(), 3, 0.25), zero_nans=lambda: (_sgd(),),
    MultiSteps=lambda: (_sgd(), 2), MultiSteps__dot__step=lambda: (_every_step(), {"max_norm": 1.5}),
    MultiSteps__dot__zero_grad=lambda: (_every_step(), True), MultiSteps__dot__state_dict=lambda: (_every_step(),),
    MultiSteps__dot__load_state_dict=lambda: (_every_step(), _every_step().state_dict(), {}),
    PerLabel=lambda: ([("w", leaf(3))], {"all": _made}, {"*": "all"}, {}),
    PerLabel__dot__step=lambda: (_labelled(), {"max_norm": 1.5}), PerLabel__dot__zero_grad=lambda: (_labelled(), True),
    PerLabel__dot__state_dict=lambda: (_labelled(),),
    PerLabel__dot__load_state_dict=lambda: (_labelled(), _labelled().state_dict(), {}),
    average_gradients=lambda: (_sgd(), 2),
    decay_groups=lambda: (nn.Linear(2, 3), 0.25, {"no_decay": ("bias", nn.LayerNorm)}),
    clip_grad_norm_=lambda: ([leaf(3)], 1.5, {"norm_type": 2.0, "error_if_nonfinite": True, "foreach": False}),
    clip_grad_value_=lambda: ([leaf(3)], 1.5, {"foreach": False}),
    clip_grad_norm_each=lambda: ([leaf(3)], [1.5], {"norm_type": 2.0, "error_if_nonfinite": True}),
    clip_grad_adaptive=lambda: ([leaf(3)], 0.5, 1e-3),
    clip_grads_with_norm_=lambda: ([leaf(3)], 1.5, 3.0, {"foreach": False}),
    get_total_norm=lambda: ([f32(3)], {"norm_type": 2.0, "error_if_nonfinite": True, "foreach": False}),
    clip_grad_norm=lambda: ([leaf(3)], 1.5, {"norm_type": 2.0, "error_if_nonfinite": True}),
    clip_grad_norm_device=lambda: ([leaf(3)], 1.5, {"norm_type": 2.0, "error_if_nonfinite": True}),
    clip_grad_value=lambda: ([leaf(3)], 1.5),
    AMPGradScaler=lambda: (64.0, 2.0, 0.5, 3, True, {"min_scale": 1.0, "device": "numpy"}),
    AMPGradScaler__dot__get_growth_factor=lambda: (optim.AMPGradScaler(),),
    AMPGradScaler__dot__get_backoff_factor=lambda: (optim.AMPGradScaler(),),
    AMPGradScaler__dot__get_growth_interval=lambda: (optim.AMPGradScaler(),),
    AMPGradScaler__dot__set_growth_factor=lambda: (optim.AMPGradScaler(), 4.0),
    AMPGradScaler__dot__set_backoff_factor=lambda: (optim.AMPGradScaler(), 0.25),
    AMPGradScaler__dot__set_growth_interval=lambda: (optim.AMPGradScaler(), 7),
    AMPGradScaler__dot__is_enabled=lambda: (optim.AMPGradScaler(),),
    AMPGradScaler__dot__scale=lambda: (optim.AMPGradScaler(64.0), f32(1)),
    AMPGradScaler__dot__unscale_=lambda: (_scaler(), _sgd()),
    AMPGradScaler__dot__step=lambda: (_scaler(), _sgd(), {"max_norm": 1.5}),
    AMPGradScaler__dot__update=lambda: (_scaler(), 32.0),
    AMPGradScaler__dot__get_scale=lambda: (optim.AMPGradScaler(64.0),),
    AMPGradScaler__dot__state_dict=lambda: (optim.AMPGradScaler(64.0),),
    AMPGradScaler__dot__load_state_dict=lambda: (optim.AMPGradScaler(), optim.AMPGradScaler(64.0).state_dict(), {}),
)  # fmt: skip
_add("netcl.amp", autocast=lambda: ("bfloat16", {"enabled": True}))

_SENT = {"bucket_bytes": 1024, "communication_dtype": "float16"}
_add(
    "netcl.distributed",
    DataParallel=lambda: (*_model_and_optimizer(), dict(_SENT)),
    DataParallel__dot____call__=lambda: (_parallel(), f32(2, 3)), DataParallel__dot__no_sync=lambda: (_parallel(),),
    DistributedSampler=lambda: (3, {"shuffle": True, "seed": 1, "remainder": "drop"}),
    DistributedSampler__dot__order=lambda: (distributed.DistributedSampler(3), 1),
    Shards__dot__no_sync=lambda: (_shards(),), Shards__dot__gather=lambda: (_shards(),),
    all_reduce_gradients=lambda: ([leaf(3)],), barrier=lambda: (), broadcast_object=lambda: (3,),
    broadcast_parameters=lambda: ([leaf(3)],), clip_grad_norm=lambda: (_shards(), 1.5), gather=lambda: (_shards(),),
    init=lambda: (netcl.get_backend(), {"timeout": 5.0}), local_rank=lambda: (), rank=lambda: (),
    world_size=lambda: (), rank_zero_only=lambda: (lambda: None,), reduce_metric=lambda: (0.5, "sum"),
    shard=lambda: ([leaf(3)], dict(_SENT)), gather_state=lambda: _over_shards(),
    scatter_state=lambda: (*_over_shards(), distributed.gather_state(*_over_shards()), {}),
)  # fmt: skip
