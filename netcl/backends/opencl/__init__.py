"""The seam over pyopencl: the only folder that imports it. Runtimes that pip installed are made visible first."""

from netcl.backends.opencl import runtime

runtime.expose()
