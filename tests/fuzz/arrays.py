"""Kind ``arrays``: short programs over the public array functions, each call held against NumPy.

The oracle computes in float64 or, with integers and in whatever moves elements only, exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import netcl
from netcl.errors import NetclError
from tests.fuzz.bounds import FORMATS, Bounded, compute_format, worst
from tests.fuzz.case import Disagreement, Values, source, stored, without

FLOATS = ("float32", "float16", "bfloat16", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
COMPLEX = ("complex64", "complex128")


@dataclass(frozen=True)
class Leaf:
    """An array that a program starts from, and the views taken of it: reversed, strided, repeated, permuted."""

    values: Values
    dtype: str
    views: tuple[Any, ...] = ()

    def simpler(self) -> Iterator[Leaf]:
        for views in without(self.views):
            yield replace(self, views=views)
        for values in self.values.simpler():
            yield replace(self, values=values)


@dataclass(frozen=True)
class Call:
    """A function, the numbers of its operands among what is there, and its options."""

    name: str
    operands: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Arrays, and calls that each add one more."""

    leaves: tuple[Leaf, ...]
    calls: tuple[Call, ...]
    results: tuple[tuple[tuple[int, ...], str], ...]
    """Shape and dtype of what each call gives."""

    def simpler(self) -> Iterator[Program]:
        if len(self.calls) > 1:
            yield replace(self, calls=self.calls[:-1], results=self.results[:-1])
            yield self._only(len(self.calls) - 1)
        for i, leaf in enumerate(self.leaves):
            for other in leaf.simpler():
                yield replace(self, leaves=(*self.leaves[:i], other, *self.leaves[i + 1 :]))
        # The same axis of all operands at once, for shapes that have to agree.
        shapes = [leaf.values.shape for leaf in self.leaves]
        for extent in sorted({extent for shape in shapes for extent in shape if extent > 1}, reverse=True):
            for less in {1, extent // 2}:
                yield replace(
                    self,
                    leaves=tuple(
                        replace(
                            leaf,
                            values=replace(
                                leaf.values, shape=tuple(less if e == extent else e for e in leaf.values.shape)
                            ),
                        )
                        for leaf in self.leaves
                    ),
                )

    def _only(self, position: int) -> Program:
        """One call alone, on arrays of the shapes that it got."""
        call, first = self.calls[position], len(self.leaves)
        leaves = tuple(
            self.leaves[i]
            if i < first
            else Leaf(Values(self.results[i - first][0], "normal", i), self.results[i - first][1])
            for i in call.operands
        )
        return Program(leaves, (replace(call, operands=tuple(range(len(leaves)))),), (self.results[position],))


@dataclass(frozen=True)
class Host:
    """Elements on the host, exact: floating ones in float64, complex ones in complex128, others in their own dtype."""

    values: Any
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.values.shape))

    @property
    def kind(self) -> str:
        return kind(self.dtype)


@dataclass(frozen=True)
class Expected:
    """What a call is to give: exactly, or within a bound of the dtype that it is computed in."""

    values: Any
    dtype: str
    error: Any = None

    def host(self) -> Host:
        return Host(np.asarray(self.values), self.dtype)


@dataclass(frozen=True)
class Operation:
    """One function of the array interface: which operands it takes, how it is called, and what NumPy says of it."""

    draw: Callable[[random.Random, Pool], tuple[tuple[int, ...], dict[str, Any]] | None]
    call: Callable[[Sequence[Any], dict[str, Any]], Any]
    oracle: Callable[[Sequence[Host], dict[str, Any]], Expected]
    weight: float = 1.0


def kind(dtype: str) -> str:
    """``b``, ``i``, ``u``, ``f`` or ``c``."""
    return {"bo": "b", "in": "i", "ui": "u", "fl": "f", "bf": "f", "co": "c"}[dtype[:2]]


