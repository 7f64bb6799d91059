"""Values as C constants, each written once: what operators and expressions are put together from."""

from __future__ import annotations

from typing import final

from netcl.backends.opencl.codegen.literals import SIGNED, c_literal, c_type, vector
from netcl.dtypes import DType


@final
class Values:
    """Statements that each declare a constant, in the order in which they are written.

    A bool is held as a mask: for vectors, lanes of 0 and -1 as wide as what was compared, because that is what select
    takes; for scalars, an int of 0 or 1. It becomes 0 or 1 in a uchar only where it leaves.

    Attributes
    ----------
    width : int
        Lanes of every value.
    lines : list of str
        The statements.
    """

    def __init__(self, width: int, prefix: str) -> None:
        self.width = width
        self.lines: list[str] = []
        self._prefix = prefix
        self._count = 0
        self._texts: dict[tuple[str, str], str] = {}
        self._lane: dict[str, int] = {}

    def lane(self, mask: str) -> int:
        """The bytes of each lane of a mask."""
        return self._lane[mask]

    def name(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count - 1}"

    def let(self, ctype: str, text: str) -> str:
        """The name of a constant of this vector or scalar type with this value."""
        known = self._texts.get((ctype, text))
        if known is None:
            known = self._texts[ctype, text] = self.name()
            self.lines.append(f"const {ctype} {known} = {text};")
        return known

    def value(self, dtype: DType, text: str) -> str:
        return self.let(c_type(dtype, self.width), text)

    def mask(self, lane: int, text: str) -> str:
        """A bool made by comparing things of ``lane`` bytes."""
        lane = 4 if self.width == 1 else lane
        found = self.let(vector(SIGNED[lane], self.width), text)
        self._lane[found] = lane
        return found

    def widened(self, mask: str, lane: int) -> str:
        """The same bool with lanes of ``lane`` bytes."""
        if self.width == 1 or self._lane[mask] == lane:
            return mask
        return self.mask(lane, f"convert_{vector(SIGNED[lane], self.width)}({mask})")

    def number(self, value: bool | int | float, dtype: DType) -> str:
        """A constant, spread over the lanes."""
        return self.value(dtype, self.spread(c_literal(value, dtype), dtype))

    def spread(self, scalar: str, dtype: DType) -> str:
        return f"({c_type(dtype, self.width)})({scalar})"

    def select(self, condition: str, yes: str, no: str, dtype: DType) -> str:
        if self.width == 1:
            return self.value(dtype, f"{condition} ? {yes} : {no}")
        return self.value(dtype, f"select({no}, {yes}, {self.widened(condition, dtype.itemsize)})")

    def both(self, first: str, second: str, sign: str = "&") -> str:
        """Two masks combined."""
        lane = max(self._lane[first], self._lane[second])
        return self.mask(lane, f"{self.widened(first, lane)} {sign} {self.widened(second, lane)}")

    def negated(self, mask: str) -> str:
        return self.mask(self._lane[mask], f"!{mask}" if self.width == 1 else f"~{mask}")

    def wrapping(self, sign: str, x: str, y: str, dtype: DType) -> str:
        """Arithmetic modulo 2**bits: signed overflow is undefined in C, so it is done on unsigned integers."""
        if dtype.kind == "u" and (self.width > 1 or dtype.itemsize >= 4):
            return self.value(dtype, f"{x} {sign} {y}")
        if self.width == 1:
            unsigned = "ulong" if dtype.itemsize == 8 else "uint"
            return self.value(dtype, f"({c_type(dtype)})(({unsigned}){x} {sign} ({unsigned}){y})")
        unsigned = f"as_u{c_type(dtype, self.width)}"
        return self.value(dtype, f"as_{c_type(dtype, self.width)}({unsigned}({x}) {sign} {unsigned}({y}))")
