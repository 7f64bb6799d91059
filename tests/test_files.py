"""Files that are whole or absent, and that are read only where nobody can make a trap of them."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import files
from netcl.files import parse_json, private_folder, read_regular, write_atomically, write_private

ROOT = Path(__file__).resolve().parents[1]
POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions and kinds of files are those of POSIX")
WRITERS = (write_atomically, write_private)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=len)
def test_what_is_written_is_read(write, content, tmp_path):
    file = tmp_path / "file"
    for each in (b"before", content):
        write(file, each)
    assert read_regular(file, len(content), private=True) == content
    assert list(tmp_path.iterdir()) == [file]


@POSIX
@pytest.mark.parametrize(("umask", "mode"), [(0, 0o666), (0o22, 0o644), (0o77, 0o600)])
def test_permissions_follow_the_umask_or_are_the_owners(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "open", b"")
        write_private(tmp_path / "own", b"")
        private_folder(tmp_path / "folder")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"open": mode, "own": 0o600, "folder": 0o700}


def test_what_a_killed_process_left_goes_after_an_hour(tmp_path, monkeypatch):
    file, left = tmp_path / "a[b].bin", tmp_path / f".a[b].bin.{'0' * 16}.tmp"
    others = [
        tmp_path / f".other.bin.{'0' * 16}.tmp",
        tmp_path / ".a[b].bin.tmp",
        tmp_path / f".a[b].bin.{'x' * 16}.tmp",
    ]
    for path in (left, *others):
        path.write_bytes(b"left")
    write_atomically(file, b"new")
    assert left.exists()  # somebody may be writing it
    real = files.time.time
    monkeypatch.setattr(files.time, "time", lambda: real() + 3601.0)
    write_atomically(file, b"newer")
    assert sorted(tmp_path.iterdir()) == sorted([file, *others])


@POSIX
def test_a_link_is_followed_by_one_and_replaced_by_the_other(tmp_path):
    (tmp_path / "target").write_bytes(b"before")
    for name in ("followed", "replaced"):
        (tmp_path / name).symlink_to(tmp_path / "target")
    write_private(tmp_path / "replaced", b"private")
    assert ((tmp_path / "replaced").is_symlink(), (tmp_path / "target").read_bytes()) == (False, b"before")
    write_atomically(tmp_path / "followed", b"after")
    assert ((tmp_path / "followed").is_symlink(), (tmp_path / "target").read_bytes()) == (True, b"after")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("call", ["open", "replace"])
def test_a_disk_that_takes_nothing_leaves_the_old_file(write, call, tmp_path, monkeypatch):
    def failing(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path / "file", b"before")
    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", b"after")
    monkeypatch.undo()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]


@POSIX
@pytest.mark.parametrize("write", WRITERS)
def test_a_process_that_is_killed_leaves_a_whole_file(write, tmp_path):
    code = (
        "import sys; from pathlib import Path; import netcl.files as files\n"
        "while True:\n"
        "    for letter in b'ab':\n"
        "        getattr(files, sys.argv[1])(Path(sys.argv[2]), bytes([letter]) * (1 << 20))\n"
    )
    file = tmp_path / "file"
    for pause in (0.0, 0.003, 0.011):
        file.unlink(missing_ok=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        child = subprocess.Popen([sys.executable, "-c", code, write.__name__, str(file)], env=environment)
        while not file.exists():
            assert child.poll() is None
            time.sleep(0.001)
        time.sleep(pause)
        child.kill()
        child.wait()
        content = file.read_bytes()
        assert content in (b"a" * (1 << 20), b"b" * (1 << 20))


@POSIX
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "endless", "large", "sparse"])
def test_only_a_regular_file_of_bounded_size_is_read(kind, tmp_path):
    file = tmp_path / "file"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind in ("device", "endless"):
        file = Path(os.devnull if kind == "device" else "/dev/zero")
    elif kind != "missing":
        file.write_bytes(bytes(11))
        if kind == "sparse":
            os.truncate(file, 1 << 42)
    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0
    with pytest.raises(FileNotFoundError if kind == "missing" else OSError, match=re.escape(str(file))):
        read_regular(file, 10)
    assert before == (len(os.listdir("/dev/fd")) if before else 0)


@POSIX
def test_a_private_file_is_no_link_and_nobody_elses(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    (tmp_path / "link").symlink_to(file)
    assert read_regular(tmp_path / "link", 10) == b"x"
    with pytest.raises(OSError, match="link"):
        read_regular(tmp_path / "link", 10, private=True)
    for mode in (0o620, 0o602, 0o666):
        file.chmod(mode)
        with pytest.raises(OSError, match="can be written by, somebody else"):
            read_regular(file, 10, private=True)
    file.chmod(0o644)
    assert read_regular(file, 10, private=True) == b"x"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="belongs to"):
        read_regular(file, 10, private=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_is_read_as_it_was_written(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "NaN",
        "[Infinity]",
        "-Infinity",
        '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "a": 2}}]',
        b"\xff",
        "1" * 9999,
    ]
    + [opening * 100_000 for opening in ("[", '{"a":')],
    ids=range(12),
)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"column|nested|holds|the key|decode|digits"):
        parse_json(text)
