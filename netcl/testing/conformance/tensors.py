"""A rule with norms of whole tensors, its formulas in float64, and tensors of any size for it."""

from __future__ import annotations

from functools import cache

import numpy as np

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import CHUNK, RECORDS, TensorMap, TensorRule
from netcl.expression import Node
from netcl.testing.conformance.operands import Operand


@cache
def tensor_rule(dtype, norms=("p", "u")):
    """Momentum along ``u = v / (1 + |p|)``, at a rate that depends on the norms, the size, the row and its counters.

    The second state field is moved by the second pass alone, the first by the first. Both passes read the row, and the
    second the step's number too.
    """
    real = dtype.compute
    state = (real, real, real)
    lr, beta, eps, step, ratio = (Node("hyper", (), real, name) for name in ("lr", "beta1", "eps", "step", "ratio"))

    def direction(p, g, v, w, u):
        v = beta * v + g
        return p, v, w, v / (1.0 + abs(p))

    def rate(*values):
        *taken, size = values
        found = dict(zip(norms, taken, strict=True))
        above, below = found.get("p", 1.0), found.get("u", 1.0)
        return lr * above / (below + eps) * (step / (step + size))

    def update(p, u, v, w):
        w = w + ratio * u
        return p - w / (step + beta), v, w

    places = {"p": 0, "u": 3}
    inputs = (dtype, *state)
    return TensorRule(
        ex.trace(direction, (dtype, dtype, *state), stored=inputs),
        tuple(ex.build([Node("input", (), real, places[name])], inputs, name="measured") for name in norms),
        ex.trace(rate, (real,) * (len(norms) + 1)),
        ex.trace(update, (dtype, real, real, real), stored=inputs[:3]),
    )


def norm(x):
    """The Euclidean norm, in numbers wide enough for every square."""
    return float(np.sqrt(np.sum(np.asarray(x, np.longdouble) ** 2)))


def oracle(row, multiplier, p, g, v, w, u, norms=("p", "u")):
    """One tensor's p, v, w and u after both passes; without a gradient its direction is ``u``."""
    if g is not None:
        v = row["beta1"] * v + g * (multiplier * row["sign"])
        u = v / (1.0 + np.abs(p))
    above, below = (norm(x) if name in norms else 1.0 for name, x in (("p", p), ("u", u)))
    with np.errstate(invalid="ignore"):
        w = w + row["lr"] * above / (below + row["eps"]) * (row["step"] / (row["step"] + p.size)) * u
        return [p - w / (row["step"] + row["beta1"]), v, w, u]


class Tensors:
    """Tensors of these sizes with gradient and state, each from a chunk of its own on, and the map of them.

    Parameters
    ----------
    row_of : sequence of int, optional
        The row of each tensor.
    scale : float
        What parameters are multiplied by.
    whole : bool
        Whether the last tensor is padded to whole chunks too.
    """

    def __init__(self, backend, sizes, dtype=dtypes.float32, row_of=None, *, scale=1.0, whole=False):
        self.sizes, self.dtype, self.backend = list(sizes), dtype, backend
        self.row_of = list(row_of or [0] * len(self.sizes))
        chunks = [-(-size // CHUNK) for size in self.sizes]
        self.starts = [0, *np.cumsum(chunks).tolist()]
        n = self.starts[-1] * CHUNK
        if not whole and self.sizes and self.sizes[-1] % CHUNK:
            n -= CHUNK - self.sizes[-1] % CHUNK
        rng = np.random.default_rng(n)
        inside = np.zeros(n, bool)
        for start, size in zip(self.starts, self.sizes, strict=False):
            inside[start * CHUNK : start * CHUNK + size] = True

        def drawn(kind, offset, factor=1.0):
            return Operand(backend, np.where(inside, factor * rng.standard_normal(n), 0.0), kind, offset=offset)

        real = dtype.compute
        self.p, self.g = drawn(dtype, n % 3, scale), drawn(dtype, 5)
        self.state = [drawn(real, 7 + i, 0.1) for i in range(3)]
        self.rows = Operand(backend, np.repeat(self.row_of, chunks), dtypes.uint16, offset=1)
        self.map = TensorMap(
            self.starts,
            Operand(backend, self.starts, dtypes.int64, offset=2).span,
            Operand(backend, np.repeat(np.arange(len(chunks)), chunks), dtypes.uint16, offset=1).span,
            Operand(backend, self.sizes, real, offset=4).span,
            Operand(backend, np.zeros(RECORDS * (self.starts[-1] + len(chunks))), real, offset=3).span,
        )

    @property
    def changing(self):
        return [self.p, *self.state]

    def pieces(self):
        """The place of each tensor among the elements."""
        return [slice(start * CHUNK, start * CHUNK + n) for start, n in zip(self.starts, self.sizes, strict=False)]

    def update(self, block, rule=None, *, gradient=True, advance=False, tensors=None):
        """Run the rule on all tensors, or on those from one to before another."""
        first, end = tensors or (0, len(self.sizes))
        start, stop = self.starts[first] * CHUNK, min(self.starts[end] * CHUNK, self.p.span.size)

        def part(x):
            return x.span.part(start, stop - start)

        rows = self.rows.span.part(self.starts[first], self.starts[end] - self.starts[first])
        self.backend.tensor_update(
            tensor_rule(self.dtype) if rule is None else rule,
            part(self.p),
            part(self.g) if gradient else None,
            [part(x) for x in self.state],
            block.step,
            rows,
            self.map,
            chunk=self.starts[first],
            advance=advance,
        )

    def expected(self, block, multiplier=0.5, norms=("p", "u"), *, gradient=True):
        """p, v, w and u of all elements after an update, in float64."""
        found = [x.given.copy() for x in self.changing]
        for piece, number in zip(self.pieces(), self.row_of, strict=True):
            row = block.rows[number]
            if row["active"] and piece.start != piece.stop:
                p, v, w, u = (x.given[piece] for x in self.changing)
                g = self.g.given[piece] if gradient else None
                for out, values in zip(found, oracle(row, multiplier, p, g, v, w, u, norms), strict=True):
                    out[piece] = values
        return found
