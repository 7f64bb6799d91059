"""Array operations over ``map``, ``reduce`` and ``gather``. What a step of the arithmetic needs lies in scratch."""

from __future__ import annotations

from functools import cache

from netcl.backends.base import CHUNK, Span, View
from netcl.backends.composed.primitives import Primitives, Shape, counting, pieces, scratch
from netcl.dtypes import DType, int64, uint32
from netcl.expression import Expression, Node, apply, cast, constant, conversion, equal, exp, isnan, log, trace, where
from netcl.strides import contiguous_strides


@cache
def _product(a: DType, b: DType) -> Expression:
    return trace(lambda a, b: a * b, (a, b))


def batched_matmul(primitives: Primitives, a: View, b: View, out: View) -> None:
    """A sum of products along an axis of its own, over which both operands are repeated."""
    batch, m, n = out.shape
    shape = (batch, m, n, a.shape[2])
    left = View(a.buffer, a.offset, shape, (a.strides[0], a.strides[1], 0, a.strides[2]))
    right = View(b.buffer, b.offset, shape, (b.strides[0], 0, b.strides[2], b.strides[1]))
    primitives.reduce("sum", _product(a.dtype, b.dtype), [left, right], (3,), out)


@cache
def _first_match(x: DType) -> Expression:
    """The position where a value is the extremum or NaN, else the extent."""

    def position(value: Node, best: Node, index: Node, extent: Node) -> Node:
        matches = equal(value, best)
        return where(matches | isnan(value) if x.is_floating else matches, index, extent)

    return trace(position, (x, x, int64), (int64,))


def arg_reduce(primitives: Primitives, op: str, x: View, axis: int, out: View) -> None:
    """The extremum, and then the first position that has it."""
    extent = x.shape[axis]
    best = scratch(primitives, _size(out.shape), x.dtype)
    strides = contiguous_strides(out.shape)
    kind = op.removeprefix("arg")
    primitives.reduce(kind, conversion(x.dtype, x.dtype), [x], (axis,), View(best.buffer, 0, out.shape, strides))
    repeated = View(best.buffer, 0, x.shape, (*strides[:axis], 0, *strides[axis:]))
    index = View(counting(primitives, extent).buffer, 0, x.shape, _along(axis, len(x.shape)))
    primitives.reduce("min", _first_match(x.dtype), [x, repeated, index], (axis,), out, (extent,))


def _size(shape: Shape) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _along(axis: int, ndim: int) -> Shape:
    """Strides of a vector that is repeated over every other axis."""
    return tuple(int(i == axis) for i in range(ndim))


@cache
def _exponential(x: DType) -> Expression:
    return trace(lambda x, top: exp(x - top), (x, x.compute))


@cache
def _softmax(x: DType, out: DType, *, logarithm: bool) -> Expression:
    def element(x: Node, top: Node, total: Node) -> Node:
        return (x - top) - log(total) if logarithm else exp(x - top) / total

    return trace(element, (x, x.compute, x.compute), stored=(out,))


def softmax(primitives: Primitives, x: View, out: View, *, logarithm: bool) -> None:
    """Row by row: the maximum, the sum of the exponentials relative to it, and the quotients."""
    if 0 not in x.shape:
        top, total = _totals(primitives, x)
        expression = _softmax(x.dtype, out.dtype, logarithm=logarithm)
        primitives.map(expression, [x, _of_rows(top, x.shape), _of_rows(total, x.shape)], [out])


def _totals(primitives: Primitives, x: View) -> tuple[Span, Span]:
    """The maximum of each row, and the sum of the exponentials of what its elements are below it."""
    top, total = (scratch(primitives, x.shape[0], x.dtype.compute) for _ in range(2))
    primitives.reduce("max", conversion(x.dtype, x.dtype.compute), [x], (1,), top.view())
    primitives.reduce("sum", _exponential(x.dtype), [x, _of_rows(top, x.shape)], (1,), total.view())
    return top, total


def _of_rows(x: Span, shape: Shape) -> View:
    """A number for each row, repeated along it."""
    return View(x.buffer, x.offset, shape, (1, 0))


@cache
def _index(label: DType) -> Expression:
    """A label as an index that ``gather`` refuses exactly if the label is out of range."""

    def index(label: Node, ignored: Node, classes: Node) -> Node:
        return where(equal(label, ignored), 0, where(label < 0, classes, cast(label, int64)))

    return trace(index, (label,), (int64, int64), stored=(int64,))


@cache
def _share(x: DType) -> Expression:
    return trace(lambda x, top, share: (x - top) * share, (x, x.compute), (x.compute,))


@cache
def _loss(x: DType, label: DType, out: DType, *, smooth: bool) -> Expression:
    """``kept`` and ``eps`` add to 1; ``shares`` is eps times the mean of what a row's elements are below the top."""
    real = x.compute

    def loss(picked: Node, label: Node, top: Node, total: Node, *others: Node) -> Node:
        *shares, ignored, kept, eps = others
        value = kept * (log(total) - (picked - top))
        if smooth:
            value = value + (eps * log(total) - shares[0])
        return where(equal(label, ignored), 0.0, value)

    return trace(loss, (x, label, real, real, *(real,) * smooth), (int64, real, real), stored=(out,))


