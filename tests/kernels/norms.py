"""Norms by way of norm_reduce and prepare_step, and by NumPy's widest arithmetic."""

import math

import numpy as np

from netcl.backends.base import Span
from tests.kernels.steps import Block, Values

PIECE = {True: 16384, False: 4096}  # elements per record on CPUs and on GPUs
ORDERS = (0.5, 1.0, 2.0, 3.0, 7.5, math.inf)
SHORT = (2.0, 7.5, math.inf)  # squares, any power, none


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


def factor(header):
    return header["multiplier"] * 2.0 ** -header["shift"]


def product(header):
    return np.longdouble(header["norm_scale"]) * np.longdouble(header["norm_root"])
