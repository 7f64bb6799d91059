"""Backends by name: which there are, which one is used, and how a plug-in adds its own.

A backend is imported when it is first asked for, so this module needs neither NumPy nor pyopencl.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from netcl.backends.base import Backend, Device
from netcl.errors import BackendError
from netcl.validation import flag, shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "DeviceStatus", "available", "default_backend", "devices", "get_backend", "set_backend", "use_backend",
]  # fmt: skip

logger = logging.getLogger("netcl")

GROUP = "netcl.backends"
"""The entry-point group in which a package names its ``factory(selector) -> Backend``."""

VARIABLE = "NETCL_BACKEND"

INSTALL = (
    'pip install "netcl[cpu]" or "netcl[pocl]" adds OpenCL on the CPU, "netcl[opencl]" OpenCL with your own driver'
)

Factory: TypeAlias = Callable[[str], Backend]
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


def _numpy(selector: str) -> Backend:
    from netcl.backends.reference import ReferenceBackend

    if selector not in ("", "0"):
        raise BackendError(f'NumPy has one device, "numpy"; got "numpy:{selector}"')
    return ReferenceBackend()


def _opencl(selector: str) -> Backend:
    from netcl.backends.opencl.device.icd import require

    require()
    from netcl.backends.opencl.backend import open_backend

    return open_backend(selector)


_BUILT_IN: dict[str, Factory] = {"numpy": _numpy, "opencl": _opencl}

_lock = threading.RLock()
_backends: dict[str, Backend] = {}
_default: Backend | None = None
_why = ""
_scoped: ContextVar[Backend | None] = ContextVar("netcl_backend", default=None)


def _plug_ins() -> dict[str, EntryPoint]:
    from importlib import metadata  # takes a third of the time of importing numpy

    try:
        return {point.name: point for point in metadata.entry_points(group=GROUP)}
    except Exception as error:  # one damaged installation of any package is enough
        logger.warning("plug-ins cannot be listed, for the metadata of an installed package is damaged (%s)", error)
        return {}


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
    factory = _BUILT_IN.get(name.lower())
    if factory is not None:
        return factory(selector)
    point = _plug_ins().get(name)
    if point is not None:
        return _from_plug_in(point, selector)
    if text and not selector:
        index = _opencl_device_named(text)
        if index is not None:
            return _opencl(str(index))
    raise BackendError(
        f"unknown backend {text!r}; available are {', '.join(available())}. Give one of them, or opencl: and a number, "
        f"cpu, gpu or part of a device's name; {INSTALL}"
    )


def _from_plug_in(point: EntryPoint, selector: str) -> Backend:
    """What a plug-in opens. Whatever it does instead, ending the process included, is a BackendError."""
    named = f"the backend {point.name!r} ({point.value})"
    factory = _of_plug_in(f"{named} cannot be imported", point.load)
    if not callable(factory):
        raise BackendError(
            f"{named} must be a function of a selector, and is of type {type(factory).__name__}; "
            "repair or uninstall its package"
        )
    backend: Backend = _of_plug_in(f"{named} cannot be opened", lambda: factory(selector))
    device = _of_plug_in(f"{named} cannot name its device", lambda: getattr(backend, "device", None))
    if not isinstance(device, Device):
        raise BackendError(
            f"{named} must return a backend, whose device is a netcl.backends.base.Device; it returned an object of "
            f"type {type(backend).__name__} with a device of type {type(device).__name__}; repair or uninstall its "
            "package"
        )
    if device.backend != point.name:
        raise BackendError(
            f"{named} must return a backend of its own name, its device is {str(device)!r}; repair or uninstall its "
            "package"
        )
    return backend


def _of_plug_in(failure: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (BackendError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BackendError(f"{failure} ({said}); repair or uninstall its package") from error


def _opencl_device_named(part: str) -> int | None:
    from netcl.backends.opencl.device.icd import require

    try:
        require()
    except BackendError:
        return None
    from netcl.backends.opencl.device.selection import device_infos, matches

    found = matches(part)
    if len(found) > 1:
        listed = ", ".join(
            f"{device_infos()[i]} ({device_infos()[i].name}, {device_infos()[i].platform})" for i in found
        )
        raise BackendError(f"{part!r} means several devices: {listed}; name one of them")
    return found[0] if found else None


def available() -> tuple[str, ...]:
    """Names of the backends that can be used here. **Blocks** while OpenCL devices are tried for the first time.

    Examples
    --------
    >>> from netcl.backends import available
    >>> "numpy" in available()
    True
    """
    built_in = ("numpy", "opencl") if _opencl_works() else ("numpy",)
    return (*built_in, *sorted(_plug_ins()))


def _opencl_works() -> bool:
    from netcl.backends.opencl.device.icd import require

    try:
        require()
        from netcl.backends.opencl.device.selection import choose

        choose()
    except BackendError:
        return False
    return True


def default_backend() -> Backend:
    """The backend used where none is named. **Blocks** while a device is tried for the first time.

    In this order: that of the innermost :func:`use_backend`; that of :func:`set_backend`; the one named by the
    environment variable ``NETCL_BACKEND``; the first OpenCL device that works (GPUs first, then Intel's CPU runtime,
    then PoCL); NumPy.

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
    try:
        return get_backend("opencl"), "the first OpenCL device that works"
    except BackendError as error:
        return get_backend("numpy"), f"OpenCL cannot be used: {error}"


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
    rows = [DeviceStatus(get_backend("numpy").device, True, "always works")]
    rows += _opencl_rows(try_simulators=probe, probe=probe)
    for name in sorted(_plug_ins()):
        try:
            rows.append(DeviceStatus(get_backend(name).device, True, "the plug-in opened it"))
        except BackendError as error:  # a reason, not a failure of the list
            rows.append(DeviceStatus(Device(name), False, str(error)))
    try:
        current = default_backend().device
    except BackendError:
        return rows
    why = "use_backend()" if _scoped.get() is not None else _why
    return [
        DeviceStatus(row.device, row.healthy, row.reason, True, why) if row.device == current else row for row in rows
    ]


def _opencl_rows(*, try_simulators: bool, probe: bool = False) -> list[DeviceStatus]:
    from concurrent.futures import ThreadPoolExecutor

    from netcl.backends.opencl.device.icd import require

    try:
        require()
    except BackendError:
        return []
    from netcl.backends.opencl.device import selection as opencl

    tried = [i for i, device in enumerate(opencl.list_devices()) if try_simulators or not opencl.is_simulator(device)]
    with ThreadPoolExecutor(max(len(tried), 1)) as threads:
        found = dict(zip(tried, threads.map(partial(opencl.health, fresh=probe), tried), strict=True))
    return [
        DeviceStatus(device, found[device.index].healthy, found[device.index].reason)
        if device.index in found
        else DeviceStatus(device, None, "a simulator: used, and tried, only when named")
        for device in opencl.device_infos()
    ]
