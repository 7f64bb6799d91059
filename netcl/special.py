"""Special functions, on the device of their operands and with derivatives, under SciPy's names.

SciPy calls them by name where ``SCIPY_ARRAY_API=1`` is set: ``scipy.special.gammaln(x)`` of a Tensor is
``netcl.special.gammaln(x)``. In float32 the error is below 4 units in the last place, in float64 below 1e-14, relative
to the value; but near the roots of ``gammaln`` below -2, of ``digamma`` below 0 and of ``betaln`` it is relative to the
terms whose sum the value is, and ``betaln`` of small and of negative numbers is as if ``x1 + x2`` were rounded first.
So it was measured on NumPy, Intel's runtime and PoCL; a device whose ``exp``, ``log``, ``log1p`` and ``sqrt`` are worse
than NumPy's adds their errors. float16, bfloat16 and integers are computed in float32.

``zeta`` is not here: its terms are powers, and OpenCL allows a float32 ``pow`` an error of 16 units, so the bounds
above need a power of netcl's own first. ``scipy.special.zeta`` of a Tensor computes on the host and gives a Tensor on
the default device.
"""

from typing import TYPE_CHECKING

from netcl.functional import special_functions
from netcl.functional.activation import log_softmax as log_softmax
from netcl.functional.activation import softmax as softmax
from netcl.functional.elementwise import erf as erf
from netcl.functional.reduction import logsumexp as logsumexp
from netcl.functional.special_functions import *

psi = special_functions.digamma  # SciPy's name for it

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted(name for name, value in globals().items() if callable(value))
del TYPE_CHECKING, special_functions
