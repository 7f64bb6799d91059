"""The reference backend: every call of the protocol over NumPy, or any other namespace of the Array API standard."""

from netcl.backends.reference.backend import ReferenceBackend

__all__ = ["ReferenceBackend"]
