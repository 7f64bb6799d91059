"""einsum against NumPy's, its gradients, and opt_einsum over netcl."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl.errors import ArgumentError, ShapeError

CASES = {
    "ij,jk->ik": [(2, 3), (3, 4)], "ij,jk": [(2, 3), (3, 4)], "bij,bjk->bik": [(2, 3, 4), (2, 4, 5)], "ii->i": [(3, 3)],
    "ii": [(3, 3)], "iij->j": [(3, 3, 2)], "i,j->ij": [(2,), (3,)], "i,i->": [(4,), (4,)], "ij->ji": [(2, 3)],
    "ij->": [(2, 3)], "ij,ij->i": [(2, 3), (2, 3)], "...ij,...jk->...ik": [(5, 1, 2, 3), (4, 3, 2)],
    "...i->...": [(2, 3, 4)], "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)], "ba,ca->bc": [(2, 3), (4, 3)],
    "ab,cd->": [(2, 3), (4, 5)], "i...,i...": [(3, 2), (3, 2)], "ij,k->kji": [(2, 3), (4,)], "ij,j->ij": [(2, 3), (1,)],
    "abc,cd,be->ade": [(2, 3, 4), (4, 5), (3, 2)], "->": [()], "ijk,ijk->k": [(2, 0, 3), (2, 0, 3)],
}  # fmt: skip


def values(shapes):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("subscripts", CASES)
def test_einsum_is_numpys(backend, subscripts):
    operands = values(CASES[subscripts])
    with netcl.use_backend(backend):
        found = netcl.einsum(subscripts, *map(netcl.asarray, operands)).numpy()
    wanted = np.einsum(subscripts, *operands)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_of_einsum(backend):
    x, y = values([(2, 3, 3), (3, 4)])
    with netcl.use_backend(backend):
        a, b = (netcl.asarray(v, requires_grad=True) for v in (x, y))
        with ag.Tape() as tape:
            loss = netcl.sum(netcl.einsum("bii,ij->bj", a, b))
        tape.backward(loss)
        wanted = np.einsum("i,jk->jik", y.sum(1), np.ones((2, 1))) * np.eye(3)
        np.testing.assert_allclose(a.grad.numpy(), wanted, rtol=1e-5)
        np.testing.assert_allclose(b.grad.numpy(), np.einsum("bii->i", x)[:, None] * np.ones((3, 4)), rtol=1e-4)


@pytest.mark.parametrize(
    ("subscripts", "shapes", "error", "message"),
    [
        ("ij,jk", [(2, 3)], ArgumentError, "subscripts for 2 operands, got 1"),
        ("ijk", [(2, 3)], ArgumentError, "has 3 letters for an operand of shape"),
        ("ij->k", [(2, 3)], ArgumentError, "'k' in its result but in no operand"),
        ("ij->ii", [(2, 3)], ArgumentError, "each letter once in the result"),
        ("i1", [(2, 3)], ArgumentError, "takes letters"),
        ("ij,jk", [(2, 3), (4, 2)], ShapeError, "extents 3 and 4 for 'j'"),
    ],
)
def test_refusals_name_the_rule(subscripts, shapes, error, message):
    with pytest.raises(error, match=message):
        netcl.einsum(subscripts, *map(netcl.asarray, values(shapes)))


def test_transpose_reverses_axes():
    x = netcl.zeros((2, 3, 4))
    assert (netcl.transpose(x).shape, netcl.transpose(x, (1, 0, 2)).shape) == ((4, 3, 2), (3, 2, 4))
