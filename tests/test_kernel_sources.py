"""What holds for every file in kernels/: it compiles alone, says what it does, and keeps to the project's C style."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import netcl
from netcl.backends import get_backend

FOLDER = Path(__file__).resolve().parents[1] / "kernels"
KERNELS = sorted(path.name for path in FOLDER.glob("*.cl"))
SOURCES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".cl", ".clh"))

FLOAT = re.compile(r"(?<![\w.])(?:\d+\.\d*|\.\d+|\d+(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?(?P<suffix>[a-zA-Z]*)")


@cache
def opencl_devices() -> tuple[str, ...]:
    """One device of each OpenCL runtime at hand."""
    first: dict[str, str] = {}
    for row in netcl.devices():
        if row.device.backend == "opencl" and row.healthy:
            first.setdefault(row.device.platform, str(row.device))
    return tuple(first.values())


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def header(text: str) -> str:
    """The comment that a file starts with."""
    lines = text.splitlines()
    return "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("//"))])


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


def unsuffixed(text: str) -> list[str]:
    return [match[0] for match in FLOAT.finditer(without_comments(text)) if match["suffix"] not in ("f", "F", "h", "H")]


def test_there_is_a_kernel_for_every_call_of_the_specification():
    assert {"fill.cl", "scale.cl", "axpy.cl", "norm_reduce.cl", "fused_adam.cl", "fused_update.cl"} <= set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_alone_with_default_knobs(name):
    pytest.importorskip("pyopencl")
    from netcl.backends.opencl.device import program

    assert opencl_devices(), 'no OpenCL device; install one with pip install "netcl[cpu]"'
    for device in opencl_devices():
        built = program.build(get_backend(device).queue.context, name)
        assert built.num_kernels > 0, f"{name} has no kernel on {device}"


def test_a_kernel_that_does_not_compile_is_seen(monkeypatch):
    pytest.importorskip("pyopencl")
    from netcl.backends.opencl.device import program

    monkeypatch.setattr(program, "source", lambda file: "__kernel void f(__global float *x) { x[0] = missing; }")
    for device in opencl_devices():
        with pytest.raises(netcl.errors.KernelBuildError, match="missing"):
            program.build(get_backend(device).queue.context, "planted.cl")


@pytest.mark.parametrize("name", KERNELS)
def test_header_states_name_contract_and_traffic(name):
    said = header(read(name))
    assert said.startswith(f"// {name.removesuffix('.cl')}: "), "a kernel file starts with its name and its contract"
    flat = re.sub(r"\s*\n//\s*", " ", said)
    assert re.search(r"\b(Bytes|Elements) moved\b", flat), "the header says how much memory moves"
    assert len(said.splitlines()) >= 3


@pytest.mark.parametrize("name", SOURCES)
def test_no_unsuffixed_float_literal(name):
    assert unsuffixed(read(name)) == [], "an unsuffixed literal is a double; write 1.0f"


def test_unsuffixed_literals_are_found():
    assert unsuffixed("a = 1.0; b = .5 + 2e-3; c = 1.f + 0x10 + 3 + x1.s0 + 2.5e-3f; // 4.0") == ["1.0", ".5", "2e-3"]


@pytest.mark.parametrize("name", SOURCES)
def test_every_knob_has_a_default_and_a_comment(name):
    lines = read(name).splitlines()
    for number, line in enumerate(lines):
        knob = re.match(r"#ifndef (\w+)", line)
        if not knob or knob[1] == "NETCL_GENERATED" or knob[1].endswith("_CLH"):
            continue
        assert re.match(rf"#define {knob[1]}\b", lines[number + 1]), f"{name}:{number + 1}: {knob[1]} has no default"
        before = lines[number - 1]
        assert before.startswith(("//", "#endif")) or "//" in lines[number + 1], f"{name}:{number + 1}: no comment"
