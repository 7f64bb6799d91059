"""A folder in which whatever is imported leaves a mark, and with names that a careless reader stumbles over."""

from __future__ import annotations

from pathlib import Path

MODULES = (
    "abc", "argparse", "array", "ast", "base64", "bisect", "calendar", "code", "collections", "copy", "ctypes",
    "dataclasses", "datetime", "enum", "functools", "glob", "gzip", "hashlib", "heapq", "importlib", "inspect", "io",
    "json", "locale", "logging", "math", "netcl", "numbers", "numpy", "operator", "os", "pathlib", "pickle",
    "platform", "platformdirs", "pyopencl", "pytools", "queue", "random", "re", "resource", "runpy", "secrets",
    "select", "shutil", "signal", "site", "sitecustomize", "socket", "sqlite3", "stat", "statistics", "string",
    "struct", "subprocess", "tempfile", "test", "textwrap", "threading", "time", "token", "tokenize", "tomllib",
    "traceback", "types", "typing", "usercustomize", "uuid", "warnings", "weakref", "zlib", "array_api_compat",
    "matplotlib", "rich", "torch", "tqdm", "mpi4py", "__main__",
)  # fmt: skip

NAMES = (
    "-c", "--help", "-", "a\nb.py", "$(touch run)", "; touch run", "'\"", " ", "é\u202e.py", "*", "%s{0}", "x" * 200,
    "evil.icd", "tuning.json", "pyvenv.cfg", "libOpenCL.so.1", "libintelocl.so", "kernels", "~", "netcl.pth",
)  # fmt: skip


def plant(folder: Path, marked: Path) -> Path:
    """Make the folder; a module in it or below it that runs leaves a file of its name in ``marked``."""
    folder.mkdir()
    marked.mkdir()
    for place in (folder, folder / "below"):
        place.mkdir(exist_ok=True)
        for name in MODULES:
            trap = f"open({str(marked / name)!r}, 'w').close()\nraise SystemExit('run from the working directory')\n"
            (place / f"{name}.py").write_text(trap)
    for name in NAMES:
        (folder / name).write_bytes(b"\x80 no text\n")
    return folder


def marks(marked: Path) -> list[str]:
    """What has run."""
    return sorted(path.name for path in marked.iterdir())
