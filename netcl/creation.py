"""New Tensors: from numbers, nested lists and other libraries' arrays, and of one pattern. Only a move blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from netcl.array import Storage
from netcl.backends import get_backend
from netcl.backends.base import Backend
from netcl.dtypes import DEFAULT_FLOAT, DType, as_dtype, bfloat16, bool_
from netcl.errors import ArgumentError, BackendError, DTypeError, ShapeError
from netcl.functional import exchange, host
from netcl.functional.casting import astype, check_supported
from netcl.functional.dispatch import check_arrays, stored_value
from netcl.functional.shape import broadcast_to, reshape
from netcl.functional.ternary import where
from netcl.functional.torch_names import clone
from netcl.opencl import from_pyopencl, is_pyopencl_array
from netcl.tensor import Tensor
from netcl.validation import extent, extents, flag, integer, number, one_of, shown

__all__ = [
    "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like", "meshgrid",
    "ones", "ones_like", "tril", "triu", "zeros", "zeros_like",
]  # fmt: skip

Shape = int | Sequence[int]


def backend_for(device: object, backend: object) -> Backend:
    """The backend that ``device=`` and ``backend=`` name; the default one for neither."""
    if device is None:
        return get_backend(backend)  # type: ignore[arg-type]
    found = get_backend(device)  # type: ignore[arg-type]
    if backend is not None and found.device.backend != get_backend(backend).device.backend:  # type: ignore[arg-type]
        raise BackendError(
            f"backend={shown(backend)} and device={str(device)!r} name different backends; give one of them"
        )
    return found


def _finished(x: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        x.requires_grad = True
    return x


def _new(shape: Shape, dtype: DType, backend: Backend, requires_grad: bool) -> Tensor:
    check_supported(backend, dtype)
    requires_grad = flag("requires_grad", requires_grad)
    own = extents("shape", shape)
    if requires_grad and dtype.kind not in "fc":
        raise DTypeError(f"only floating Tensors can require a gradient, got {dtype}; pass dtype=netcl.float32")
    return _finished(Tensor(Storage.empty(backend, math.prod(own), dtype), own), requires_grad)


def asarray(
    obj: Any,
    /,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Make a Tensor of what holds numbers.

    Parameters
    ----------
    obj : Python number, nested sequence, array of NumPy, torch or pyopencl, Tensor, or anything with ``__dlpack__``
    dtype : DType or str, optional
        By default float32 for Python floats, int64 for ints, what Tensors in a sequence promote to, and otherwise that
        of ``obj``.
    device : str or Device, optional
        Such as ``"opencl:gpu"``; by default that of ``obj`` if it is a Tensor, else the default device.
    backend : str, optional
        Such as ``"opencl"``: the backend's default device.
    copy : bool, optional
        True always copies; False refuses to; None copies where it must. What is not a Tensor is always copied, but for
        arrays of pyopencl: see :func:`netcl.opencl.from_pyopencl`.
    requires_grad : bool, default False
        Whether ``backward`` leaves a gradient in ``grad``.

    Returns
    -------
    Tensor
        ``obj`` itself if it is a Tensor that fits already. Blocks only to move a Tensor between devices.

    Raises
    ------
    DTypeError
        If the dtype has no counterpart or the device cannot compute in it.
    BackendError
        If there is no such device.
    RangeError
        If an integer dtype cannot hold an element of ``obj``. A Tensor is converted as by :func:`astype`.
    ArgumentError
        If ``copy=False`` and a copy is needed.

    Examples
    --------
    >>> import netcl
    >>> netcl.asarray([[1.0, 2.0]], device="numpy")
    Tensor([[1., 2.]], dtype=float32, device='numpy')
    """
    target = None if dtype is None else as_dtype(dtype)
    requires_grad = flag("requires_grad", requires_grad)
    copy = None if copy is None else flag("copy", copy)
    if is_pyopencl_array(obj):
        obj = from_pyopencl(obj)
    if isinstance(obj, Tensor):
        place = obj.backend if device is None and backend is None else backend_for(device, backend)
        return _from_tensor(obj, target or obj.dtype, place, copy, requires_grad)
    if copy is False:
        raise ArgumentError(
            f"a {type(obj).__name__} cannot become a Tensor without a copy; pass copy=None or copy=True"
        )
    place = backend_for(device, backend)
    if type(obj).__module__.partition(".")[0] == "torch" and hasattr(obj, "detach"):
        obj = obj.detach().cpu()
        if str(obj.dtype) == "torch.bfloat16":
            obj, target = obj.float(), target or bfloat16
        obj = obj.resolve_neg().resolve_conj().numpy()
    values, own = host.read_values(obj)
    if requires_grad and (target or own).kind not in "fc":
        raise DTypeError(f"only floating Tensors can require a gradient, got {target or own}; pass dtype=netcl.float32")
    made = host.stored(values, target or own)
    if made is values and not isinstance(obj, bool | int | float | complex | list | tuple | range):
        made = made.copy()  # the caller may change it before the device has read it
    check_supported(place, target or own)
    return _finished(host.from_stored(Tensor, made, place, target or own), requires_grad)


