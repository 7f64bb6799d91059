"""The fuzz: drawn cases run on a backend and held against NumPy in float64. ``python -m tests.fuzz --help``.

A case is plain data that depends on (seed, kind, number) alone: :mod:`steps` draws optimizer configurations,
:mod:`arrays` single calls of the array functions, :mod:`gradients` graphs. Each runs in a child process
(:mod:`worker`), and one that fails is made smaller (:mod:`shrink`).
"""
