"""The OpenCL kernels, shipped as the data package ``netcl.kernels``."""
