"""No program holds a vector of more than 32 bytes, read as it is built.

PoCL 3.0, on processors that its LLVM does not know, loses or crashes over what passes 64 bytes between functions.
"""

from __future__ import annotations

import re
import warnings
from functools import cache

import pyopencl as cl
import pytest

from netcl.backends.opencl.codegen.storage import VECTOR_BYTES, lanes
from netcl.backends.opencl.device import selection
from netcl.backends.opencl.device.program import OPTIONS
from netcl.dtypes import ALL
from tests.kernels.recorder import programs

EIGHT_BYTES = ("long", "ulong", "double")
FOUR_BYTES = ("int", "uint", "float")
NAMES = [f"{name}{count}" for name in EIGHT_BYTES for count in (8, 16)]

# Every name of a vector type of more than 32 bytes becomes one that is not declared, also where macros paste it
# together, and loads and stores of 8 lanes look at what they point to.
POISON = "\n".join(
    [
        *(f"#define {name} netcl_of_more_than_32_bytes" for name in NAMES),
        *(f"#define convert_{name} netcl_of_more_than_32_bytes" for name in (*NAMES, *(f"{n}16" for n in FOUR_BYTES))),
        *(f"#define as_{name} netcl_of_more_than_32_bytes" for name in (*NAMES, *(f"{n}16" for n in FOUR_BYTES))),
        "#define netcl_narrow(p, most) sizeof(char[sizeof(*(p)) > (most) ? -1 : 1])",
        "#define vload8(o, p) (vload8)((o) + 0 * netcl_narrow(p, 4), p)",
        "#define vstore8(v, o, p) (vstore8)(v, (o) + 0 * netcl_narrow(p, 4), p)",
        "#define vload16(o, p) (vload16)((o) + 0 * netcl_narrow(p, 2), p)",
        "#define vstore16(v, o, p) (vstore16)(v, (o) + 0 * netcl_narrow(p, 2), p)",
        "",
    ]
)
# Tags of dtypes are called as these types are, so no macro can stand for them: as types they declare or cast.
SIXTEEN = re.compile(rf"\b(?:{'|'.join(FOUR_BYTES)})16[ \t*]+[A-Za-z_]|\W\((?:{'|'.join(FOUR_BYTES)})16\)\s*\(")

PLANTED = [
    "void keep(double8 v, __global double *p) {}",
    "void keep(__global long *p) { vstore8(vload8(0, p), 0, p); }",
    "#define WIDE(T) T##8\nvoid keep(__global ulong *p) { const WIDE(ulong) v = 0; }",
    "void keep(uint8 v, __global uint *p) { *p = convert_ulong8(v).s0 > 0; }",
    "void keep(float16 v, __global float *p) {}",
    "void keep(__global float *p) { *p = ((float16)(1.0f)).s0; }",
]


@cache
def context():
    """Of the device that compiles fastest."""
    found = sorted(selection.list_devices(), key=lambda device: not selection.is_simulator(device))
    assert found, 'no OpenCL device; install one with pip install "netcl[cpu]"'
    return cl.Context([found[0]])


@cache
def texts():
    return programs(context().devices[0])


def complaint(text):
    """What is wider than 32 bytes in a program, or nothing."""
    if named := SIXTEEN.search(re.sub(r"//.*", "", text)):
        return named[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)
            cl.Program(context(), POISON + text).build([*OPTIONS, "-cl-opt-disable"], cache_dir=False)
    except cl.RuntimeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("file", sorted({name.split()[0] for name in texts()} if selection.list_devices() else ()))
def test_no_vector_of_more_than_32_bytes(file):
    chosen = {name: text for name, text in texts().items() if name.startswith(file)}
    assert {name: said for name, text in chosen.items() if (said := complaint(text))} == {}


@pytest.mark.parametrize("text", PLANTED)
def test_wide_vectors_are_found(text):
    kernel = "\n__kernel void planted(__global int *x) { x[0] = 1; }\n"
    assert complaint(text + kernel)
    assert not complaint(kernel)


def test_every_kernel_file_is_read():
    from tests.test_kernel_sources import KERNELS

    # traffic belongs to the benchmarks, in float32 alone.
    assert {name.split()[0] for name in texts()} == set(KERNELS) - {"traffic.cl"}


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype.kind != "c"], ids=str)
def test_lanes_fill_at_most_32_bytes(dtype):
    for other in ALL:
        if other.kind != "c":
            widest = max(dtype.compute.itemsize, other.compute.itemsize)
            assert lanes(dtype, other) == min(8, VECTOR_BYTES // widest)
            assert lanes(dtype, other, most=2) == 2
