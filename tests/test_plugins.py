"""A package that registers backends is found, chosen, and held to the protocol like netcl's own."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from netcl import backends
from netcl.__main__ import main
from netcl.backends import available, devices, get_backend, providers
from netcl.backends.base import Device, Span
from netcl.dtypes import float32
from netcl.errors import BackendError
from netcl.testing import conformance

TESTS = Path(__file__).parent
SUITE = Path(conformance.__file__).parent


def test_the_plug_in_is_found_through_its_entry_point():
    assert "toy" in {point.name for point in metadata.entry_points(group="netcl.backends")}
    assert "toy" in available()


def test_the_plug_in_is_opened_once_and_computes():
    backend = get_backend("toy")
    assert str(backend.device) == "toy:0"
    assert get_backend(backend.device) is backend
    x = Span(backend.alloc(3, float32), 0, 3)
    backend.fill(x, 2.0)
    backend.axpy(0.5, x, x)
    np.testing.assert_array_equal(backend.download(x), [3.0, 3.0, 3.0])


def test_a_plug_in_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    folder = tmp_path / "netcl_broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: netcl-broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[netcl.backends]\nbroken = netcl_nowhere:open\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"'broken'.*netcl_nowhere"):
        get_backend("broken")


def install(folder, monkeypatch, code, points="broken = netcl_broken:open_it"):
    """A package with a backend, as importlib.metadata finds an installed one."""
    made = folder / "netcl_broken-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: netcl-broken\nVersion: 1.0\n")
    (made / "entry_points.txt").write_bytes(f"[netcl.backends]\n{points}\n".encode("latin-1"))
    (folder / "netcl_broken.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "netcl_broken", raising=False)
    monkeypatch.setattr(providers, "_made", dict(providers._made))


OF_ITS_OWN = "from netcl.backends.base import Device\n"
BROKEN = {
    "import exits": ("raise SystemExit(7)", "cannot be imported (SystemExit: 7)"),
    "import fails": ("import netcl_nowhere", "cannot be imported (ModuleNotFoundError"),
    "import is wrong": ("def (", "cannot be imported (SyntaxError"),
    "import ends": ("raise GeneratorExit", "cannot be imported (GeneratorExit)"),
    "import is endless": ("def f(): f()\nf()", "cannot be imported (RecursionError"),
    "nothing there": ("", "cannot be imported (AttributeError"),
    "no function": (
        "open_it = 3",
        "must be a BackendProvider, or a function or class that makes one, and is of type int",
    ),
    "nothing made": ("def open_it(): pass", "and made an object of type NoneType"),
    "opening exits": ("import sys\ndef open_it(selector): sys.exit('bye')", "cannot be opened (SystemExit: bye)"),
    "opening fails": ("def open_it(selector): raise OSError('no card')", "cannot be opened (OSError: no card)"),
    "opening ends": ("class E(BaseException): pass\ndef open_it(selector): raise E", "cannot be opened (E)"),
    "nothing opened": ("def open_it(selector): pass", "an object of type NoneType with a device of type NoneType"),
    "a number": ("def open_it(selector): return 3", "an object of type int"),
    "a class": ("class open_it:\n    def __init__(self, selector): self.device = 'gpu'", "with a device of type str"),
    "a device that fails": (
        "class open_it:\n    def __init__(self, selector): pass\n    @property\n    def device(self): raise SystemExit",
        "cannot name its device (SystemExit)",
    ),
    "somebody else's name": (
        OF_ITS_OWN + "class open_it:\n    def __init__(self, selector): self.device = Device('numpy')",
        "must return a backend of its own name, its device is 'numpy'",
    ),
}


PROVIDER = """
from netcl.backends.base import Device
class open_it:
    def devices(self): return [Device("broken", 0, "card")]
    def open(self, device): raise OSError("no card")
    def preference(self, device): return -1.0
    def dlpack_device_type(self, device): return 12
