"""Providers by name, and which of their devices a text means. netcl's own are found like those of other packages."""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from netcl.backends.base import EXTENSION_DEVICE, NAMED_ONLY, Backend, BackendProvider, Device
from netcl.backends.built_in import BUILT_IN, INSTALL, ON_DEMAND
from netcl.errors import BackendError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger("netcl")

GROUP = "netcl.backends"
"""The entry-point group in which a package names its :class:`~netcl.backends.base.BackendProvider`."""

KINDS = ("cpu", "gpu", "accelerator")

_lock = threading.RLock()
_made: dict[str, BackendProvider] = {}
_origins: dict[str, str] = {}


def plug_ins() -> dict[str, EntryPoint]:
    """The entry points of other packages, by name."""
    from importlib import metadata  # takes a third of the time of importing numpy

    try:
        return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in BUILT_IN}
    except Exception as error:  # one damaged installation of any package is enough
        logger.warning("plug-ins cannot be listed, for the metadata of an installed package is damaged (%s)", error)
        return {}


def names() -> Iterator[str]:
    """Every backend's name: netcl's own first."""
    yield from BUILT_IN
    yield from sorted(plug_ins())


def provider(name: str) -> BackendProvider | None:
    """The provider of this name, made when it is first asked for; None if there is none.

    Raises
    ------
    BackendError
        If its runtime is not installed, or a plug-in is broken.
    """
    with _lock:
        found = _made.get(name)
        if found is None and name in BUILT_IN:
            module, _, attribute = BUILT_IN[name].partition(":")
            found = _made[name] = getattr(import_module(module), attribute)()
        if found is None:
            point = plug_ins().get(name)
            if point is not None:
                _origins[name] = f"the backend {name!r} ({point.value})"
                found = _of_plug_in(_origins[name], point)
                if not isinstance(found, Opener):  # whose package may be repaired meanwhile
                    _made[name] = found
        return found


def needs_naming(name: str) -> bool:
    """Whether a provider has not been asked for and is not to be made for a list of devices."""
    return name in ON_DEMAND and name not in _made


def listed(name: str, found: BackendProvider) -> Sequence[Device]:
    """Every device of a provider, the one to prefer first.

    Raises
    ------
    BackendError
        If the runtime cannot be used, or a plug-in is broken.
    """
    devices = _guarded(name, "cannot list its devices", lambda: list(found.devices()))
    seen: set[int] = set()
    for device in devices:
        if not isinstance(device, Device):
            raise BackendError(
                f"{_origins.get(name, name)} must list objects of type netcl.backends.base.Device, one is of type "
                f"{type(device).__name__}; repair or uninstall its package"
            )
        if device.backend != name:
            raise BackendError(
                f"{_origins.get(name, name)} must list devices of its own name, one is {str(device)!r}; repair or "
                "uninstall its package"
            )
        if device.index in seen:
            raise BackendError(
                f"{_origins.get(name, name)} must number its devices, two are {str(device)!r}; repair or uninstall its "
                "package"
            )
        seen.add(device.index)
    return sorted(devices, key=lambda device: -preference(name, found, device))


def preference(name: str, found: BackendProvider, device: Device) -> float:
    """How a device ranks; negative if it is used only when named."""
    return float(_guarded(name, f"cannot rank {device}", lambda: float(found.preference(device))))


def health(name: str, found: BackendProvider, device: Device, *, probe: bool) -> tuple[bool | None, str] | None:
    """Whether a device works, and how that is known; None if its provider cannot say. **Blocks** while it is tried.

    Raises
    ------
    BackendError
        If a plug-in is broken.
    """
    own: Callable[..., Any] | None = getattr(found, "health", None)
    if own is None:
        return None

    def asked() -> tuple[bool | None, str]:
        works, reason = own(device, probe=probe)
        return None if works is None else bool(works), str(reason)

    answer: tuple[bool | None, str] = _guarded(name, f"cannot say whether {device} works", asked)
    return answer


def dlpack_device_type(name: str, found: BackendProvider, device: Device) -> int:
    """DLPack's number for the kind of a device."""
    return int(_guarded(name, f"cannot name {device} for DLPack", lambda: int(found.dlpack_device_type(device))))


def label(name: str, found: BackendProvider) -> str:
    """What a backend is called in a sentence."""
    return str(getattr(found, "label", name))


def matching(name: str, found: BackendProvider, selector: str) -> list[Device]:
    """The devices that ``selector`` means, best first: a number, a kind, or part of a platform's or device's name.

    Nothing stands for every device that is used without a name. Platforms go before names, for a CPU runtime's devices
    carry the name of the processor, which another runtime may have in its own.
    """
    devices = listed(name, found)
    if selector.isdecimal():
        return [device for device in devices if device.index == int(selector)]
    wanted = selector.lower()
    if not wanted or wanted in KINDS:
        unnamed = [d for d in devices if preference(name, found, d) >= 0 or not any_unnamed(name, found, devices)]
        return [device for device in unnamed if not wanted or device.kind == wanted]
    return by_platform(devices, wanted) or [device for device in devices if wanted in device.name.lower()]


