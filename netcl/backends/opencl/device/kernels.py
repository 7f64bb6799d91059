"""The kernels of one device: programs built on first use, and kernel objects, shared or of a caller's own."""

from __future__ import annotations

import threading
from typing import Any, TypeAlias, final

import pyopencl as cl

from netcl.backends.opencl.device import program
from netcl.backends.opencl.device.program import Defines

Kernel: TypeAlias = cl.Kernel

Types: TypeAlias = tuple[Any, ...]
"""The NumPy type of each scalar argument of a kernel, None for each buffer."""


@final
class Kernels:
    """Kernels of the files in ``kernels/`` for the device of a context.

    Attributes
    ----------
    programs, kernels : dict
        What has been built, and the kernels that callers share.
    """

    def __init__(self, context: cl.Context, lock: threading.RLock) -> None:
        self._context = context
        self._lock = lock
        self.programs: dict[tuple[str, Defines, str], cl.Program] = {}
        self.kernels: dict[tuple[str, str, Defines, str, Types], Kernel] = {}

    def shared(
        self, file: str, entry: str, defines: Defines = (), generated: str = "", arguments: Types = ()
    ) -> Kernel:
        """The kernel ``entry`` of a file in ``kernels/``, built on first use and shared by all callers.

        Parameters
        ----------
        file, entry : str
            Such as ``"fill.cl"`` and ``"fill"``.
        defines : tuple of (name, value)
        generated : str
            Text set before the file; ``NETCL_GENERATED`` is defined when there is any.
        arguments : tuple
            The NumPy type of each scalar argument, None for each buffer.

        Raises
        ------
        KernelBuildError
        """
        key = (file, entry, defines, generated, arguments)
        found = self.kernels.get(key)
        if found is None:
            with self._lock:
                found = self.kernels.get(key)
                if found is None:
                    found = self.kernels[key] = self.own(file, entry, defines, generated, arguments)
        return found

    def own(self, file: str, entry: str, defines: Defines = (), generated: str = "", arguments: Types = ()) -> Kernel:
        """Like :meth:`shared`, but a new object: for callers that set its arguments once and keep them."""
        with self._lock:
            key = (file, defines, generated)
            built = self.programs.get(key)
            if built is None:
                built = self.programs[key] = program.build(self._context, file, defines, generated)
            kernel = cl.Kernel(built, entry)
            if arguments:
                kernel.set_scalar_arg_dtypes(arguments)
            return kernel
