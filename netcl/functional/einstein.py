"""Sums of products in Einstein's notation, and the name under which other libraries ask for axes in another order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from netcl.array import Array
from netcl.errors import ArgumentError, ShapeError
from netcl.functional.dispatch import A, check_arrays, common_backend
from netcl.functional.linalg import matmul
from netcl.functional.linalg_extension import diagonal
from netcl.functional.reduction import sum
from netcl.functional.shape import broadcast_to, moveaxis, permute_dims, reshape
from netcl.validation import shown

__all__ = ["einsum", "transpose"]


def transpose(x: A, axes: Sequence[int] | None = None) -> A:
    """Put the axes into another order, as a view; by default the reverse one.

    Parameters
    ----------
    x : Tensor
    axes : sequence of int, optional
        As in :func:`permute_dims`.

    Examples
    --------
    >>> import netcl
    >>> netcl.transpose(netcl.zeros((2, 3, 4))).shape
    (4, 3, 2)
    """
    check_arrays("transpose", x)
    return permute_dims(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


def einsum(subscripts: str, /, *operands: A) -> A:
    """The sum of products that letters for axes describe.

    ``einsum("ij,jk->ik", x, y)[i, k] = Σ_j x[i, j] · y[j, k]``

    Parameters
    ----------
    subscripts : str
        A letter for each axis of each operand, with commas between operands. What stands behind ``->`` are the axes of
        the result; without it those letters that occur once, in alphabetical order. ``...`` stands for axes that
        broadcast. A letter twice in one operand takes its diagonal.
    operands : Tensor

    Returns
    -------
    Tensor
        Two operands at a time from the left, by matrix products; ``opt_einsum.contract`` finds a better order.
        Enqueues; does not block.

    Raises
    ------
    ArgumentError
        If the subscripts are malformed or do not fit the operands.
    ShapeError
        If axes of one letter differ in extent.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> netcl.einsum("ij,jk->ik", x, x).tolist(), netcl.einsum("ii", x).item()
    ([[7.0, 10.0], [15.0, 22.0]], 5.0)
    """
    if not isinstance(subscripts, str) or not operands:
        raise ArgumentError(
            f"einsum takes subscripts such as 'ij,jk->ik' and Tensors, got {shown(subscripts)} and {len(operands)}"
        )
    check_arrays("einsum", *operands)
    common_backend(operands)
    given, result = _parsed(subscripts, operands)
    extents = _extents(given, operands)
    terms = [_without_repeats(x, labels, extents) for x, labels in zip(operands, given, strict=True)]
    x, labels = terms[0]
    for place, (y, theirs) in enumerate(terms[1:], 1):
        later = set(result).union(*[rest for _, rest in terms[place + 1 :]])
        x, labels = _contracted(x, labels, y, theirs, later)
    x, labels = _summed(x, labels, set(result))
    missing = [label for label in result if label not in labels]
    if missing:
        raise ArgumentError(f"einsum has {''.join(missing)!r} in its result but in no operand: {subscripts!r}")
    return permute_dims(x, [labels.index(label) for label in result])


def _parsed(subscripts: str, operands: Sequence[Array]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with letters of their own in place of ``...``."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(operands):
        raise ArgumentError(f"einsum has subscripts for {len(parts)} operands, got {len(operands)}: {subscripts!r}")
    letters = (left + right).replace("...", "").replace(",", "")
    if not all(letter.isascii() and letter.isalpha() for letter in letters) or len(set(right)) < len(
        right.replace("...", ".")
    ):
        raise ArgumentError(
            f"einsum takes letters, ',', '...' and one '->', each letter once in the result, got {subscripts!r}"
        )
    counts = []
    for part, x in zip(parts, operands, strict=True):
        own = len(part.replace("...", ""))
        if part.count("...") > 1 or (own > x.ndim if "..." in part else own != x.ndim):
            raise ArgumentError(
                f"einsum has {own} letters for an operand of shape {x.shape}: {part!r} in {subscripts!r}"
            )
        counts.append(x.ndim - own)
    widest = max(counts)
    free = [chr(code) for code in range(0x3B1, 0x3B1 + widest)]  # Greek, which no caller can use
    given = [part.replace("...", "".join(free[widest - count :])) for part, count in zip(parts, counts, strict=True)]
    if arrow:
        return given, right.replace("...", "".join(free))
    once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
    return given, "".join(free if "..." in left else []) + "".join(once)


def _extents(given: Sequence[str], operands: Sequence[Array]) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels, x in zip(given, operands, strict=True):
        for label, extent in zip(labels, x.shape, strict=True):
            known = found.setdefault(label, extent)
            if extent != known and 1 not in (extent, known):
                raise ShapeError(
                    f"einsum has axes of extents {known} and {extent} for {label if label.isascii() else '...'!r}; "
                    "they must be equal or 1"
                )
            found[label] = extent if known == 1 else known
    return found


def _without_repeats(x: A, labels: str, extents: dict[str, int]) -> tuple[A, str]:
    """The diagonal of axes of one letter, and every axis at its full extent."""
    x = broadcast_to(x, [extents[label] for label in labels])
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = diagonal(moveaxis(x, (first, second), (-2, -1)))
            labels = labels[:first] + labels[first + 1 : second] + labels[second + 1 :] + label
    return x, labels


def _summed(x: A, labels: str, kept: set[str]) -> tuple[A, str]:
    """``x`` summed over the axes whose letters nobody needs any more."""
    axes = tuple([place for place, label in enumerate(labels) if label not in kept])
    if not axes:
        return x, labels
    total: Any = sum(x, axis=axes, dtype=x.dtype)
    return total, "".join([label for label in labels if label in kept])


def _contracted(x: A, mine: str, y: A, theirs: str, later: set[str]) -> tuple[A, str]:
    """The product of two operands, summed over the letters that only they have: one batched matrix product."""
    x, mine = _summed(x, mine, later | set(theirs))
    y, theirs = _summed(y, theirs, later | set(mine))
    batch = [label for label in mine if label in theirs and label in later]
    inner = [label for label in mine if label in theirs and label not in later]
    rows = [label for label in mine if label not in theirs]
    columns = [label for label in theirs if label not in mine]
    left = permute_dims(x, [mine.index(label) for label in (*batch, *rows, *inner)])
    right = permute_dims(y, [theirs.index(label) for label in (*batch, *inner, *columns)])
    b, m, k = len(batch), len(rows), len(inner)
    shape = (*left.shape[: b + m], *right.shape[b + k :])
    size = math.prod(left.shape[:b])
    product = matmul(
        reshape(left, (size, math.prod(left.shape[b : b + m]), math.prod(left.shape[b + m :]))),
        reshape(right, (size, math.prod(right.shape[b : b + k]), math.prod(right.shape[b + k :]))),
    )
    return reshape(product, shape), "".join((*batch, *rows, *columns))
