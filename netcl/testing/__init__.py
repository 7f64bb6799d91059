"""For those who write a backend: the suite that every backend has to pass.

``pytest --pyargs netcl.testing.conformance --netcl-backend=NAME`` runs it, from an installed netcl too; it needs pytest
and hypothesis (``pip install "netcl[conformance]"``).
"""
