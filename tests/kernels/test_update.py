"""The optimizer step on OpenCL: both forms of each kernel, exact bits, kept launches, refusals."""

import gc
import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import ADAM_COLUMNS, CHUNK, COUNTERS, HEADER, ROW, Span, StepBlock
from netcl.backends.opencl.rules import operands_first, with_reciprocals
from netcl.backends.opencl.update import KEPT_LAUNCHES, PIECE
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.expression import Node

FORMS = ("cpu", "gpu")
ORDERS = (0.5, 1.0, 2.0, 3.0, 7.5, math.inf)
HOST = {dtypes.bfloat16: np.uint16}
EPS = {dtypes.float16: 2.0**-11, dtypes.bfloat16: 2.0**-8, dtypes.float32: 2.0**-24, dtypes.float64: 2.0**-53}
ADAM = {
    "active": 1.0, "sign": 1.0, "lr": 0.01, "beta1": 0.9, "one_minus_beta1": 0.1, "beta2": 0.999,
    "one_minus_beta2": 0.001, "eps": 1e-8, "l2": 0.0, "decay": 0.0, "log_beta1": math.log(0.9),
    "log_beta2": math.log(0.999),
}  # fmt: skip
CANARY = 5


@pytest.fixture(scope="session")
def forms(opencl):
    """A backend for each shape of the kernels: adjacent elements per work-item, and work-items that take turns."""
    made = {form: type(opencl)(opencl.cl_device) for form in FORMS}
    made["gpu"].is_cpu = False
    return made


@pytest.fixture(params=FORMS)
def runtime(forms, request):
    return forms[request.param]


def encode(values, dtype):
    values = np.asarray(values, np.float64)
    if dtype is not dtypes.bfloat16:
        with np.errstate(over="ignore"):
            return values.astype(dtype.name)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def decode(stored, dtype):
    if dtype is dtypes.bfloat16:
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


class Values:
    """Elements in the middle of a buffer, with canaries around them."""

    def __init__(self, runtime, values, dtype=dtypes.float32, offset=3):
        stored = np.asarray(values, np.uint16) if dtype is dtypes.uint16 else encode(values, dtype)
        self.backend, self.dtype = runtime, dtype
        self.before = np.full(offset + stored.size + CANARY, 77, stored.dtype)
        self.before[offset : offset + stored.size] = stored
        self.inside = slice(offset, offset + stored.size)
        self.buffer = runtime.alloc(self.before.size, dtype)
        runtime.upload(self.before, Span(self.buffer, 0, self.before.size))
        self.span = Span(self.buffer, offset, stored.size)

    @property
    def given(self):
        return decode(self.before[self.inside], self.dtype)

    def stored(self):
        now = self.backend.download(Span(self.buffer, 0, self.before.size))
        outside = np.delete(np.arange(now.size), np.r_[self.inside])
        np.testing.assert_array_equal(now[outside], self.before[outside], "canaries changed")
        return now[self.inside]

    def values(self):
        return decode(self.stored(), self.dtype)

    def bytes(self):
        return self.stored().tobytes()

    def unchanged(self):
        return self.bytes() == self.before[self.inside].tobytes()


class Block:
    """A step block over rows that are given as dictionaries over :data:`ADAM`."""

    def __init__(self, runtime, rows=({},), dtype=dtypes.float32, columns=ADAM_COLUMNS, steps=None, **header):
        self.rows = [{**ADAM, **row} for row in rows]
        self.steps = steps or [1] * len(self.rows)
        values = {**dict.fromkeys(HEADER, 0.0), "multiplier": 1.0, **header}
        self.header = Values(runtime, list(values.values()), dtype)
        self.hyper = Values(runtime, [row[name] for row in self.rows for name in columns], dtype)
        counted = [
            value
            for row, step in zip(self.rows, self.steps, strict=True)
            for value in (step, -math.expm1(step * row["log_beta1"]), -math.expm1(step * row["log_beta2"]), 0)
        ]
        self.counters = [Values(runtime, counted, dtype), Values(runtime, np.full(len(counted), 3.0), dtype)]
        self.step = StepBlock(
            self.header.span, columns, self.hyper.span, (self.counters[0].span, self.counters[1].span), len(self.rows)
        )

    def read_header(self):
        return dict(zip(HEADER, self.header.values().tolist(), strict=True))

    def read_steps(self, slot):
        return self.counters[slot].values().reshape(-1, len(COUNTERS))[:, 0].tolist()


