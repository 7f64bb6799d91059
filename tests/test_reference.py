"""What the reference backend promises beyond the protocol: NumPy's own bits, few temporaries, any array library."""

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import ADAM_COLUMNS, COUNTERS, Span, StepBlock, View
from netcl.backends.reference import ReferenceBackend
from netcl.backends.reference.in_place import BLOCK, InPlaceProgram
from netcl.backends.reference.namespace import Namespace, TorchNamespace
from netcl.backends.reference.numpy_namespace import NumpyNamespace
from netcl.backends.reference.special import erf, philox4x32
from netcl.dtypes import float32
from netcl.expression import Node

LR, BETA1, BETA2, EPS, DECAY = (np.float32(x) for x in (1e-3, 0.9, 0.999, 1e-8, 0.01))
N = 3 * BLOCK + 1234


def put(backend, values, dtype=float32):
    values = np.asarray(values)
    span = Span(backend.alloc(values.size, dtype), 0, values.size)
    backend.upload(values.astype(dtype.name).ravel(), span)
    return span


def step_block(backend, step=3):
    numbers = [1, 1, LR, BETA1, 1 - BETA1, BETA2, 1 - BETA2, EPS, 0, DECAY, math.log(BETA1), math.log(BETA2), 0]
    row = dict(zip(ADAM_COLUMNS, numbers, strict=True))
    return StepBlock.allocate(lambda numbers: put(backend, numbers), ADAM_COLUMNS, [row], steps=[step])


def plain_adamw(p, g, m, v, block):
    """AdamW over whole arrays, as one would write it in NumPy, with the numbers of the block."""
    h = dict(zip(ADAM_COLUMNS, block.hyper.buffer.array, strict=True))
    c = dict(zip(COUNTERS, block.counters[0].buffer.array, strict=True))
    m = h["beta1"] * m + h["one_minus_beta1"] * g
    v = h["beta2"] * v + h["one_minus_beta2"] * np.square(g)
    update = (m / c["bias_correction1"]) / (np.sqrt(v / c["bias_correction2"]) + h["eps"])
    return p - h["lr"] * (update + h["decay"] * p), m, v


def arrays(n):
    rng = np.random.default_rng(0)
    p, g, m, v = (rng.standard_normal(n, dtype=np.float32) for _ in range(4))
    return p, g, m, np.square(v)


