"""Schedules: hyper-parameters that are functions of an integer, each a closed form.

They multiply: what a group holds is where it started times the factor of each of its schedules. A schedule touches the
host alone and does not block, but where it asks a scaler.
"""

from netcl.optim.schedules.composed import ChainedScheduler, SequentialLR
from netcl.optim.schedules.cosine import (
    SWALR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    WarmupCosine,
    WarmupStableDecay,
)
from netcl.optim.schedules.cyclic import CyclicLR, OneCycleLR
from netcl.optim.schedules.decay import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from netcl.optim.schedules.plot import plot_schedule
from netcl.optim.schedules.reduce_on_plateau import ReduceLROnPlateau
from netcl.optim.schedules.schedule import Schedule

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SWALR",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "WarmupCosine",
    "WarmupStableDecay",
    "plot_schedule",
]
