"""Rules of one's own: what a step's source says, and that whatever cannot be traced is refused with its line."""

from __future__ import annotations

import inspect
import math
import re
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest

import netcl
from netcl import expression as ex
from netcl.backends import get_backend
from netcl.backends.base import UpdateSource
from netcl.dtypes import float16, float32
from netcl.errors import TraceError
from netcl.optim import SGD, AdamW, Optimizer, RMSProp, Rule
from tests.optimizers import EVERY


def optimizer(update, state=("m",), params=None, **defaults):
    class Own(Optimizer):
        def __init__(self, params):
            rule = Rule(update, lambda group: {"lr": group["lr"]}, state=state)
            super().__init__(params, {"lr": 0.1, **defaults}, rule)

    return Own(params or [netcl.ones(3, requires_grad=True, device="numpy")])


# -- long rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("maximize", "max_norm", "moved"), [(False, 1.0, -0.5), (True, None, 0.5), (True, 1.0, 0.5)])
def test_a_rule_may_have_many_terms(maximize, max_norm, moved, backend):
    """More than Python's recursion goes deep, also where a factor is set into the rule."""

    def update(p, g, s, h):
        step = h.lr * g
        for _ in range(1500):
            step = step + h.share * g
        return (p - step,)

    class Long(Optimizer):
        def __init__(self, params):
            rule = Rule(update, lambda group: {"lr": group["lr"], "share": group["lr"] / 1500})
            super().__init__(params, {"lr": 0.25, "maximize": maximize}, rule)

    w = netcl.zeros(4, requires_grad=True, device=backend.device)
    w.grad = netcl.full(4, 1.0 if max_norm is None else 7.0, device=backend.device)
    Long([w]).step(max_norm=max_norm)
    expected = moved if max_norm is None else moved / 2.0  # four equal elements of norm 1
    np.testing.assert_allclose(w.numpy(), np.full(4, expected), rtol=1e-4)


# -- refusals ----------------------------------------------------------------------------------------------------------


def truth(p, g, s, h):
    if p > 0:  # here
        return p, s.m
    return g, s.m


def both(p, g, s, h):
    return ex.where(p > 0 and g > 0, p, g), s.m  # here


def chain(p, g, s, h):
    return ex.where(0 < p < 1, p, g), s.m  # here


def negation(p, g, s, h):
    return ex.where(not p, p, g), s.m  # here


def loop(p, g, s, h):
    while p > 1:  # here
        p = p - 1
    return p, s.m


def membership(p, g, s, h):
    return (p if p in (1, 2) else g), s.m  # here


def largest(p, g, s, h):
    return max(p, g), s.m  # here


def math_root(p, g, s, h):
    return p - h.lr * math.sqrt(g), s.m  # here


def numpy_root(p, g, s, h):
    return p - h.lr * np.sqrt(g), s.m  # here


def numpy_choice(p, g, s, h):
    return np.where(p > 0, p, g), s.m  # here


def numpy_number(p, g, s, h):
    return np.float32(2) * p, s.m  # here


def array(p, g, s, h):
    return p * np.ones(3), s.m  # here


def tensor(p, g, s, h):
    return p * netcl.ones(3, device="numpy"), s.m  # here


def function_of_tensors(p, g, s, h):
    return netcl.sqrt(p), s.m  # here


def index(p, g, s, h):
    return p[0], s.m  # here


def index_of_state(p, g, s, h):
    return p, s["m"]  # here


def number(p, g, s, h):
    return p - float(g), s.m  # here


def whole(p, g, s, h):
    return p - int(g), s.m  # here


def length(p, g, s, h):
    return p * len(g), s.m  # here


def iteration(p, g, s, h):
    return p + sum(x for x in g), s.m  # here


def modulus(p, g, s, h):
    return p % 2, s.m  # here


def bits(p, g, s, h):
    return p & g, s.m  # here


def method(p, g, s, h):
    return p.sqrt(), s.m  # here


