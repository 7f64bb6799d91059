"""Backends by name: which there are, which one is used, and how a plug-in adds its own.

A backend is imported when it is first asked for, so this module needs neither NumPy nor pyopencl.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

from netcl.backends import providers
from netcl.backends.base import EXTENSION_DEVICE, PREFER_REFERENCE, Backend, BackendProvider, Device
from netcl.backends.built_in import BUILT_IN, INSTALL, NAMING
from netcl.errors import BackendError
from netcl.validation import flag, shown

__all__ = [
    "DeviceStatus", "available", "default_backend", "devices", "get_backend", "set_backend", "use_backend",
]  # fmt: skip

logger = logging.getLogger("netcl")

VARIABLE = "NETCL_BACKEND"

Selection: TypeAlias = "str | Device | Backend | None"


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One line of :func:`devices`.

    Attributes
    ----------
    device : Device
    healthy : bool or None
        Whether it computes; None for a simulator that was not tried.
    reason : str
        How that is known, or why it does not.
    default : bool
        Whether it is used where none is named.
    why : str
        For the default: what made it so.
    """

    device: Device
    healthy: bool | None
    reason: str
    default: bool = False
    why: str = ""


_lock = threading.RLock()
_backends: dict[str, Backend] = {}
_default: Backend | None = None
_why = ""
_scoped: ContextVar[Backend | None] = ContextVar("netcl_backend", default=None)


def get_backend(selection: Selection = None) -> Backend:
    """The backend that ``selection`` names. **Blocks** while a device is tried for the first time.

    Parameters
    ----------
    selection : str, Device, Backend or None
        ``"numpy"``; ``"opencl"`` for the best device; ``"opencl:0"``, ``"opencl:gpu"``, ``"opencl:cpu"`` or
        ``"opencl:"`` and part of a platform's or device's name; such a part alone if it means one device; a plug-in's
        name. None is the default, see :func:`default_backend`.

    Returns
    -------
    Backend
        Always the same object for the same device.

    Raises
    ------
    BackendError
        If there is no such backend or device, or it does not work.

    Examples
    --------
    >>> from netcl.backends import get_backend
    >>> str(get_backend("numpy").device)
    'numpy'
    """
    if selection is None:
        return default_backend()
    if isinstance(selection, Device):
        selection = str(selection)
    if not isinstance(selection, str):
        if isinstance(getattr(selection, "device", None), Device) and hasattr(selection, "alloc"):
            return selection
        raise BackendError(
            f"a backend is chosen by a string, a Device or a Backend, got {type(selection).__name__} "
            f'{shown(selection)}; pass for example "numpy" or "opencl:gpu"'
        )
    known = _backends.get(selection)
    return _find(selection) if known is None else known


def _find(text: str) -> Backend:
    with _lock:
        known = _backends.get(text)
        if known is None:
            backend = _create(text.strip())
            known = _backends.setdefault(str(backend.device), backend)
            _backends[text] = known
        return known


def _create(text: str) -> Backend:
    name, _, selector = text.partition(":")
    found = providers.provider(name) or providers.provider(name.lower())
    if found is not None:
        return providers.open_first(name if name in _names() else name.lower(), found, selector, _backends)
    if text and not selector:
        found_by_part = _named_by_part(text)
        if found_by_part is not None:
            return get_backend(found_by_part)
    raise BackendError(f"unknown backend {text!r}; available are {', '.join(available())}. {NAMING}; {INSTALL}")


def _names() -> list[str]:
    return list(providers.names())


def _usable() -> Iterator[tuple[str, BackendProvider, Sequence[Device]]]:
    """Each backend whose runtime can be used, with its devices; those that take long to load only if they are."""
    for name in _names():
        if providers.needs_naming(name):
            continue
        try:
            found = providers.provider(name)
            if found is not None and not isinstance(found, providers.Opener):
                yield name, found, providers.listed(name, found)
        except BackendError:
            continue


