"""Which kernel families are tried on which dtypes before a device is used, and what a child says of a trial."""

from __future__ import annotations

from typing import NamedTuple

from netcl.backends.opencl.device.defects import FAMILIES
from netcl.dtypes import DType, float16, float32, float64, int64, uint8, uint32

MARK = "netcl trial: "
"""What a line of a child begins with that tells of a trial."""

PATIENCE = 30.0
"""Seconds after which one trial counts as hanging."""

FLOATS = (float32, float16, float64)
EVERY = (*FLOATS, int64, uint8)

DTYPES: dict[str, tuple[DType, ...]] = {
    "fill": EVERY, "scale": EVERY, "axpy": EVERY, "map": EVERY, "reduce": EVERY, "scan": EVERY, "sort": EVERY,
    "arg_reduce": EVERY, "gather": (float32, float64, uint8), "scatter": (float32, float64, uint8),
    "scatter_add": EVERY, "batched_matmul": (float32, float64, int64), "softmax": FLOATS,
    "softmax_cross_entropy": FLOATS, "random_bits": (uint32,), "norm_reduce": FLOATS,
    "prepare_step": (float32, float64), "fused_adam": FLOATS, "fused_update": FLOATS, "block_update": (float32,),
    "tensor_update": FLOATS,
}  # fmt: skip
"""For each family one dtype of each class that its kernels tell apart."""


class Case(NamedTuple):
    """One trial: a kernel family, a dtype, and whether the plain form of the kernel is meant."""

    family: str
    dtype: str
    plain: bool = False


PLAIN = ("fill", "scale", "axpy", "map", "reduce", "scan", "batched_matmul", "softmax", "softmax_cross_entropy",
         "norm_reduce", "fused_adam", "fused_update", "block_update", "tensor_update")  # fmt: skip
"""Families whose kernels have a plain form."""


BASE = (Case("fill", "float32"), Case("axpy", "float32"))
"""What a device must get right to be used at all."""


def cases() -> list[Case]:
    """Every trial but those of :data:`BASE`."""
    return [case for family in FAMILIES for dtype in DTYPES[family] if (case := Case(family, dtype.name)) not in BASE]