def formatted(p, g, s, h):
    return p * float(f"{g:.2f}"), s.m  # here


def hyper_name(p, g, s, h):
    return p - h.rate * g, s.m  # here


def state_name(p, g, s, h):
    return p - h.lr * s.velocity, s.m  # here


def assignment(p, g, s, h):
    s.m = g  # here
    return p, s.m


def misspelt(p, g, s, h):
    return p - learning_rate * g, s.m  # noqa: F821  # here


def helped(p, g, s, h):
    return helper(p), s.m


def helper(x):
    return math.exp(x)  # here


REFUSED = [truth, both, chain, negation, loop, membership, largest, math_root, numpy_root, numpy_choice, numpy_number,
           array, tensor, function_of_tensors, index, index_of_state, number, whole, length, iteration, modulus, bits,
           method, formatted, hyper_name, state_name, assignment, misspelt, helped]  # fmt: skip


@pytest.mark.parametrize("update", REFUSED, ids=lambda update: update.__name__)
def test_what_cannot_be_traced_is_refused_with_its_line(update):
    within = helper if update is helped else update
    lines, start = inspect.getsourcelines(within)
    ((line, text),) = [(start + i, line.strip()) for i, line in enumerate(lines) if "# here" in line]
    with pytest.raises(TraceError) as refusal:
        optimizer(update)
    said = str(refusal.value)
    assert f"line {line}: {text!r}" in said
    assert re.search(r"\(in (\w+|<\w+>), line", said)
    with pytest.raises(TraceError, match=f"line {line}: "):
        optimizer(
            update, params=[netcl.ones(3, requires_grad=True, device="numpy", dtype=float16)], master_weights=True
        )


def one(p, g, s, h):
    return p - g


def three(p, g, s, h):
    return p, g, s.m


def nothing(p, g, s, h):
    s.m + g


def text(p, g, s, h):
    return p, "m"


def complex_number(p, g, s, h):
    return p, s.m * 1j


def three_arguments(p, g, s):
    return p, s.m


@pytest.mark.parametrize(
    ("update", "said"),
    [
        (one, r"must return \(p, m\): 2 value\(s\), got 1"),
        (three, r"must return \(p, m\): 2 value\(s\), got 3"),
        (nothing, r"must return \(p, m\): 2 value\(s\), got 1"),
        (text, r"must return \(p, m\) as real traced values, got str for m"),
        (complex_number, r"got a complex64 value for m"),
        (three_arguments, "takes 3 positional arguments but 4 were given"),
    ],
)
def test_wrong_results_and_arguments_are_refused_with_the_place_of_the_rule(update, said):
    with pytest.raises(TraceError, match=said) as refusal:
        optimizer(update)
    place = f"{inspect.getsourcefile(update)}, line {inspect.getsourcelines(update)[1]}"
    assert update.__name__ in str(refusal.value)
    assert place in str(refusal.value)


def test_names_that_are_missing_are_told_with_those_that_there_are():
    with pytest.raises(TraceError, match=r"h\.rate is not a hyper-parameter of this rule .* there are: h\.lr, h\.step"):
        optimizer(hyper_name)
    with pytest.raises(TraceError, match=r"s\.velocity is not a state field of this rule .* there are: s\.m$"):
        optimizer(state_name)


def test_numbers_of_numpy_that_are_python_numbers_may_stand_in_a_rule():
    def update(p, g, s, h):
        return np.float64(0.5) * p - np.sqrt(0.25) * g, s.m

    assert "return 0.5 * p - 0.5 * g, s.m" in optimizer(update).source()


# -- source ------------------------------------------------------------------------------------------------------------


def test_source_of_every_optimizer(backend):
    for case in EVERY:
        parameter = netcl.ones(5, requires_grad=True, device=backend.device)
        said = case.optimizer([parameter], **case.options).source()
        if isinstance(backend, UpdateSource):
            assert "__kernel" in said
            assert re.search(r"^#define WIDTH \d+$", said, re.MULTILINE)
        else:
            assert re.fullmatch(
                r"def \w+\(p, g, s, h\):  # float32, computed in float32\n( {4}.+\n)* {4}return .*", said
            )