class Pool:
    """The arrays of a program while it is drawn."""

    def __init__(self, r: random.Random) -> None:
        self.r = r
        self.leaves: list[Leaf] = []
        self.hosts: list[Host] = []
        self._results: list[Host] = []

    def leaf(self, shape: Sequence[int], dtype: str, style: str | None = None, views: bool = True) -> int:
        """A new array of this shape as viewed; returns its number."""
        r = self.r
        if style is None:
            style = r.choice(STYLES[kind(dtype)])
        made, chosen = tuple(shape), []
        if views and r.random() < 0.4:
            made, chosen = _unviewed(r, made)
        leaf = Leaf(Values(made, style, r.randrange(1 << 30)), dtype, tuple(chosen))
        self.leaves.append(leaf)
        self.hosts.append(host_of(leaf))
        return len(self.leaves) - 1

    def first(self, kinds: str, shape: Callable[[tuple[int, ...]], bool] = lambda shape: True) -> int | None:
        """What the last call gave, if it fits; marked with a negative number until all leaves are known."""
        if not self._results or self.r.random() < 0.3:
            return None
        last = self._results[-1]
        return -len(self._results) if last.kind in kinds and shape(last.shape) and last.values.size < 20000 else None

    def operand(self, kinds: str, dtypes: Sequence[str], least: int = 0, style: str | None = None) -> int:
        """What the last call gave, or a new array with at least so many axes."""
        found = self.first(kinds, lambda shape: len(shape) >= least) if style is None else None
        return self.leaf(shape(self.r, least), self.r.choice(dtypes), style) if found is None else found

    def host(self, number: int) -> Host:
        return self.hosts[number] if number >= 0 else self._results[-number - 1]

    def add(self, result: Host) -> None:
        self._results.append(result)


STYLES = {
    "f": ("normal", "normal", "normal", "zeros", "wide", "integers", "integers", "special", "huge", "tiny", "small"),
    "c": ("normal", "integers", "zeros"),
    "i": ("integers",),
    "u": ("integers",),
    "b": ("zeros",),
}


def shape(r: random.Random, least: int = 0) -> tuple[int, ...]:
    """A shape: mostly small, now and then empty, long or odd."""
    if least <= 1 and r.random() < 0.08:
        return (r.choice([1023, 1024, 1025, 5000]),)
    rank = r.choice([rank for rank in (0, 1, 1, 2, 2, 2, 3, 3, 4) if rank >= least])
    return tuple(
        r.choice([0, 1, 2, 3, 4, 5, 7, 8, 17, 33] if rank < 3 else [1, 2, 3, 4, 5]) if r.random() > 0.03 else 0
        for _ in range(rank)
    )


