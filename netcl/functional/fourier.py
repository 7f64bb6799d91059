"""Discrete Fourier transforms, by NumPy on the host, with their derivatives; shifts of their results on the device.

Transforms and their derivatives **block**: see :mod:`netcl.functional.host_compute`.
"""

from __future__ import annotations

from collections.abc import Sequence

from netcl import tape
from netcl.functional.complex_parts import conjugated
from netcl.functional.dispatch import A, check_arrays
from netcl.functional.joining import roll
from netcl.functional.shape import normalize_axes
from netcl.functional.torch_names import clone as copied
from netcl.functional.transform import OPPOSITE, adjoint_transform, along_one, along_several, recorded, transform

__all__ = [
    "fft", "fftn", "fftshift", "hfft", "ifft", "ifftn", "ifftshift", "ihfft", "irfft", "irfftn", "rfft", "rfftn",
]  # fmt: skip

# -- along one axis ---------------------------------------------------------------------------------------------------


def fft(x: A, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> A:
    """The discrete Fourier transform along an axis. **Blocks**.

    y[k] = Σ_j x[j] · exp(-2πi · j · k / n)

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted: what is computed in is complex64 or complex128.
    n : int, optional
        Cut the axis, or pad it with zeros, to this extent first.
    axis : int, default -1
        The axis to transform.
    norm : {"backward", "ortho", "forward"}, default "backward"
        Where the factor 1/n stands: at the inverse transforms, its root at both kinds, or at the others.

    Returns
    -------
    Tensor
        Complex, on the device of ``x``.

    Raises
    ------
    DTypeError
        If ``x`` is not floating, or the device does not compute in complex numbers.
    AxisError
        If there is no such axis.
    ShapeError
        If there is no point to transform.

    Notes
    -----
    The derivative is another transform, and blocks too.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.fft(netcl.asarray([1.0, 2.0])).tolist()
    [(3+0j), (-1+0j)]
    """
    sizes, axes = along_one("fft", "fftn", x, n, axis, norm)
    return recorded("fft", "fftn", x, sizes, axes, norm)


def ifft(x: A, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> A:
    """The inverse of :func:`fft`. **Blocks**.

    y[j] = Σ_k x[k] · exp(2πi · j · k / n) / n

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted.
    n : int, optional
        Cut the axis, or pad it with zeros, to this extent first.
    axis, norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Complex, on the device of ``x``.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.ifft(netcl.asarray([3.0, -1.0])).tolist()
    [(1+0j), (2+0j)]
    """
    sizes, axes = along_one("ifft", "ifftn", x, n, axis, norm)
    return recorded("ifft", "ifftn", x, sizes, axes, norm)


def rfft(x: A, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> A:
    """The Fourier transform of real numbers along an axis. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Real. 16-bit floats are computed in float32.
    n : int, optional
        Cut the axis, or pad it with zeros, to this extent first.
    axis, norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Complex, with n // 2 + 1 elements along the axis, for the others are their conjugates.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`; a DTypeError also if ``x`` is complex.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.rfft(netcl.asarray([1.0, 2.0])).tolist()
    [(3+0j), (-1+0j)]
    """
    sizes, axes = along_one("rfft", "rfftn", x, n, axis, norm)
    return recorded("rfft", "rfftn", x, sizes, axes, norm)


def irfft(x: A, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> A:
    """The inverse of :func:`rfft`. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted. Imaginary parts that
        a real signal cannot have are ignored.
    n : int, optional
        The extent of the result; by default 2 · (m - 1), where ``x`` has m elements along the axis.
    axis, norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Real, on the device of ``x``.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.irfft(netcl.asarray([3.0, -1.0])).tolist()
    [1.0, 2.0]
    """
    sizes, axes = along_one("irfft", "irfftn", x, n, axis, norm)
    return recorded("irfft", "irfftn", x, sizes, axes, norm)


def hfft(x: A, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> A:
    """The Fourier transform of a signal whose spectrum is real: of the half of it that is enough. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted.
    n : int, optional
        The extent of the result; by default 2 · (m - 1), where ``x`` has m elements along the axis.
    axis, norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Real, on the device of ``x``.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.hfft(netcl.asarray([1.5, -0.5])).tolist()
    [1.0, 2.0]
    """
    sizes, axes = along_one("hfft", "irfftn", x, n, axis, norm)
    opposite = OPPOSITE[norm]
    out = transform("hfft", "irfftn", conjugated(x), sizes, axes, opposite)

    def vjp(g: A) -> A:
        return conjugated(adjoint_transform("hfft", "irfftn", x, sizes, axes, opposite, g))

    tape.record(out, (x, vjp), name="hfft")
    return out


def ihfft(x: A, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> A:
    """The inverse of :func:`hfft`. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Real. 16-bit floats are computed in float32.
    n : int, optional
        Cut the axis, or pad it with zeros, to this extent first.
    axis, norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Complex, with n // 2 + 1 elements along the axis, for the others are their conjugates.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`; a DTypeError also if ``x`` is complex.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.ihfft(netcl.asarray([1.0, 2.0])).tolist()
    [(1.5-0j), (-0.5-0j)]
    """
    sizes, axes = along_one("ihfft", "rfftn", x, n, axis, norm)
    opposite = OPPOSITE[norm]
    out = conjugated(transform("ihfft", "rfftn", x, sizes, axes, opposite))

    def vjp(g: A) -> A:
        return adjoint_transform("ihfft", "rfftn", x, sizes, axes, opposite, conjugated(g))

    tape.record(out, (x, vjp), name="ihfft")
    return out


# -- along several axes ----------------------------------------------------------------------------------------------


def fftn(x: A, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> A:
    """The discrete Fourier transform along several axes. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted.
    s : sequence of int, optional
        Cut the axes, or pad them with zeros, to these extents first; -1 leaves one as it is.
    axes : sequence of int, optional
        The axes to transform, each once; by default the last len(s), or all.
    norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Complex, on the device of ``x``.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.fftn(netcl.asarray([[1.0, 2.0]])).tolist()
    [[(3+0j), (-1+0j)]]
    """
    return along_several("fftn", "fftn", x, s, axes, norm)


def ifftn(x: A, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> A:
    """The inverse of :func:`fftn`. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted.
    s : sequence of int, optional
        Cut the axes, or pad them with zeros, to these extents first; -1 leaves one as it is.
    axes : sequence of int, optional
        The axes to transform, each once; by default the last len(s), or all.
    norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Complex, on the device of ``x``.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.ifftn(netcl.asarray([[3.0, -1.0]])).tolist()
    [[(1+0j), (2+0j)]]
    """
    return along_several("ifftn", "ifftn", x, s, axes, norm)


def rfftn(x: A, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> A:
    """The Fourier transform of real numbers along several axes. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Real. 16-bit floats are computed in float32.
    s : sequence of int, optional
        Cut the axes, or pad them with zeros, to these extents first; -1 leaves one as it is.
    axes : sequence of int, optional
        The axes to transform, each once; by default the last len(s), or all.
    norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Complex, with s[-1] // 2 + 1 elements along the last of the axes, for the others are their conjugates.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`; a DTypeError also if ``x`` is complex.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.rfftn(netcl.asarray([[1.0, 2.0]])).tolist()
    [[(3+0j), (-1+0j)]]
    """
    return along_several("rfftn", "rfftn", x, s, axes, norm)


def irfftn(x: A, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward") -> A:
    """The inverse of :func:`rfftn`. **Blocks**.

    Parameters
    ----------
    x : Tensor
        Floating. Real numbers and 16-bit floats are converted.
    s : sequence of int, optional
        The extents of the result along the axes; by default those of ``x``, and 2 · (m - 1) of m for the last.
    axes : sequence of int, optional
        The axes to transform, each once; by default the last len(s), or all.
    norm
        As in :func:`fft`.

    Returns
    -------
    Tensor
        Real, on the device of ``x``.

    Raises
    ------
    DTypeError, AxisError, ShapeError
        As in :func:`fft`.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.irfftn(netcl.asarray([[3.0, -1.0]])).tolist()
    [[1.0, 2.0]]
    """
    return along_several("irfftn", "irfftn", x, s, axes, norm)


# -- shifts -----------------------------------------------------------------------------------------------------------


def fftshift(x: A, /, *, axes: int | Sequence[int] | None = None) -> A:
    """Move the frequency 0 to the middle of each axis.

    Parameters
    ----------
    x : Tensor
    axes : int, sequence of int or None
        None takes all.

    Returns
    -------
    Tensor
        A copy. Enqueues; does not block.

    Raises
    ------
    AxisError
        If there is no such axis, or one is named twice.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.fftshift(netcl.fft.fftfreq(4)).tolist()
    [-0.5, -0.25, 0.0, 0.25]
    """
    return _shifted("fftshift", x, axes, 1)


def ifftshift(x: A, /, *, axes: int | Sequence[int] | None = None) -> A:
    """Undo :func:`fftshift`.

    Parameters
    ----------
    x : Tensor
    axes : int, sequence of int or None
        None takes all.

    Returns
    -------
    Tensor
        A copy. Enqueues; does not block.

    Raises
    ------
    AxisError
        If there is no such axis, or one is named twice.

    Examples
    --------
    >>> import netcl
    >>> netcl.fft.ifftshift(netcl.asarray([-1.0, 0.0, 1.0])).tolist()
    [0.0, 1.0, -1.0]
    """
    return _shifted("ifftshift", x, axes, -1)


def _shifted(name: str, x: A, axes: int | Sequence[int] | None, direction: int) -> A:
    check_arrays(name, x)
    places = normalize_axes(axes, x.ndim)
    moved = [axis for axis in places if x.shape[axis] > 1]
    # Either way half of the extent, which is rounded down where it leads away from the start.
    shifts = [x.shape[axis] // 2 if direction > 0 else -(x.shape[axis] // 2) for axis in moved]
    return roll(x, shifts, axis=moved) if moved else copied(x)