def test_source_tells_what_runs(backend):
    weight = netcl.ones(2, requires_grad=True, device=backend.device)
    half = netcl.ones(2, requires_grad=True, device=backend.device, dtype=float16)
    said = SGD([weight, half], lr=0.1, momentum=0.9).source()
    if isinstance(backend, UpdateSource):
        assert said.count("#define NETCL_GENERATED") == 2
        assert "#define P float16" in said
        assert "AMSGRAD" in AdamW([weight]).source()
    else:
        assert said.count("def sgd_with_momentum") == 2
        assert "float16, computed in float32" in said


def test_source_launches_nothing_and_works_without_elements(backend):
    weight = netcl.ones(0, requires_grad=True, device=backend.device)
    opt = AdamW([weight])
    before = getattr(backend, "launches", 0)
    assert opt.source()
    assert getattr(backend, "launches", 0) == before


def test_the_printed_rule_is_the_traced_one():
    """What is printed runs, and traces to the same expression."""
    with netcl.use_backend("numpy"):
        weight = netcl.ones(2, requires_grad=True)
        optimizers = [AdamW([weight]), AdamW([weight], amsgrad=True), SGD([weight], lr=0.1, momentum=0.9),
                      RMSProp([weight], centered=True, momentum=0.9),
                      AdamW([netcl.ones(2, requires_grad=True, dtype=float16)], master_weights=True)]  # fmt: skip
    for opt in optimizers:
        names = {**vars(ex)}
        said = opt.source()
        exec(said, names)
        (partition,) = opt.partitions
        rule, dtype = partition._rule, partition.dtype
        columns = partition.step.block.columns
        printed = Rule(names[said.split("(")[0].removeprefix("def ")], rule.hyper, rule.state)
        assert printed.expression(dtype, dtype, columns).key == rule.expression(dtype, dtype, columns).key


def test_operators_that_have_no_function_are_printed_as_applied():
    def update(p, g, s, h):
        return ex.apply("floor", p) - (g - (p - 1.0)) * -p, abs(s.m) / (p / g) ** 3 + float("inf")

    printed = optimizer(update).source().splitlines()[-1].strip()
    assert (
        printed == "return apply('floor', p) - (g - (p - 1.0)) * -p, abs(s.m) / apply('pow', p / g, 3.0) + float('inf')"
    )


def test_the_example_prints_its_rule(capsys):
    path = Path(__file__).resolve().parents[1] / "examples/custom_optimizer.py"
    before = netcl.get_backend()
    try:
        runpy.run_path(str(path))["main"](["--backend", "numpy", "--steps", "5", "--print-source"])
    finally:
        netcl.set_backend(before)
    assert capsys.readouterr().out.count("def lion(p, g, s, h):  # float32") == 2


def test_a_lambda_is_printed_as_a_function():
    assert optimizer(lambda p, g, s, h: p - g, state=()).source().startswith("def update(p, g, s, h):")


def test_a_plug_in_need_not_tell_its_source():
    toy = get_backend("toy")
    assert not isinstance(toy, UpdateSource)
    weight = netcl.ones(2, requires_grad=True, device=toy.device)
    assert SGD([weight], lr=0.1).source().startswith("def sgd(p, g, s, h):")


def test_the_source_of_a_program_builds_alone(backend):
    if not isinstance(backend, UpdateSource):
        pytest.skip("this backend builds no programs")
    import pyopencl as cl

    said = SGD([netcl.ones(2, requires_grad=True, device=backend.device, dtype=float32)], lr=0.1).source()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)
        built = cl.Program(backend.queue.context, said).build(["-cl-std=CL1.2", "-w"])
    assert built.kernel_names == "fused_update"
