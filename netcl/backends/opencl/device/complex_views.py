"""Views of complex elements as views of their parts."""

from __future__ import annotations

from collections.abc import Sequence

from netcl.backends.base import Span, View
from netcl.backends.opencl.device.memory import own_buffer


def part_views(x: View) -> tuple[View, View]:
    """The real and the imaginary parts of a complex view, in the same memory."""
    parts = own_buffer(x).parts()
    strides = tuple([2 * stride for stride in x.strides])
    return View(parts, 2 * x.offset, x.shape, strides), View(parts, 2 * x.offset + 1, x.shape, strides)


def split_views(views: Sequence[View]) -> list[View]:
    """The views with those of both parts in the place of each complex one."""
    found: list[View] = []
    for view in views:
        found += part_views(view) if view.dtype.kind == "c" else (view,)
    return found


def interleaved(x: View) -> View:
    """A complex view with one axis more, along which the two parts lie."""
    return View(own_buffer(x).parts(), 2 * x.offset, (*x.shape, 2), (*[2 * stride for stride in x.strides], 1))


def part_span(x: Span) -> Span:
    """The parts of a complex span, in turn."""
    return Span(own_buffer(x).parts(), 2 * x.offset, 2 * x.size)
