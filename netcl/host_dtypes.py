"""How the elements of a dtype stand in NumPy arrays on the host.

A dtype of netcl and the NumPy dtype of the same name agree, but for bfloat16, which NumPy does not have: its elements
travel as the uint16 of their bits.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl import dtypes
from netcl.dtypes import DType, bfloat16
from netcl.rounding import bfloat16_bits

STORAGE: MappingProxyType[DType, np.dtype[Any]] = MappingProxyType(
    {dtype: np.dtype(np.uint16 if dtype is bfloat16 else dtype.name) for dtype in dtypes.ALL}
)
"""The NumPy dtype in which the elements of each dtype travel."""
dtypes.NUMPY_DTYPES.update({dtype: stored for dtype, stored in STORAGE.items() if dtype is not bfloat16})


def values_of(stored: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """What elements as they travel are worth: bfloat16 as a new float32 array, anything else as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from netcl.dtypes import bfloat16
    >>> from netcl.host_dtypes import values_of
    >>> values_of(np.array([0x3F80, 0xC000], np.uint16), bfloat16)
    array([ 1., -2.], dtype=float32)
    """
    if dtype is not bfloat16:
        return stored
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def stored_as(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Real numbers as elements of ``dtype`` travel, rounded once, to nearest even; what is too large is infinite.

    Integers out of range wrap: a caller that takes them from a user refuses them first.

    Examples
    --------
    >>> import numpy as np
    >>> from netcl.dtypes import bfloat16
    >>> from netcl.host_dtypes import stored_as
    >>> [hex(x) for x in stored_as(np.array([1.0, -2.0]), bfloat16)]
    ['0x3f80', '0xc000']
    """
    with np.errstate(all="ignore"):
        return bfloat16_bits(values) if dtype is bfloat16 else values.astype(STORAGE[dtype], copy=False)
