"""Functions of the Array API on large and small arrays, beside NumPy. Every call is waited for.

``python -m benchmarks.array_functions`` prints netcl's time over NumPy's, the median of rounds of both in turn.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

import netcl
from netcl.paired_timing import in_turns

from .common import RUNTIMES, SHORT, require

SIZES = (1_000,) if SHORT else (1_000, 1_000_000, 10_000_000)

# Each takes a namespace and what operands() gives.
FUNCTIONS: dict[str, Callable[[Any, SimpleNamespace], Any]] = {
    "add": lambda xp, o: o.x + o.y,
    "multiply by a number": lambda xp, o: o.x * 2.5,
    "where": lambda xp, o: xp.where(o.mask, o.x, o.y),
    "sum": lambda xp, o: xp.sum(o.x),
    "max of rows": lambda xp, o: xp.max(o.rows, axis=1),
    "argmax": lambda xp, o: xp.argmax(o.x),
    "take": lambda xp, o: xp.take(o.x, o.order, axis=0),
    "sort": lambda xp, o: xp.sort(o.x),
    "argsort": lambda xp, o: xp.argsort(o.x),
    "cumulative_sum": lambda xp, o: xp.cumulative_sum(o.x),
    "select by mask": lambda xp, o: o.x[o.mask],
    "view": lambda xp, o: o.rows[1:, ::2],
    "scalar read": lambda xp, o: float(o.x[3]),
}


def operands(xp: Any, n: int) -> SimpleNamespace:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, n), dtype=np.float32)
    return SimpleNamespace(
        x=xp.asarray(x),
        y=xp.asarray(y),
        rows=xp.asarray(x.reshape(-1, 100)),
        mask=xp.asarray(x > 0),
        order=xp.asarray(random.permutation(n)),
    )


@lru_cache(maxsize=1)
def tensors(runtime: str, n: int) -> SimpleNamespace:
    backend = require(runtime)
    with netcl.use_backend(backend):
        return SimpleNamespace(backend=backend, **vars(operands(netcl, n)))


class ArrayFunctions:
    """One call."""

    params = (RUNTIMES, tuple(FUNCTIONS), SIZES)
    param_names = ("runtime", "function", "n")
    warmup_time = 0.2
    rounds = 1
    timeout = 120

    def setup(self, runtime: str, function: str, n: int) -> None:
        self.operands = tensors(runtime, n)
        self.function = FUNCTIONS[function]

    def time_call(self, runtime: str, function: str, n: int) -> None:
        self.function(netcl, self.operands)
        self.operands.backend.synchronize()


def main() -> None:
    """Print a row for each function, size and runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"{'function':22}{'n':>10}  {'runtime':8}{'netcl us':>10}{'NumPy us':>10}{'ratio':>7}")
    for runtime in arguments.runtime or RUNTIMES:
        for n in SIZES:
            mine, theirs = tensors(runtime, n), operands(np, n)
            for name, function in FUNCTIONS.items():
                sides = {"netcl": partial(function, netcl, mine), "numpy": partial(function, np, theirs)}
                with np.errstate(all="ignore"):
                    times = in_turns(sides, arguments.rounds, mine.backend.synchronize, least=5e-3)
                ratio = statistics.median(a / b for a, b in zip(times["netcl"], times["numpy"], strict=True))
                own, other = (1e6 * statistics.median(times[side]) for side in ("netcl", "numpy"))
                print(f"{name:22}{n:>10}  {runtime:8}{own:10.1f}{other:10.1f}{ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
