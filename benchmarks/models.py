"""Training steps of small models as sides of a comparison, in netcl and in torch, from the same weights on.

A step is a forward pass, a backward pass, clipping, and AdamW. Of torch's ways the fastest is taken: fused AdamW and
fused attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import amp, nn, optim
from netcl.data import DataLoader

from .sides import Side
from .steps import repeated, use_torch, waited

WIDTHS = (784, 256, 128, 10)
CHANNELS = (1, 16, 32, 32)
TOKENS, FEATURES, HEADS = 64, 128, 4


def perceptron() -> nn.Module:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(WIDTHS):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def torch_perceptron(torch: Any) -> Any:
    layers: list[Any] = []
    for n_in, n_out in pairwise(WIDTHS):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def convolutions() -> nn.Module:
    """Three convolutions of 3 × 3, each with a ReLU, two of them halved by pooling, and a dense layer."""
    one, two, three, four = CHANNELS
    return nn.Sequential(
        nn.Conv2d(one, two, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(two, three, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(three, four, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(four * 49, 10),
    )  # fmt: skip


def torch_convolutions(torch: Any) -> Any:
    one, two, three, four = CHANNELS
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(one, two, 3, padding=1), layers.ReLU(), layers.MaxPool2d(2),
        layers.Conv2d(two, three, 3, padding=1), layers.ReLU(), layers.MaxPool2d(2),
        layers.Conv2d(three, four, 3, padding=1), layers.ReLU(), layers.Flatten(), layers.Linear(four * 49, 10),
    )  # fmt: skip


class Block(nn.Module):
    """A transformer's block: attention and a perceptron, each after a layer norm and with what came in added."""

    def __init__(self) -> None:
        self.norm1, self.norm2 = nn.LayerNorm(FEATURES), nn.LayerNorm(FEATURES)
        self.qkv, self.out = nn.Linear(FEATURES, 3 * FEATURES), nn.Linear(FEATURES, FEATURES)
        self.up, self.gelu, self.down = nn.Linear(FEATURES, 4 * FEATURES), nn.GELU(), nn.Linear(4 * FEATURES, FEATURES)

    def forward(self, x: Any) -> Any:
        batch = x.shape[0]
        qkv = ag.reshape(self.qkv(self.norm1(x)), (batch, TOKENS, 3, HEADS, FEATURES // HEADS))
        q, k, v = ag.unstack(ag.permute_dims(qkv, (2, 0, 3, 1, 4)), axis=0)
        scores = ag.matmul(q, ag.matrix_transpose(k)) * (1 / math.sqrt(FEATURES // HEADS))
        mixed = ag.permute_dims(ag.matmul(ag.softmax(scores, axis=-1), v), (0, 2, 1, 3))
        x = x + self.out(ag.reshape(mixed, (batch, TOKENS, FEATURES)))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


def torch_block(torch: Any) -> Any:
    from torch.nn.functional import scaled_dot_product_attention

    layers = torch.nn

    class TorchBlock(layers.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = layers.LayerNorm(FEATURES), layers.LayerNorm(FEATURES)
            self.qkv, self.out = layers.Linear(FEATURES, 3 * FEATURES), layers.Linear(FEATURES, FEATURES)
            self.up, self.gelu = layers.Linear(FEATURES, 4 * FEATURES), layers.GELU()
            self.down = layers.Linear(4 * FEATURES, FEATURES)

        def forward(self, x: Any) -> Any:
            batch = x.shape[0]
            qkv = self.qkv(self.norm1(x)).reshape(batch, TOKENS, 3, HEADS, FEATURES // HEADS)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2)
            x = x + self.out(mixed.reshape(batch, TOKENS, FEATURES))
            return x + self.down(self.gelu(self.up(self.norm2(x))))

    return TorchBlock()


@dataclass(frozen=True)
class Model:
    """A model in both libraries, its loss, and the shape of a batch without its first axis."""

    netcl: Callable[[], nn.Module]
    torch: Callable[[Any], Any]
    loss: str
    shape: tuple[int, ...]

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(1)
        x = random.standard_normal((size, *self.shape), dtype=np.float32)
        if self.loss == "cross_entropy":
            return x, random.integers(0, 10, size)
        return x, random.standard_normal((size, *self.shape), dtype=np.float32)


MODELS = {
    "MLP": Model(perceptron, torch_perceptron, "cross_entropy", (784,)),
    "conv net": Model(convolutions, torch_convolutions, "cross_entropy", (1, 28, 28)),
    "transformer block": Model(Block, torch_block, "mse_loss", (TOKENS, FEATURES)),
}


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The same values for every library: ones and zeros for norms, else as the layers draw them."""
    random = np.random.default_rng(0)
    made = {}
    for name, shape in sorted(shapes.items()):
        if "norm" in name:
            made[name] = np.full(shape, name.endswith("weight"), np.float32)
        else:
            bound = 1 / math.sqrt(math.prod(shape[1:]) if len(shape) > 1 else shape[0])
            made[name] = random.uniform(-bound, bound, shape).astype(np.float32)
    return made


def netcl_training(runtime: str, name: str, batch: int) -> Side:
    """Training steps of netcl on one of its backends, all on the same batch."""
    backend, model = netcl.get_backend(runtime), MODELS[name]
    with netcl.use_backend(backend):
        net = model.netcl()
        x, y = (netcl.asarray(array) for array in model.batch(batch))
    net.load_state_dict(weights({key: value.shape for key, value in net.state_dict().items()}))
    optimizer = optim.AdamW(net.parameters(), lr=1e-3)
    loss_of = getattr(ag, model.loss)

    def step() -> None:
        with ag.Tape() as tape:
            loss = loss_of(net(x), y)
        tape.backward(loss)
        optimizer.step(max_norm=1.0)
        optimizer.zero_grad()

    return Side(waited(backend, step), lambda: [loss_of(net(x), y).numpy()])


def torch_training(name: str, batch: int) -> Side:
    torch, model = use_torch(), MODELS[name]
    net = model.torch(torch)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    net.load_state_dict({key: torch.tensor(value) for key, value in weights(shapes).items()})
    x, y = (torch.tensor(array) for array in model.batch(batch))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    loss_of = getattr(torch.nn.functional, model.loss)

    def step() -> None:
        loss_of(net(x), y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return Side(repeated(step), lambda: [loss_of(net(x), y).detach().numpy()])


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many of the images that ship with netcl, as the example takes them, and what they show."""
    from examples.fashion_mnist_mlp import standardised_values
    from netcl.data import load_fashion_mnist

    train, _ = load_fashion_mnist(subset=True)
    return standardised_values(train.images)[train.images[:count]], train.labels[:count]


def netcl_job(runtime: str, count: int) -> Side:
    """The example's training steps, batch 128, over so many images; a step of this side is an epoch."""
    from examples.fashion_mnist_mlp import build, train_epoch

    model = build(0).to(runtime)
    loader = DataLoader(images(count), 128, shuffle=True, device=runtime)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    scaler = amp.GradScaler(enabled=False)
    return Side(repeated(lambda: train_epoch(model, loader, optimizer, scaler, None)), steps=1)


def torch_job(count: int) -> Side:
    torch = use_torch()
    layers: list[Any] = [torch.nn.Flatten()]
    for n_in, n_out in pairwise((784, 256, 128, 100, 10)):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x_all, y_all = map(torch.tensor, images(count))

    def epoch() -> float:
        total = torch.zeros(())
        for rows in torch.randperm(len(y_all)).split(128):
            x, y = x_all[rows], y_all[rows]
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach() * len(y)
        return total.item()

    return Side(repeated(epoch), steps=1)
