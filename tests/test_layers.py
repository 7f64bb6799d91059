"""The layer table of docs/design.md, held against every import in netcl/."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import module_graph
from benchmarks.module_graph import IMPOSED, Import, level
from netcl.child_process import run_python

ROOT = Path(__file__).resolve().parents[1]
FILES = module_graph.files(ROOT)
OPENCL = "netcl/backends/opencl"
REFERENCE = "netcl/backends/reference"
CODEGEN = [path for path in FILES if path.startswith(f"{OPENCL}/codegen/")]
OPERATIONS = [Path(path).stem for path in FILES if path.startswith(f"{OPENCL}/ops/") and "__init__" not in path]

# Third-party packages, and the files that may import them. A package that is not listed may be imported by none.
THIRD_PARTY = {
    "numpy": r"(?!.*/(base|protocol_types|errors|dtypes|strides|expression|array|arena)\.py$).*",
    "array_api_compat": r"netcl/(backends/reference/.*|host_arrays\.py)",
    "pyopencl": r"netcl/backends/opencl/device/.*",
    "platformdirs": r"netcl/backends/opencl/device/icd\.py",
    "pytest": r"netcl/testing/.*",
    "hypothesis": r"netcl/testing/.*",
    "tqdm": r"netcl/data/.*",
    "mpi4py": r"netcl/distributed/.*",
    "rich": r"netcl/cli/table\.py",
    "matplotlib": r"netcl/(cli/demo|optim/schedules/plot)\.py",
    "torch": r"netcl/(cli/bench|checkpoint/foreign)\.py",
}

# Classes over 20 methods: faces are as wide as what they face, and the others are named here until they are cut.
FACES = {"Tensor", "OpenCLBackend", "ReferenceBackend", "ComposedOperations"}
WIDE = {"GradScaler", "Module", "Node", "Optimizer"}


def strings(path: str) -> Iterator[tuple[int, str]]:
    """Line and value of every string constant that is neither a docstring nor the name of an attribute."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"), path)
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
            left_out.add(id(node.args[1]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


def imports(path: str) -> list[tuple[int, str]]:
    return list(module_graph.names(module_graph.parsed(ROOT, path)))


def classes(path: str) -> list[ast.ClassDef]:
    return [node for node in module_graph.parsed(ROOT, path).body if isinstance(node, ast.ClassDef)]


def test_the_table_covers_every_module_and_nothing_else():
    rows = module_graph.layers(ROOT)
    assert len(rows) > 10
    assert [path for path in FILES if level(path, rows) < 0] == []


@pytest.mark.parametrize("path", FILES)
def test_imports_come_from_the_layers_above(path):
    rows = module_graph.layers(ROOT)
    for line, name in imports(path):
        assert not name.startswith("."), f"{path}:{line}: relative import; write the full name"
        if name.split(".")[0] != "netcl" or name.startswith("netcl.kernels"):  # data, no code
            continue
        target = module_graph.module_file(ROOT, name)
        if (path, target) not in IMPOSED:
            up = module_graph.upward([Import(path, line, target)], rows)
            assert not up, f"{path}:{line} imports {target}, which stands in a later row of the table"


def test_no_module_imports_itself_by_way_of_others():
    assert module_graph.cycles(module_graph.imports(ROOT)) == []


def test_a_cycle_is_found():
    pairs = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("e", "e2"), ("e2", "e3"), ("e3", "e"), *IMPOSED]
    found = [Import(path, 1, target) for path, target in pairs]
    assert module_graph.cycles(found) == [["b", "c"], ["e", "e2", "e3"]]


@pytest.mark.parametrize("path", FILES)
def test_third_party_packages_stay_in_their_place(path):
    for line, name in imports(path):
        package = name.split(".")[0]
        if package == "netcl" or package in sys.stdlib_module_names:
            continue
        assert package in THIRD_PARTY, f"{path}:{line} imports {package}, which no layer may import"
        assert re.fullmatch(THIRD_PARTY[package], path), f"{path}:{line} must not import {package}"


def test_no_class_is_too_large():
    found = {one.name for one in module_graph.large_classes(ROOT)}
    assert found - FACES == WIDE, "a class over 20 methods is two classes; take out of the list what is cut"


# Rooms of the OpenCL backend

WITHOUT_PYOPENCL = """
import importlib, os
sys.modules["pyopencl"] = None
before = dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert "netcl.backends.opencl.device" not in sys.modules
print(len(sys.argv) - 1, "modules")
"""


def test_codegen_needs_no_opencl_and_changes_no_environment():
    names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in CODEGEN]
    # Without what a process of the same user has set that found runtimes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OCL_", "POCL_"))}
    outcome = run_python(f"exec({WITHOUT_PYOPENCL!r})", *names, timeout=60, environment=environment)
    assert outcome.status == 0, outcome
    assert outcome.output.split() == [str(len(CODEGEN)), "modules"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_a_kernel_a_class_and_a_test_of_its_name(name):
    path = f"{OPENCL}/ops/{name}.py"
    assert (ROOT / f"kernels/{name}.cl").is_file()
    assert (ROOT / f"tests/kernels/test_{name}.py").is_file()
    wanted = "".join(part.capitalize() for part in name.split("_"))
    (operation,) = [node for node in classes(path) if node.name == wanted]
    methods = [part.name for part in operation.body if isinstance(part, ast.FunctionDef)]
    assert name in methods
    assert "final" in [ast.unparse(decorator) for decorator in operation.decorator_list]


def test_every_call_of_the_protocols_is_an_operation():
    from netcl.backends.base import ArrayOperations, UpdateOperations

    calls = {name for protocol in (UpdateOperations, ArrayOperations) for name in vars(protocol) if name[0] != "_"}
    assert calls - {"alloc", "upload", "download", "synchronize", "norm_partials"} == set(OPERATIONS)


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith((OPENCL, REFERENCE))])
def test_no_class_inherits_an_implementation(path):
    for node in classes(path):
        bases = [ast.unparse(base) for base in node.bases]
        if node.name != "TorchNamespace":  # the standard's namespace, but for what torch has cheaper
            allowed = ([], ["NamedTuple"], ["Exception"], ["Protocol"])
            assert bases in allowed, f"{path}: {node.name} inherits {', '.join(bases)}"


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith(("netcl/optim/", "netcl/amp/"))])
def test_optimizers_know_no_concrete_backend(path):
    assert not [name for _, name in imports(path) if name.startswith(("netcl.backends.opencl", "netcl.backends.ref"))]
    named = [(line, text) for line, text in strings(path) if re.search(r"opencl|numpy|reference|pocl", text, re.I)]
    assert named == [], f"{path} names a backend"


@pytest.mark.parametrize("path", FILES)
def test_no_kernel_text_in_python(path):
    text = "\n".join(value for _, value in strings(path))
    assert not re.search(r"__(kernel|global|local|constant)\b|\bget_(global|local|group)_id\b|#pragma", text)


def test_the_checks_see_a_violation(tmp_path, monkeypatch):
    """The tests above can fail: a planted file breaks each rule."""
    (tmp_path / "netcl/optim").mkdir(parents=True)
    planted = tmp_path / "netcl/optim/planted.py"
    planted.write_text(
        "def step(backend):\n    import pyopencl\n    from netcl.nn import Linear\n"
        '    if backend.device.backend == "opencl":\n        return "__kernel void f() {}"\n'
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/design.md").write_text(
        "\n## The layers\n| module | idea |\n|---|---|\n| `optim/` | x |\n| `nn/` | x |\n"
    )
    (tmp_path / "netcl/nn").mkdir()
    path = "netcl/optim/planted.py"
    for check in (
        test_imports_come_from_the_layers_above,
        test_third_party_packages_stay_in_their_place,
        test_optimizers_know_no_concrete_backend,
        test_no_kernel_text_in_python,
    ):
        with pytest.raises(AssertionError):
            check(path)
