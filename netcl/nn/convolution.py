"""Two-dimensional convolution and pooling as layers. Images have the shape (batch, channels, height, width)."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import netcl.functional as F
from netcl.backends import Selection
from netcl.dtypes import DType, float32
from netcl.functional.convolution import check_pool_padding, pair_of
from netcl.nn import init
from netcl.nn.layers import new_parameter, size_of
from netcl.nn.module import Module
from netcl.tensor import Tensor
from netcl.validation import flag

Pair: TypeAlias = int | tuple[int, int]


class Conv2d(Module):
    """Correlates images with learned windows: ``y[o] = bias[o] + Σ_c weight[o, c] * x[c]``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or pair of int
        Height and width of the windows.
    stride, dilation : int or pair of int, default 1
    padding : int or pair of int, default 0
        Zeros on either side of the height and the width.
    bias : bool, default True
    device, dtype, generator
        As for :class:`Linear`.

    Attributes
    ----------
    weight : Tensor, shape ``(out_channels, in_channels, *kernel_size)``
    bias : Tensor, shape (out_channels,), or None
        Both start from U(-k, k) with ``k = 1 / sqrt(in_channels · window)``, as in torch.

    Examples
    --------
    >>> import netcl
    >>> layer = netcl.nn.Conv2d(3, 8, 3, padding=1)
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    >>> layer(netcl.ones((2, 3, 10, 10))).shape
    (2, 8, 10, 10)
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        bias: bool = True,
        *,
        device: Selection = None,
        dtype: DType | str = float32,
        generator: Any = None,
    ) -> None:
        in_channels, out_channels = size_of("in_channels", in_channels), size_of("out_channels", out_channels)
        bias = flag("bias", bias)
        random = init.as_generator(generator)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = pair_of("kernel_size", kernel_size), pair_of("stride", stride)
        self.padding, self.dilation = pair_of("padding", padding, 0), pair_of("dilation", dilation)
        self.weight = new_parameter((out_channels, in_channels, *self.kernel_size), dtype, device)
        self.bias = new_parameter((out_channels,), dtype, device) if bias else None
        init.kaiming_uniform_(self.weight, math.sqrt(5), generator=random)
        if self.bias is not None:
            bound = 1 / math.sqrt(in_channels * math.prod(self.kernel_size))
            init.uniform_(self.bias, -bound, bound, generator=random)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, in_channels, height, width) to (batch, out_channels, out height, out width)."""
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding}" if any(self.padding) else ""
        text += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        return text + ("" if self.bias is not None else ", bias=False")


class MaxPool2d(Module):
    """The largest element of each window.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        ``kernel_size`` by default.
    padding : int or pair of int, default 0
        At most half of ``kernel_size``; what is padded never wins.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.MaxPool2d(2)(netcl.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size = pair_of("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair_of("stride", stride)
        self.padding = pair_of("padding", padding, 0)
        check_pool_padding("MaxPool2d", self.kernel_size, self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, height, width) to (batch, channels, out height, out width)."""
        return F.max_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