@pytest.mark.parametrize("n", [1, 1000, BLOCK, N])
def test_fused_adam_has_the_bits_of_plain_numpy(n):
    backend = ReferenceBackend()
    block = step_block(backend)
    given = arrays(n)
    p, g, m, v = (put(backend, x) for x in given)
    rows = put(backend, np.zeros(-(-n // 1024)), dtypes.uint16)
    backend.fused_adam(p, g, m, v, None, block, rows, advance=True)
    for found, expected in zip((p, m, v), plain_adamw(*given, block), strict=True):
        np.testing.assert_array_equal(backend.download(found), expected)


def test_a_full_step_on_torch_tensors():
    torch = pytest.importorskip("torch")
    backends = ReferenceBackend(), ReferenceBackend(torch, name="torch")
    given = arrays(N)
    results = []
    for backend in backends:
        block = step_block(backend)
        p, g, m, v = (put(backend, x) for x in given)
        rows = put(backend, np.zeros(-(-N // 1024)), dtypes.uint16)
        for _ in range(3):
            partials = put(backend, np.zeros(2 * backend.norm_partials(N)))
            backend.norm_reduce(g, partials, 2.0)
            backend.prepare_step(block, partials, max_norm=1.0)
            backend.fused_adam(p, g, m, v, None, block, rows, advance=False)
            block.slot = 1 - block.slot
        results.append([backend.download(x) for x in (p, m, v, block.header, block.counters[block.slot])])
    assert isinstance(p.buffer.array, torch.Tensor)
    assert results[1][4][0] == 6
    for numpys, torchs in zip(*results, strict=True):
        np.testing.assert_allclose(torchs, numpys, rtol=2e-6, atol=1e-9)
    assert str(backends[1].device) == "torch:0"
    assert backends[1].device.platform == "torch"
    assert isinstance(backends[1].namespace, TorchNamespace)


@pytest.mark.skipif(importlib.util.find_spec("array_api_strict") is None, reason="needs array-api-strict")
def test_a_library_that_is_known_by_the_standard_alone():
    import array_api_strict

    backend = ReferenceBackend(array_api_strict, name="strict")
    assert type(backend.namespace) is Namespace
    assert not backend.supports(dtypes.bfloat16)
    x = put(backend, np.arange(6.0))
    view = View(x.buffer, 4, (2, 2), (1, -3))
    out = View(put(backend, np.zeros(8)).buffer, 1, (2, 2), (4, 2))
    backend.map(ex.trace(lambda v: ex.erf(v) * 2.0, (float32,)), [view], [out])
    found = backend.download(Span(out.buffer, 0, 8))
    np.testing.assert_allclose(found[[1, 3, 5, 7]], [2 * math.erf(v) for v in (4, 1, 5, 2)], rtol=1e-6)


def test_both_namespaces_have_the_same_methods():
    """So that nobody else asks which one it is."""
    standard, numpy = ({name for name in vars(one) if name[0] != "_"} for one in (Namespace, NumpyNamespace))
    assert standard == numpy
    assert {name for name in vars(TorchNamespace) if name[0] != "_"} <= standard


def temporaries(function, inputs):
    """How many temporaries of its operands' size an expression needs."""
    return len(InPlaceProgram(ex.trace(function, (float32,) * inputs), ReferenceBackend().namespace).scratch)


def test_temporaries_are_few():
    # The last value goes to the output, and every other overwrites the one before.
    assert temporaries(lambda x: ex.exp(ex.sqrt(abs(x)) * 2.0) + 1.0, 1) == 1
    # Seven values, of which at most three are alive at once.
    assert temporaries(lambda x, y: (x + y) * (x - y) + (x * y) / (x * x), 2) == 3


def test_an_output_is_not_written_before_its_input_was_read():
    backend = ReferenceBackend()
    x, y = put(backend, np.arange(N)), put(backend, np.ones(N))
    views = [View(s.buffer, 0, (N,), (1,)) for s in (x, y)]
    both = ex.trace(lambda a, b: (a * b + 1.0, a - b), (float32, float32))
    backend.map(both, views, views)
    expected = np.arange(N, dtype="f4")
    np.testing.assert_array_equal(backend.download(x), expected + 1)
    np.testing.assert_array_equal(backend.download(y), expected - 1)


def test_a_rule_keeps_the_gradient():
    backend = ReferenceBackend()
    block = step_block(backend)
    p, g = put(backend, np.ones(5)), put(backend, np.full(5, 2.0))
    rule = ex.trace(lambda p, g: (p - Node("hyper", (), float32, "lr") * g,), (float32, float32), stored=(float32,))
    backend.fill(Span(block.header.buffer, 0, 1), 0.5)
    backend.fused_update(rule, p, g, [], block, put(backend, [0], dtypes.uint16), advance=False)
    np.testing.assert_array_equal(backend.download(g), np.full(5, 2.0))
    np.testing.assert_array_equal(backend.download(p), np.ones(5, "f4") - LR * np.ones(5, "f4"))


def test_erf_to_the_last_digits():
    x = np.concatenate([np.linspace(-7, 7, 5001), [0.46875, -0.46875, 4.0, 6.0, 1e-300, 1e300, 0.0, -0.0]])
    np.testing.assert_allclose(erf(np, x), [math.erf(v) for v in x], rtol=5e-16, atol=0)
    assert erf(np, np.array([math.inf, -math.inf])).tolist() == [1.0, -1.0]
    assert math.isnan(erf(np, np.array([math.nan]))[0])


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, answer):
    words = philox4x32(tuple(np.array([word], np.uint64) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == answer


def test_torch_is_not_imported_for_numpy():
    code = "import sys, netcl.backends.reference as r; r.ReferenceBackend(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_dtype_of_a_library_is_refused():
    class Toy(Namespace):
        pass

    namespace = Toy(ReferenceBackend().namespace.xp)
    with pytest.raises(dtypes.DTypeError, match="has no dtype bfloat16; choose one"):
        namespace.empty(3, dtypes.bfloat16)
