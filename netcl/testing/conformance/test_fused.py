"""fused_adam and fused_update against the same formulas in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import CHUNK, ROW
from netcl.expression import Node
from netcl.testing.conformance.operands import EPSILON, FLOATS, Operand
from netcl.testing.conformance.step_block import Block

SIZES = (1, 7, 1000, CHUNK, CHUNK + 1, 3 * CHUNK + 17)

VARIANTS = {
    "adam": {},
    "l2": {"l2": 0.1},
    "decoupled": {"decay": 0.1},
    "maximize": {"sign": -1.0, "l2": 0.1},
    "large-eps": {"eps": 0.1, "lr": 1.0, "decay": 0.3},
    "late": {"step": 5000},
}


def adam_oracle(row, multiplier, p, g, m, v, v_max=None):
    g = g * (multiplier * row["sign"]) + row["l2"] * p
    m = row["beta1"] * m + row["one_minus_beta1"] * g
    v = row["beta2"] * v + row["one_minus_beta2"] * g * g
    largest = v if v_max is None else np.maximum(v_max, v)
    c1, c2 = (-math.expm1(row["step"] * row[f"log_beta{i}"]) for i in (1, 2))
    p = p - row["lr"] * (m / c1 / (np.sqrt(largest / c2) + row["eps"]) + row["decay"] * p)
    return [p, m, v] if v_max is None else [p, m, v, largest]


class Model:
    """Parameters, gradient and state at odd places in their buffers."""

    def __init__(self, backend, n, dtype=dtypes.float32, state=None, states=2, rows=None):
        rng = np.random.default_rng(n)
        state = state or dtype.compute
        self.p = Operand(backend, rng.standard_normal(n), dtype, offset=n % 3)
        self.g = Operand(backend, rng.standard_normal(n), dtype, offset=5)
        self.state = [Operand(backend, 0.1 * rng.standard_normal(n) ** 2, state, offset=7 + i) for i in range(states)]
        chunks = -(-n // CHUNK)
        self.rows = Operand(backend, np.zeros(chunks) if rows is None else rows, dtypes.uint16, offset=1)

    @property
    def operands(self):
        return [self.p, *self.state]

    def given(self):
        return [self.p.given, self.g.given, *(s.given for s in self.state)]

    def adam(self, backend, block, advance=False):
        spans = [s.span for s in self.state] + [None] * (3 - len(self.state))
        backend.fused_adam(self.p.span, self.g.span, *spans, block.step, self.rows.span, advance=advance)

    def update(self, backend, rule, block, advance=False):
        spans = [s.span for s in self.state]
        backend.fused_update(rule, self.p.span, self.g.span, spans, block.step, self.rows.span, advance=advance)

    def check(self, expected, where=slice(None)):
        for operand, values in zip(self.operands, expected, strict=True):
            rel = 8 * EPSILON[operand.dtype]
            np.testing.assert_allclose(operand.values[where], values[where], rtol=rel, atol=rel)
        assert self.g.unchanged()
        assert self.rows.unchanged()


def only_on(backend, *needed):
    for dtype in needed:
        if not backend.supports(dtype):
            pytest.skip(f"{backend.device} does not compute with {dtype}")


@pytest.mark.parametrize("amsgrad", [False, True], ids=["", "amsgrad"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", SIZES)
def test_adam(backend, n, variant, amsgrad):
    block = Block(backend, rows=[VARIANTS[variant]])
    model = Model(backend, n, states=3 if amsgrad else 2)
    model.adam(backend, block)
    model.check(adam_oracle(block.rows[0], 0.5, *model.given()))
    assert block.header() == block.initial_header


@pytest.mark.short(rows=lambda row: row["state"] in (row["dtype"], dtypes.float32))
@pytest.mark.parametrize("state", FLOATS, ids=lambda dtype: f"state-{dtype}")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_adam_in_every_storage(backend, dtype, state):
    only_on(backend, dtype, state)
    if dtypes.float64 in (dtype, state) and dtype is not state:
        return  # arithmetic has one width, that of the block
    block = Block(backend, rows=[{"decay": 0.1, "lr": 0.1, "eps": 1e-3}], dtype=dtype.compute)
    model = Model(backend, 1500, dtype, state)
    model.adam(backend, block)
    model.check(adam_oracle(block.rows[0], 0.5, *model.given()))


def test_nothing_to_update(backend):
    block = Block(backend, rows=[{}])
    model = Model(backend, 0)
    model.adam(backend, block, advance=True)
    assert all(x.unchanged() for x in model.operands)
    assert block.counters(1)[0]["step"] == 2


def test_a_decay_of_zero_makes_no_nan_of_infinity(backend):
    block = Block(backend, rows=[{"decay": 0.0, "l2": 0.0}])
    model = Model(backend, 3)
    model.p = Operand(backend, [math.inf, 1.0, -math.inf], dtypes.float32)
    model.adam(backend, block)
    assert model.p.values[0] == math.inf
    assert model.p.values[2] == -math.inf
    assert np.isfinite([s.values for s in model.state]).all()


def test_rows_have_their_own_hyper_parameters_and_steps(backend):
    map_of_rows = np.array([0, 1, 1, 3, 2, 0])
    rows = [{"lr": 0.1}, {"active": 0}, {"decay": 0.5, "step": 9}, {"sign": -1, "l2": 0.2, "beta1": 0.5}]
    n = 5 * CHUNK + 33
    block = Block(backend, rows=rows)
    model = Model(backend, n, rows=map_of_rows)
    model.adam(backend, block)
    of_element = np.repeat(map_of_rows, CHUNK)[:n]
    for row, complete in enumerate(block.rows):
        moved = adam_oracle(complete, 0.5, *model.given())
        if complete["active"] == 0:
            moved = [x.given for x in model.operands]
        model.check(moved, of_element == row)
    inactive = of_element == 1
    for operand in model.operands:
        np.testing.assert_array_equal(operand.values[inactive], operand.given[inactive])


@pytest.mark.parametrize("advance", [False, True])
def test_a_skipped_step_changes_no_byte(backend, advance):
    rows = [{"step": 3}, {"step": 5}]
    block = Block(backend, rows=rows, header={"skip": 1.0})
    model = Model(backend, 2 * CHUNK + 5, rows=[0, 1, 0])
    model.g = Operand(backend, np.full(2 * CHUNK + 5, math.nan), dtypes.float32)
    model.adam(backend, block, advance=advance)
    model.update(backend, momentum_rule(dtypes.float32, states=2), block, advance=advance)
    assert all(x.unchanged() for x in model.operands)
    assert block.header() == block.initial_header
    assert [row["step"] for row in block.counters(0)] == [3, 5]
    assert [row["step"] for row in block.counters(1)] == [3, 5]


def test_only_the_call_that_advances_moves_the_counters(backend):
    block = Block(backend, rows=[{"step": 3}, {"active": 0, "step": 8}])
    model = Model(backend, 10)
    model.adam(backend, block)
    assert [row["step"] for row in block.counters(1)] == [3, 8]
    model.adam(backend, block, advance=True)
    assert [row["step"] for row in block.counters(1)] == [4, 8]
    assert [row["step"] for row in block.counters(0)] == [3, 8]
    assert block.counters(1)[0]["bias_correction2"] == pytest.approx(1 - 0.999**4, rel=1e-6)


@pytest.mark.parametrize("prepared", [False, True], ids=["alone", "prepared"])
def test_many_steps(backend, prepared):
    block = Block(backend, rows=[{"decay": 0.01}], header={"multiplier": 1.0})
    model = Model(backend, 2000)
    expected = [x.given for x in model.operands]
    for step in range(1, 31):
        if prepared:
            backend.prepare_step(block.step)
        model.adam(backend, block, advance=not prepared)
        block.step.slot = 1 - block.step.slot
        expected = adam_oracle({**block.rows[0], "step": step}, 1.0, expected[0], model.g.given, *expected[1:])
    assert block.counters(block.step.slot)[0]["step"] == 31
    for operand, values in zip(model.operands, expected, strict=True):
        assert np.linalg.norm(operand.values - values) <= 1e-6 * np.linalg.norm(values)


def test_a_block_serves_several_arenas(backend):
    block = Block(backend, rows=[{"lr": 0.1}])
    models = [Model(backend, n) for n in (100, 2000, 100)]
    for i, model in enumerate(models):
        model.adam(backend, block, advance=i == 1)
    for model in models:
        model.check(adam_oracle(block.rows[0], 0.5, *model.given()))
    assert block.counters(1)[0]["step"] == 2


def test_changed_hyper_parameters_reach_the_next_call(backend):
    block = Block(backend, rows=[{"lr": 0.1}])
    for lr in (0.1, 0.7):
        block.set(0, lr=lr)
        model = Model(backend, 100)
        model.adam(backend, block)
        model.check(adam_oracle(block.rows[0], 0.5, *model.given()))


def hyper(name, dtype):
    return Node("hyper", (), dtype, name)


def rule(function, dtype, g, state):
    """A rule as the optimizers build it: inputs (p, g, *state), stored (p, *state)."""
    return ex.trace(function, (dtype, g, *state), stored=(dtype, *state))


def momentum_rule(dtype, states=1):
    compute = dtype.compute

    def momentum(p, g, v, *others):
        v = hyper("beta1", compute) * v + g
        return (p - hyper("lr", compute) * v, v, *others)

    return rule(momentum, dtype, dtype, (compute,) * states)


def momentum_oracle(row, multiplier, p, g, v):
    v = row["beta1"] * v + g * (multiplier * row["sign"])
    return [p - row["lr"] * v, v]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_momentum(backend, n, dtype):
    only_on(backend, dtype)
    block = Block(backend, rows=[{"lr": 0.1, "sign": -1.0}], dtype=dtype.compute)
    model = Model(backend, n, dtype, states=1)
    model.update(backend, momentum_rule(dtype), block)
    model.check(momentum_oracle(block.rows[0], 0.5, *model.given()))


def test_a_rule_without_state(backend):
    f = dtypes.float32
    descent = rule(lambda p, g: (p - hyper("lr", f) * g,), f, f, ())
    block = Block(backend, rows=[{}], columns=(*ROW, "lr"))
    model = Model(backend, 1500, states=0)
    model.update(backend, descent, block)
    model.check([model.p.given - block.rows[0]["lr"] * 0.5 * model.g.given])


def test_a_rule_with_branches_counters_and_columns_of_its_own(backend):
    f = dtypes.float32

    def odd(p, g, a, b):
        limited = ex.where(abs(g) > hyper("cap", f), ex.sign(g) * hyper("cap", f), g)
        a = ex.maximum(a, ex.sqrt(abs(limited)))
        b = ex.minimum(b, limited / (a + hyper("bias_correction1", f)))
        return p - (a - b) * hyper("step", f), a, b

    block = Block(backend, rows=[{"cap": 0.3, "step": 2}], columns=(*ROW, "cap", "log_beta1"))
    model = Model(backend, 1500)
    model.update(backend, rule(odd, f, f, (f, f)), block, advance=True)
    p, g, a, b = model.given()
    limited = np.clip(0.5 * g, -0.3, 0.3)
    a = np.maximum(a, np.sqrt(np.abs(limited)))
    b = np.minimum(b, limited / (a + 1 - 0.9**2))
    model.check([p - (a - b) * 2, a, b])
    assert block.counters(1)[0]["step"] == 3


def test_state_may_swap_and_stay(backend):
    f = dtypes.float32
    swap = rule(lambda p, g, a, b, c: (p, b, a, c), f, f, (f, f, f))
    block = Block(backend, rows=[{}])
    model = Model(backend, 1100, states=3)
    p, _, a, b, c = model.given()
    model.update(backend, swap, block)
    model.check([p, b, a, c])


@given(n=st.integers(1, 3 * CHUNK), data=st.data())
def test_any_size_and_any_rows(backend, n, data):
    chunks = -(-n // CHUNK)
    map_of_rows = data.draw(st.lists(st.integers(0, 2), min_size=chunks, max_size=chunks))
    block = Block(backend, rows=[{"lr": 0.1}, {"active": 0}, {"lr": 0.5}])
    model = Model(backend, n, states=1, rows=map_of_rows)
    model.update(backend, momentum_rule(dtypes.float32), block)
    of_element = np.repeat(map_of_rows, CHUNK)[:n]
    for row in (0, 2):
        model.check(momentum_oracle(block.rows[row], 0.5, *model.given()), of_element == row)
    model.check([x.given for x in model.operands], of_element == 1)
