"""Data types: the 13 of the Array API standard plus float16 and bfloat16, and how they promote.

A dtype is a plain description, the same on every backend; each backend maps it to what it stores. Arithmetic on
float16 and bfloat16 is done in float32 (their ``compute`` dtype) and rounded once, on the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from netcl.errors import DTypeError
from netcl.validation import shown

# What ``netcl`` has under the same name; ``bool_`` is ``netcl.bool``.
__all__ = [
    "DType", "bfloat16", "complex128", "complex64", "float16", "float32", "float64", "int16", "int32", "int64", "int8",
    "uint16", "uint32", "uint64", "uint8",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One data type: its standard name, its kind and its width.

    Parameters
    ----------
    name : str
        The Array API name, such as ``"float32"``.
    kind : {"b", "i", "u", "f", "c"}
        Boolean, signed, unsigned, real floating or complex floating.
    itemsize : int
        Bytes per element.

    Examples
    --------
    >>> import netcl
    >>> netcl.float16.itemsize
    2
    >>> netcl.float16.compute
    netcl.float32
    """

    name: str
    kind: str
    itemsize: int

    def __repr__(self) -> str:
        return f"netcl.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[object, ...]:
        return (as_dtype, (self.name,))

    def __deepcopy__(self, memo: object) -> DType:
        return self

    @property
    def compute(self) -> DType:
        """The dtype in which arithmetic on this one is done: float32 for the two 16-bit floats, else itself."""
        return float32 if self.kind == "f" and self.itemsize == 2 else self

    @property
    def part(self) -> DType:
        """The dtype of the real and of the imaginary part of a complex one; of any other, itself."""
        if self.kind != "c":
            return self
        return float32 if self.itemsize == 8 else float64

    @property
    def __numpy_dtype__(self) -> Any:
        """What NumPy (2.4 and later) takes this for. bfloat16 has no such thing: NumPy does not know it."""
        if self not in NUMPY_DTYPES:
            raise AttributeError(f"NumPy has no {self}")
        return NUMPY_DTYPES[self]

    @property
    def is_floating(self) -> bool:
        """Whether this is a real floating-point dtype."""
        return self.kind == "f"


bool_ = DType("bool", "b", 1)
int8 = DType("int8", "i", 1)
int16 = DType("int16", "i", 2)
int32 = DType("int32", "i", 4)
int64 = DType("int64", "i", 8)
uint8 = DType("uint8", "u", 1)
uint16 = DType("uint16", "u", 2)
uint32 = DType("uint32", "u", 4)
uint64 = DType("uint64", "u", 8)
float16 = DType("float16", "f", 2)
bfloat16 = DType("bfloat16", "f", 2)
float32 = DType("float32", "f", 4)
float64 = DType("float64", "f", 8)
complex64 = DType("complex64", "c", 8)
complex128 = DType("complex128", "c", 16)

ALL = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64,
    float16, bfloat16, float32, float64, complex64, complex128,
)  # fmt: skip
BY_NAME = {dtype.name: dtype for dtype in ALL}
NUMPY_DTYPES: dict[DType, Any] = {}
"""The dtypes of NumPy that agree with these: filled by ``netcl.host_dtypes``, for this module does without NumPy."""

# What Python scalars become where no array says otherwise. float32 on every device, so that one without float64
# conforms to the standard too.
DEFAULT_FLOAT = float32
DEFAULT_INT = int64
DEFAULT_COMPLEX = complex64


def as_dtype(dtype: object) -> DType:
    """Return the :class:`DType` that ``dtype`` names.

    Parameters
    ----------
    dtype : DType, str, or type
        A netcl dtype or its name; ``bool``, ``int``, ``float`` or ``complex``; or the dtype of another library, such as
        ``numpy.float32``, ``numpy.dtype("float32")`` or ``torch.float32``, in the byte order of this machine.

    Raises
    ------
    DTypeError
        If no such dtype exists.

    Examples
    --------
    >>> from netcl.dtypes import as_dtype
    >>> as_dtype("float32")
    netcl.float32
    """
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, type) and dtype in (bool, int, float, complex):  # NumPy's dtypes equal these too
        return {bool: bool_, int: DEFAULT_INT, float: DEFAULT_FLOAT, complex: DEFAULT_COMPLEX}[dtype]
    found = BY_NAME.get(_name_of(dtype))
    if found is None:
        raise DTypeError(f"unknown dtype {shown(dtype)}; netcl has {', '.join(BY_NAME)}")
    if getattr(dtype, "isnative", True) is False:
        raise DTypeError(
            f"{dtype!r} has the byte order of another machine; pass {found.name!r}, asarray() converts the elements"
        )
    return found


def _name_of(dtype: object) -> str:
    if isinstance(dtype, str):
        return dtype
    library = type(dtype).__module__.partition(".")[0]
    if library == "torch":  # whose dtypes have no name
        return str(dtype).rpartition(".")[2]
    if isinstance(dtype, type) and dtype.__module__ == "numpy":
        try:
            return str(dtype().dtype.name)  # numpy.longlong is int64
        except (AttributeError, TypeError):
            return dtype.__name__
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None)
    return name if isinstance(name, str) else ""


def _promote_integers(a: DType, b: DType) -> DType:
    if a.kind == b.kind:
        return a if a.itemsize >= b.itemsize else b
    signed, unsigned = (a, b) if a.kind == "i" else (b, a)
    if signed.itemsize > unsigned.itemsize:
        return signed
    if unsigned.itemsize == 8:
        raise DTypeError(f"{signed} and {unsigned} have no common integer dtype; cast one of them with astype() first")
    return {1: int16, 2: int32, 4: int64}[unsigned.itemsize]


@cache
def promote(a: DType, b: DType) -> DType:
    """The dtype of an operation between arrays of dtypes ``a`` and ``b``.

    Within a kind this is the standard's table. Across kinds, which the standard leaves open, the wider kind wins and
    keeps its width (``int64`` with ``float32`` gives ``float32``, as in torch). float16 with bfloat16 gives float32.

    Raises
    ------
    DTypeError
        For ``uint64`` with a signed integer, which no integer dtype can hold.

    Examples
    --------
    >>> from netcl.dtypes import promote, int8, uint8, float32, int64
    >>> promote(int8, uint8)
    netcl.int16
    >>> promote(int64, float32)
    netcl.float32
    """
    if a is b:
        return a
    order = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
    if order[a.kind] > order[b.kind]:
        a, b = b, a
    if a.kind == "b":
        return b
    if order[a.kind] == order[b.kind] == 1:
        return _promote_integers(a, b)
    if a.kind == "f" and b.kind == "f":
        if a.itemsize == b.itemsize:  # float16 with bfloat16
            return float32
        return a if a.itemsize > b.itemsize else b
    if b.kind == "c":
        wide = a is float64 or a is complex128 or b is complex128
        return complex128 if wide else complex64
    return b


def promote_scalar(dtype: DType, scalar: bool | int | float | complex) -> DType:
    """The dtype of an operation between an array of ``dtype`` and a Python scalar, which never widens its kind.

    Examples
    --------
    >>> from netcl.dtypes import promote_scalar, float16, int32
    >>> promote_scalar(float16, 2.0), promote_scalar(int32, 0.5)
    (netcl.float16, netcl.float32)
    """
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int):
        return DEFAULT_INT if dtype.kind == "b" else dtype
    if isinstance(scalar, float):
        return dtype if dtype.kind in "fc" else DEFAULT_FLOAT
    if dtype.kind == "c":
        return dtype
    return complex128 if dtype is float64 else complex64