def _unviewed(r: random.Random, target: tuple[int, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of the memory, and the views that make ``target`` of it."""
    made, views = list(target), []
    for axis in range(len(target)):
        what = r.choice(["", "", "step", "reverse", "offset", "repeat"])
        if what == "step":
            made[axis] = made[axis] * 2
            views.append(("slice", axis, r.randrange(2), None, 2))
        elif what == "reverse":
            views.append(("slice", axis, None, None, -1))
        elif what == "offset":
            made[axis] += 3
            views.append(("slice", axis, 1, 1 + target[axis], 1))
        elif what == "repeat" and target[axis] > 1:
            made[axis] = 1
            views.append(("broadcast", axis, target[axis]))
    if len(target) > 1 and r.random() < 0.5:
        order = r.sample(range(len(target)), len(target))
        views = [("permute", tuple(order)), *views]
        made = [made[order.index(axis)] for axis in range(len(target))]
    return tuple(made), views


def _viewed(x: Any, views: Sequence[Any], permute: Callable[..., Any], broadcast: Callable[..., Any]) -> Any:
    for view in views:
        if view[0] == "permute":
            x = permute(x, view[1])
        elif view[0] == "slice":
            key = [slice(None)] * x.ndim
            key[view[1]] = slice(*view[2:])
            x = x[tuple(key)]
        else:
            x = broadcast(x, (*x.shape[: view[1]], view[2], *x.shape[view[1] + 1 :]))
    return x


def exact(values: Any, dtype: str) -> Any:
    """Drawn float64 values as an array of a dtype holds them."""
    what = kind(dtype)
    if what == "f":
        return stored(values, dtype)
    if what == "c":
        values = np.clip(np.nan_to_num(values), -1e6, 1e6)
        return (values + 1j * values[..., ::-1] if values.ndim else values + 0.5j).astype(dtype).astype(np.complex128)
    if what == "b":
        return values != 0
    whole = np.clip(np.nan_to_num(values), -100, 100).astype(np.int64)
    return np.abs(whole).astype(dtype) if what == "u" else whole.astype(dtype)


def host_of(leaf: Leaf) -> Host:
    """The elements of a leaf, as viewed."""
    return Host(_viewed(exact(leaf.values.array(), leaf.dtype), leaf.views, np.transpose, np.broadcast_to), leaf.dtype)


def draw(seed: int, number: int) -> Program:
    """The program with this number."""
    from tests.fuzz.operations import OPERATIONS

    r = source(seed, "arrays", number)
    pool = Pool(r)
    names, weights = list(OPERATIONS), [operation.weight for operation in OPERATIONS.values()]
    calls: list[Call] = []
    results: list[Host] = []
    while len(calls) < 1 or (len(calls) < 5 and r.random() < 0.5):
        name = r.choices(names, weights)[0]
        drawn = OPERATIONS[name].draw(r, pool)
        if drawn is None:
            continue
        operands, options = drawn
        with np.errstate(all="ignore"):
            result = OPERATIONS[name].oracle([pool.host(i) for i in operands], options).host()
        calls.append(Call(name, operands, options))
        results.append(result)
        pool.add(result)
    first = len(pool.leaves)
    settled = tuple(
        replace(call, operands=tuple(i if i >= 0 else first - 1 - i for i in call.operands)) for call in calls
    )
    return Program(tuple(pool.leaves), settled, tuple((result.shape, result.dtype) for result in results))


def run(case: Program, backend: str) -> None:
    """Raises :class:`Disagreement` at the first call that does not give what NumPy says."""
    from tests.fuzz.operations import OPERATIONS

    case = _fitted(case, netcl.get_backend(backend))
    values = [_made(leaf, backend) for leaf in case.leaves]
    for call in case.calls:
        operation = OPERATIONS[call.name]
        operands = [values[i] for i in call.operands]
        before = [read(x) for x in operands]
        with np.errstate(all="ignore"):
            expected = operation.oracle(before, call.options)
        try:
            found = operation.call(operands, call.options)
        except NetclError as error:
            raise Disagreement(
                f"{call.name} refused", f"{_told(call, before)}: {type(error).__name__}: {error}"
            ) from error
        difference = compare(found, expected)
        if difference:
            raise Disagreement(call.name, f"{_told(call, before)}: {difference}")
        values.append(found)


def _fitted(case: Program, backend: Any) -> Program:
    """The program in dtypes that the device computes in."""
    narrow = ("float64", "complex64", "complex128")
    less = dict.fromkeys((name for name in narrow if not backend.supports(getattr(netcl, name))), "float32")

    def options(call: Call) -> dict[str, Any]:
        return {name: less.get(value, value) if name == "dtype" else value for name, value in call.options.items()}

    return replace(
        case,
        leaves=tuple(replace(leaf, dtype=less.get(leaf.dtype, leaf.dtype)) for leaf in case.leaves),
        calls=tuple(replace(call, options=options(call)) for call in case.calls),
    )


def _made(leaf: Leaf, backend: str) -> Any:
    values = exact(leaf.values.array(), leaf.dtype)
    x = netcl.asarray(values, dtype=leaf.dtype, device=backend)
    return _viewed(x, leaf.views, netcl.permute_dims, netcl.broadcast_to)


def read(x: Any) -> Host:
    """What an array holds."""
    values = x.numpy()
    wide = {"f": np.float64, "c": np.complex128}.get(x.dtype.kind)
    return Host(values if wide is None else values.astype(wide), x.dtype.name)


def compare(found: Any, expected: Expected) -> str | None:
    """What differs, in words."""
    if found.dtype.name != expected.dtype:
        return f"dtype {found.dtype.name} where {expected.dtype} was expected"
    actual, wanted = read(found).values, np.asarray(expected.values)
    if actual.shape != wanted.shape:
        return f"shape {actual.shape} where {wanted.shape} was expected"
    if expected.error is None:
        same = np.array_equal(actual, wanted, equal_nan=kind(expected.dtype) in "fc")
        if same:
            return None
        with np.errstate(invalid="ignore"):
            differ = ~((actual == wanted) | ((actual != actual) & (wanted != wanted)))
        place = tuple(map(int, np.unravel_index(int(np.argmax(differ)), actual.shape)))
        told = f"{actual[place]!r} at {place} where exactly {wanted[place]!r} was expected"
        return f"{told} ({int(differ.sum())} of {actual.size} element(s) differ)"
    error = np.broadcast_to(expected.error, wanted.shape)
    if kind(expected.dtype) == "c":
        part = FORMATS["float32" if expected.dtype == "complex64" else "float64"]
        parts = ((np.real(actual), np.real(wanted)), (np.imag(actual), np.imag(wanted)))
        return next((text for a, w in parts if (text := worst(a, Bounded(w, part, error)))), None)
    bound = Bounded(wanted, compute_format(expected.dtype), error)
    bound = bound.stored(FORMATS[expected.dtype])
    return worst(actual, bound)


def _told(call: Call, operands: Sequence[Host]) -> str:
    shown = ", ".join(
        f"{x.dtype}{list(x.shape)}" + (f" {x.values.tolist()}" if x.values.size <= 4 else "") for x in operands
    )
    options = "".join(f", {name}={value!r}" for name, value in call.options.items())
    return f"{call.name}({shown}{options})"
