"""A pytest plug-in: SciPy's and scikit-learn's tests for ``array_api_strict`` run on netcl, by NETCL_BACKEND.

Both ship their tests, and write them for array-api-strict as the stand-in for any library that follows the standard.
So netcl takes its place in ``sys.modules``, with the names that it has beyond the standard, and without
netcl's 16-bit floats. Only where this is asked for as a plug-in: to import it changes nothing.
SCIPY_DEFAULT_DTYPE=float64 makes that the dtype of Python's floats, which SciPy's tests expect (they set it for torch).
"""

import contextlib
import os
import sys


class ArrayAPIStrictFlags(contextlib.nullcontext):
    """Flags of array-api-strict, which change nothing here."""

    def __init__(self, **flags):
        super().__init__()


def pytest_configure():
    """Before any test module is imported, and SciPy with it."""
    os.environ["SCIPY_ARRAY_API"] = "1"  # read when SciPy is imported
    import netcl

    def device(name):
        """The device under test, whatever the name: those of array-api-strict are not netcl's."""
        return netcl.get_backend().device

    if os.environ.get("SCIPY_DEFAULT_DTYPE") == "float64":
        defaults = {"DEFAULT_FLOAT": netcl.float64, "DEFAULT_COMPLEX": netcl.complex128}
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "netcl"]:
            vars(module).update({name: dtype for name, dtype in defaults.items() if name in vars(module)})
    for name in ("float16", "bfloat16"):
        delattr(netcl, name)
    netcl.set_array_api_strict_flags = netcl.reset_array_api_strict_flags = lambda **flags: None
    netcl.ArrayAPIStrictFlags = ArrayAPIStrictFlags
    netcl.Device = device
    sys.modules["array_api_strict"] = netcl
