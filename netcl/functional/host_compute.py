"""What NumPy computes on the host for arrays of any device: the one door for factorizations and Fourier transforms.

Where the device shares the host's memory NumPy reads that memory itself; elsewhere the operands are downloaded. What it
makes goes back to the device of the operands. All of it **blocks**.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.array import Array
from netcl.dtypes import DType, bfloat16, complex64, complex128, float32, float64
from netcl.errors import DeviceMemoryError, DTypeError, LinAlgError
from netcl.functional.casting import check_supported
from netcl.functional.dispatch import A, common_backend, contiguous
from netcl.functional.host import from_stored, to_host
from netcl.host_dtypes import STORAGE, stored_as, values_of

Computation = Callable[..., Any]
"""Takes the operands as NumPy arrays, which it must not write to, and returns one array or a tuple of them."""


class HostLinAlgError(LinAlgError, np.linalg.LinAlgError):
    """A LinAlgError that is NumPy's too, for those who catch that one."""


def compute_on_host(
    name: str, function: Computation, arrays: Sequence[A], dtypes: Sequence[DType], remedy: str = ""
) -> list[A]:
    """The arrays that ``function`` makes of ``arrays``, as arrays of ``dtypes`` on their device. **Blocks**.

    16-bit floats reach the function as float32, and results of such a dtype are rounded once. Not recorded.

    Parameters
    ----------
    name : str
        The function of the user that this is for.
    remedy : str, optional
        What to do where NumPy raises its LinAlgError.

    Raises
    ------
    LinAlgError
        If NumPy does.
    DTypeError
        If the device cannot compute in one of ``dtypes``. Comes before anything is computed.
    DeviceMemoryError
        If the host has not the memory for it.
    """
    backend = common_backend(arrays)
    for dtype in dtypes:
        check_supported(backend, dtype)
    with ExitStack() as stack:
        values = _called(name, function, _readable(arrays, stack), remedy)
        results = values if isinstance(values, tuple) else (values,)
        stored = [_stored(np.asarray(value), dtype) for value, dtype in zip(results, dtypes, strict=True)]
    return [from_stored(type(arrays[0]), value, backend, dtype) for value, dtype in zip(stored, dtypes, strict=True)]


def _called(name: str, function: Computation, values: list[NDArray[Any]], remedy: str) -> Any:
    shapes = " and ".join([str(value.shape) for value in values])
    try:
        with np.errstate(all="ignore"):
            return function(*values)
    except np.linalg.LinAlgError as error:
        raise HostLinAlgError(f"{name} of shape {shapes}: {str(error).lower()}; {remedy}") from error
    except MemoryError as error:
        raise DeviceMemoryError(f"{name} of shape {shapes} does not fit into the host's memory: {error}") from error


def _readable(arrays: Sequence[A], stack: ExitStack) -> list[NDArray[Any]]:
    """The elements of each array in its compute dtype, until ``stack`` is closed."""
    whole = {id(x): contiguous(x) for x in arrays}
    buffers = [x.storage.buffer for x in whole.values()]
    # What is map_arrays must not be read in another way, so the parts of one buffer are copied, and before that.
    map_arrays = {key: x for key, x in whole.items() if _can_map(x) and buffers.count(x.storage.buffer) == 1}
    found = {key: to_host(x) for key, x in whole.items() if key not in map_arrays}
    if map_arrays:
        common_backend(arrays).synchronize()  # which raises what was deferred
    for key, x in map_arrays.items():
        mapping = x.backend.map_host(x.span())
        stack.callback(mapping.release)
        found[key] = mapping.array().reshape(x.shape)
    return [_widened(found[id(x)], x.dtype) for x in arrays]


def _can_map(x: Array) -> bool:
    return x.size > 0 and x.backend.device.shares_host_memory


def _widened(stored: NDArray[Any], dtype: DType) -> NDArray[Any]:
    values = values_of(stored, dtype)
    return values if dtype.compute is dtype or dtype is bfloat16 else values.astype(STORAGE[dtype.compute])


def _stored(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """A new array, for what NumPy returns may be a view of an operand that the device owns again soon."""
    if dtype.compute is not dtype:
        return np.ascontiguousarray(stored_as(values, dtype)).reshape(values.shape)
    return np.array(values, STORAGE[dtype], order="C", copy=values.base is not None or None)


def complex_of(dtype: DType) -> DType:
    """The complex dtype whose parts have the width in which a floating dtype is computed."""
    return complex128 if dtype is float64 or dtype is complex128 else complex64


def real_of(dtype: DType) -> DType:
    """The dtype of the absolute value of a floating dtype."""
    return {complex64: float32, complex128: float64}.get(dtype, dtype)


def check_floating(name: str, *arrays: Array) -> None:
    """Refuse arrays of integers and bools."""
    for x in arrays:
        if x.dtype.kind not in "fc":
            raise DTypeError(
                f"{name} takes floating arrays, got one of {x.dtype}; convert it with astype(netcl.float32)"
            )
