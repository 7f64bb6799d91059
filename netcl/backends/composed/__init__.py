"""The calls of the backend protocol that follow from others, for backends that do not have them of their own."""

from netcl.backends.composed.operations import ComposedOperations

__all__ = ["ComposedOperations"]
