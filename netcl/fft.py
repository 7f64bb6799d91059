"""The Array API's extension of Fourier transforms."""

from typing import TYPE_CHECKING

import numpy as np

from netcl.backends import get_backend
from netcl.dtypes import DEFAULT_FLOAT, DType, as_dtype
from netcl.errors import ArgumentError, DeviceMemoryError, DTypeError
from netcl.functional import fourier
from netcl.functional.fourier import *
from netcl.functional.host import from_host
from netcl.tensor import Tensor
from netcl.validation import extent, real

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted(["fftfreq", "rfftfreq", *fourier.__all__])


def fftfreq(n: int, /, *, d: float = 1.0, dtype: DType | str | None = None, device: object = None) -> Tensor:
    """The frequencies of the elements of :func:`fft`, in cycles per unit of ``d``.

    y = [0, 1, …, (n-1)//2, -(n//2), …, -1] / (n · d)

    Parameters
    ----------
    n : int
        The number of points, at least 1.
    d : float, default 1.0
        The distance between samples.
    dtype : DType or str, default float32
        Real floating.
    device : str or Device, optional
        By default the default device.

    Returns
    -------
    Tensor of shape (n,)
        Enqueues; does not block.

    Raises
    ------
    ShapeError
        If ``n`` is less than 1.
    ArgumentError
        If ``d`` is 0 or not finite.
    DTypeError
        If ``dtype`` is not real floating, or the device cannot compute in it.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.fftfreq(4, d=0.5).tolist()
    [0.0, 0.5, -1.0, -0.5]
    """
    return _frequencies(n, d, dtype, device, halved=False)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: DType | str | None = None, device: object = None) -> Tensor:
    """The frequencies of the elements of :func:`rfft`, in cycles per unit of ``d``.

    y = [0, 1, …, n//2] / (n · d)

    Parameters
    ----------
    n, d, dtype, device
        As in :func:`fftfreq`.

    Returns
    -------
    Tensor of shape (n//2 + 1,)
        Enqueues; does not block.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        As in :func:`fftfreq`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.rfftfreq(4, d=0.5).tolist()
    [0.0, 0.5, 1.0]
    """
    return _frequencies(n, d, dtype, device, halved=True)


def _frequencies(n: int, d: float, dtype: DType | str | None, device: object, *, halved: bool) -> Tensor:
    points = extent("n", n, least=1)
    spacing = real("d", d)
    if spacing == 0.0:
        raise ArgumentError("d must be a number other than 0, got 0; it is the distance between samples")
    kind = DEFAULT_FLOAT if dtype is None else as_dtype(dtype)
    if kind.kind != "f":
        raise DTypeError(f"frequencies are real numbers: dtype must be real floating, got {kind}; pass netcl.float32")
    backend = get_backend(device)  # type: ignore[arg-type]
    first = (points + 1) // 2
    try:
        # Not NumPy's own fftfreq, which multiplies with a rounded 1 / (n · d).
        parts = [np.arange(points // 2 + 1)] if halved else [np.arange(first), np.arange(-(points // 2), 0)]
        values = np.concatenate(parts) / (points * spacing)
    except (MemoryError, ValueError, OverflowError) as error:
        raise DeviceMemoryError(f"{points} frequencies do not fit into the host's memory: {error}") from error
    return from_host(Tensor, values, backend, kind)