"""


def provider(method, body):
    """A provider that does something else in one of its methods."""
    return PROVIDER + f"    def {method}(self, *device, **options): {body}\n"


BROKEN |= {
    "making exits": (f"{PROVIDER}    def __init__(self): raise SystemExit(3)\n", "cannot be made (SystemExit: 3)"),
    "half a provider": ("class open_it:\n    def devices(self): return []", "an object of type open_it"),
    "devices fail": (provider("devices", "1 / 0"), "cannot list its devices (ZeroDivisionError"),
    "devices exit": (provider("devices", "raise SystemExit"), "cannot list its devices (SystemExit)"),
    "no devices": (provider("devices", "return [3]"), "must list objects of type netcl.backends.base.Device"),
    "devices of another": (provider("devices", "return [Device('numpy')]"), "must list devices of its own name"),
    "no rank": (provider("preference", "return 'high'"), "cannot rank broken:0 (ValueError"),
    "ranking ends": (provider("preference", "raise GeneratorExit"), "cannot rank broken:0 (GeneratorExit)"),
    "a card that is gone": (PROVIDER, "cannot open broken:0 (OSError: no card)"),
    "two of one number": (provider("devices", "return [Device('broken')] * 2"), "must number its devices, two are"),
    "a card that opens nothing": (provider("open", "return None"), "an object of type NoneType"),
}


UNWELL = {
    "health exits": ("raise SystemExit(2)", "cannot say whether broken:0 works (SystemExit: 2)"),
    "no answer": ("return None", "cannot say whether broken:0 works (TypeError"),
    "an answer": ("return False, 'too hot'", "too hot"),
}


@pytest.mark.parametrize("case", UNWELL)
def test_a_provider_may_say_itself_whether_a_device_works(case, tmp_path, monkeypatch):
    body, said = UNWELL[case]
    install(tmp_path, monkeypatch, provider("health", body))
    (row,) = [row for row in devices() if row.device.backend == "broken"]
    assert (row.healthy, said in row.reason) == (False, True)


def test_what_else_a_provider_offers_may_be_broken_too(tmp_path, monkeypatch):
    code = provider("hint", "1 / 0") + "    part = 3\n    def dlpack_device_type(self, device): raise SystemExit\n"
    install(tmp_path, monkeypatch, code)
    with pytest.raises(BackendError, match=r"cannot say what is missing \(ZeroDivisionError"):
        get_backend("broken:9")
    with pytest.raises(BackendError, match=r"cannot name broken:0 for DLPack \(SystemExit\)"):
        backends.dlpack_device_type(Device("broken"))


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plug_in_is_an_error_a_row_and_no_end(case, tmp_path, monkeypatch, capsys):
    code, said = BROKEN[case]
    install(tmp_path, monkeypatch, code)
    for name in ("broken", "broken:card"):
        with pytest.raises(BackendError, match=re.escape(said)) as refusal:
            get_backend(name)
        assert "'broken' (netcl_broken:open_it)" in str(refusal.value)
        assert "repair or uninstall its package" in str(refusal.value)
    (row,) = [row for row in devices() if row.device.backend == "broken"]
    assert (row.healthy, said in row.reason) == (False, True)
    assert main(["devices"]) == 0
    assert said in capsys.readouterr().out
    assert "broken" in available()
    assert get_backend("numpy").device.backend == "numpy"


def test_a_plug_ins_own_refusal_is_passed_on(tmp_path, monkeypatch):
    install(
        tmp_path,
        monkeypatch,
        "from netcl.errors import BackendError\ndef open_it(selector): raise BackendError(f'no {selector}')",
    )
    with pytest.raises(BackendError, match=r"^no card$"):
        get_backend("broken:card")


@pytest.mark.parametrize("where", ["", "def open_it(selector): "])
def test_an_interruption_is_passed_on(where, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, f"{where}raise KeyboardInterrupt")
    for call in (lambda: get_backend("broken"), devices):
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.mark.parametrize("points", ["\xff", "= nothing", "broken", "broken = :::"])
def test_damaged_metadata_of_any_package_harms_nothing_else(points, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "", points)
    assert "numpy" in available()
    assert any(row.device.backend == "numpy" and row.healthy for row in devices())
    with pytest.raises(BackendError):
        get_backend("broken")


@pytest.fixture
def undecided(monkeypatch):
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv(backends.VARIABLE, raising=False)


def test_a_plug_in_may_have_several_devices(capsys, undecided, monkeypatch):
    rows = {str(row.device): row for row in devices()}
    assert rows["toy:0"].healthy
    assert rows["toy:1"].healthy
    assert main(["devices"]) == 0
    text = capsys.readouterr().out
    assert "toy:0" in text
    assert "toy:1" in text
    assert str(get_backend("toy:1").device) == "toy:1"
    assert str(get_backend("toy").device) == "toy:0"
    monkeypatch.setenv(backends.VARIABLE, "toy:1")
    monkeypatch.setattr(backends, "_default", None)
    assert str(backends.default_backend().device) == "toy:1"
    with pytest.raises(BackendError, match=r"'toy card' means several devices: toy:0 .*toy:1"):
        get_backend("toy card")


@pytest.mark.parametrize(("preference", "chosen"), [("99", "toy"), ("0.5", None), ("-1", None)])
def test_the_device_with_the_highest_preference_is_the_default(preference, chosen, undecided, monkeypatch):
    monkeypatch.setenv("TOY_PREFERENCE", preference)
    device = backends.default_backend().device
    assert (device.backend == "toy") == (chosen == "toy")
    (default,) = [row for row in devices() if row.default]
    assert default.device == device
    assert chosen is None or (str(device), default.why) == ("toy:0", "the first toy device that works")


RANK = """
from netcl import distributed

device = distributed.init("toy")
print(f"rank {distributed.rank()} {device}\\n", end="", flush=True)
"""


def test_each_rank_has_a_device_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("mpi4py")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    path = os.pathsep.join([str(TESTS.parent), str(TESTS / "plugin"), os.environ.get("PYTHONPATH", "")])
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n"))[1:] == ["rank 0 toy:0", "rank 1 toy:1"]


@pytest.mark.parametrize("name", ["toy", "numpy"])
def test_the_conformance_suite_runs_on_one_named_backend(name):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--netcl-backend={name}", "-rA"]
    done = subprocess.run([*command, str(SUITE / "test_random_bits.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"test_any_size[{name}-" in done.stdout
    assert "opencl" not in done.stdout
