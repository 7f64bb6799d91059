"""A pytest plug-in: SciPy's and scikit-learn's tests for ``array_api_strict`` run on netcl, by NETCL_BACKEND.

Both ship their tests, and write them for array-api-strict as the stand-in for any library that follows the standard.
So netcl takes its place in ``sys.modules``, with the names that it has beyond the standard, and without
netcl's 16-bit floats. Only where this is asked for as a plug-in: to import it changes nothing.

What SciPy's tests set up for a library is set up for netcl too. SCIPY_DEFAULT_DTYPE=float64 makes that the dtype of
Python's floats, as they do with torch. They ask array-api-strict for version 2024.12 of the standard, in which
``devices()`` gives a list. Tests for NumPy alone are skipped, as with every other library. What they skip or expect to
fail because of array-api-strict itself runs, and counts as xpassed or xfailed: it may need more than the standard has.
"""

import contextlib
import os
import sys

import pytest


class ArrayAPIStrictFlags(contextlib.nullcontext):
    """Flags of array-api-strict, which change nothing here."""

    def __init__(self, **flags):
        super().__init__()


_LIST_OF_DEVICES = ("2022.12", "2023.12", "2024.12")


def set_flags(**flags):
    """The standard's version that the tests ask for, where netcl's newer one differs from it; no other flag."""
    import netcl

    info = netcl.__array_namespace_info__
    if flags.get("api_version") in _LIST_OF_DEVICES:

        class Info(type(info())):
            def devices(self):
                return list(super().devices())

        netcl.__array_namespace_info__ = Info


def pytest_collection_modifyitems(items):
    """SciPy's marks name libraries: those for all but NumPy hold for netcl, those for array-api-strict do not."""
    for module in list(sys.modules.values()):
        if isinstance(known := getattr(module, "xp_known_backends", None), set):
            known.add("netcl")
    for item in items:
        marks = [mark for kind in ("skip", "xfail") for mark in item.iter_markers(f"{kind}_xp_backends")]
        reasons = [mark.kwargs.get("reason") for mark in marks if mark.args == ("array_api_strict",)]
        if reasons:
            item.add_marker(pytest.mark.xfail(reason=f"not with array-api-strict: {reasons[0]}", strict=False))


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
    netcl.set_array_api_strict_flags = set_flags
    netcl.reset_array_api_strict_flags = lambda **flags: None
    netcl.ArrayAPIStrictFlags = ArrayAPIStrictFlags
    netcl.Device = device
    netcl.__version__ = "2.3"  # of array-api-strict, from which on SciPy sets its flags
    sys.modules["array_api_strict"] = netcl
