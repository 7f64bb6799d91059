"""Which axes of several views are one loop."""

from __future__ import annotations

from netcl.backends.opencl.codegen.strided_loops import Axes


def test_axes_that_fit_together_are_one():
    contiguous, bias = (20, 5, 1), (0, 0, 1)
    assert Axes.of((3, 4, 5), [contiguous, contiguous]).merged().shape == (60,)
    assert Axes.of((3, 4, 5), [contiguous, bias]).merged().shape == (12, 5)
    assert Axes.of((3, 1, 5), [(5, 99, 1)]).merged().shape == (15,)
    assert Axes.of((), [()]).merged().split(1)[1:] == (1, (1,))
    assert Axes.of((2, 900), [(1, 2)]).widened().shape == (2, 900)
    assert Axes.of((900, 2), [(2, 1)]).widened().shape == (2, 900)
