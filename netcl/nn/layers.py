"""The layers: each holds its parameters and calls the operation of the same name in ``netcl.functional``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import netcl.functional as F
from netcl.array import Storage
from netcl.backends import Selection, get_backend
from netcl.dtypes import DType, as_dtype, float32
from netcl.errors import ArgumentError, DTypeError, HyperParameterError, ShapeError
from netcl.functional.activation import check_approximate, check_generator, check_probability
from netcl.nn import init
from netcl.nn.module import Module
from netcl.random import Generator
from netcl.tensor import Tensor
from netcl.validation import LARGEST_EXTENT, extents, flag, integer, real, shown


def new_parameter(shape: tuple[int, ...], dtype: DType | str, device: Selection) -> Tensor:
    """An uninitialised parameter."""
    kind = as_dtype(dtype)
    extents("the shape of a parameter", shape)
    if not kind.is_floating:
        raise DTypeError(f"parameters are floating, got dtype {kind}; integers have no gradient")
    backend = get_backend(device)
    if not backend.supports(kind):
        raise DTypeError(f"{backend.device} ({backend.device.name}) cannot compute with {kind}; use float32")
    tensor = Tensor(Storage.empty(backend, math.prod(shape), kind), shape)
    tensor.requires_grad = True
    return tensor


def size_of(name: str, value: Any) -> int:
    """``value``, if it is the size of something: an integer of at least 1."""
    return integer(name, value, least=1, most=LARGEST_EXTENT, error=HyperParameterError)


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
        in_features, out_features = size_of("in_features", in_features), size_of("out_features", out_features)
        bias = flag("bias", bias)
        random = init.as_generator(generator)
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter((out_features, in_features), dtype, device)
        self.bias = new_parameter((out_features,), dtype, device) if bias else None
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
    ArgumentError
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
                raise ArgumentError(
                    f"Sequential takes modules, argument {position} is {shown(module)}; unpack a list: "
                    "Sequential(*modules)"
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
        found = list(self)
        place = integer("index", index)
        if not -len(found) <= place < len(found):
            raise IndexError(f"index {place} is out of range for a Sequential of {len(found)} modules")
        return found[place]


class Flatten(Module):
    """Joins the axes from ``start_dim`` to ``end_dim`` into one; by default all but the first.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.Flatten()(netcl.ones((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = integer("start_dim", start_dim), integer("end_dim", end_dim)

    def forward(self, x: Tensor) -> Tensor:
        """The same elements, a view where the layout allows it."""
        if not isinstance(x, Tensor):
            raise DTypeError(f"Flatten takes a Tensor, got {shown(x)}; use netcl.asarray(x)")
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
        self.approximate = check_approximate(approximate)

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
        check_generator(generator)
        self.p, self.generator = check_probability(p), generator

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
        shape = extents("normalized_shape", normalized_shape)
        if not shape or 0 in shape:
            raise HyperParameterError(
                f"normalized_shape must name extents of at least 1, got {shown(normalized_shape)}"
            )
        eps = real("eps", eps, above=0.0, error=HyperParameterError)
        elementwise_affine, bias = flag("elementwise_affine", elementwise_affine), flag("bias", bias)
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
        rows, columns = size_of("num_embeddings", num_embeddings), size_of("embedding_dim", embedding_dim)
        random = init.as_generator(generator)
        self.num_embeddings, self.embedding_dim = rows, columns
        self.weight = init.normal_(new_parameter((rows, columns), dtype, device), generator=random)

    def forward(self, indices: Tensor) -> Tensor:
        """Shape (...) of int32 or int64 to (..., embedding_dim)."""
        return F.embedding(indices, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
