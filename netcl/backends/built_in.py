"""The backends that netcl brings along, by name: what an entry point is for those of other packages."""

BUILT_IN = {
    "numpy": "netcl.backends.reference.provider:NumpyProvider",
    "opencl": "netcl.backends.opencl.provider:OpenCLProvider",
    "torch": "netcl.backends.reference.provider:TorchProvider",
    "cupy": "netcl.backends.reference.provider:CupyProvider",
}
"""``"module:class"`` of each provider. Imported when it is first asked for."""

ON_DEMAND = frozenset({"torch", "cupy"})
"""Those whose library takes long to import: lists of devices leave them out until they are named."""

INSTALL = (
    'pip install "netcl[cpu]" or "netcl[pocl]" adds OpenCL on the CPU, "netcl[opencl]" OpenCL with your own driver'
)

NAMING = "Give one of them, or opencl: and a number, cpu, gpu or part of a device's name"
