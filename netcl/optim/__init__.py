"""Optimizers, averages of parameters, gradient clipping and learning-rate schedules."""

from netcl.amp.scaler import GradScaler as AMPGradScaler
from netcl.optim.accumulation import MultiSteps, average_gradients
from netcl.optim.adabelief import AdaBelief
from netcl.optim.adadelta import Adadelta
from netcl.optim.adafactor import Adafactor
from netcl.optim.adagrad import Adagrad
from netcl.optim.adam import Adam, AdamW
from netcl.optim.adamax import Adamax
from netcl.optim.adan import Adan
from netcl.optim.asgd import ASGD
from netcl.optim.averages import AveragedParameters, Lookahead, zero_nans
from netcl.optim.clip import clip_grad_norm, clip_grad_norm_device, clip_grad_value
from netcl.optim.clip_parts import clip_grad_adaptive, clip_grad_norm_each
from netcl.optim.clip_torch import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from netcl.optim.decay_groups import decay_groups
from netcl.optim.lamb import LAMB
from netcl.optim.lars import LARS
from netcl.optim.lbfgs import LBFGS
from netcl.optim.lion import Lion
from netcl.optim.muon import Muon
from netcl.optim.nadam import NAdam
from netcl.optim.optimizer import Optimizer
from netcl.optim.per_label import PerLabel
from netcl.optim.radam import RAdam
from netcl.optim.rmsprop import RMSProp, RMSprop
from netcl.optim.rprop import Rprop
from netcl.optim.rule import PerTensor, Rule
from netcl.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from netcl.optim.schedules import (
    SWALR,
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
    WarmupCosine,
    WarmupStableDecay,
    plot_schedule,
)
from netcl.optim.sgd import SGD, Momentum

__all__ = [
    "AMPGradScaler",
    "ASGD",
    "AdaBelief",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "AveragedParameters",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LAMB",
    "LARS",
    "LBFGS",
    "LambdaLR",
    "LinearLR",
    "Lion",
    "Lookahead",
    "Momentum",
    "MultiStepLR",
    "MultiSteps",
    "MultiplicativeLR",
    "Muon",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "PerLabel",
    "PerTensor",
    "PolynomialLR",
    "RAdam",
    "RMSProp",
    "RMSprop",
    "ReduceLROnPlateau",
    "Rprop",
    "Rule",
    "SGD",
    "SWALR",
    "Schedule",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SequentialLR",
    "StepLR",
    "WarmupCosine",
    "WarmupStableDecay",
    "average_gradients",
    "clip_grad_adaptive",
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_norm_device",
    "clip_grad_norm_each",
    "clip_grad_value",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "decay_groups",
    "get_total_norm",
    "plot_schedule",
    "zero_nans",
]