def _from_tensor(x: Tensor, dtype: DType, backend: Backend, copy: bool | None, requires_grad: bool) -> Tensor:
    if dtype is x.dtype and backend is x.backend and not copy:
        if requires_grad and not x.requires_grad:
            return _finished(x.detach(), True)
        return x
    if copy is False:
        raise ArgumentError(
            f"a Tensor of {x.dtype} on {x.device} cannot become {dtype} on {backend.device} without a copy; "
            "pass copy=None"
        )
    out = x if dtype is x.dtype else astype(x, dtype)
    out = host.moved(out, backend)
    if out is x:
        out = x.clone()
    return _finished(out, requires_grad)


def from_dlpack(x: Any, /, *, device: object = None, copy: bool | None = None) -> Tensor:
    """Make a Tensor of an object with ``__dlpack__``, through host memory.

    Parameters
    ----------
    x : Tensor, or an array of another library
    device : str or Device, optional
        By default that of a Tensor, else the default device.
    copy : bool, optional
        None shares the memory where the NumPy backend can: of a row-major, writable array. False asks for that on
        runtimes too that share the host's memory, where the array must not be touched while the Tensor is in use. True
        always copies.

    Raises
    ------
    DTypeError
        If it has no ``__dlpack__``, cannot be read on the host, or its dtype has no counterpart.
    ArgumentError
        If ``copy=False`` and a copy is needed.

    Examples
    --------
    >>> import netcl, numpy
    >>> host = numpy.ones(2, dtype="float32")
    >>> x = netcl.from_dlpack(host, device="numpy")
    >>> host[0] = 5.0
    >>> x.tolist()
    [5.0, 1.0]
    """
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(f"a {type(x).__name__} has no __dlpack__; use netcl.asarray(x)")
    if isinstance(x, Tensor):
        return asarray(x, device=device, copy=copy)
    copy = None if copy is None else flag("copy", copy)
    return exchange.imported(Tensor, x, backend_for(device, None), copy)


