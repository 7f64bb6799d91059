"""OpenCL runtimes that pip installed, made visible to the loader; and the folder in which netcl keeps what it makes.

The loader inside pyopencl's wheel lists the system's runtimes and those in pyopencl's own folder (PoCL from PyPI), but
not Intel's, whose wheel carries a placeholder instead of a path. ``OCL_ICD_VENDORS`` replaces the system's list, so the
folder made here repeats it. The loader reads the variable once; where it has read it, or no folder can be made, the
runtime is asked for its platform directly. What the user set is never touched.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcl.errors import BackendError
from netcl.files import private_folder, read_regular, write_private

if TYPE_CHECKING:
    import pyopencl as cl

logger = logging.getLogger("netcl")

USER_VARIABLES = ("OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH")
"""If one of these is set, the user has said which runtimes to list."""

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")

INTEL_LIBRARIES = ("libintelocl.so", "intelocl64.dll")

CACHE_VARIABLE = "NETCL_CACHE_DIR"
"""The environment variable that names the folder for what can be made again."""

POCL_VARIABLE = "POCL_CACHE_DIR"
"""Where PoCL keeps the kernels that it built; if it cannot write there, it lists no device."""

INVOKER_VARIABLE = "PYOPENCL_NO_CACHE"
"""Keeps pyopencl from its cache of generated Python, which it unpickles from a folder outside netcl's."""

INSTALL = 'pip install "netcl[cpu]" or "netcl[pocl]" for a CPU runtime, or install the driver of your GPU'

ROOM = 1 << 25
"""Bytes that must be free where PoCL keeps kernels, for it fails if it cannot write them."""

_NOWHERE = Path(os.devnull) / "netcl"
"""Where there is no place for a cache: a folder that cannot be made, so that callers need no case for it."""

_ICD2_TAG = 0x4F50454E434C3331
"""First entry of the dispatch table of a runtime whose platforms the loader has to prepare before they are used."""

_TEMPORARY = "netcl-temporary-"

_unlisted: list[Path] = []
"""Runtimes of this environment that the loader is not known to list."""

_registered: dict[str, str] = {}
"""What :func:`register_installed_icds` has set in the environment."""

_reported: list[str] = []
"""Why the cache is not used, once it has been said."""


# Folders


def cache_folder() -> Path:
    """Where netcl keeps what can be made again: ``$NETCL_CACHE_DIR``, or the platform's place for caches."""
    own = os.environ.get(CACHE_VARIABLE, "").strip()
    if own:
        folder = os.path.expanduser(own)
        return _NOWHERE if folder.startswith("~") else Path(os.path.abspath(folder))
    # pyopencl brings it; where there is no pyopencl, nothing is kept.
    try:
        import platformdirs

        found = Path(platformdirs.user_cache_dir("netcl", appauthor=False))
    except (ImportError, RuntimeError):  # the latter where there is no home
        return _NOWHERE
    home = os.path.expanduser("~")
    # A home that does not exist, as system users have, must not be made.
    if not found.is_absolute() or (found.is_relative_to(home) and not os.path.isdir(home)):
        return _NOWHERE
    return found


def cache_subfolder(name: str) -> Path:
    """The folder ``name`` in netcl's own, made if it is missing; both are this user's alone.

    Raises
    ------
    OSError
        If it cannot be made, or somebody else could write to it.
    """
    return private_folder(own_folder() / name)


def own_folder() -> Path:
    """:func:`cache_folder`, made if it is missing, and this user's alone.

    Raises
    ------
    OSError
        If there is no place for it, it cannot be made, or somebody else could write to it.
    """
    folder = cache_folder()
    if folder == _NOWHERE:
        raise OSError("there is no home folder")
    return private_folder(folder)


def report_cache(error: OSError) -> None:
    """Say once in a process that a cache cannot be used, which costs time and nothing else."""
    if not _reported:
        _reported.append(str(error))
        logger.warning(
            "what is built here is not kept for the next process (%s); %s can name another folder",
            error,
            CACHE_VARIABLE,
        )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path | None]:
    """A new, empty folder for the time of a ``with`` block; None where none can be made."""
    made = _temporary_folder()
    try:
        yield made
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _temporary_folder() -> Path | None:
    for place in (own_folder, tempfile.gettempdir):
        with contextlib.suppress(OSError):
            where = str(place())
            if _has_room(where):
                return Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=where))
    return None


