"""Norm-based clipping on host and device, and clipping by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import netcl
from netcl.array import Storage
from netcl.backends.reference import ReferenceBackend
from netcl.errors import DeviceMismatchError, HyperParameterError, NetclError
from netcl.optim import SGD, clip_grad_norm, clip_grad_norm_device, clip_grad_value

BOTH = pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_norm_device], ids=["host", "device"])
ORDERS = [1, 2, 3.5, math.inf]


def parameters(gradients, backend):
    made = []
    for gradient in gradients:
        array = np.asarray(gradient, "float32")
        p = netcl.zeros(array.shape, device=backend.device, requires_grad=True)
        p.grad = netcl.asarray(array, device=backend.device, copy=True)
        made.append(p)
    return made


def norm(gradients, p):
    return float(np.linalg.norm(np.concatenate([np.ravel(g).astype("float64") for g in gradients]), p))


@BOTH
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("shapes", [[(1,)], [(3,), (7, 5)], [(0,), (2,)], [(1024,), (1025,), (100,)], [()]], ids=str)
def test_scales_to_the_norm(clip, p, shapes, backend):
    rng = np.random.default_rng(0)
    gradients = [np.asarray(rng.standard_normal(shape), "float32") for shape in shapes]
    total = norm(gradients, p)
    tensors = parameters(gradients, backend)
    assert float(clip(tensors, total / 2, norm_type=p)) == pytest.approx(total, rel=1e-6)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), gradient / 2, rtol=1e-6)
    before = [tensor.grad.numpy() for tensor in tensors]
    clip(tensors, total, norm_type=p)
    assert all(np.array_equal(t.grad.numpy(), b) for t, b in zip(tensors, before, strict=True))


@BOTH
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("size", [1e30, 1e20, 1e-30, 1e-20, 3e38])
def test_no_finite_gradient_overflows_or_underflows(clip, p, size, backend):
    tensors = parameters([[size, -size], [size, 0.0]], backend)
    limit = size * 1e-3
    clip(tensors, limit, norm_type=p)
    expected = limit / 3 ** (0.0 if math.isinf(p) else 1 / p)
    for tensor in tensors:
        np.testing.assert_allclose(np.abs(tensor.grad.numpy()).max(), expected, rtol=1e-5)


@BOTH
def test_zero_norm_leaves_zeros(clip, backend):
    tensors = parameters([np.zeros(5), np.zeros(0)], backend)
    assert float(clip(tensors, 1.0)) == 0.0
    assert tensors[0].grad.numpy().tolist() == [0.0] * 5
    assert float(clip(tensors, 0.0)) == 0.0


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("p", ORDERS)
def test_non_finite_gradients_are_left_and_reported(clip, bad, p, backend):
    tensors = parameters([[1.0, bad], [100.0]], backend)
    total = float(clip(tensors, 1.0, norm_type=p))
    assert math.isnan(total) if math.isnan(bad) else total == math.inf
    np.testing.assert_array_equal(tensors[0].grad.numpy(), np.asarray([1.0, bad], "float32"))
    assert tensors[1].grad.item() == 100.0
    with pytest.raises(NetclError, match="the norm of the gradients is"):
        clip(tensors, 1.0, norm_type=p, error_if_nonfinite=True)
    assert tensors[1].grad.item() == 100.0


@BOTH
def test_a_nan_is_reported_even_beside_an_infinity(clip, backend):
    assert math.isnan(float(clip(parameters([[math.inf, math.nan]], backend), 1.0, norm_type=math.inf)))


def test_the_same_bits_on_every_run(backend):
    gradient = np.random.default_rng(3).standard_normal(100_001).astype("float32")
    runs = set()
    for _ in range(5):
        tensors = parameters([gradient, gradient[:77]], backend)
        total = clip_grad_norm_device(tensors, 1.0).numpy().tobytes()
        runs.add((total, tensors[0].grad.numpy().tobytes()))
    assert len(runs) == 1


def test_gradients_of_an_optimizer_are_clipped_together(backend):
    tensors = parameters([[3.0], [4.0], [0.0, 0.0]], backend)
    optimizer = SGD(tensors, lr=1.0)
    assert float(clip_grad_norm_device(tensors, 1.0)) == 5.0
    optimizer.step()
    assert [t.numpy().tolist() for t in tensors] == [
        [pytest.approx(-0.6)],
        [pytest.approx(-0.8)],
        [0.0, 0.0],
    ]


@given(
    gradient=npst.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)),
    limit=st.floats(0.0078125, 100, width=32),
)
def test_host_and_device_agree(gradient, limit):
    backend = netcl.get_backend("numpy")
    one, two = parameters([gradient], backend), parameters([gradient], backend)
    total = clip_grad_norm(one, limit)
    assert float(clip_grad_norm_device(two, limit)) == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(one[0].grad.numpy(), two[0].grad.numpy(), rtol=2e-6)
    assert norm([one[0].grad.numpy()], 2) <= max(limit, 0) * (1 + 1e-5)


def test_clip_by_value(backend):
    tensors = parameters([[-5.0, 0.5, 5.0, math.nan, math.inf]], backend)
    clip_grad_value(tensors, 2.0)
    np.testing.assert_array_equal(tensors[0].grad.numpy(), [-2, 0.5, 2, math.nan, 2])


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_norm": -1.0}, "max_norm must be a number, at least 0, got -1.0"),
        ({"max_norm": math.nan}, "max_norm must be a number, at least 0, got nan"),
        ({"max_norm": 1.0, "norm_type": 0}, "norm_type must be a number, greater than 0, got 0"),
    ],
)
def test_bad_values_are_refused(clip, options, message, backend):
    tensors = parameters([[3.0, 4.0]], backend)
    with pytest.raises(HyperParameterError, match=message):
        clip(tensors, **options)
    assert tensors[0].grad.numpy().tolist() == [3.0, 4.0]


def test_several_devices(backend):
    tensors = parameters([[3.0]], backend) + parameters([[4.0]], netcl.get_backend("numpy"))
    tensors[1].relocate(Storage.empty(ReferenceBackend(), 1, netcl.float32))
    tensors[1].grad = type(tensors[1])(tensors[1].storage, (1,))
    tensors[1].backend.fill(tensors[1].storage.span(), 4.0)
    with pytest.raises(DeviceMismatchError, match="use clip_grad_norm, which works on the host"):
        clip_grad_norm_device(tensors, 1.0)
    assert clip_grad_norm(tensors, 1.0) == 5.0


def test_without_gradients(backend):
    p = netcl.zeros(3, device=backend.device, requires_grad=True)
    assert clip_grad_norm([p], 1.0) == 0.0
    with pytest.raises(NetclError, match="found no gradient"):
        clip_grad_norm_device([p], 1.0)
    with pytest.raises(HyperParameterError, match="clip_value must be a number, greater than 0"):
        clip_grad_value([p], 0.0)