def empty(
    shape: Shape,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor with unspecified contents.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : DType or str, default float32
    device, backend, requires_grad
        As in :func:`asarray`.

    Examples
    --------
    >>> import netcl
    >>> netcl.empty((2, 3)).shape
    (2, 3)
    """
    kind = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    return _new(shape, kind, backend_for(device, backend), requires_grad)


def _filled(x: Tensor, value: Any) -> Tensor:
    if x.size:
        x.backend.fill(x.span(), value)
    return x


def zeros(
    shape: Shape,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of zeros. Parameters as in :func:`empty`.

    Examples
    --------
    >>> import netcl
    >>> netcl.zeros(2).tolist()
    [0.0, 0.0]
    """
    return _filled(empty(shape, dtype=dtype, device=device, backend=backend, requires_grad=requires_grad), 0)


def ones(
    shape: Shape,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of ones. Parameters as in :func:`empty`.

    Examples
    --------
    >>> import netcl
    >>> netcl.ones((2, 2), dtype=netcl.int32).tolist()
    [[1, 1], [1, 1]]
    """
    return _filled(empty(shape, dtype=dtype, device=device, backend=backend, requires_grad=requires_grad), 1)


def number_of(name: str, value: Any) -> Any:
    """The number ``value``, which is read if it is one in a 0-dimensional Tensor: that **blocks**."""
    return number(name, value.item() if isinstance(value, Tensor) and value.ndim == 0 else value)


def full(
    shape: Shape,
    fill_value: bool | int | float | complex | Tensor,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of one value, by default of that value's dtype. Parameters as in :func:`empty`.

    A value that is a 0-dimensional Tensor is read, which **blocks**; no gradient goes to it.

    Examples
    --------
    >>> import netcl
    >>> netcl.full(2, 7).dtype
    netcl.int64
    """
    value = number_of("fill_value", fill_value)
    own: Any = getattr(fill_value, "dtype", type(value)) if dtype is None else dtype
    kind = as_dtype(own)
    value = stored_value(value, kind)
    return _filled(empty(shape, dtype=kind, device=device, backend=backend, requires_grad=requires_grad), value)


def empty_like(x: Tensor, /, *, dtype: DType | str | None = None, device: object = None) -> Tensor:
    """A Tensor of the shape, dtype and device of ``x``, with unspecified contents.

    Examples
    --------
    >>> import netcl
    >>> netcl.empty_like(netcl.zeros((2, 3), dtype=netcl.int8)).dtype
    netcl.int8
    """
    return _like("empty_like", x, dtype, device)


def _like(name: str, x: Tensor, dtype: DType | str | None, device: object) -> Tensor:
    check_arrays(name, x)
    backend = x.backend if device is None else backend_for(device, None)
    return _new(x.shape, x.dtype if dtype is None else as_dtype(dtype), backend, False)


def zeros_like(x: Tensor, /, *, dtype: DType | str | None = None, device: object = None) -> Tensor:
    """Zeros of the shape, dtype and device of ``x``.

    Examples
    --------
    >>> import netcl
    >>> netcl.zeros_like(netcl.ones(2)).tolist()
    [0.0, 0.0]
    """
    return _filled(_like("zeros_like", x, dtype, device), 0)


def ones_like(x: Tensor, /, *, dtype: DType | str | None = None, device: object = None) -> Tensor:
    """Ones of the shape, dtype and device of ``x``.

    Examples
    --------
    >>> import netcl
    >>> netcl.ones_like(netcl.zeros(2)).tolist()
    [1.0, 1.0]
    """
    return _filled(_like("ones_like", x, dtype, device), 1)


def full_like(
    x: Tensor,
    /,
    fill_value: bool | int | float | complex | Tensor,
    *,
    dtype: DType | str | None = None,
    device: object = None,
) -> Tensor:
    """One value in the shape, dtype and device of ``x``; one in a 0-dimensional Tensor is read, which **blocks**.

    Examples
    --------
    >>> import netcl
    >>> netcl.full_like(netcl.zeros(2), 3).tolist()
    [3.0, 3.0]
    """
    check_arrays("full_like", x)
    value = stored_value(number_of("fill_value", fill_value), x.dtype if dtype is None else as_dtype(dtype))
    return _filled(_like("full_like", x, dtype, device), value)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
) -> Tensor:
    """Ones on a diagonal and zeros elsewhere.

    Parameters
    ----------
    n_rows : int
    n_cols : int, optional
        As many as rows by default.
    k : int, default 0
        The diagonal: positive above the main one.
    dtype : DType or str, default float32
    device, backend
        As in :func:`asarray`.

    Examples
    --------
    >>> import netcl
    >>> netcl.eye(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    kind = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    place = backend_for(device, backend)
    rows = extent("n_rows", n_rows)
    columns = rows if n_cols is None else extent("n_cols", n_cols)
    extents("the shape of eye", (rows, columns))
    diagonal = max(-rows, min(integer("k", k), columns))
    return host.from_host(Tensor, host.made_on_host(np.eye, rows, columns, k=diagonal), place, kind)


def _triangle(x: Tensor, k: int, lower: bool) -> Tensor:
    check_arrays("tril" if lower else "triu", x)
    if x.ndim < 2:
        raise ShapeError(f"a triangle needs at least two axes, got shape {x.shape}")
    rows, columns = x.shape[-2:]
    diagonal = max(-rows - 1, min(integer("k", k), columns + 1))
    kept = host.made_on_host(np.tri, rows, columns, k=diagonal if lower else diagonal - 1, dtype=bool)
    mask = host.from_host(Tensor, kept if lower else ~kept, x.backend, bool_)
    return where(mask, x, False if x.dtype is bool_ else 0)


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The lower triangle of each matrix, zeros elsewhere.

    Examples
    --------
    >>> import netcl
    >>> netcl.tril(netcl.ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    return _triangle(x, k, lower=True)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The upper triangle of each matrix, zeros elsewhere.

    Examples
    --------
    >>> import netcl
    >>> netcl.triu(netcl.ones((2, 2))).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return _triangle(x, k, lower=False)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """The coordinates of a grid, from the coordinates along each axis.

    Parameters
    ----------
    arrays : Tensor
        One-dimensional, of one dtype.
    indexing : {"xy", "ij"}, default "xy"
        "xy" exchanges the first two axes.

    Raises
    ------
    ArgumentError
        For any other ``indexing``.

    Examples
    --------
    >>> import netcl
    >>> [x.shape for x in netcl.meshgrid(netcl.arange(2), netcl.arange(3))]
    [(3, 2), (3, 2)]
    """
    one_of("indexing", indexing, ("xy", "ij"))
    check_arrays("meshgrid", *arrays)
    order = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        order[0], order[1] = 1, 0
    shape = [1] * len(arrays)
    for array, place in zip(arrays, order, strict=True):
        if array.ndim != 1:
            raise ShapeError(f"meshgrid takes one-dimensional arrays, got shape {array.shape}")
        shape[place] = array.size
    columns = []
    for array, place in zip(arrays, order, strict=True):
        own = [array.size if axis == place else 1 for axis in range(len(arrays))]
        columns.append(broadcast_to(reshape(array, own), shape))
    return tuple([clone(column) for column in columns])
