"""Losses as modules."""

from __future__ import annotations

import netcl.functional as F
from netcl.functional.loss import check_ignored, check_reduction, check_smoothing
from netcl.nn.module import Module
from netcl.tensor import Tensor


class CrossEntropyLoss(Module):
    """Softmax cross-entropy of logits; see ``netcl.functional.cross_entropy``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean is over the rows that are not ignored.
    ignore_index : int, default -100
        Rows with this label count as zero.
    label_smoothing : float, default 0
        In [0, 1]: the share of the target that is spread evenly over the classes.

    Examples
    --------
    >>> import netcl
    >>> loss = netcl.nn.CrossEntropyLoss()
    >>> round(loss(netcl.zeros((2, 10)), netcl.asarray([3, 7])).item(), 4)
    2.3026
    """

    def __init__(self, reduction: str = "mean", ignore_index: int = -100, label_smoothing: float = 0.0) -> None:
        self.reduction = check_reduction(reduction)
        self.ignore_index, self.label_smoothing = check_ignored(ignore_index), check_smoothing(label_smoothing)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (rows, classes) with labels (rows,) or probabilities (rows, classes)."""
        return F.cross_entropy(
            logits,
            target,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}"


class MSELoss(Module):
    """``(x - target)²``, reduced.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.MSELoss()(netcl.asarray([1.0, 3.0]), netcl.asarray([0.0, 0.0])).item()
    5.0
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = check_reduction(reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Both of one shape."""
        return F.mse_loss(x, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
