"""``python -m tests.fuzz``: draw cases, run them, make those that fail smaller, and say how many there were."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.fuzz import kinds
from tests.fuzz.shrink import shrink
from tests.fuzz.worker import Failure, Worker

SHRUNK_EACH = 3
"""How many failures of one category are made smaller; the others are named."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    amount = made.add_mutually_exclusive_group()
    amount.add_argument("--seconds", type=float, metavar="N", help="run for so long, on all backends together")
    amount.add_argument("--cases", type=int, metavar="N", help="run so many cases on each backend (default 200)")
    amount.add_argument("--replay", metavar="TOKEN", help="run one case again, such as steps:0:17, and make it smaller")
    made.add_argument("--seed", type=int, default=0, help="another seed draws other cases (default 0)")
    made.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="numpy, opencl:intel, opencl:pocl …; repeatable (default numpy)",
    )
    made.add_argument("--kind", choices=(*kinds.KINDS, "all"), default="all")
    made.add_argument("--first", type=int, default=0, metavar="K", help="begin with case K of each kind (default 0)")
    made.add_argument(
        "--again",
        type=int,
        default=0,
        metavar="N",
        help="run each case N times more, with other elements: OpenCL has its kernels by then (default 0)",
    )
    made.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds that one case may take (default 120)"
    )
    return made


def tokens(kind: str, seed: int, first: int, again: int = 0) -> Iterator[str]:
    """The cases in their order, each followed by itself with other elements."""
    counts = {name: itertools.count(first) for name in kinds.KINDS}
    for name in itertools.cycle(kinds.SHARES if kind == "all" else (kind,)):
        token = f"{name}:{seed}:{next(counts[name])}"
        yield token
        yield from (f"{token}:{number}" for number in range(1, 1 + again))


def report(token: str, backend: str, failure: Failure, smaller: Any) -> None:
    print(f"\n{token} on {backend}: {failure.message}")
    if smaller is not None:
        print(f"  smallest found: {smaller}")
    print(f"  again: python -m tests.fuzz --backend {backend} --replay {token}", flush=True)


class Fuzz:
    """The cases of one backend."""

    def __init__(self, backend: str, timeout: float) -> None:
        self.backend = backend
        self.worker = Worker(kinds.run, timeout)
        self.done: Counter[str] = Counter()
        self.failed = 0
        self._seen: Counter[str] = Counter()

    def one(self, token: str) -> None:
        """Run the case of a token, and report it if it fails."""
        case = kinds.draw(token)
        failure = self.worker.run(case, self.backend)
        self.done[token.partition(":")[0]] += 1
        if failure is None:
            return
        self.failed += 1
        category = f"{type(case).__name__} {failure.category}"
        self._seen[category] += 1
        smaller = None
        if self._seen[category] <= SHRUNK_EACH:
            smaller, failure = self._smaller(case, failure)
        report(token, self.backend, failure, smaller)

    def _smaller(self, case: Any, failure: Failure) -> tuple[Any, Failure]:
        last = failure

        def fails(candidate: Any) -> bool:
            nonlocal last
            found = self.worker.run(candidate, self.backend)
            same = found is not None and found.category == failure.category
            last = found if same and found is not None else last
            return same

        smaller = shrink(case, fails)
        if last is failure and not fails(case):
            last = Failure(failure.category, f"{failure.message}; it did not happen again in the same process")
        return smaller, last

    def summary(self, seed: int, seconds: float) -> str:
        each = ", ".join(f"{name} {self.done[name]}" for name in kinds.KINDS if self.done[name])
        return (
            f"fuzz: {self.done.total()} cases on {self.backend}, {self.failed} disagreements ({each}), seed {seed}, "
            f"{seconds:.0f} s"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    os.environ["NETCL_TUNING"] = "none"  # what somebody measured on this machine is not what is tested
    backends = given.backend or ["numpy"]
    lines, failed = [], 0
    for backend in backends:
        start = time.monotonic()
        fuzz = Fuzz(backend, given.timeout)
        try:
            if given.replay:
                fuzz.one(given.replay)
            else:
                for count, token in enumerate(tokens(given.kind, given.seed, given.first, given.again)):
                    if given.seconds is None:
                        over = count >= (200 if given.cases is None else given.cases)
                    else:
                        over = time.monotonic() - start >= given.seconds / len(backends)
                    if over:
                        break
                    fuzz.one(token)
        finally:
            fuzz.worker.close()
        failed += fuzz.failed
        lines.append(fuzz.summary(given.seed, time.monotonic() - start))
    print("\n".join(lines))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
