"""The fuzz: drawn cases run on a backend and held against NumPy in float64. ``python -m tests.fuzz --help``.

A case is plain data that depends on (seed, kind, number) alone: :mod:`steps` draws optimizer configurations,
:mod:`arrays` single calls of the array functions, :mod:`gradients` graphs, :mod:`narrow` parameters and state in few
bits. Each runs in a child process (:mod:`worker`), and one that fails is made smaller (:mod:`shrink`).

On OpenCL nearly every case builds kernels of its own, seconds of them. So the gate's minute runs each case eight times
more, with other elements (``--again 8``): what depends on values is then tried nine times for the same builds.
"""
