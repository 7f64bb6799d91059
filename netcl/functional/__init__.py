"""What each operation computes, with its derivative beside it.

Functions take arrays and Python numbers and return arrays of the same class. They know the backend protocol and no
backend. A function is registered once: in the ``__all__`` of its module.
"""

from typing import TYPE_CHECKING

from netcl.functional.activation import *
from netcl.functional.array_api import *
from netcl.functional.convolution import *
from netcl.functional.eigenvalues import *
from netcl.functional.factorization import *
from netcl.functional.fourier import *
from netcl.functional.inversion import *
from netcl.functional.layers import *
from netcl.functional.linalg_extension import *
from netcl.functional.loss import *
from netcl.functional.normalization import *
from netcl.functional.norms import *
from netcl.functional.scattering import *
from netcl.functional.special_functions import *
from netcl.functional.torch_names import *

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted(name for name, value in globals().items() if callable(value))
del TYPE_CHECKING
