"""autocast: matrix products and convolutions in half precision inside a block."""

from __future__ import annotations

from contextlib import ContextDecorator
from types import TracebackType
from typing import Self

from netcl.autocast_state import set_product_dtype
from netcl.dtypes import DType, as_dtype, bfloat16, float16
from netcl.errors import DTypeError
from netcl.validation import flag


class autocast(ContextDecorator):
    """Take matrix products and convolutions in half precision, and keep what is sensitive in float32.

    Inside the block the operands of ``matmul``, ``Linear``, ``conv2d`` and related functions are rounded to ``dtype``
    and summed up in float32; reductions, losses, softmax and normalisation take 16-bit operands up to float32 first.
    Everything else runs in the dtype that it is given. float64 operands are left alone. The derivatives run in the
    dtypes of the forward pass, inside or outside the block, and gradients arrive in the dtype of the parameters.

    Parameters
    ----------
    dtype : DType or str, default float16
        float16 or bfloat16. Both work on every device, with ``cl_khr_fp16`` or without: storage is 16 bits wide,
        arithmetic float32.
    enabled : bool, default True
        False turns an outer ``autocast`` off for the block.

    Raises
    ------
    DTypeError
        If ``dtype`` is not a 16-bit floating dtype.

    Examples
    --------
    >>> import netcl
    >>> from netcl.amp import autocast
    >>> a = netcl.ones((2, 3))
    >>> with autocast():
    ...     inside = netcl.matmul(a, a.T)
    ...     with autocast(enabled=False):
    ...         nested = netcl.matmul(a, a.T)
    >>> inside.dtype, nested.dtype, netcl.matmul(a, a.T).dtype
    (netcl.float16, netcl.float32, netcl.float32)

    Notes
    -----
    Also a decorator. The state belongs to the thread. Source: P. Micikevicius et al., "Mixed Precision Training", 2017.
    """

    def __init__(self, dtype: DType | str = float16, *, enabled: bool = True) -> None:
        chosen = as_dtype(dtype)
        if chosen is not float16 and chosen is not bfloat16:
            raise DTypeError(f"autocast takes float16 or bfloat16, got {chosen}; use enabled=False for full precision")
        self.dtype = chosen
        self.enabled = flag("enabled", enabled)
        self._outer: list[DType | None] = []

    def __enter__(self) -> Self:
        self._outer.append(set_product_dtype(self.dtype if self.enabled else None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        set_product_dtype(self._outer.pop())
