"""Which loops visit the elements of several strided views together. Plain integers, no OpenCL.

A layout depends on strides only through what merges and which axis is innermost, so that kernels built for a few
classes of layouts serve every shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netcl.strides import merge_axes

Strides = tuple[tuple[int, ...], ...]
"""For each axis, the stride of every operand."""

OUTER_AXES = 6
"""Axes besides the innermost that a kernel visits; what has more is launched piece by piece, or copied first."""

NARROW = 8
"""An innermost axis shorter than this gives way to the longest one."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes that several views share, outermost first.

    Attributes
    ----------
    shape : tuple of int
        The extents, none of them 1.
    strides : tuple of tuples of int
        For each axis, the stride of every operand.
    """

    shape: tuple[int, ...]
    strides: Strides

    @classmethod
    def of(cls, shape: Sequence[int], operands: Sequence[Sequence[int]]) -> Axes:
        """The axes of views of one ``shape``, given the strides of each; axes of extent 1 are left out."""
        kept = [axis for axis, extent in enumerate(shape) if extent != 1]
        return cls(
            tuple(shape[axis] for axis in kept), tuple(tuple(strides[axis] for strides in operands) for axis in kept)
        )

    def ordered(self, operand: int) -> Axes:
        """The same axes, those with the largest stride of one operand outermost."""
        order = sorted(range(len(self.shape)), key=lambda axis: -abs(self.strides[axis][operand]))
        return self.permuted(order)

    def permuted(self, order: Sequence[int]) -> Axes:
        """The same axes in another order."""
        return Axes(tuple(self.shape[axis] for axis in order), tuple(self.strides[axis] for axis in order))

    def merged(self) -> Axes:
        """Neighbouring axes that every operand walks through as if they were one, made one.

        Examples
        --------
        >>> from netcl.backends.opencl.codegen.strided_loops import Axes
        >>> Axes.of((2, 3, 4), [(12, 4, 1), (0, 0, 0)]).merged()
        Axes(shape=(24,), strides=((1, 0),))
        >>> Axes.of((2, 3, 4), [(12, 4, 1), (0, 0, 1)]).merged()
        Axes(shape=(6, 4), strides=((4, 0), (1, 1)))
        """
        return Axes(*merge_axes(self.shape, self.strides))

    def widened(self) -> Axes:
        """The same axes with the longest one innermost if the innermost is too short to fill vectors."""
        if len(self.shape) < 2 or self.shape[-1] >= NARROW:
            return self
        longest = max(range(len(self.shape)), key=lambda axis: self.shape[axis])
        if self.shape[longest] <= self.shape[-1]:
            return self
        return self.permuted([*(axis for axis in range(len(self.shape)) if axis != longest), longest])

    def split(self, operands: int) -> tuple[Axes, int, tuple[int, ...]]:
        """The outer axes, and the extent and strides of the innermost; without axes, one element of stride 1."""
        if not self.shape:
            return self, 1, (1,) * operands
        return Axes(self.shape[:-1], self.strides[:-1]), self.shape[-1], self.strides[-1]

    def pieces(self, rank: int, operands: int) -> tuple[tuple[tuple[int, ...], ...], Axes]:
        """Element offsets of every operand for each piece of at most ``rank`` axes, and the axes of a piece."""
        surplus = max(len(self.shape) - rank, 0)
        offsets = [(0,) * operands]
        for extent, steps in zip(self.shape[:surplus], self.strides[:surplus], strict=True):
            offsets = [
                tuple(start + place * step for start, step in zip(known, steps, strict=True))
                for known in offsets
                for place in range(extent)
            ]
        return tuple(offsets), Axes(self.shape[surplus:], self.strides[surplus:])
