"""tensor_update on OpenCL: both forms, any knobs, what its kernels touch, kept launches, and what does not fit."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import CHUNK, Span, TensorRule
from netcl.backends.opencl.codegen.tensor_rule import direction_text, update_text
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.expression import Node
from netcl.testing.conformance.operands import Operand
from netcl.testing.conformance.step_block import Block
from netcl.testing.conformance.tensors import Tensors, tensor_rule
from tests.kernels.forms import own_backend

# Of one tensor more blocks than one work-item adds up alone, and than it has chunks each; others on both sides.
SIZES = [5, 0, 400 * CHUNK + 9, CHUNK, 40 * CHUNK, 1]
ROWS = [{"lr": 0.1, "eps": 1e-3, "step": 3}, {"active": 0}, {"sign": -1.0, "eps": 0.1}]
ROW_OF = [0, 0, 2, 1, 0, 2]


def check(tensors, expected):
    for operand, wanted in zip(tensors.changing, expected, strict=True):
        np.testing.assert_allclose(operand.values, wanted, rtol=2e-6, atol=2e-6)


def test_many_blocks_of_a_tensor(runtime):
    block, tensors = Block(runtime, ROWS), Tensors(runtime, SIZES, row_of=ROW_OF)
    tensors.update(block, advance=True)
    check(tensors, tensors.expected(block))
    assert [row["step"] for row in block.counters(1)] == [4, 1, 2]


def test_a_second_look_at_every_other_block(runtime):
    """Squares of the large elements are no numbers, nor are those of the small ones."""
    tensors, block = Tensors(runtime, [300 * CHUNK, 3]), Block(runtime, ROWS)
    values = tensors.p.given * np.repeat([1e30, 1e-30], CHUNK)[np.arange(tensors.p.span.size) % (2 * CHUNK)]
    tensors.p = Operand(runtime, values, dtypes.float32)
    tensors.state[:2] = [Operand(runtime, np.zeros_like(values), dtypes.float32) for _ in range(2)]
    tensors.update(block, tensor_rule(dtypes.float32, ("p",)))
    # The ratio times the direction.
    np.testing.assert_allclose(tensors.state[1].values, tensors.expected(block, norms=("p",))[2], rtol=2e-6)


@pytest.mark.short(width=[2])
@pytest.mark.parametrize(("width", "lanes"), [(4, 1), (2, 8), (8, 4)])
def test_any_knobs(opencl, width, lanes):
    backend = own_backend(opencl)
    backend.queue.set_knobs("norm_reduce", (("WIDTH", width), ("LANES", lanes), ("PIECE", 1024)))
    block, tensors = Block(backend, ROWS), Tensors(backend, [150 * CHUNK + 13, 3])
    tensors.update(block)
    check(tensors, tensors.expected(block))


def test_the_same_bits_however_the_calls_are_cut(runtime):
    found = []
    for cuts in ([(0, 6)], [(0, 2), (2, 3), (3, 6)]):
        block, tensors = Block(runtime, ROWS), Tensors(runtime, SIZES, row_of=ROW_OF)
        for first, end in cuts:
            tensors.update(block, tensors=(first, end))
        found.append([operand.values.tobytes() for operand in tensors.changing])
    assert found[0] == found[1]


def macros(text):
    lines = text.replace("\\\n", " ").splitlines()
    return {line.split()[1].partition("(")[0]: " ".join(line.split()[2:]) for line in lines}


def test_only_what_a_pass_needs_is_read_and_only_what_changes_written(runtime):
    tensors = Tensors(runtime, [5])
    state, columns = [x.span for x in tensors.state], Block(runtime, ROWS).columns
    rule = tensor_rule(dtypes.float32)
    first = macros(direction_text(rule, state, columns, 1, moves=True))
    assert first["READ"] == "FIELD(P, p) FIELD(G, g) FIELD(float32, s0)"
    assert first["WRITTEN"] == "FIELD(float32, s0) FIELD(float32, s2)"
    assert first["MEASURED"] == "FIELD(P, p) FIELD(float32, s2)"
    norms = macros(direction_text(rule, state, columns, 1, moves=False))
    assert norms["READ"] == norms["MEASURED"] == first["MEASURED"]
    assert norms["WRITTEN"] == ""
    second = macros(update_text(rule, state, columns, 1))
    assert second["READ"] == "FIELD(P, p) FIELD(float32, s1) FIELD(float32, s2)"
    assert second["WRITTEN"] == "FIELD(P, p) FIELD(float32, s1)"


@pytest.mark.parametrize(
    ("gradient", "norms", "launches"),
    [(True, ("p", "u"), 2), (True, (), 2), (False, ("u",), 2), (False, (), 1)],
    ids=str,
)
def test_launches_are_made_once(runtime, gradient, norms, launches):
    block, tensors = Block(runtime, ROWS), Tensors(runtime, [CHUNK + 3, 0, 5])
    rule = tensor_rule(dtypes.float32, norms)

    def step():
        tensors.update(block, rule, gradient=gradient, advance=gradient)
        block.step.slot ^= 1

    step()
    step()
    kept, before = dict(block.step.bound), (runtime.launches, runtime.blocking)
    for _ in range(3):
        step()
    assert (runtime.launches - before[0], runtime.blocking - before[1]) == (3 * launches, 0)
    assert {key: id(launch) for key, launch in block.step.bound.items()} == {
        key: id(launch) for key, launch in kept.items()
    }


def test_without_elements_the_counters_move_on(runtime):
    block, tensors = Block(runtime, ROWS), Tensors(runtime, [0, 0])
    before = runtime.launches
    tensors.update(block, advance=True)
    assert runtime.launches - before == 1
    assert [row["step"] for row in block.counters(1)] == [4, 1, 2]


def test_a_moved_gradient_is_followed_and_the_old_one_freed(runtime):
    block, tensors = Block(runtime, ROWS), Tensors(runtime, [500])
    tensors.update(block)
    old = weakref.ref(tensors.g.buffer)
    again = Tensors(runtime, [500])
    tensors.g = Operand(runtime, np.full(500, 0.25), dtypes.float32)
    gc.collect()
    assert old() is None, "a kept launch holds a gradient alive"
    again.g = tensors.g
    again.update(block)
    check(again, again.expected(block))


def short(x):
    return Span(x.buffer, x.offset, x.size - 1)


def with_ratio(rule, function, count=3):
    ratio = ex.trace(function, (dtypes.float32,) * count)
    return TensorRule(rule.direction, rule.measured, ratio, rule.update)


RULE = tensor_rule(dtypes.float32)
UNKNOWN = Node("hyper", (), dtypes.float32, "unknown")
WRONG = {
    "rows": (ShapeError, "row map", lambda call: call.update(rows=short(call["rows"]))),
    "gradient": (ShapeError, "of one size", lambda call: call.update(g=short(call["g"]))),
    "state": (ShapeError, "of one size", lambda call: call.update(state=[*call["state"][:2], short(call["state"][2])])),
    "no state": (ShapeError, "ends with the direction", lambda call: call.update(state=[])),
    "fields": (ShapeError, "takes 5 arrays", lambda call: call.update(state=call["state"][1:])),
    "chunk": (ShapeError, "beyond the 3 of the tensor map", lambda call: call.update(chunk=1)),
    "negative": (ShapeError, "from chunk -1", lambda call: call.update(chunk=-1)),
    "norms": (
        ShapeError,
        "a ratio takes 1 norm",
        lambda call: call.update(rule=TensorRule(RULE.direction, RULE.measured[:1], RULE.ratio, RULE.update)),
    ),
    "three": (
        ShapeError,
        "at most 2 values",
        lambda call: call.update(rule=TensorRule(RULE.direction, RULE.measured[:1] * 3, RULE.ratio, RULE.update)),
    ),
    "unknown": (
        HyperParameterError,
        "'unknown', which is neither",
        lambda call: call.update(rule=with_ratio(RULE, lambda a, b, size: a * UNKNOWN)),
    ),
    "dtype": (DTypeError, "traced for float64", lambda call: call.update(rule=tensor_rule(dtypes.float64))),
    "records": (ShapeError, "records of a map of 2 tensors", lambda call: _shortened(call, "records")),
    "first": (ShapeError, "first of a map of 2 tensors", lambda call: _shortened(call, "first")),
    "sizes": (DTypeError, "sizes of a map of 2 tensors", lambda call: _replaced(call, "sizes", call["tensors"].first)),
}


def _replaced(call, name, span):
    fields = {part: getattr(call["tensors"], part) for part in ("starts", "first", "of_chunk", "sizes", "records")}
    call["tensors"] = type(call["tensors"])(**{**fields, name: span})


def _shortened(call, name):
    _replaced(call, name, short(getattr(call["tensors"], name)))


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_launched(opencl, name):
    kind, told, spoil = WRONG[name]
    tensors = Tensors(opencl, [2 * CHUNK, 5])
    call = {
        "rule": RULE,
        "p": tensors.p.span,
        "g": tensors.g.span,
        "state": [x.span for x in tensors.state],
        "block": Block(opencl, ROWS).step,
        "rows": tensors.rows.span,
        "tensors": tensors.map,
        "chunk": 0,
        "advance": False,
    }
    spoil(call)
    before = opencl.launches
    with pytest.raises(kind, match=told):
        opencl.tensor_update(**call)
    assert opencl.launches == before


def test_a_block_without_rows_is_refused(opencl):
    tensors, block = Tensors(opencl, [5]), Block(opencl, ROWS)
    block.step = replace(block.step, hyper=None, counters=None, rows=0)
    with pytest.raises(ShapeError, match="needs a step block with rows"):
        tensors.update(block)
