"""Sets of values: the different elements of an array, and whether elements are among them. Found by sorting."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import bool_, int64, promote
from netcl.errors import DTypeError
from netcl.functional.complex_parts import imag, real
from netcl.functional.dispatch import A, check_arrays, common_backend, contiguous, identity, map_arrays
from netcl.functional.indexing import take
from netcl.functional.ordering import argsort
from netcl.functional.searching import number_beside, running_count, scatter_flat, sorted_places, true_positions
from netcl.functional.shape import reshape
from netcl.validation import flag, shown

__all__ = ["isin", "unique_all", "unique_counts", "unique_inverse", "unique_values"]


class UniqueAllResult(NamedTuple, Generic[A]):
    """What :func:`unique_all` returns."""

    values: A
    indices: A
    inverse_indices: A
    counts: A


class UniqueCountsResult(NamedTuple, Generic[A]):
    """What :func:`unique_counts` returns."""

    values: A
    counts: A


class UniqueInverseResult(NamedTuple, Generic[A]):
    """What :func:`unique_inverse` returns."""

    values: A
    inverse_indices: A


class _Sorted(Generic[A]):
    """The elements of an array in order, and where among them the different ones begin."""

    def __init__(self, name: str, x: A) -> None:
        check_arrays(name, x)
        self.x = x
        with tape.no_grad():
            self._sort(contiguous(reshape(x, (-1,))))

    def _sort(self, flat: A) -> None:
        n = flat.size
        self.starts = flat.empty_like((n,), bool_)
        if flat.dtype.kind == "c":  # by real part, then by imaginary part
            inner = argsort(imag(flat))
            self.order = take(inner, argsort(take(real(flat), inner, axis=0)), axis=0)
            self.elements = take(flat, self.order, axis=0)
        else:
            self.order = flat.empty_like((n,), int64)
            self.elements = flat.empty_like()
        if n:
            if flat.dtype.kind != "c":
                flat.backend.sort(flat.view(), 0, self.elements.view(), self.order.view(), descending=False)
            # NaN differs from itself, so that each one counts, as the standard has it.
            shifted = self.elements.restride((n - 1,), (1,), 0)
            ahead = self.elements.restride((n - 1,), (1,), 1)
            self.starts.backend.fill(self.starts.span(), True)
            if n > 1:
                rest = self.starts.restride((n - 1,), (1,), 1)
                changed = map_arrays(_differs, ahead, shifted, dtype=bool_)
                rest.backend.map(ex.conversion(bool_, bool_), (changed.view(),), (rest.view(),))
        self.begins = true_positions(self.starts)

    def values(self) -> A:
        """Each different element."""
        return take(self.elements, self.begins, axis=0)

    def indices(self) -> A:
        """Where each first stands in the flattened array."""
        return take(self.order, self.begins, axis=0)

    def inverse(self) -> A:
        """For each element of the array its place among the different ones."""
        out = self.order.empty_like()
        ranks = map_arrays(_minus_one, running_count(self.starts)) if out.size else out
        scatter_flat(ranks, self.order, out)
        return reshape(out, self.x.shape)

    def counts(self) -> A:
        """How often each occurs."""
        m, n = self.begins.size, self.starts.size
        out = self.begins.empty_like()
        if m:
            ends = self.begins.empty_like((m,), int64)
            ends.backend.fill(ends.restride((1,), (1,), m - 1).span(), n)
            if m > 1:
                tail = self.begins.restride((m - 1,), (1,), 1)
                ends.backend.map(
                    ex.conversion(int64, int64), (tail.view(),), (ends.restride((m - 1,), (1,), 0).view(),)
                )
            out = map_arrays(_minus, ends, self.begins)
        return out


def _differs(x: Any, y: Any) -> Any:
    return ex.not_equal(x, y)


def _minus_one(x: Any) -> Any:
    return x - 1


def _minus(x: Any, y: Any) -> Any:
    return x - y


def unique_all(x: A, /) -> UniqueAllResult[A]:
    """The different elements in order, where each first stands, and which and how many of them there are. **Blocks**.

    Their number decides the shapes. Each NaN counts as different.

    Parameters
    ----------
    x : Tensor
        Taken flat. Complex numbers are in the order of their real parts, then of their imaginary parts.

    Returns
    -------
    UniqueAllResult
        Named tuple of ``values``, ``indices``, ``inverse_indices`` (of the shape of ``x``) and ``counts``.

    Examples
    --------
    >>> import netcl
    >>> [part.tolist() for part in netcl.unique_all(netcl.asarray([3, 1, 3]))]
    [[1, 3], [1, 0], [1, 0, 1], [1, 2]]
    """
    found = _Sorted("unique_all", x)
    return UniqueAllResult(found.values(), found.indices(), found.inverse(), found.counts())


def unique_counts(x: A, /) -> UniqueCountsResult[A]:
    """The different elements in order, and how often each occurs. **Blocks**; see :func:`unique_all`.

    Examples
    --------
    >>> import netcl
    >>> [part.tolist() for part in netcl.unique_counts(netcl.asarray([3, 1, 3]))]
    [[1, 3], [1, 2]]
    """
    found = _Sorted("unique_counts", x)
    return UniqueCountsResult(found.values(), found.counts())


def unique_inverse(x: A, /) -> UniqueInverseResult[A]:
    """The different elements in order, and which of them each element is. **Blocks**; see :func:`unique_all`.

    Examples
    --------
    >>> import netcl
    >>> [part.tolist() for part in netcl.unique_inverse(netcl.asarray([3, 1, 3]))]
    [[1, 3], [1, 0, 1]]
    """
    found = _Sorted("unique_inverse", x)
    return UniqueInverseResult(found.values(), found.inverse())


def unique_values(x: A, /) -> A:
    """The different elements in order. **Blocks**; see :func:`unique_all`.

    Examples
    --------
    >>> import netcl
    >>> netcl.unique_values(netcl.asarray([3, 1, 3])).tolist()
    [1, 3]
    """
    return _Sorted("unique_values", x).values()


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Any:
    """Whether each element of ``x1`` is among those of ``x2``.

    Parameters
    ----------
    x1, x2 : Tensor of real numbers or bool, or Python number
        At least one of them a Tensor. A NaN is among none.
    invert : bool, default False
        Whether it is not.

    Returns
    -------
    Tensor
        bool, of the shape of ``x1``. Enqueues; **blocks** where :func:`sort` does, for ``x2`` is sorted.

    Raises
    ------
    DTypeError
        If an operand is complex.

    Examples
    --------
    >>> import netcl
    >>> netcl.isin(netcl.asarray([1, 2, 3]), netcl.asarray([2, 5])).tolist()
    [False, True, False]
    """
    turned = flag("invert", invert)
    arrays = [x for x in (x1, x2) if isinstance(x, Array)]
    if not arrays:
        check_arrays("isin", x1, x2)
    wanted, known = (_beside(x, arrays[0]) for x in (x1, x2))
    for x in (wanted, known):
        if x.dtype.kind == "c":
            raise DTypeError(f"isin does not take arrays of {x.dtype}, which have no order; compare with == instead")
    common_backend((wanted, known))
    shape, dtype = wanted.shape, promote(wanted.dtype, known.dtype)
    first, second = (contiguous(map_arrays(identity, reshape(x, (-1,)), dtype=dtype)) for x in (wanted, known))
    out = first.empty_like(None, bool_)
    if out.size and second.size == 0:
        out.backend.fill(out.span(), turned)
    elif out.size:
        ordered = second.empty_like()
        second.backend.sort(second.view(), 0, ordered.view(), None, descending=False)
        at = map_arrays(_at_most, sorted_places(ordered, first, right=False), second.size - 1)
        found = take(ordered, at, axis=0)
        out = map_arrays(_differs if turned else _equals, found, first, dtype=bool_)
    return reshape(out, shape)


def _equals(x: Any, y: Any) -> Any:
    return ex.equal(x, y)


def _at_most(x: Any, most: Any) -> Any:
    return ex.minimum(x, most)


def _beside(x: Any, other: Array) -> Array:
    if isinstance(x, Array):
        return x
    if not isinstance(x, bool | int | float):
        raise DTypeError(f"isin takes Tensors and real Python numbers, got {shown(x)}; use netcl.asarray(x)")
    return number_beside(other, x)
