"""Providers of the reference backend: on NumPy, and by name on torch and CuPy where they are installed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, final

from netcl.backends.base import CPU_DEVICE, NAMED_ONLY, PREFER_REFERENCE, Backend, Device
from netcl.backends.reference.backend import ReferenceBackend
from netcl.errors import BackendError


@final
class NumpyProvider:
    """NumPy: one device, the host, which is always there."""

    def __init__(self) -> None:
        self._backend = ReferenceBackend()

    def devices(self) -> Sequence[Device]:
        """The host."""
        return (self._backend.device,)

    def open(self, device: Device) -> Backend:
        """The backend."""
        return self._backend

    def preference(self, device: Device) -> float:
        """After every device of an accelerated runtime."""
        return PREFER_REFERENCE

    def dlpack_device_type(self, device: Device) -> int:
        """Host memory."""
        return CPU_DEVICE

    def health(self, device: Device, *, probe: bool) -> tuple[bool | None, str]:
        """It always works."""
        return True, "always works"


@final
class TorchProvider:
    """torch, over the reference backend: ``"torch"``, or ``"torch:"`` and one of cpu, cuda, mps and xpu.

    Raises
    ------
    BackendError
        If torch cannot be imported.
    """

    def __init__(self) -> None:
        self._torch = _installed("torch")

    def devices(self) -> Sequence[Device]:
        """The accelerators that torch lists, then the processor; all have torch's own names in ``aliases``."""
        found = [name for kind in ("cuda", "xpu", "mps") for name in self._of_kind(kind)]
        return tuple(_opened(self._torch, "torch", i, name).device for i, name in enumerate((*found, "cpu")))

    def _of_kind(self, kind: str) -> list[str]:
        module = getattr(self._torch, kind, None) or getattr(self._torch.backends, kind, None)
        if module is None or not module.is_available():
            return []
        count = getattr(module, "device_count", lambda: 1)()
        return [f"{kind}:{number}" for number in range(count)]

    def open(self, device: Device) -> Backend:
        """The reference backend over torch's arrays on this device."""
        return _opened(self._torch, "torch", device.index, device.aliases)

    def preference(self, device: Device) -> float:
        """Used only when it is named."""
        return NAMED_ONLY

    def dlpack_device_type(self, device: Device) -> int:
        """Exported through host memory."""
        return CPU_DEVICE

    def health(self, device: Device, *, probe: bool) -> tuple[bool | None, str]:
        """What torch lists works."""
        return True, "torch lists it"


@final
class CupyProvider:
    """CuPy, over the reference backend: ``"cupy"`` or ``"cupy:1"``.

    Raises
    ------
    BackendError
        If CuPy cannot be imported.
    """

    def __init__(self) -> None:
        self._cupy = _installed("cupy")

    def devices(self) -> Sequence[Device]:
        """The CUDA or ROCm devices that CuPy lists.

        Raises
        ------
        BackendError
            If there is none.
        """
        try:
            count = int(self._cupy.cuda.runtime.getDeviceCount())
        except Exception as error:
            raise BackendError(f"CuPy finds no device ({error}); use another backend") from error
        return tuple(self._backend(number).device for number in range(count))

    def _backend(self, number: int) -> ReferenceBackend:
        with self._cupy.cuda.Device(number) as device:
            return _opened(self._cupy, "cupy", number, device)

    def open(self, device: Device) -> Backend:
        """The reference backend over CuPy's arrays on this device."""
        return self._backend(device.index)

    def preference(self, device: Device) -> float:
        """Used only when it is named."""
        return NAMED_ONLY

    def dlpack_device_type(self, device: Device) -> int:
        """Exported through host memory."""
        return CPU_DEVICE

    def health(self, device: Device, *, probe: bool) -> tuple[bool | None, str]:
        """What CuPy lists works."""
        return True, "CuPy lists it"


@cache
def _opened(library: Any, name: str, index: int, place: Any) -> ReferenceBackend:
    return ReferenceBackend(library, name, index=index, place=place)


def _installed(library: str) -> Any:
    if find_spec(library) is None:
        raise BackendError(f"{library} is not installed; install it for your device, or use another backend")
    try:
        return import_module(library)
    except Exception as error:
        raise BackendError(f"{library} cannot be imported ({type(error).__name__}: {error}); reinstall it") from error
