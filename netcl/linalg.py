"""The Array API's linear-algebra extension, as far as netcl has it."""

from typing import TYPE_CHECKING

from netcl.functional.linalg import *
from netcl.functional.linalg_extension import *
from netcl.functional.shape import matrix_transpose as matrix_transpose

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted(name for name, value in globals().items() if callable(value))
del TYPE_CHECKING
