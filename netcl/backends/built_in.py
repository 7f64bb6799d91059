"""The backends that netcl brings along, by name: what an entry point is for those of other packages."""

BUILT_IN = {
    "numpy": "netcl.backends.reference.provider:NumpyProvider",
    "opencl": "netcl.backends.opencl.provider:OpenCLProvider",
    "torch": "netcl.backends.reference.provider:TorchProvider",
    "cupy": "netcl.backends.reference.provider:CupyProvider",
}
"""``"module:class"`` of each provider. Imported when it is first asked for."""