@cache
def _slope(x: DType, label: DType, out: DType) -> Expression:
    real = x.compute

    def slope(
        x: Node, top: Node, total: Node, label: Node, index: Node, ignored: Node, kept: Node, share: Node
    ) -> Node:
        value = exp(x - top) / total - share
        value = where(equal(label, index), value - kept, value)
        return where(equal(label, ignored), 0.0, value)

    return trace(slope, (x, real, real, label, int64), (int64, real, real), stored=(out,))


def softmax_cross_entropy(
    primitives: Primitives,
    logits: View,
    labels: View,
    loss: View,
    gradient: View | None,
    label_smoothing: float,
    ignore_index: int,
) -> None:
    """The loss from the sums of :func:`softmax` and a ``gather``, which is what reports a label out of range."""
    rows, classes = logits.shape
    if rows == 0:
        return
    top, total = _totals(primitives, logits)
    index, picked = scratch(primitives, rows, int64), scratch(primitives, rows, logits.dtype)
    primitives.map(_index(labels.dtype), [labels], [index.view()], (ignore_index, classes))
    one = (rows, 1, 1)
    primitives.gather(
        View(logits.buffer, logits.offset, (rows, classes, 1), (*logits.strides, 1)),
        View(index.buffer, index.offset, one, (1, 1, 1)),
        View(picked.buffer, picked.offset, one, (1, 1, 1)),
    )
    kept, share = 1.0 - label_smoothing, label_smoothing / classes
    terms = [picked.view(), labels, top.view(), total.view()]
    if label_smoothing:
        shares = scratch(primitives, rows, logits.dtype.compute)
        below = [logits, _of_rows(top, logits.shape)]
        primitives.reduce("sum", _share(logits.dtype), below, (1,), shares.view(), (share,))
        terms.append(shares.view())
    expression = _loss(logits.dtype, labels.dtype, loss.dtype, smooth=bool(label_smoothing))
    primitives.map(expression, terms, [loss], (ignore_index, kept, label_smoothing))
    if gradient is not None:
        of_rows = [_of_rows(top, logits.shape), _of_rows(total, logits.shape)]
        of_rows.append(View(labels.buffer, labels.offset, logits.shape, (labels.strides[0], 0)))
        number = View(counting(primitives, classes).buffer, 0, logits.shape, (0, 1))
        expression = _slope(logits.dtype, labels.dtype, gradient.dtype)
        primitives.map(expression, [logits, *of_rows, number], [gradient], (ignore_index, kept, share))


def _multiplied(x: Node, factor: int) -> tuple[Node, Node]:
    """The low and the high word of a product of 32-bit words, from products of their halves."""
    low, high = (x & 0xFFFF), apply("bitwise_right_shift", x, 16)
    a, b = factor & 0xFFFF, factor >> 16
    first = high * a + apply("bitwise_right_shift", low * a, 16)
    second = low * b + (first & 0xFFFF)
    carried = apply("bitwise_right_shift", first, 16) + apply("bitwise_right_shift", second, 16)
    return x * factor, high * b + carried


@cache
def _philox() -> Expression:
    """A word of Philox4x32-10 (Salmon et al., SC 2011): all four of its counter, and the one of its lane."""

    def word(
        chunk: Node, index: Node, ahead: Node, base_low: Node, base_high: Node, key_low: Node, key_high: Node
    ) -> Node:
        position = chunk * CHUNK + index + ahead
        lane, step = position & 3, cast(apply("bitwise_right_shift", position, 2), uint32)
        first = base_low + step
        c = [first, base_high + where(first < step, constant(1, uint32), constant(0, uint32))]
        c += [constant(0, uint32), constant(0, uint32)]
        for number in range(10):
            low, high = _multiplied(c[0], 0xD2511F53)
            other_low, other_high = _multiplied(c[2], 0xCD9E8D57)
            k0 = key_low + (number * 0x9E3779B9 & 0xFFFFFFFF)
            k1 = key_high + (number * 0xBB67AE85 & 0xFFFFFFFF)
            c = [
                apply("bitwise_xor", apply("bitwise_xor", other_high, c[1]), k0),
                other_low,
                apply("bitwise_xor", apply("bitwise_xor", high, c[3]), k1),
                low,
            ]
        return where(equal(lane, 0), c[0], where(equal(lane, 1), c[1], where(equal(lane, 2), c[2], c[3])))

    return trace(word, (int64, int64), (int64, *(uint32,) * 4), stored=(uint32,))


def random_bits(primitives: Primitives, out: View, seed: int, offset: int) -> None:
    """Each word from its counter, in 32-bit integers."""
    n = _size(out.shape)
    numbers = counting(primitives, max(CHUNK, n // CHUNK))
    for start, shape in pieces(n):
        base, ahead = divmod(offset + start, 4)
        views = [View(numbers.buffer, 0, shape, strides) for strides in ((1, 0), (0, 1))]
        piece = View(out.buffer, out.offset + start, shape, (CHUNK, 1))
        words = [value >> shift & 0xFFFFFFFF for value in (base, seed) for shift in (0, 32)]
        primitives.map(_philox(), views, [piece], (ahead, *words))
