"""OpenCL runtimes that pip installed, made visible to the loader before pyopencl is imported.

The loader inside pyopencl's wheel lists the system's runtimes and those in pyopencl's own folder (PoCL from PyPI), but
not Intel's, whose wheel carries a placeholder instead of a path. ``OCL_ICD_VENDORS`` replaces the system's list, so the
folder made here repeats it. What the user set is never touched.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from netcl.errors import BackendError

logger = logging.getLogger("netcl")

USER_VARIABLES = ("OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH")
"""If one of these is set, the user has said which runtimes to list."""

SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")

INTEL_LIBRARIES = ("libintelocl.so", "intelocl64.dll")


CACHE_VARIABLE = "NETCL_CACHE_DIR"
"""The environment variable that names the folder for what can be made again."""


def cache_folder() -> Path:
    """Where netcl keeps what can be made again: ``$NETCL_CACHE_DIR``, or the platform's place for caches."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen) / "netcl"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "netcl" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "netcl"
    return Path.home() / ".cache" / "netcl"


INSTALL = 'pip install "netcl[cpu]" or "netcl[pocl]" for a CPU runtime, or install the driver of your GPU'


def require() -> None:
    """Make sure that pyopencl can be imported.

    Raises
    ------
    BackendError
    """
    try:
        import pyopencl  # noqa: F401
    except ImportError as error:
        raise BackendError(f"OpenCL needs pyopencl, which cannot be imported ({error}); {INSTALL}") from error


def expose() -> None:
    """Let the OpenCL loader of this process see the runtimes that pip installed, unless the user chose otherwise."""
    if any(os.environ.get(name) for name in USER_VARIABLES):
        return
    libraries = installed_libraries()
    if not libraries:
        return
    if "pyopencl" in sys.modules:
        logger.info(
            "pyopencl was imported before netcl, so %s stays unlisted; import netcl and use it first", libraries[0].name
        )
        return
    if sys.platform == "win32":  # there the loader adds these to what the system has registered
        os.environ["OCL_ICD_FILENAMES"] = os.pathsep.join(map(str, libraries))
    elif sys.platform != "darwin":
        os.environ["OCL_ICD_VENDORS"] = str(vendors_folder(libraries, SYSTEM_VENDORS))


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
    """A folder with an ``.icd`` file for each library and a copy of each in ``system``, named by its contents."""
    texts = {f"netcl-{path.name}.icd": f"{path}\n" for path in libraries}
    if system.is_dir():
        for icd in sorted(system.glob("*.icd")):
            try:
                texts[icd.name] = icd.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                logger.info("%s cannot be read; its runtime stays unlisted", icd)
    digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
    folder = cache_folder() / f"vendors-{digest}"
    if _holds(folder, texts):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="vendors-", dir=folder.parent))
    except OSError:  # no place to keep it: make it anew in each process
        made = Path(tempfile.mkdtemp(prefix="netcl-vendors-"))
    for name, text in texts.items():
        (made / name).write_text(text, encoding="utf-8")
    try:
        made.rename(folder)
    except OSError:  # another process was first, or the old one is damaged
        return folder if _holds(folder, texts) else made
    return folder


def _holds(folder: Path, texts: dict[str, str]) -> bool:
    try:
        return {icd.name: icd.read_text(encoding="utf-8") for icd in folder.iterdir()} == texts
    except (OSError, UnicodeDecodeError):
        return False