def _has_room(folder: str | Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= ROOM


# Runtimes


def require() -> None:
    """Make sure that pyopencl can be imported.

    Raises
    ------
    BackendError
    """
    try:
        _import_pyopencl()
    except ImportError as error:
        raise BackendError(f"OpenCL needs pyopencl, which cannot be imported ({error}); {INSTALL}") from error


def register_installed_icds() -> None:
    """Let this process see the runtimes that pip installed, and keep what they write in netcl's folder.

    What the user chose in the environment stays as it is.
    """
    is_late = sys.modules.get("pyopencl") is not None
    place = os.environ.get(POCL_VARIABLE, "")
    if not place or Path(place).name.startswith(_TEMPORARY):  # the latter goes when the process goes that made it
        _place_pocl()
    _unlisted.clear()
    if not _chosen():
        _list(installed_libraries(), is_late)
    with contextlib.suppress(ImportError):  # require() says so to those who need it
        _import_pyopencl()


def _list(libraries: list[Path], is_late: bool) -> None:
    """Name runtimes to the loader, and note those that it may not list all the same."""
    if not libraries:
        return
    if sys.platform == "win32":  # there the loader adds these to what the system has registered
        _set("OCL_ICD_FILENAMES", os.pathsep.join(map(str, libraries)))
    elif sys.platform != "darwin":
        try:
            _set("OCL_ICD_VENDORS", str(vendors_folder(libraries, SYSTEM_VENDORS)))
        except OSError as error:
            report_cache(error)
            is_late = True
    if is_late:
        _unlisted[:] = libraries


def _set(name: str, value: str) -> None:
    os.environ[name] = _registered[name] = value


def is_own(name: str) -> bool:
    """Whether :func:`register_installed_icds` has set this variable, here or in a process that this one has it from."""
    value = os.environ.get(name, "")
    folder = Path(value)
    return value == _registered.get(name) or (folder.name.startswith("vendors-") and folder.parent == cache_folder())


def _chosen() -> str:
    """The variable by which the user has said which runtimes to list; empty if there is none."""
    return next((name for name in USER_VARIABLES if os.environ.get(name) and not is_own(name)), "")


def _import_pyopencl() -> None:
    """Import pyopencl without the cache from which it unpickles, unless the user has decided on that.

    The cache of programs that pyopencl keeps goes with it; netcl has its own.
    """
    loaded = sys.modules.get("pyopencl")
    if INVOKER_VARIABLE in os.environ:
        import pyopencl
    elif loaded is not None:  # the variable has been read, and its outcome stands here
        vars(loaded)["_PYOPENCL_NO_CACHE"] = True
    else:
        os.environ[INVOKER_VARIABLE] = "1"
        try:
            import pyopencl  # noqa: F401
        finally:
            del os.environ[INVOKER_VARIABLE]


def platforms() -> list[cl.Platform]:
    """Every OpenCL platform, each once: those that the loader lists, and those that it can no longer learn of."""
    import pyopencl as cl

    try:
        found = {platform.int_ptr: platform for platform in cl.get_platforms()}
    except cl.Error:  # the loader calls it an error that there is none
        found = {}
    for library in _unlisted:
        try:
            for address in _platforms_of(library):
                found.setdefault(address, cl.Platform.from_int_ptr(address))
        except (OSError, AttributeError) as error:
            logger.warning("%s is not listed (%s): %s", library.name, error, _remedy(library))
    return list(found.values())


def unlisted() -> str:
    """Why a runtime that pip installed may not be listed, and the remedy; empty if there is none."""
    name = _chosen()
    if not name:
        return "; ".join(f"{library.name} is installed: {_remedy(library)}" for library in _unlisted)
    hidden = [library.name for library in installed_libraries() if library.name not in os.environ[name]]
    return f"{name}={os.environ[name]} hides {', '.join(hidden)}, which is installed: unset it" if hidden else ""


def _remedy(library: Path) -> str:
    return (
        "pyopencl was imported and used before netcl, which hides it; import netcl and name a device before pyopencl "
        f"is used, or set OCL_ICD_VENDORS={library} in the environment"
    )


def _platforms_of(library: Path) -> list[int]:
    """The platforms of a runtime, asked for as the loader does it.

    Raises
    ------
    OSError
        If it cannot be loaded or answers with an error.
    """
    loaded = ctypes.CDLL(str(library))
    address_of = loaded.clGetExtensionFunctionAddress
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    address = address_of(b"clIcdGetPlatformIDsKHR")
    if not address:
        raise OSError("it is not a runtime for a loader")
    ask: Any = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(address)
    count = ctypes.c_uint(0)
    status = ask(0, None, ctypes.addressof(count))
    found = (ctypes.c_void_p * max(count.value, 1))()
    status = status or ask(count.value, ctypes.addressof(found), None)
    if status:
        raise OSError(f"it answers with the error {status}")
    addresses = [address for address in found[: count.value] if address]
    for platform in addresses:
        table = ctypes.c_size_t.from_address(platform).value
        if not table or ctypes.c_uint64.from_address(table).value == _ICD2_TAG:
            raise OSError("it can be used through its loader alone")
    return addresses


def installed_libraries() -> list[Path]:
    """Runtimes of this Python environment that the loader does not find by itself."""
    found = _library("intel-opencl-rt", INTEL_LIBRARIES)
    if found and not _is_installed("intel-cmplr-lib-rt"):
        logger.warning(
            "intel-opencl-rt needs intel-cmplr-lib-rt, which is not installed: pip install intel-cmplr-lib-rt"
        )
        found = []
    if not _loader_is_pyopencls():
        found += _library("pocl-binary-distribution", ("libpocl",))
    return found


def _library(distribution: str, names: tuple[str, ...]) -> list[Path]:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    matching = [f for f in files if f.name in names or (f.suffix == ".so" and f.name.split("-")[0] in names)]
    paths = [Path(str(f.locate())).resolve() for f in matching]
    return [path for path in paths if path.is_file()][:1]


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _loader_is_pyopencls() -> bool:
    """Whether pyopencl carries its own loader, which also lists the PoCL that pip puts next to it."""
    try:
        files = metadata.files("pyopencl") or []
    except metadata.PackageNotFoundError:
        return False
    return any(f.name.startswith("libOpenCL") for f in files)


def vendors_folder(libraries: list[Path], system: Path) -> Path:
    """A folder with an ``.icd`` file for each library and a copy of each in ``system``, named by its contents.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    texts = {f"netcl-{path.name}.icd": f"{path}\n".encode() for path in libraries}
    if os.path.isdir(system):
        for icd in sorted(system.glob("*.icd")):
            try:
                texts[icd.name] = read_regular(icd, 1 << 16)
            except OSError:
                logger.info("%s cannot be read; its runtime stays unlisted", icd)
    digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
    folder = cache_subfolder(f"vendors-{digest}")
    for name, text in texts.items():
        try:
            is_there = read_regular(folder / name, 1 << 16, private=True) == text
        except OSError:
            is_there = False
        if not is_there:  # each file takes its name when it is whole, so other processes may do the same
            write_private(folder / name, text)
    return folder


def _place_pocl() -> None:
    """Let PoCL keep its kernels in netcl's folder, or for the time of this process in a temporary one."""
    try:
        folder = cache_subfolder("pocl")
        if not _has_room(folder):
            raise OSError(f"{folder} has less than {ROOM} bytes left, or cannot be written")
    except OSError as error:
        report_cache(error)
        made = _temporary_folder()
        if made is None:
            return
        atexit.register(_remove, made, os.getpid())
        folder = made
    _set(POCL_VARIABLE, str(folder))


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves what its parent still uses
        shutil.rmtree(folder, ignore_errors=True)