def _named_by_part(part: str) -> Device | None:
    """The one device of all backends that a kind or a part of a name means."""
    found: list[Device] = []
    for name, provider, devices in _usable():
        by_kind = part.lower() in providers.KINDS
        if not _is_host(provider, devices) and (providers.any_unnamed(name, provider, devices) or not by_kind):
            found += providers.matching(name, provider, part)
    # As within a backend: another library's devices may carry the name of a processor.
    found = providers.by_platform(found, part) or found
    if len(found) > 1:
        listed = ", ".join(f"{device} ({device.name}, {device.platform})" for device in found)
        raise BackendError(f"{part!r} means several devices: {listed}; name one of them")
    return found[0] if found else None


def _is_host(provider: BackendProvider, devices: Sequence[Device]) -> bool:
    """Whether these are the host itself, whose processor's name means the runtimes on it."""
    return all(0 <= provider.preference(device) <= PREFER_REFERENCE for device in devices)


def available() -> tuple[str, ...]:
    """Names of the backends that can be used here. **Blocks** while OpenCL devices are tried for the first time.

    Examples
    --------
    >>> from netcl.backends import available
    >>> "numpy" in available()
    True
    """
    return tuple(name for name in _names() if _is_available(name))


def _is_available(name: str) -> bool:
    if name not in BUILT_IN:
        return True
    if providers.needs_naming(name):
        return _is_installed(name)
    try:
        provider = providers.provider(name)
        if provider is None:
            return False
        devices = providers.listed(name, provider)
        usable = [device for device in devices if provider.preference(device) >= 0] or devices
        return any(_health(name, provider, device, probe=False)[0] for device in usable)
    except BackendError:
        return False


def _is_installed(package: str) -> bool:
    with suppress(ImportError, ValueError):
        return find_spec(package) is not None
    return False


def default_backend() -> Backend:
    """The backend used where none is named. **Blocks** while a device is tried for the first time.

    In this order: that of the innermost :func:`use_backend`; that of :func:`set_backend`; the one named by the
    environment variable ``NETCL_BACKEND``; the device that works and has the highest preference: GPUs, accelerators,
    Intel's CPU runtime, PoCL, NumPy. Plug-ins rank among them as they say.

    Raises
    ------
    BackendError
        If ``NETCL_BACKEND`` names no backend that works.
    """
    backend = _scoped.get()
    if backend is None:
        backend = _default
    return _decide() if backend is None else backend


def _decide() -> Backend:
    global _default, _why
    with _lock:
        if _default is None:
            _default, _why = _choose()
            device = _default.device
            where = f" ({device.name}, {device.platform})" if device.platform else ""
            logger.info("using %s%s: %s", device, where, _why)
        return _default


def _choose() -> tuple[Backend, str]:
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return get_backend(named), f"{VARIABLE}={named}"
    ranked: list[tuple[float, str, Device]] = []
    refused: list[str] = []
    labels: dict[str, str] = {}
    for name in _names():
        if providers.needs_naming(name):
            continue
        try:
            provider = providers.provider(name)
            if provider is None or isinstance(provider, providers.Opener):
                continue
            labels[name] = providers.label(name, provider)
            for device in providers.listed(name, provider):
                rank = providers.preference(name, provider, device)
                if rank >= 0:
                    ranked.append((rank, name, device))
        except BackendError as error:
            refused.append(str(error))
    ranked.sort(key=lambda entry: -entry[0])
    for rank, name, device in ranked:
        try:
            backend = get_backend(device)
        except BackendError as error:
            refused.append(str(error))
            continue
        if rank <= PREFER_REFERENCE:
            return backend, f"no other device can be used: {'; '.join(refused)}" if refused else "there is no other"
        return backend, f"the first {labels[name]} device that works"
    raise BackendError(f"no device works: {'; '.join(refused)}")


