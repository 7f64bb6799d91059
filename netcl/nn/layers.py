"""The layers: each holds its parameters and calls the operation of the same name in ``netcl.functional``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import netcl.functional as F
from netcl.array import Storage
from netcl.backends import Selection, get_backend
from netcl.dtypes import DType, as_dtype, float32
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.nn import init
from netcl.nn.module import Module
from netcl.random import Generator
from netcl.tensor import Tensor


def new_parameter(shape: tuple[int, ...], dtype: DType | str, device: Selection) -> Tensor:
    """An uninitialised parameter."""
    kind = as_dtype(dtype)
    if not kind.is_floating:
        raise DTypeError(f"parameters are floating, got dtype {kind}; integers have no gradient")
    backend = get_backend(device)
    if not backend.supports(kind):
        raise DTypeError(f"{backend.device} ({backend.device.name}) cannot compute with {kind}; use float32")
    tensor = Tensor(Storage.empty(backend, math.prod(shape), kind), shape)
    tensor.requires_grad = True
    return tensor


def check_positive(**sizes: int) -> None:
    """Refuse a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise HyperParameterError(f"{name} must be at least 1, got {size}")


class Linear(Module):
    """``y = x Wᵀ + b`` over the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Extents of the last axis of the input and of the output.
    bias : bool, default True
    device : str, Device or Backend, optional
        By default the default device.
    dtype : DType or str, default float32
    generator : numpy.random.Generator, netcl.random.Generator or int, optional
        Draws the initial values; by default the one that ``netcl.random.manual_seed`` sets.

    Attributes
    ----------
    weight : Tensor, shape (out_features, in_features)
    bias : Tensor, shape (out_features,), or None
        Both start from U(-k, k) with ``k = 1 / sqrt(in_features)``, as in torch.

    Examples
    --------
    >>> import netcl
    >>> layer = netcl.nn.Linear(3, 2, generator=0)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    >>> layer(netcl.ones((4, 3))).shape
    (4, 2)
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Selection = None,
        dtype: DType | str = float32,
        generator: Any = None,
    ) -> None:
        check_positive(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter((out_features, in_features), dtype, device)
        self.bias = new_parameter((out_features,), dtype, device) if bias else None
        random = init.as_generator(generator)
        init.kaiming_uniform_(self.weight, math.sqrt(5), generator=random)
        if self.bias is not None:
            bound = 1 / math.sqrt(in_features)
            init.uniform_(self.bias, -bound, bound, generator=random)

    def forward(self, x: Tensor) -> Tensor:
        """``x Wᵀ + b``: shape (..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Sequential(Module):
    """Modules one after the other.

    Parameters
    ----------
    *modules : Module
        Named ``"0"``, ``"1"`` … in ``state_dict``.

    Raises
    ------
    TypeError
        If one is not a Module.

    Examples
    --------
    >>> from netcl import nn
    >>> nn.Sequential(nn.Linear(4, 2), nn.Tanh())
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): Tanh()
    )
    """

    def __init__(self, *modules: Module) -> None:
        for position, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(
                    f"Sequential takes modules, argument {position} is {module!r}; unpack a list: Sequential(*modules)"
                )
            setattr(self, str(position), module)

    def forward(self, x: Any) -> Any:
        """The last module's output."""
        for module in self:
            x = module(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return iter([value for value in vars(self).values() if isinstance(value, Module)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]


class Flatten(Module):
    """Joins the axes from ``start_dim`` to ``end_dim`` into one; by default all but the first.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.Flatten()(netcl.ones((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """The same elements, a view where the layout allows it."""
        start, end = (dim + x.ndim if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < x.ndim:
            raise ShapeError(
                f"Flatten(start_dim={self.start_dim}, end_dim={self.end_dim}) needs axes in that order, "
                f"got an array of shape {x.shape}"
            )
        return F.reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class ReLU(Module):
    """``max(x, 0)``.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.ReLU()(netcl.asarray([-1.0, 2.0])).numpy()
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.relu(x)


class GELU(Module):
    """``x Φ(x)`` with the normal distribution's Φ, or its tanh approximation.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise HyperParameterError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Tanh(Module):
    """``tanh(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        y: Tensor = F.tanh(x)
        return y


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.sigmoid(x)


class Dropout(Module):
    """While training, zero each element with probability ``p`` and divide the others by ``1 - p``.

    The draws come from a counter-based generator (Philox), so a seed drops the same elements on every backend.

    Parameters
    ----------
    p : float, default 0.5
        In [0, 1].
    generator : netcl.random.Generator, optional
        By default the one that ``netcl.random.manual_seed`` sets.

    Raises
    ------
    HyperParameterError
        If ``p`` is out of range.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise HyperParameterError(f"p must lie in [0, 1], got {p}")
        self.p, self.generator = p, generator

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise while training, else ``x`` itself."""
        return F.dropout(x, self.p, training=self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LayerNorm(Module):
    """``(x - mean) / sqrt(variance + eps) · weight + bias``, with mean and variance over the last axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Extents of the last axes.
    eps : float, default 1e-5
        Positive.
    elementwise_affine : bool, default True
        Learn ``weight`` (from 1) and ``bias`` (from 0).
    bias : bool, default True
        Whether there is a ``bias`` when ``elementwise_affine``.
    device, dtype
        As for :class:`Linear`.

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        device: Selection = None,
        dtype: DType | str = float32,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        check_positive(**{f"normalized_shape[{axis}]": extent for axis, extent in enumerate(shape)})
        if not eps > 0:
            raise HyperParameterError(f"eps must be positive, got {eps}")
        self.normalized_shape, self.eps = shape, eps
        self.weight = init.ones_(new_parameter(shape, dtype, device)) if elementwise_affine else None
        self.bias = init.zeros_(new_parameter(shape, dtype, device)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as ``x``."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class Embedding(Module):
    """Rows of a table: ``y[...] = weight[indices[...]]``.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table, which starts from N(0, 1).
    device, dtype, generator
        As for :class:`Linear`.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.Embedding(10, 4)(netcl.asarray([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    weight: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        device: Selection = None,
        dtype: DType | str = float32,
        generator: Any = None,
    ) -> None:
        check_positive(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal_(new_parameter((num_embeddings, embedding_dim), dtype, device), generator=generator)

    def forward(self, indices: Tensor) -> Tensor:
        """Shape (...) of int32 or int64 to (..., embedding_dim)."""
        return F.embedding(indices, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
