"""Shapes and strides: which elements of a buffer an array of some shape is made of. Plain integers.

Strides count elements. A stride of 0 repeats one element (broadcasting), and strides may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence

from netcl.errors import ShapeError


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides.

    Examples
    --------
    >>> from netcl.strides import contiguous_strides
    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements follow one another in row-major order. The strides of axes of extent 1 do not matter.

    Examples
    --------
    >>> from netcl.strides import is_contiguous
    >>> is_contiguous((2, 1, 3), (3, 99, 1)), is_contiguous((2, 3), (1, 2)), is_contiguous((0, 3), (7, 7))
    (True, False, True)
    """
    if 0 in shape:
        return True
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1:
            if stride != step:
                return False
            step *= extent
    return True


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of arrays of these shapes.

    Raises
    ------
    ShapeError
        If two extents differ and neither is 1.

    Examples
    --------
    >>> from netcl.strides import broadcast_shapes
    >>> broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        return shapes[0]
    rank = max(map(len, shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for axis, extent in enumerate(shape, rank - len(shape)):
            if extent == 1 or extent == result[axis]:
                continue
            if result[axis] != 1:
                raise ShapeError(
                    f"shapes {' and '.join(map(str, shapes))} cannot be broadcast: axis {axis - rank} has extents "
                    f"{result[axis]} and {extent}; they must be equal or 1"
                )
            result[axis] = extent
    return tuple(result)


def merge_axes(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Make adjacent axes one wherever every array goes through them as if they were.

    Parameters
    ----------
    shape : sequence of int
        What the arrays have in common.
    strides : sequence of sequence of int
        For each axis, the stride of every array.

    Returns
    -------
    tuple
        Shape and strides of the axes that are left, in the same form. None has extent 1, and there may be none.

    Examples
    --------
    >>> from netcl.strides import merge_axes
    >>> merge_axes((2, 3, 4), [(12, 0), (4, 0), (1, 0)])
    ((24,), ((1, 0),))
    >>> merge_axes((2, 3, 4), [(12, 0), (4, 0), (1, 1)])
    ((6, 4), ((4, 0), (1, 1)))
    """
    merged_shape: list[int] = []
    merged: list[tuple[int, ...]] = []
    for extent, steps in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if merged and all(outer == extent * step for outer, step in zip(merged[-1], steps, strict=True)):
            merged_shape[-1] *= extent
            merged[-1] = tuple(steps)
        else:
            merged_shape.append(extent)
            merged.append(tuple(steps))
    return tuple(merged_shape), tuple(merged)


def reshaped_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], target: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The strides of a view of shape ``target`` over the same elements in row-major order; None if there is none.

    Examples
    --------
    >>> from netcl.strides import reshaped_strides
    >>> reshaped_strides((4, 6), (12, 2), (2, 2, 3, 2)), reshaped_strides((4, 6), (1, 4), (24,))
    ((24, 12, 4, 2), None)
    """
    if 0 in shape:
        return contiguous_strides(target)
    merged_shape, merged_strides = merge_axes(shape, [(stride,) for stride in strides])
    runs = [(extent, stride) for extent, (stride,) in zip(merged_shape, merged_strides, strict=True)]
    result = [0] * len(target)
    remaining, step = runs.pop() if runs else (1, 1)
    for axis in reversed(range(len(target))):
        extent = target[axis]
        if extent == 1:
            result[axis] = step
            continue
        if remaining == 1:
            remaining, step = runs.pop()
        if remaining % extent:
            return None
        result[axis] = step
        remaining //= extent
        step *= extent
    return tuple(result)
