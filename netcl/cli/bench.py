"""``netcl bench``: how fast this device runs an optimizer's calls, beside NumPy, and torch where it is installed."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import netcl
from netcl.backends import get_backend
from netcl.backends.base import Backend, Device, Span
from netcl.cli.table import show
from netcl.optim import SGD, AdamW, Optimizer, RMSProp, Rule
from netcl.paired_timing import SAMPLE, in_turns, sample

Run = Callable[[], Any]
Side = Callable[[Any, "Work", int], Run]

SECONDS = 0.6
"""For how long one cell of the table is measured."""

SIZE = {"cpu": 10_000_000, "gpu": 100_000_000, "accelerator": 100_000_000}
"""Elements, by kind of device: too many for its caches."""


@dataclass(frozen=True)
class Work:
    """One row: what is measured and how much memory it moves at least.

    Attributes
    ----------
    name : str
    bytes : int
        Per float32 element.
    call : str, optional
        A call of the backend protocol.
    optimizer, torch : callable, optional
        Makes an optimizer from parameters; the name and options of torch's.
    tensors : int
        Over how many the elements are spread.
    max_norm : float, optional
        Clips before the step.
    """

    name: str
    bytes: int
    call: str = ""
    optimizer: Callable[[Any], Optimizer] | None = None
    torch: tuple[str, dict[str, Any]] | None = None
    tensors: int = 1
    max_norm: float | None = None


class Traffic(Optimizer):
    """A rule that reads and writes like Adam and computes next to nothing: what an update can be at best."""

    def __init__(self, params: Any) -> None:
        def update(p: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
            change = h.lr * g
            return p + change, s.first + change, s.second + change

        rule = Rule(update, lambda group: {"lr": group["lr"]}, ("first", "second"))
        super().__init__(params, {"lr": 1e-6}, rule)


ROOFLINE = ("axpy", "bare traffic of Adam")
"""Works that do little else than move memory."""

ADAMW = ("AdamW", {"fused": True})
WORK = (
    Work("scale", 8, call="scale"),
    Work("axpy", 12, call="axpy"),
    Work("norm", 4, call="norm"),
    Work("bare traffic of Adam", 28, optimizer=Traffic),
    Work("AdamW", 28, optimizer=lambda p: AdamW(p, lr=1e-3), torch=ADAMW),
    Work("AdamW, 1000 tensors", 28, optimizer=lambda p: AdamW(p, lr=1e-3), torch=ADAMW, tensors=1000),
    Work("clip + AdamW", 32, optimizer=lambda p: AdamW(p, lr=1e-3), torch=ADAMW, max_norm=1.0),
    Work(
        "SGD with momentum",
        20,
        optimizer=lambda p: SGD(p, lr=1e-3, momentum=0.9),
        torch=("SGD", {"momentum": 0.9, "fused": True}),
    ),
    Work("RMSProp", 20, optimizer=lambda p: RMSProp(p, lr=1e-3), torch=("RMSprop", {})),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured for one work. Rates are in GB/s; None where a side has no such work."""

    work: str
    milliseconds: float
    rate: float
    roofline_share: float
    numpy_rate: float | None
    torch_rate: float | None


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of ``netcl``."""
    parser = subparsers.add_parser(
        "bench",
        help="a one-minute table: GB/s and share of the roofline of each call, beside NumPy and torch",
        description="Measure each call of an optimizer step on float32. GB/s counts the bytes that the work must move. "
        "The roofline is the faster of axpy and of bare traffic, which do little else than move memory.",
    )
    parser.add_argument("--backend", metavar="NAME", help="such as opencl:gpu (default: the best device there is)")
    parser.add_argument("--size", type=int, metavar="N", help="elements (default: 10 M, on a GPU 100 M)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each cell (default: {SECONDS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. **Blocks** for about a minute; the exit status is 0."""
    backend = get_backend(arguments.backend)
    size = SIZE.get(backend.device.kind, SIZE["cpu"]) if arguments.size is None else arguments.size
    if size < 1000:
        raise netcl.errors.HyperParameterError(f"--size must be at least 1000, got {size}; try 10000000")
    device, rows = backend.device, measure(backend, size, arguments.seconds)
    if arguments.json:
        found = {"device": {"id": str(device), **asdict(device)}, "size": size, "rows": [asdict(row) for row in rows]}
        print(json.dumps(found, indent=2))
        return 0
    heads = ("work", "ms", "GB/s", "roofline", "NumPy GB/s", "torch GB/s")
    cells = [
        (
            r.work,
            f"{r.milliseconds:.2f}",
            f"{r.rate:.1f}",
            f"{r.roofline_share:.0%}",
            _rate(r.numpy_rate),
            _rate(r.torch_rate),
        )
        for r in rows
    ]
    show(f"{device.name} ({device}, {device.platform or 'host'}), {size:,} float32 elements", heads, cells)
    print("\nroofline: share of the faster of axpy and bare traffic; what only reads, or fits a cache, can exceed it")
    if not find_spec("torch"):
        print('torch is not installed: pip install "netcl[parity]" fills its column')
    return 0


