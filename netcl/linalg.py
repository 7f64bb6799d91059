"""The Array API's linear-algebra extension, as far as netcl has it."""

from netcl.functional.linalg import matmul, outer, tensordot, vecdot
from netcl.functional.shape import matrix_transpose

__all__ = ["matmul", "matrix_transpose", "outer", "tensordot", "vecdot"]
