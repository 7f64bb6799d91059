"""Mixed precision: matrix products in 16 bits, and a loss scale that keeps small gradients representable."""

from netcl.amp.autocast import autocast
from netcl.amp.scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
