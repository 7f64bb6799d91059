"""Kernel sources as text, and programs built from them."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
import warnings
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING

import pyopencl as cl

from netcl.backends.opencl.device import binary_cache, processor
from netcl.errors import KernelBuildError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

OPTIONS = ("-cl-std=CL1.2", "-w")
ROUNDED = "-cl-fp32-correctly-rounded-divide-sqrt"

AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
"""The instruction sets of skylake-avx512 beyond haswell's."""

Defines = tuple[tuple[str, str | int], ...]

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)

# pyopencl warns through the process-wide filter list, which only one thread at a time may swap.
_build_lock = threading.Lock()


@cache
def _folder() -> Traversable:
    try:
        import_module("netcl.kernels")
    except ImportError:  # a checkout that is not installed
        return Path(__file__).resolve().parents[4] / "kernels"
    return resources.files("netcl.kernels")


def read_kernel(file: str) -> str:
    """What a file in ``kernels/`` says."""
    return _folder().joinpath(file).read_text(encoding="utf-8")


@cache
def source(file: str) -> str:
    """The text of a kernel file, with the files it includes set in."""
    return _INCLUDE.sub(lambda match: source(match[1]), read_kernel(file))


def compose(file: str, defines: Defines = (), generated: str = "") -> str:
    """What the compiler gets: defines, then the generated part, then the file, between two copies of target.clh."""
    lines = [f"#define {name} {value}" for name, value in defines]
    if generated:
        lines += ["#define NETCL_GENERATED", generated]
    target = source("target.clh")
    return "\n".join([target, *lines, source(file), target])


def build(context: cl.Context, file: str, defines: Defines = (), generated: str = "") -> cl.Program:
    """Compile a kernel file for the device of a context, or take what an earlier process compiled.

    Raises
    ------
    KernelBuildError
        If the compiler refuses it; the message holds kernel file, device, options, defines and the build log.
    """
    device = context.devices[0]
    options = build_options(device)
    text = compose(file, defines, generated)

    def refusal(log: object) -> KernelBuildError:
        return KernelBuildError(
            f"kernel {file} does not build on {device.name.strip()} ({device.platform.name.strip()}, driver "
            f"{device.driver_version})\noptions: {' '.join(options)}\n"
            f"defines: {' '.join(f'{name}={value}' for name, value in defines) or 'none'}\nlog: {log}"
        )

    try:
        with _build_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = binary_cache.load(context, text, options)
            if program is None or not program.num_kernels:
                program = _compile(context, text, options)
                if not program.num_kernels:
                    # A runtime may lose the kernels of what it reads back from its own cache, where a text that
                    # never was is not found; a comment would not do, for PoCL looks at preprocessed texts.
                    program = _compile(context, f"{text}\nstruct netcl_{uuid.uuid4().hex};\n", options)
                binary_cache.store(program, context, text, options)
            found = program.num_kernels
    except cl.RuntimeError as error:
        raise refusal(error) from error
    if not found:
        raise refusal("the runtime reports success, but the program has no kernel")
    return program


def _compile(context: cl.Context, text: str, options: list[str]) -> cl.Program:
    # Not through pyopencl's own cache, which raises KeyError when a file in it is damaged.
    program: cl.Program = cl.Program(context, text).build(options, cache_dir=False)  # type: ignore[arg-type]
    return program


def build_options(device: cl.Device) -> list[str]:
    """What kernels are compiled with for a device."""
    options = list(OPTIONS)
    runtime = device.platform.name.lower()
    # Without it, GPUs may be off by 2.5 units in the last place in a quotient and 3 in a root.
    if device.single_fp_config & cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT:
        options.append(ROUNDED)
    if "oclgrind" in runtime:
        options.append("-cl-opt-disable")  # inlining leaves intrinsics that the simulator does not know
    if "portable computing" in runtime and processor.instruction_set() >= AVX512:
        options.append("-DAVX512_BUILT_INS")  # see target.clh
    return options


@cache
def fingerprint() -> str:
    """A hash of every kernel file."""
    files = sorted(entry.name for entry in _folder().iterdir() if entry.name.endswith((".cl", ".clh")))
    return hashlib.sha256("".join(map(read_kernel, files)).encode()).hexdigest()
