"""Norms and clip factors of anything finite, at every place that clips, against an oracle whose range has no end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netcl
from netcl import distributed
from netcl.amp import GradScaler
from netcl.optim import SGD, clip_grad_norm, clip_grad_norm_device, clip_grad_value

DTYPES = ["float32", "float64", "float16", "bfloat16"]
LARGEST = {"float32": 3.4028234e38, "float64": 1.7976931348623157e308, "float16": 65504.0, "bfloat16": 3.3895314e38}
LEAST = {"float32": 2.0**-126, "float64": 2.0**-1022, "float16": 2.0**-24, "bfloat16": 2.0**-126}
ROUNDING = {"float32": 5e-6, "float64": 1e-11, "float16": 2.0**-10, "bfloat16": 2.0**-7}
ORDERS = [0.5, 1.0, 2.0, 3.0, 1e30, math.inf]
LIMITS = [0.0, 1e-42, 1e-30, 1e-6, 1.0, 300.0, 1e30, 1e300, math.inf]


def variable(values, dtype, backend):
    host = np.asarray(values, "float64" if dtype == "float64" else "float32")
    return netcl.astype(netcl.asarray(host, device=backend.device), dtype)


def read(x):
    return (x if x.dtype.name == "float64" else netcl.astype(x, "float32")).numpy().astype("float64")


def log2_norm(values, p):
    """The logarithm of the p-norm, which does not leave the range of a float."""
    sizes = np.abs(values[values != 0.0])
    if not sizes.size:
        return -math.inf
    mantissas, exponents = np.frexp(sizes)
    logs = np.log2(mantissas) + exponents
    if math.isinf(p):
        return float(logs.max())
    return float(logs.max() + math.log2(math.fsum(np.exp2(p * (logs - logs.max())))) / p)


def clipped(values, limit, p=2.0):
    """Each value times min(1, limit / norm)."""
    log_norm = log2_norm(values, p)
    if limit == math.inf or log_norm == -math.inf or (limit > 0 and math.log2(limit) >= log_norm):
        return values
    if limit == 0.0:
        return np.zeros_like(values)
    mantissas, exponents = np.frexp(values)
    shift = math.log2(limit) - log_norm
    whole = math.floor(shift)
    return np.ldexp(mantissas * 2.0 ** (shift - whole), exponents + whole)


def by_function(clip):
    def run(values, dtype, limit, p, backend, *, owned):
        w = netcl.zeros(len(values), dtype=dtype, device=backend.device, requires_grad=True)
        owner = SGD([w], lr=1.0) if owned else None
        w.grad = variable(values, dtype, backend)
        given = read(w.grad)
        found = float(clip([w], limit, norm_type=p, error_if_nonfinite=True))
        result = read(w.grad)
        del owner
        return given, result, found

    return run


def by_step(values, dtype, limit, p, backend, *, owned):
    """The move of a step of gradient descent from zero is the clipped gradient."""
    w = netcl.zeros(len(values), dtype=dtype, device=backend.device, requires_grad=True)
    optimizer = SGD([w], lr=1.0, maximize=True, master_weights=False)
    w.grad = variable(values, dtype, backend)
    given = read(w.grad)
    if owned:
        scaler = GradScaler(init_scale=4.0)
        scaler.scale(netcl.ones(1, device=backend.device))
        scaler.step(optimizer, max_norm=limit)
        scaler.update()
        assert scaler.steps_skipped == 0
        given = given / 4.0
    else:
        optimizer.step(max_norm=limit)
    return given, read(w), None


PLACES = {
    "host": (by_function(clip_grad_norm), ORDERS),
    "device": (by_function(clip_grad_norm_device), ORDERS),
    "step": (by_step, [2.0]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=40)
@given(data=st.data())
def test_anything_finite_is_clipped(place, dtype, data, backend, every_row, in_short):
    if not backend.supports(netcl.dtypes.BY_NAME[dtype]):
        dtype = "float32"
    run, orders = PLACES[place]
    if place == "device" and not every_row:  # two kernels for each order and dtype
        orders = ([2.0] if in_short else [2.0, 3.0]) if dtype != "float32" else [2.0, math.inf] if in_short else orders
    largest, least = LARGEST[dtype], LEAST[dtype]
    sizes = [0.0, largest, largest / 2, math.sqrt(largest), 3.0, 1.0, math.sqrt(least), least * 4, least]
    signed = st.builds(lambda size, sign: size * sign, st.sampled_from(sizes), st.sampled_from([1.0, -1.0]))
    values = np.array(data.draw(st.lists(signed, min_size=1, max_size=6)))
    limit, p = data.draw(st.sampled_from(LIMITS)), data.draw(st.sampled_from(orders))
    given, result, norm = run(values, dtype, limit, p, backend, owned=data.draw(st.booleans()))
    expected = clipped(given, limit, p)
    # Devices may flush subnormal numbers, of results and of a bound.
    tolerance = 2.0**-25 if dtype == "float16" else least
    if 0.0 < limit < 2.0**-126 and dtype != "float64":
        expected, tolerance = np.zeros_like(expected), max(tolerance, 2 * limit)
    np.testing.assert_allclose(result, expected, rtol=ROUNDING[dtype], atol=tolerance)
    if norm is not None:
        log_norm = log2_norm(given, p)
        out = math.log2(LARGEST["float64" if place == "host" else "float32" if dtype != "float64" else dtype])
        if log_norm > out + 1e-6:
            assert norm == math.inf
        elif log_norm < out - 1e-6:
            assert norm == pytest.approx(2.0**log_norm, rel=1e-5, abs=2 * LEAST["float32"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [0.0, 1e-6, 1.0, 1e30, math.inf])
def test_shards_are_clipped_together(dtype, limit, backend):
    if not backend.supports(netcl.dtypes.BY_NAME[dtype]):
        dtype = "float32"
    for size in (LARGEST[dtype], 1.0, LEAST[dtype] * 64):
        shards = distributed.shard([netcl.zeros(4, dtype=dtype, device=backend.device, requires_grad=True)])
        gradient = np.zeros(shards[0].size)
        gradient[:4] = size
        shards[0].grad = variable(gradient, dtype, backend)
        given = read(shards[0].grad)
        total = distributed.clip_grad_norm(shards, limit)
        assert total == pytest.approx(2.0 * float(given[0]), rel=1e-5)
        tolerance = 2.0**-25 if dtype == "float16" else LEAST[dtype]
        np.testing.assert_allclose(read(shards[0].grad), clipped(given, limit), rtol=ROUNDING[dtype], atol=tolerance)


@pytest.mark.parametrize("limit", [None, 1e30, 0.25])
def test_the_largest_loss_scale_is_divided_out(limit, backend):
    """Together with the factor of a clipping its reciprocal is not a normal number."""
    w = netcl.zeros(1, device=backend.device, requires_grad=True)
    optimizer, scaler = SGD([w], lr=1.0), GradScaler(init_scale=2.0**126)
    scaler.scale(netcl.ones(1, device=backend.device))
    w.grad = netcl.full((1,), 2.0**125, device=backend.device)
    scaler.step(optimizer, max_norm=limit)
    assert w.item() == -min(0.5, limit or 1.0)


@pytest.mark.parametrize("place", [clip_grad_norm, clip_grad_norm_device], ids=["host", "device"])
@pytest.mark.parametrize("p", [1e-3, 0.1])
def test_a_norm_of_a_tiny_order(place, p, backend):
    """Four equal numbers have the norm 4^(1/p): out of every range, or of float32's."""
    w = netcl.zeros(4, device=backend.device, requires_grad=True)
    w.grad = netcl.ones(4, device=backend.device)
    norm = float(place([w], 1.0, norm_type=p, error_if_nonfinite=True))
    expected = 4.0 ** (1 / p) if p > 0.01 else math.inf
    assert norm == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(w.grad.numpy(), 1 / expected, rtol=1e-4, atol=2.0**-126)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [1e-300, 1.0, 1e30, 1e300, math.inf])
def test_values_are_clamped_to_any_bound(dtype, limit, backend):
    if not backend.supports(netcl.dtypes.BY_NAME[dtype]):
        dtype = "float32"
    w = netcl.zeros(5, dtype=dtype, device=backend.device, requires_grad=True)
    w.grad = variable([LARGEST[dtype], -LARGEST[dtype], 0.5, math.inf, math.nan], dtype, backend)
    given = read(w.grad)
    clip_grad_value([w], limit)
    expected = given if limit > LARGEST[dtype] else np.clip(given, -limit, limit)
    np.testing.assert_allclose(read(w.grad), expected, rtol=ROUNDING[dtype], atol=LEAST["float32"])
