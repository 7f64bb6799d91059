"""einops on Tensors: registered without being imported, in whatever order, and as on NumPy arrays."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl.child_process import run_python

einops = pytest.importorskip("einops", reason="the test extra is not installed")

CALLS = {
    "rearrange": lambda x: einops.rearrange(x, "b (h w) c -> (b c) w h", w=2),
    "split": lambda x: einops.rearrange(x, "(two b) n c -> two b c n", two=2),
    "merge a list": lambda x: einops.rearrange([x, x], "many b n c -> b (many n) c"),
    "repeat": lambda x: einops.repeat(x, "b n c -> b n (c times) new", times=2, new=3),
    **{name: (lambda x, name=name: einops.reduce(x, "b (n two) c -> n c", name, two=2))
       for name in ("sum", "mean", "max", "min", "prod")},
    "einsum": lambda x: einops.einsum(x, x, "b n c, b m c -> b n m"),
    "pack": lambda x: einops.pack([x, x[:, :1]], "b * c")[0],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_results_are_numpys(name, backend):
    values = np.linspace(-1.0, 1.5, 48, dtype="float32").reshape(4, 4, 3)
    got = CALLS[name](netcl.asarray(values, device=backend.device))
    want = CALLS[name](values)
    assert isinstance(got, netcl.Tensor)
    assert got.device == backend.device
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, atol=1e-6, strict=True)


def test_gradients_follow():
    x = netcl.ones((2, 6), device="numpy", requires_grad=True)
    with ag.Tape() as tape:
        y = netcl.sum(einops.reduce(x, "b (n two) -> n", "mean", two=2))
    tape.backward(y)
    np.testing.assert_allclose(x.grad.numpy(), 0.25)


@pytest.mark.parametrize("order", ["import netcl, einops", "import einops, netcl", "import einops; einops.rearrange"])
def test_registered_in_whatever_order(order):
    program = f"""
import sys
{order}
if "netcl" not in sys.modules:
    import numpy
    einops.rearrange(numpy.ones(2), "n -> n 1")
    import netcl
assert einops.rearrange(netcl.ones((2, 3), device="numpy"), "a b -> (b a)").shape == (6,)
"""
    assert run_python(program, timeout=120).failure == ""


def test_netcl_does_not_import_it():
    assert run_python("import sys, netcl; assert 'einops' not in sys.modules", timeout=120).failure == ""
    assert "einops" in sys.modules
