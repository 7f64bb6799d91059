"""The Array API's linear-algebra extension."""

from typing import TYPE_CHECKING

from netcl.functional.eigenvalues import *
from netcl.functional.factorization import *
from netcl.functional.inversion import *
from netcl.functional.linalg import *
from netcl.functional.linalg_extension import *
from netcl.functional.norms import *
from netcl.functional.shape import matrix_transpose as matrix_transpose

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted(name for name, value in globals().items() if callable(value))
del TYPE_CHECKING
