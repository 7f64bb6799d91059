"""What an OpenCL runtime gets wrong, by kernel family and class of dtypes, and what is done about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from netcl.dtypes import DType
from netcl.errors import BackendError

FAMILIES = (
    "fill", "scale", "axpy", "map", "reduce", "scan", "sort", "arg_reduce", "gather", "scatter", "scatter_add",
    "batched_matmul", "softmax", "softmax_cross_entropy", "random_bits", "norm_reduce", "prepare_step", "fused_adam",
    "fused_update", "block_update", "tensor_update",
)  # fmt: skip
"""Kernels that are tried, and refused, apart from each other: the calls of the backend protocol, of which fused_update
has another kernel for state in blocks."""

CLASSES = MappingProxyType(
    {
        "float32": "float32",
        "float64": "float64",
        "16-bit floats": "float32",
        "64-bit integers": "float32 or int32",
        "small integers": "float32",
    }
)
"""Dtypes that a kernel treats alike, and what to cast to where a class is refused."""


def dtype_class(dtype: DType) -> str:
    """The key of :data:`CLASSES` that a dtype belongs to; bool counts among the small integers.

    Kernels have complex numbers as pairs of reals.
    """
    dtype = dtype.part
    if dtype.kind == "f":
        return "16-bit floats" if dtype.itemsize == 2 else dtype.name
    return "64-bit integers" if dtype.itemsize == 8 else "small integers"


@dataclass(frozen=True, slots=True)
class Defect:
    """What a runtime cannot do.

    Attributes
    ----------
    reason : str
        What the trial of the usual kernel ended with.
    plain : bool
        Whether the plain form of the kernel gives the right result: without vectors, or with other tiles.
    """

    reason: str
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Defects:
    """The defects of one runtime on one processor.

    Attributes
    ----------
    found : Mapping
        By family and class of dtypes.
    tried : frozenset of str
        The classes of dtypes that were tried; all, where nothing can be.
    """

    found: Mapping[tuple[str, str], Defect] = field(default_factory=dict)
    tried: frozenset[str] = frozenset(CLASSES)

    def __bool__(self) -> bool:
        return bool(self.found)

    def __str__(self) -> str:
        return "; ".join(
            f"{family} of {kind} {'runs without vectors' if defect.plain else 'is refused'}: {defect.reason}"
            for (family, kind), defect in self.found.items()
        )

    def needs_plain(self, family: str, dtypes: Iterable[DType], device: str) -> bool:
        """Whether only the plain form of a kernel works for operands of ``dtypes``.

        Raises
        ------
        BackendError
            If no form of it works.
        """
        plain = False
        for kind in dict.fromkeys(map(dtype_class, dtypes)):
            defect = self.found.get((family, kind))
            if defect is None:
                continue
            if not defect.plain:
                raise BackendError(
                    f"{family} of {kind} does not work on {device}: {defect.reason}; cast to {CLASSES[kind]} with "
                    'astype(), use another device or backend="numpy", or repair the runtime and run python -m netcl '
                    "devices --probe"
                )
            plain = True
        return plain
