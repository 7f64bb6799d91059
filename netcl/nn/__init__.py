"""Modules, losses and initialisers."""

from netcl.nn import init
from netcl.nn.convolution import Conv2d, MaxPool2d
from netcl.nn.layers import (
    GELU,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from netcl.nn.losses import CrossEntropyLoss, MSELoss
from netcl.nn.module import Module

__all__ = [
    "Conv2d", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "GELU", "LayerNorm", "Linear", "MSELoss",
    "MaxPool2d", "Module", "ReLU", "Sequential", "Sigmoid", "Tanh", "init",
]  # fmt: skip
