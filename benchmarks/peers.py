"""netcl's optimizer steps beside those of torch, optax, MLX and tinygrad: ratios, measured in turns.

    pip install -e ".[cpu,pocl,parity,peers]"
    python benchmarks/peers.py [--quick] [--runtime NAME ...] [--peers NAME ...] [--json FILE]

All run on the processor, each in a process of its own (benchmarks/sides.py), with as many threads as it has cores:
torch with ``fused=True`` where it has that, optax under ``jax.jit`` with its buffers donated, MLX compiled or not,
whichever is faster, tinygrad under ``TinyJit``. What is not installed is left out; tinygrad also needs clang. Before
anything is timed, ten steps of each must give netcl's parameters. Steps are measured ten in a row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.libraries import PEERS, can, missing  # noqa: E402
from benchmarks.ratios import Line, Row, begin, environment, options  # noqa: E402
from benchmarks.sides import Method  # noqa: E402
from benchmarks.steps import Work, netcl_side  # noqa: E402


def works(large: int, many: int) -> list[Work]:
    return [
        Work("AdamW", "AdamW", 1, large),
        Work("AdamW", "AdamW", many // 5, large // (many // 5)),
        Work("AdamW", "AdamW", many, 1000),
        Work("clip + AdamW", "AdamW", 1, large, max_norm=1.0),
        Work("SGD with momentum", "SGD", 1, large),
        Work("RMSProp", "RMSProp", 1, large),
    ]


def main(argv: Sequence[str] | None = None) -> list[Line]:
    parser = options(__doc__.splitlines()[0], Method(rounds=3))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    chosen = parser.parse_args(argv)
    peers = [name for name in chosen.peers if not missing(name)]
    for name in chosen.peers:
        if name not in peers:
            print(f"{name} is left out: {missing(name)}", file=sys.stderr)
    measured = begin(chosen)
    machine = environment(measured.runtimes) | {name: metadata.version(name.lower()) for name in peers}
    for name, value in machine.items():
        print(f"{name}: {value}")
    for work in works(200_000, 50) if chosen.quick else works(10_000_000, 1000):
        others = {name: partial(PEERS[name][1], work) for name in peers if can(name, work)}
        measured.take(work.row, partial(measured.compare, Row(work.row, partial(netcl_side, work=work), others)))
    measured.end(chosen.json, machine)
    return measured.lines


if __name__ == "__main__":
    main()
