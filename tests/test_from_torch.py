"""Every public name of torch's optimizers, schedules, averages and scaler has a row in docs/from_torch_reference.md.

So have the optimizers and schedules of optax and MLX.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import netcl.optim
from netcl.amp import GradScaler
from tests.children import run_python

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "from_torch_reference.md").read_text(encoding="utf-8")
VERDICTS = ("same", "better", "different", "absent")
MODULES = ("torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils")
BASES = ("Optimizer", "LRScheduler", "Module", "object")


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def told(heading: str) -> tuple[set[str], dict[str, set[str]]]:
    """The classes and functions of a section, and what its rows name of each."""
    known, parts = set(), defaultdict(set)
    for first, *_ in rows(heading):
        owner, _, rest = first.partition(":")
        names = re.findall(r"`([\w]+)`", owner)
        known.update(names)
        parts[names[0]].update(re.findall(r"`(\w+)`", rest))
    return known, parts


def arguments(thing) -> set[str]:
    return set(inspect.signature(thing).parameters) - {"self"}


def methods(cls) -> set[str]:
    """Public methods that a class has of its own, not of a base that has its own rows."""
    owned = [base for base in cls.__mro__ if base is cls or base.__name__ not in BASES]
    return {name for base in owned for name, value in vars(base).items() if name[0] != "_" and callable(value)}


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_torch_has_a_row(module):
    pytest.importorskip("torch")
    names = import_module(module)
    known, parts = told(module)
    shared = parts["Optimizer"] | parts["LRScheduler"]
    missing = []
    for name in names.__all__:
        thing = getattr(names, name)
        if name not in known:
            missing.append(name)
        elif isinstance(thing, type):
            wanted = arguments(thing) | methods(thing)
            missing += [f"{name}.{part}" for part in wanted - parts[name] - shared if part not in ("forward",)]
        elif callable(thing):
            missing += [f"{name}({part})" for part in arguments(thing) - parts[name]]
    assert missing == []


def test_every_name_of_the_scaler_has_a_row():
    torch = pytest.importorskip("torch")
    _, parts = told("torch.amp.GradScaler")
    assert (arguments(torch.amp.GradScaler) | methods(torch.amp.GradScaler)) - parts["GradScaler"] == set()


PEERS = {
    "optax": ("optax", """
        import functools, inspect, optax
        from optax import contrib, schedules

        def functions(module):
            found = {name: getattr(module, name) for name in dir(module) if name[0] != "_"}
            return {n: f for n, f in found.items() if inspect.isfunction(f) or isinstance(f, functools.partial)}

        def optimizers(module):
            return [
                name for name, f in functions(module).items()
                if "learning_rate" in str(inspect.signature(f)) and not name.startswith("scale_by_")
            ]

        print(*optimizers(optax), *("contrib." + name for name in optimizers(contrib)), *functions(schedules))
        """),
    "MLX": ("mlx", """
        import inspect, mlx.optimizers as optimizers
        members = inspect.getmembers(optimizers, lambda x: inspect.isclass(x) or inspect.isfunction(x))
        print(*(name for name, x in members if name[0] != "_" and x.__module__.startswith("mlx.optimizers")))
        """),
}  # fmt: skip
"""Of each section the library, and what prints its names: in a child, for JAX forbids its process to fork."""


@pytest.mark.parametrize("heading", PEERS)
def test_every_optimizer_and_schedule_of_a_peer_has_a_row(heading):
    library, code = PEERS[heading]
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed; pip install -e '.[peers]'")
    child = run_python(code)
    assert child.returncode == 0, child.stderr
    names = set(child.stdout.split())
    assert {"optax": "lamb", "MLX": "AdamW"}[heading] in names
    assert names - {name for first, *_ in rows(heading) for name in re.findall(r"`([\w.]+)`", first)} == set()


@pytest.mark.parametrize("heading", [*MODULES, "torch.amp.GradScaler", "torch.nn.utils", "optax", "MLX"])
def test_each_row_says_what_became_of_a_name(heading):
    found = rows(heading)
    assert found
    for first, verdict, why in found:
        assert verdict in VERDICTS, first
        assert why or verdict == "same", f"{first} is {verdict} without a reason"


@pytest.mark.parametrize("module", MODULES)
def test_what_is_called_the_same_is_there(module):
    """A class whose every row says that it is the same or better takes the arguments that are named."""
    for first, verdict, _ in rows(module):
        owner, _, rest = first.partition(":")
        name = re.findall(r"`(\w+)`", owner)[0]
        ours = getattr(netcl.optim, name, None)
        if ours is None or verdict not in ("same", "better"):
            continue
        there = arguments(ours) | set(dir(ours)) | {"param_groups", "defaults", "params"}
        assert set(re.findall(r"`(\w+)`", rest)) <= there, first
    assert {"get_scale", "set_growth_factor"} <= set(dir(GradScaler))