class Model:
    def __init__(self, runtime, n, dtype=dtypes.float32, fields=2, rows=None, seed=0):
        rng = np.random.default_rng(seed)
        self.p = Values(runtime, rng.standard_normal(n), dtype, offset=3)
        self.g = Values(runtime, rng.standard_normal(n), dtype, offset=1)
        self.state = [Values(runtime, rng.random(n), dtype.compute, offset=2 + i) for i in range(fields)]
        self.rows = Values(runtime, np.zeros(-(-n // CHUNK)) if rows is None else rows, dtypes.uint16)
        self.changing = [self.p, *self.state]

    def adam(self, runtime, block, advance=False):
        spans = [field.span for field in self.state] + [None] * (3 - len(self.state))
        runtime.fused_adam(self.p.span, self.g.span, *spans, block.step, self.rows.span, advance=advance)

    def update(self, runtime, rule, block, advance=False):
        state = [field.span for field in self.state]
        runtime.fused_update(rule, self.p.span, self.g.span, state, block.step, self.rows.span, advance=advance)

    def bytes(self):
        return [values.bytes() for values in self.changing]


def hyper(name, dtype=dtypes.float32):
    return Node("hyper", (), dtype, name)


def adam_rule(dtype=dtypes.float32):
    """Adam as an optimizer author would write it."""
    h = {name: hyper(name, dtype.compute) for name in (*ADAM_COLUMNS, *COUNTERS)}

    def adam(p, g, m, v):
        g = g + h["l2"] * p
        m = h["beta1"] * m + h["one_minus_beta1"] * g
        v = h["beta2"] * v + h["one_minus_beta2"] * (g * g)
        step = (m / h["bias_correction1"]) / (ex.sqrt(v / h["bias_correction2"]) + h["eps"])
        return p - h["lr"] * (step + h["decay"] * p), m, v

    state = (dtype.compute,) * 2
    return ex.trace(adam, (dtype, dtype, *state), stored=(dtype, *state))


def adam_oracle(row, step, multiplier, p, g, m, v, v_max=None):
    """The formulas of D. P. Kingma and J. Ba with either decay, in float64."""
    g = multiplier * row["sign"] * g + row["l2"] * p
    m = row["beta1"] * m + row["one_minus_beta1"] * g
    v = row["beta2"] * v + row["one_minus_beta2"] * g * g
    largest = v if v_max is None else np.maximum(v, v_max)
    c1, c2 = -math.expm1(step * row["log_beta1"]), -math.expm1(step * row["log_beta2"])
    p = p - row["lr"] * ((m / c1) / (np.sqrt(largest / c2) + row["eps"]) + row["decay"] * p)
    return [p, m, v] if v_max is None else [p, m, v, largest]


def check(changing, expected, where=slice(None)):
    for values, wanted in zip(changing, expected, strict=True):
        tolerance = 8 * EPS[values.dtype]
        np.testing.assert_allclose(values.values()[where], wanted[where], rtol=tolerance, atol=tolerance)


VARIANTS = {
    "plain": {},
    "l2": {"l2": 0.1},
    "decoupled": {"decay": 0.1},
    "maximize": {"sign": -1.0},
    "no-memory": {"beta1": 0.0, "one_minus_beta1": 1.0, "log_beta1": -math.inf},
}


@pytest.mark.parametrize("fields", [2, 3], ids=["adam", "amsgrad"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [1, 9, CHUNK - 1, 2 * CHUNK, 3 * CHUNK + 13])
def test_adam(runtime, n, variant, fields):
    block = Block(runtime, [VARIANTS[variant]], steps=[7], multiplier=0.25)
    model = Model(runtime, n, fields=fields)
    given_values = [values.given for values in (model.p, model.g, *model.state)]
    model.adam(runtime, block)
    check(model.changing, adam_oracle(block.rows[0], 7, 0.25, *given_values))
    assert model.g.unchanged()
    assert block.hyper.unchanged()
    assert block.counters[0].unchanged()
    assert block.counters[1].unchanged()


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_adam_in_every_storage(runtime, dtype):
    if not runtime.supports(dtype):
        pytest.skip(f"{runtime.device} does not compute with {dtype}")
    block = Block(runtime, [{"decay": 0.1, "lr": 0.1}], dtype.compute)
    model = Model(runtime, 1234, dtype)
    given_values = [values.given for values in (model.p, model.g, *model.state)]
    model.adam(runtime, block)
    check(model.changing, adam_oracle(block.rows[0], 1, 1.0, *given_values))
    by_rule = Model(runtime, 1234, dtype)
    by_rule.update(runtime, adam_rule(dtype), block)
    check(by_rule.changing, adam_oracle(block.rows[0], 1, 1.0, *given_values))


@settings(max_examples=10)
@given(n=st.integers(1, 5 * CHUNK), seed=st.integers(0, 99), amsgrad=st.booleans())
def test_both_forms_give_the_same_bits(forms, n, seed, amsgrad):
    rng = np.random.default_rng(seed)
    map_of_rows = rng.integers(0, 3, -(-n // CHUNK))
    found = []
    for runtime in forms.values():
        block = Block(runtime, [{"decay": 0.1}, {"active": 0.0}, {"l2": 0.1, "lr": 0.3}], steps=[1, 5, 9])
        model = Model(runtime, n, fields=3 if amsgrad else 2, rows=map_of_rows, seed=seed)
        model.adam(runtime, block, advance=True)
        by_rule = Model(runtime, n, rows=map_of_rows, seed=seed)
        by_rule.update(runtime, adam_rule(), block)
        resting = np.repeat(map_of_rows, CHUNK)[:n] == 1
        for values in (*model.changing, *by_rule.changing):
            np.testing.assert_array_equal(values.values()[resting], values.given[resting])
        found.append([*model.bytes(), *by_rule.bytes(), block.counters[1].bytes()])
    assert found[0] == found[1]


@settings(max_examples=10)
@given(n=st.integers(2, 3 * CHUNK), data=st.data())
def test_the_same_bits_however_a_span_is_cut(forms, n, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=4)))
    for runtime in forms.values():
        block = Block(runtime, [{"decay": 0.1, "l2": 0.01}])
        whole, cut, cut_rule = (Model(runtime, n) for _ in range(3))
        whole.adam(runtime, block)
        state = [values.span for values in cut.state]
        for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
            p, g, m, v = (
                Span(span.buffer, span.offset + start, stop - start) for span in (cut.p.span, cut.g.span, *state)
            )
            rows = Span(cut.rows.buffer, cut.rows.span.offset, -(-(stop - start) // CHUNK))
            runtime.fused_adam(p, g, m, v, None, block.step, rows, advance=False)
        assert cut.bytes() == whole.bytes()
        whole_rule = Model(runtime, n)
        whole_rule.update(runtime, adam_rule(), block)
        for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
            p, g, m, v = (
                Span(values.buffer, values.span.offset + start, stop - start)
                for values in (cut_rule.p, cut_rule.g, *cut_rule.state)
            )
            rows = Span(cut_rule.rows.buffer, cut_rule.rows.span.offset, -(-(stop - start) // CHUNK))
            runtime.fused_update(adam_rule(), p, g, [m, v], block.step, rows, advance=False)
        assert cut_rule.bytes() == whole_rule.bytes()


@pytest.mark.parametrize("advance", [False, True])
@pytest.mark.parametrize("call", ["adam", "update"])
def test_skip_changes_no_byte(runtime, call, advance):
    block = Block(runtime, [{}, {}], steps=[4, 6], skip=1.0)
    model = Model(runtime, 2 * CHUNK + 1, rows=[0, 1, 1])
    if call == "adam":
        model.adam(runtime, block, advance)
    else:
        model.update(runtime, adam_rule(), block, advance)
    assert all(values.unchanged() for values in model.changing)
    assert block.header.unchanged()
    assert block.counters[0].unchanged()
    expected = block.counters[0].bytes() if advance else block.counters[1].before[block.counters[1].inside].tobytes()
    assert block.counters[1].bytes() == expected


@pytest.mark.parametrize("count", [1, 3, 700])
@pytest.mark.parametrize("prepared", [False, True])
def test_counters_of_many_rows_advance(runtime, count, prepared):
    rows = [{"active": float(i % 3 != 1), "log_beta1": math.log(0.5 + i / 2000)} for i in range(count)]
    steps = [1 + i * i for i in range(count)]
    block = Block(runtime, rows, steps=steps)
    model = Model(runtime, 5)
    if prepared:
        runtime.prepare_step(block.step)
        model.adam(runtime, block)
    else:
        model.adam(runtime, block, advance=True)
    assert block.read_steps(0) == steps
    moved = [step + (i % 3 != 1) for i, step in enumerate(steps)]
    assert block.read_steps(1) == moved
    corrections = block.counters[1].values().reshape(-1, len(COUNTERS))[:, 1:3]
    logs = np.array([[row["log_beta1"], row["log_beta2"]] for row in block.rows])
    np.testing.assert_allclose(corrections, -np.expm1(np.array(moved)[:, None] * logs), rtol=1e-6)


def test_a_rule_without_decay_rates_keeps_its_corrections(runtime):
    f = dtypes.float32
    descent = ex.trace(lambda p, g: p - hyper("lr") * g, (f, f), stored=(f,))
    block = Block(runtime, [{}], columns=(*ROW, "lr"), steps=[3])
    model = Model(runtime, 10, fields=0)
    model.update(runtime, descent, block, advance=True)
    assert block.counters[1].values().tolist() == [4.0, *block.counters[0].values().tolist()[1:]]


# -- norms -------------------------------------------------------------------------------------------------------------


def records_of(runtime, xs, ord, dtype=None, **options):
    counts = [runtime.norm_partials(x.span.size) for x in xs]
    records = Values(runtime, np.zeros(2 * sum(counts)), dtype or xs[0].dtype.compute)
    start = records.span.offset
    for x, count in zip(xs, counts, strict=True):
        runtime.norm_reduce(x.span, Span(records.buffer, start, 2 * count), ord, **options)
        start += 2 * count
    return records


def norm_of(runtime, xs, ord, dtype=None, max_norm=math.inf, **options):
    records = records_of(runtime, xs, ord, dtype, **options)
    block = Block(runtime, dtype=records.dtype)
    runtime.prepare_step(block.step, records.span, ord=ord, max_norm=max_norm)
    return block.read_header()


def norm_oracle(values, ord):
    values = np.abs(np.asarray(values, np.longdouble))
    if not values.size or not values.max():
        return np.longdouble(0)
    if math.isinf(ord):
        return values.max()
    return values.max() * ((values / values.max()) ** ord).sum() ** (1 / np.longdouble(ord))


def product(header):
    return np.longdouble(header["norm_scale"]) * np.longdouble(header["norm_root"])


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("n", [0, 1, 5, 8, 31, 33, CHUNK + 1, PIECE[False], PIECE[True] + 1, 3 * PIECE[True] + 1029])
def test_norm_of_any_size(runtime, n, ord):
    x = Values(runtime, np.random.default_rng(n).standard_normal(n), offset=n % 7)
    header = norm_of(runtime, [x], ord)
    np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=4e-6 if ord == 0.5 else 1e-6)
    assert x.unchanged()


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("sizes", [(1e30,), (3.4e38,), (1e-30,), (1e-38,), (1e30, 1e-30), (2.0**41,), (2.0**-41,)])
def test_no_finite_norm_overflows_or_underflows(runtime, sizes, ord):
    rng = np.random.default_rng(0)
    xs = [Values(runtime, size * rng.uniform(-1, 1, 300)) for size in sizes]
    header = norm_of(runtime, xs, ord, max_norm=1.0)
    expected = norm_oracle(np.concatenate([x.given for x in xs]), ord)
    np.testing.assert_allclose(product(header), expected, rtol=4e-6)
    assert header["nonfinite"] == 0
    # A factor below the smallest normal float32 may be flushed.
    np.testing.assert_allclose(header["multiplier"], min(1.0, float(1 / expected)), rtol=4e-6, atol=1.2e-38)


@pytest.mark.parametrize("ord", ORDERS)
def test_norm_of_subnormal_numbers(runtime, ord):
    x = Values(runtime, [1e-40, -3e-42, 2e-39, 0.0])
    header = norm_of(runtime, [x], ord)
    np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=1e-6)


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("records", [dtypes.float32, dtypes.float64], ids=lambda dtype: f"in-{dtype}")
def test_norm_of_every_storage(runtime, dtype, records):
    if not (runtime.supports(dtype) and runtime.supports(records)):
        pytest.skip(f"{runtime.device} does not compute with {dtype} or {records}")
    x = Values(runtime, np.random.default_rng(0).standard_normal(5000), dtype)
    for ord in ORDERS if dtype is records else (2.0,):
        if dtype is dtypes.float64 and records is dtypes.float32:
            with pytest.raises(DTypeError, match="needs records of float64"):
                norm_of(runtime, [x], ord, records)
        else:
            header = norm_of(runtime, [x], ord, records)
            tolerance = 1e-13 if records is dtypes.float64 else 4e-6
            np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=tolerance)


def test_float64_norms_of_extremes(runtime):
    if not runtime.supports(dtypes.float64):
        pytest.skip(f"{runtime.device} does not compute with float64")
    for size in (1e300, 1e-300, 1e-310):
        x = Values(runtime, np.array([3.0, -4.0]) * size, dtypes.float64)
        for ord in ORDERS:
            header = norm_of(runtime, [x], ord)
            np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=1e-13)
            assert header["nonfinite"] == 0


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("place", [0, 1000, 40_000])
@pytest.mark.parametrize(
    ("bad", "norm"), [([math.inf], math.inf), ([math.nan], math.nan), ([-math.inf, math.nan], math.nan)]
)
def test_what_is_not_finite_is_seen(runtime, ord, place, bad, norm):
    values = np.ones(50_000)
    values[place : place + len(bad)] = bad
    header = norm_of(runtime, [Values(runtime, values)], ord, max_norm=1.0)
    np.testing.assert_equal(header["norm"], norm)
    assert (header["nonfinite"], header["multiplier"]) == (1, 1)


@pytest.mark.parametrize("ord", ORDERS)
def test_inactive_rows_and_a_multiplier(runtime, ord):
    n = 20 * CHUNK + 5
    map_of_rows = np.arange(21) % 3
    values = np.random.default_rng(0).standard_normal(n)
    resting = np.repeat(map_of_rows, CHUNK)[:n] == 1
    values[resting] = math.nan
    x, rows, multiplier = Values(runtime, values), Values(runtime, map_of_rows, dtypes.uint16), Values(runtime, [0.125])
    block = Block(runtime, [{}, {"active": 0.0}, {}])
    header = norm_of(runtime, [x], ord, rows=rows.span, block=block.step, multiplier=multiplier.span)
    np.testing.assert_allclose(product(header), norm_oracle(0.125 * x.given[~resting], ord), rtol=4e-6)


@pytest.mark.parametrize("ord", ORDERS)
def test_the_same_bits_on_every_run(runtime, ord):
    x = Values(runtime, np.random.default_rng(0).standard_normal(70_001))
    assert len({records_of(runtime, [x], ord).bytes() for _ in range(4)}) == 1


@settings(max_examples=15)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), max_size=50),
    st.sampled_from(ORDERS),
    st.floats(1e-3, 1e3),
)
def test_norm_and_clip_of_anything_finite(forms, values, ord, max_norm):
    expected = norm_oracle(np.float32(values), ord)
    for runtime in forms.values():
        header = norm_of(runtime, [Values(runtime, values)], ord, max_norm=max_norm)
        np.testing.assert_allclose(product(header), expected, rtol=1e-5)
        factor = 1.0 if expected == 0 else min(1.0, float(max_norm / expected))
        np.testing.assert_allclose(header["multiplier"], factor, rtol=1e-5, atol=1.2e-38)


@pytest.mark.parametrize("max_norm", [5.0, 5.0000005, 1e30, math.inf])
def test_a_norm_within_bounds_is_left_exactly(runtime, max_norm):
    header = norm_of(runtime, [Values(runtime, [3.0, -4.0])], 2.0, max_norm=max_norm)
    assert (header["norm"], header["multiplier"]) == (5, 1)


def test_a_changed_bound_reaches_a_kept_launch(runtime):
    x = Values(runtime, [3.0, -4.0])
    records, block = records_of(runtime, [x], 2.0), Block(runtime)
    for max_norm in (1.0, 2.5, 1.0, math.inf):
        runtime.prepare_step(block.step, records.span, max_norm=max_norm)
        assert block.read_header()["multiplier"] == pytest.approx(min(1.0, max_norm / 5), rel=1e-6)


# -- kept launches -----------------------------------------------------------------------------------------------------


def test_a_step_is_three_launches_that_are_made_once(runtime):
    block, model = Block(runtime), Model(runtime, 3000)
    records = Values(runtime, np.zeros(2 * runtime.norm_partials(3000)))

    def step():
        runtime.norm_reduce(model.g.span, records.span, 2.0, rows=model.rows.span, block=block.step)
        runtime.prepare_step(block.step, records.span, max_norm=1.0)
        model.adam(runtime, block)
        block.step.slot ^= 1

    step()
    step()
    kept, launches, blocking = dict(block.step.bound), runtime.launches, runtime.blocking
    for _ in range(4):
        step()
    assert runtime.launches - launches == 12
    assert runtime.blocking == blocking
    assert {key: id(launch) for key, launch in block.step.bound.items()} == {
        key: id(launch) for key, launch in kept.items()
    }
    assert block.read_steps(block.step.slot) == [7]


def test_a_moved_gradient_is_followed_and_the_old_one_freed(runtime):
    block, model = Block(runtime), Model(runtime, 500)
    model.adam(runtime, block)
    old = weakref.ref(model.g.buffer)
    given_values = [values.values() for values in model.changing]
    model.g = Values(runtime, np.full(500, 0.25))
    gc.collect()
    assert old() is None, "a kept launch holds a gradient alive"
    model.adam(runtime, block)
    p, m, v = given_values
    check(model.changing, adam_oracle(block.rows[0], 1, 1.0, p, model.g.given, m, v))
    assert len(block.step.bound) == 1


def test_launches_kept_for_passing_spans_are_few(runtime):
    block, model = Block(runtime), Model(runtime, 2 * KEPT_LAUNCHES)
    m, v = (values.span for values in model.state)
    for start in range(KEPT_LAUNCHES + 10):
        p, g, first, second = (Span(s.buffer, s.offset + start, 1) for s in (model.p.span, model.g.span, m, v))
        runtime.fused_adam(p, g, first, second, None, block.step, model.rows.span, advance=False)
    assert len(block.step.bound) <= KEPT_LAUNCHES


# -- refusals ----------------------------------------------------------------------------------------------------------


def refuse(error, message, runtime, block, model, act):
    launches = runtime.launches
    with pytest.raises(error, match=message):
        act()
    assert runtime.launches == launches
    assert all(values.unchanged() for values in (*model.changing, block.header, *block.counters))


def test_refusals_change_nothing(runtime):
    block, model = Block(runtime), Model(runtime, 1500)
    short, rule = Model(runtime, 1499), adam_rule()
    p, g, rows = model.p.span, model.g.span, model.rows.span
    m, v = (values.span for values in model.state)
    half = Model(runtime, 1500, dtypes.float16)
    plain = Block(runtime, columns=(*ROW, "lr"))
    records = Values(runtime, np.zeros(1))

    def adam(p=p, g=g, m=m, v=v, block=block, rows=rows):
        runtime.fused_adam(p, g, m, v, None, block.step, rows, advance=True)

    def update(p=p, g=g, state=(m, v), block=block, rule=rule):
        runtime.fused_update(rule, p, g, state, block.step, rows, advance=True)

    def empty():
        runtime.fused_adam(p, g, m, v, None, StepBlock(block.header.span, ADAM_COLUMNS), rows, advance=True)

    cases = [
        (ShapeError, "of one size, got 1500, 1499, 1500, 1500", lambda: adam(g=short.g.span)),
        (ShapeError, "row map of 1500 elements is 2 entries", lambda: adam(rows=Span(rows.buffer, rows.offset, 1))),
        (ShapeError, "row map .* of float32", lambda: adam(rows=m)),
        (ShapeError, "needs a step block with rows", empty),
        (HyperParameterError, "fused_adam reads the columns active, sign, lr", lambda: adam(block=plain)),
        (HyperParameterError, "reads the hyper-parameter '.*', which is neither", lambda: update(block=plain)),
        (ShapeError, "takes 4 arrays and gives 3; with 1 state", lambda: update(state=(m,))),
        (DTypeError, "traced for float32 where it is given float16", lambda: update(p=half.p.span)),
        (ShapeError, "1 records of 2 values, got room for 1", lambda: runtime.norm_reduce(g, records.span, 2.0)),
        (ShapeError, "pass block= with rows=", lambda: runtime.norm_reduce(g, m, 2.0, rows=rows)),
        (HyperParameterError, "positive or infinite, got -1", lambda: runtime.norm_reduce(g, m, -1.0)),
        (HyperParameterError, "positive or infinite, got 0", lambda: runtime.prepare_step(block.step, m, ord=0.0)),
        (DTypeError, "takes floating-point elements", lambda: runtime.norm_reduce(rows, m, 2.0)),
    ]
    for error, message, act in cases:
        refuse(error, message, runtime, block, model, act)


def test_a_block_that_is_too_small_is_refused(runtime):
    block, model = Block(runtime), Model(runtime, 10)
    block.step.rows = 2
    with pytest.raises(ShapeError, match="hyper of a step block with 2 rows needs 24 values, got 12"):
        model.adam(runtime, block)
    with pytest.raises(ShapeError, match="needs 24 values"):
        runtime.prepare_step(block.step)
    block.step.hyper = None
    with pytest.raises(ShapeError, match="needs hyper and counters"):
        runtime.prepare_step(block.step)


def test_a_block_of_another_width_is_refused(runtime):
    if not runtime.supports(dtypes.float64):
        pytest.skip(f"{runtime.device} does not compute with float64")
    block, model = Block(runtime, dtype=dtypes.float64), Model(runtime, 10)
    with pytest.raises(DTypeError, match="computed in float32, but the step is computed in float64"):
        model.adam(runtime, block)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enumeration", "names"),
    [("header", HEADER), ("counter", COUNTERS), ("column", ADAM_COLUMNS)],
)
def test_kernels_and_seam_lay_a_block_out_alike(enumeration, names):
    from netcl.backends.opencl.program import source

    text = source("step.clh").split(f"enum {enumeration} {{")[1].split("}")[0]
    found = [name.strip().lower() for name in text.split(",")]
    found = [name.removeprefix("header_").removeprefix("counter_") for name in found if name != "counters"]
    assert found == list(names)


def divisions(rule):
    return [node for node in operands_first(rule.outputs) if node.op == "divide"]


def test_a_rule_divides_by_a_hyper_parameter_once_for_a_chunk():
    rule = adam_rule()
    rewritten = with_reciprocals(rule)
    assert len(divisions(rule)) == 3
    by_element = [node for node in divisions(rewritten) if node.args[0].op != "constant"]
    assert len(by_element) == 1, "only the division by the root is one per element"
    assert (rewritten.inputs, rewritten.stored) == (rule.inputs, rule.stored)


def test_a_rule_of_many_operations_is_rewritten():
    def long(p, g):
        for _ in range(3000):
            p = p - g / hyper("lr")
        return p

    rule = ex.trace(long, (dtypes.float32,) * 2, stored=(dtypes.float32,))
    assert all(node.args[0].op == "constant" for node in divisions(with_reciprocals(rule)))