def set_backend(selection: Selection) -> Backend:
    """Use a backend, in this process, wherever none is named. **Blocks** while a device is tried for the first time.

    Parameters
    ----------
    selection : str, Device, Backend or None
        As in :func:`get_backend`. None goes back to what the environment says.

    Returns
    -------
    Backend
        The one that is the default now.

    Raises
    ------
    BackendError
        If there is no such backend; the default stays as it was.

    Examples
    --------
    >>> import netcl
    >>> before = netcl.backends.default_backend()
    >>> netcl.set_backend("numpy").device.backend
    'numpy'
    >>> _ = netcl.set_backend(before)
    """
    global _default, _why
    if selection is None:
        with _lock:
            _default = None
        return _decide()
    backend = get_backend(selection)
    with _lock:
        _default, _why = backend, "set_backend()"
    return backend


@contextmanager
def use_backend(selection: Selection) -> Iterator[Backend]:
    """Use a backend inside a ``with`` block, wherever none is named there. **Blocks** as :func:`get_backend` does.

    Other threads and asynchronous tasks are not affected.

    Parameters
    ----------
    selection : str, Device, Backend or None
        As in :func:`get_backend`.

    Raises
    ------
    BackendError
        If there is no such backend.

    Examples
    --------
    >>> import netcl
    >>> with netcl.use_backend("numpy"):
    ...     netcl.zeros(3).device.backend
    'numpy'
    """
    backend = get_backend(selection)
    token = _scoped.set(backend)
    try:
        yield backend
    finally:
        _scoped.reset(token)


def devices(*, probe: bool = False) -> list[DeviceStatus]:
    """Every device there is, whether it works, and which is the default. **Blocks** while devices are tried.

    Parameters
    ----------
    probe : bool, default False
        Try every device anew, also simulators, instead of reading what was found before.

    Examples
    --------
    >>> import netcl
    >>> [row.healthy for row in netcl.devices() if row.device.backend == "numpy"]
    [True]
    """
    probe = flag("probe", probe)
    rows = [row for name in _names() for row in _rows(name, probe=probe)]
    try:
        current = default_backend().device
    except BackendError:
        return rows
    why = "use_backend()" if _scoped.get() is not None else _why
    return [
        DeviceStatus(row.device, row.healthy, row.reason, True, why) if row.device == current else row for row in rows
    ]


def _rows(name: str, *, probe: bool) -> list[DeviceStatus]:
    """The devices of one backend. What is not installed has none; a plug-in that is broken has a reason."""
    if providers.needs_naming(name):
        row = DeviceStatus(Device(name), None, "loaded, and used, only when named")
        return [row] if _is_installed(name) else []
    try:
        provider = providers.provider(name)
        if provider is None:
            return []
        if isinstance(provider, providers.Opener):
            return [DeviceStatus(get_backend(name).device, True, "the plug-in opened it")]
        devices = sorted(providers.listed(name, provider), key=lambda device: device.index)
        if not devices:
            return []
        with ThreadPoolExecutor(len(devices)) as threads:
            found = list(threads.map(lambda device: _health(name, provider, device, probe=probe), devices))
    except BackendError as error:
        return [] if name in BUILT_IN else [DeviceStatus(Device(name), False, str(error))]
    return [DeviceStatus(device, *known) for device, known in zip(devices, found, strict=True)]


def _health(name: str, provider: BackendProvider, device: Device, *, probe: bool) -> tuple[bool | None, str]:
    """Whether a device works, by its provider or else by opening it."""
    try:
        known = providers.health(name, provider, device, probe=probe)
        if known is not None:
            return known
        get_backend(device)
    except BackendError as error:
        return False, str(error)
    return True, "the plug-in opened it"


def dlpack_device_type(device: Device) -> int:
    """DLPack's number for the kind of a device, as its provider says."""
    provider = providers.provider(device.backend)
    return EXTENSION_DEVICE if provider is None else providers.dlpack_device_type(device.backend, provider, device)
