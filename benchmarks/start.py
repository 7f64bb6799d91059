"""What a program pays before its first step: the import, and the first build of its kernels."""

from __future__ import annotations

from .common import RUNTIMES, require

# Empty caches, and the device found, before the clock starts.
BEFORE = """
import os, tempfile
os.environ["POCL_CACHE_DIR"] = tempfile.mkdtemp()
os.environ["PYOPENCL_NO_CACHE"] = "1"
import netcl
from netcl.optim import AdamW
backend = netcl.get_backend({runtime!r})
with netcl.use_backend(backend):
    w = netcl.ones(1000, requires_grad=True)
    w.grad = netcl.ones(1000)
"""

FIRST = """
AdamW([w]).step(max_norm=1.0)
backend.synchronize()
"""


class Import:
    """``import netcl``, in a process of its own."""

    def timeraw_netcl(self) -> str:
        return "import netcl"

    def timeraw_numpy_for_comparison(self) -> str:
        return "import numpy"


class FirstStep:
    """The first clipped step of AdamW: three kernels are built."""

    params = (RUNTIMES,)
    param_names = ("runtime",)
    timeout = 120

    def setup(self, runtime: str) -> None:
        require(runtime)

    def timeraw_builds(self, runtime: str) -> tuple[str, str]:
        return FIRST, BEFORE.format(runtime=runtime)