def by_platform(devices: Sequence[Device], part: str) -> list[Device]:
    """Those whose platform, or what else they are called, has this part."""
    return [device for device in devices if part.lower() in f"{device.platform}\n{device.aliases}".lower()]


def any_unnamed(name: str, found: BackendProvider, devices: Sequence[Device]) -> bool:
    """Whether any of these devices is used without being named: of a backend that has none, its name is enough."""
    return any(preference(name, found, device) >= 0 for device in devices)


def candidates(name: str, found: BackendProvider, selector: str) -> list[Device]:
    """The devices that ``selector`` means, best first.

    Raises
    ------
    BackendError
        If there is none.
    """
    whole, _, part = selector.rpartition("/")
    divided = getattr(found, "part", None)
    if not (isinstance(divided, re.Pattern) and divided.fullmatch(part)):
        whole, part = selector, ""
    chosen = matching(name, found, whole)
    if not chosen:
        known = ", ".join(f"{device} ({device.name}, {device.platform})" for device in listed(name, found))
        raise BackendError(
            f"no device matches {f'{name}:{selector}'!r}; there are {known}: give a number, cpu, gpu or part of a "
            f"name; {hint(name, found)}or {INSTALL}"
        )
    return [replace(device, part=part) for device in chosen] if part else chosen


def hint(name: str, found: BackendProvider) -> str:
    """What a provider has to say of devices that are missing."""
    own: Callable[[], str] | None = getattr(found, "hint", None)
    return "" if own is None else str(_guarded(name, "cannot say what is missing", own))


def open_first(name: str, found: BackendProvider, selector: str, known: dict[str, Backend]) -> Backend:
    """The backend on the first device that works of those that ``selector`` means; ``known`` has what is open.

    Raises
    ------
    BackendError
        If there is no such device, or none of them works.
    """
    if isinstance(found, Opener):
        return found.open_selected(selector)
    failed: list[str] = []
    for device in candidates(name, found, selector):
        backend = known.get(str(device))
        if backend is not None:
            return backend
        try:
            return open_device(name, found, device)
        except BackendError as error:
            failed.append(str(error))
    raise BackendError("; ".join(failed))


def open_device(name: str, found: BackendProvider, device: Device) -> Backend:
    """The backend on a device.

    Raises
    ------
    BackendError
        If it does not work, or a plug-in is broken.
    """
    backend = _guarded(name, f"cannot open {device}", lambda: found.open(device))
    return _checked(_origins.get(name, name), name, backend)


class Opener:
    """A function ``open(selector) -> Backend``, as an entry point could name before there were providers."""

    def __init__(self, named: str, name: str, function: Callable[[str], Backend]) -> None:
        self._named, self._name, self._function = named, name, function

    def open_selected(self, selector: str) -> Backend:
        """What the function opens."""
        backend = _call(f"{self._named} cannot be opened", lambda: self._function(selector))
        return _checked(self._named, self._name, backend)

    def devices(self) -> Sequence[Device]:
        """The one that it opens without a selector."""
        return (self.open_selected("").device,)

    def open(self, device: Device) -> Backend:
        """The same, by its number."""
        return self.open_selected("")

    def preference(self, device: Device) -> float:
        """Used only when it is named."""
        return NAMED_ONLY

    def dlpack_device_type(self, device: Device) -> int:
        """Nothing is known of its memory."""
        return EXTENSION_DEVICE


def _of_plug_in(named: str, point: EntryPoint) -> BackendProvider:
    """What an entry point stands for. Whatever it does instead, ending the process included, is a BackendError."""
    loaded = _call(f"{named} cannot be imported", point.load)
    if isinstance(loaded, BackendProvider) and not isinstance(loaded, type):
        return loaded
    if not callable(loaded):
        raise BackendError(
            f"{named} must be a BackendProvider, or a function or class that makes one, and is of type "
            f"{type(loaded).__name__}; repair or uninstall its package"
        )
    if _takes_a_selector(loaded):
        return Opener(named, point.name, loaded)
    made = _call(f"{named} cannot be made", loaded)
    if not isinstance(made, BackendProvider):
        raise BackendError(
            f"{named} must make a BackendProvider (devices, open, preference, dlpack_device_type), and made an object "
            f"of type {type(made).__name__}; repair or uninstall its package"
        )
    return made


def _takes_a_selector(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a function in C
        return False
    return False


def _checked(named: str, name: str, backend: Any) -> Backend:
    device = _call(f"{named} cannot name its device", lambda: getattr(backend, "device", None))
    if not isinstance(device, Device):
        raise BackendError(
            f"{named} must return a backend, whose device is a netcl.backends.base.Device; it returned an object of "
            f"type {type(backend).__name__} with a device of type {type(device).__name__}; repair or uninstall its "
            "package"
        )
    if device.backend != name:
        raise BackendError(
            f"{named} must return a backend of its own name, its device is {str(device)!r}; repair or uninstall its "
            "package"
        )
    opened: Backend = backend
    return opened


def _guarded(name: str, failure: str, call: Callable[[], Any]) -> Any:
    """What a provider answers; netcl's own raise what they raise."""
    return call() if name in BUILT_IN else _call(f"{_origins.get(name, name)} {failure}", call)


def _call(failure: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (BackendError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BackendError(f"{failure} ({said}); repair or uninstall its package") from error