def measure(backend: Backend, size: int, seconds: float = SECONDS) -> list[Row]:
    """Measure every work on a backend, on NumPy and in torch. **Blocks**.

    Parameters
    ----------
    backend : Backend
    size : int
        Float32 elements.
    seconds : float, default 0.6
        For each cell.
    """
    numpy = get_backend("numpy")
    peers: dict[str, tuple[Side, Any]] = {}
    if backend is not numpy:
        peers["numpy"] = (_own, numpy)
    if find_spec("torch"):
        peers["torch"] = (_torch, _torch_device(backend.device))
    measured: list[tuple[Work, float, dict[str, float]]] = []
    for work in WORK:
        sides = {"": _own(backend, work, size)}
        for name, (side, where) in peers.items():
            with suppress(NotImplementedError):
                sides[name] = side(where, work, size)
        times = timed(sides, seconds)
        own = times.pop("")
        measured.append((work, own, {name: work.bytes * size / taken / 1e9 for name, taken in times.items()}))
    rates = {work.name: work.bytes * size / own / 1e9 for work, own, _ in measured}
    roofline = max(rates[name] for name in ROOFLINE)
    return [
        Row(
            work.name,
            own * 1e3,
            rates[work.name],
            rates[work.name] / roofline,
            beside.get("numpy"),
            beside.get("torch"),
        )
        for work, own, beside in measured
    ]


def timed(sides: Mapping[str, Run], seconds: float) -> dict[str, float]:
    """Median seconds of a call of each side, from at least three samples in turns of some ``seconds`` for each side."""
    round_seconds = sum(max(sample(run, 1), SAMPLE) for run in sides.values())
    rounds = max(3, int(seconds * len(sides) / round_seconds))
    return {
        name: statistics.median(taken)
        for name, taken in in_turns(sides, rounds, least=min(SAMPLE, seconds / 3)).items()
    }


def _own(backend: Backend, work: Work, size: int) -> Run:
    """The work in netcl, waited for."""
    if work.call:
        calls = list(_calls(backend, work.call, size))

        def call() -> None:
            for enqueue in calls:
                enqueue()
            backend.synchronize()

        return call
    assert work.optimizer is not None
    count, n = work.tensors, size // work.tensors
    parameters = []
    for _ in range(count):
        parameter = netcl.full(n, 0.5, dtype=netcl.float32, device=backend.device)
        parameter.requires_grad = True
        parameter.grad = netcl.full(n, 1e-3, dtype=netcl.float32, device=backend.device)
        parameters.append(parameter)
    optimizer = work.optimizer(parameters)

    def step() -> None:
        optimizer.step(max_norm=work.max_norm)
        backend.synchronize()

    return step


def _calls(backend: Backend, name: str, size: int) -> Iterator[Run]:
    def span(n: int) -> Span:
        made = Span(backend.alloc(n, netcl.float32), 0, n)
        backend.fill(made, 0.5)
        return made

    x = span(size)
    if name == "scale":
        yield lambda: backend.scale(1.0000001, x)
    elif name == "axpy":
        y = span(size)
        yield lambda: backend.axpy(1e-6, x, y)
    else:
        partials = span(2 * backend.norm_partials(size))
        yield lambda: backend.norm_reduce(x, partials, 2.0)


def _torch_device(device: Device) -> str:
    """Where torch does the same work: on the GPU if netcl does and torch can."""
    on_gpu = device.kind == "gpu" and import_module("torch").cuda.is_available()
    return "cuda" if on_gpu else "cpu"


def _torch(device: str, work: Work, size: int) -> Run:
    """The work in torch, waited for."""
    torch = import_module("torch")
    wait: Run = torch.cuda.synchronize if device == "cuda" else lambda: None
    if work.call:
        x, y = (torch.full((size,), 0.5, device=device) for _ in range(2))
        calls: dict[str, Run] = {
            "scale": lambda: x.mul_(1.0000001),
            "axpy": lambda: y.add_(x, alpha=1e-6),
            "norm": lambda: torch.linalg.vector_norm(x),
        }

        def call() -> None:
            calls[work.call]()
            wait()

        return call
    if work.torch is None:
        raise NotImplementedError(work.name)
    parameters = []
    for _ in range(work.tensors):
        parameter = torch.full((size // work.tensors,), 0.5, device=device, requires_grad=True)
        parameter.grad = torch.full((size // work.tensors,), 1e-3, device=device)
        parameters.append(parameter)
    name, options = work.torch
    optimizer = getattr(torch.optim, name)(parameters, lr=1e-3, **options)

    def step() -> None:
        if work.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, work.max_norm)
        optimizer.step()
        wait()

    return step


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
