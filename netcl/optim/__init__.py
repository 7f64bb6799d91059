"""Optimizers, gradient clipping and learning-rate schedules."""

from netcl.amp.scaler import GradScaler as AMPGradScaler
from netcl.optim.adam import Adam, AdamW
from netcl.optim.clip import clip_grad_norm, clip_grad_norm_device, clip_grad_value
from netcl.optim.optimizer import Optimizer
from netcl.optim.reduce_lr_on_plateau import ReduceLROnPlateau
from netcl.optim.rmsprop import RMSProp
from netcl.optim.rule import Rule
from netcl.optim.schedules import CosineAnnealingLR, WarmupCosine
from netcl.optim.sgd import SGD, Momentum

__all__ = [
    "AMPGradScaler",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "Momentum",
    "Optimizer",
    "RMSProp",
    "ReduceLROnPlateau",
    "Rule",
    "SGD",
    "WarmupCosine",
    "clip_grad_norm",
    "clip_grad_norm_device",
    "clip_grad_value",
]
