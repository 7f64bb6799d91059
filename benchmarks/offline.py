"""Make asv's published page work without a network: put the scripts that it loads from the web beside it.

    asv publish && python benchmarks/offline.py .asv/html

The scripts come from npm packages of fixed versions, through ``npm pack``, and are held against fixed digests.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FONT = "dist/fonts/glyphicons-halflings-regular.woff"

# Package: its files, by the name under which asv's page loads them, with their digests.
PACKAGES = {
    "jquery@3.3.1": {
        "jquery-3.3.1.min.js": ("dist/jquery.min.js", "FgpCb/KJQlLNfOu91ta32o/NMZxltwRo8QtmkMRdAu8="),
    },
    "flot@0.8.3": {
        "jquery.flot.min.js": ("jquery.flot.js", "t7kx8nPDixJ3ucbB9OBcTsCYhaSHvdrzJ54tfkmjjhI="),
        "jquery.flot.time.min.js": ("jquery.flot.time.js", "pYLIMq3HE4prBar2HxbrrCdHAfG+Sv6nfnOaHDS5xBo="),
        "jquery.flot.selection.min.js": (
            "jquery.flot.selection.js",
            "5shfbB6+S02inYriOMfFBgKD8F9+8FT2uRgX0CwJKRg=",
        ),
        "jquery.flot.categories.min.js": (
            "jquery.flot.categories.js",
            "boFmSyjqeVxzSQb0qhVhRkCnWsf705mn+5CEBAaYNRo=",
        ),
    },
    "flot-orderbars@1.0.0": {
        "jquery.flot.orderBars.js": (
            "js/jquery.flot.orderBars.js",
            "OXNbT0b5b/TgglckAfR8VaJ2ezZv0dHoIeRKjYMKEr8=",
        ),
    },
    "stupid-table-plugin@1.1.3": {
        "stupidtable.min.js": ("stupidtable.min.js", "RkI4Dyjr6e18rCUXk7KB74YgxDhiBdkniPmxL1zOtOA="),
    },
    "blueimp-md5@2.19.0": {
        "md5.min.js": ("js/md5.min.js", "ZNfe04jFYuS96eWM4gXl+gG5c0/NQ01Jbre0+/6bkn0="),
    },
    "bootstrap@3.1.1": {
        "bootstrap.min.js": ("dist/js/bootstrap.min.js", "iY0FoX8s/FEg3c26R6iFw3jAtGbzDwcA5QJ1fiS0A6E="),
        "bootstrap.min.css": ("dist/css/bootstrap.min.css", "6VA0SGkrc43SYPvX98q/LhHwm2APqX5us6Vuulsafps="),
    },
}

# An element that loads a file from the web, with the attributes that hold it against the web's own digest.
LOADED = re.compile(r"<(?P<tag>script|link)\b[^>]*?(?P<key>src|href)=\"https://[^\"]*/(?P<name>[^/\"]+)\"[^>]*>")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="the folder that asv publish has written")
    html: Path = parser.parse_args(argv).html
    if not (html / "index.html").is_file():
        sys.exit(f"{html} holds no index.html; run asv publish first")
    vendor = html / "vendor"
    vendor.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for package, wanted in PACKAGES.items():
            fetch(package, wanted, Path(folder), vendor)
    for page in sorted(html.glob("*.html")):
        page.write_text(local(page.read_text(encoding="utf-8"), page.name), encoding="utf-8")
    print(f"{html / 'index.html'} loads nothing from the web")


def fetch(package: str, wanted: dict[str, tuple[str, str]], folder: Path, vendor: Path) -> None:
    """Copy the wanted files of a package to ``vendor``, each checked against its digest."""
    try:
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        sys.exit("npm is not installed; it fetches the scripts (apt install npm)")
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        for name, (path, digest) in wanted.items():
            content = read(archive, path)
            found = base64.b64encode(hashlib.sha256(content).digest()).decode()
            if found != digest:
                sys.exit(f"{path} of {package} has the digest {found}, expected {digest}")
            # The stylesheet looks for its font in a folder beside its own.
            (vendor / name).write_bytes(content.replace(b"../fonts/", b""))
        if package.startswith("bootstrap@"):
            (vendor / Path(FONT).name).write_bytes(read(archive, FONT))


def read(archive: tarfile.TarFile, path: str) -> bytes:
    file = archive.extractfile(f"package/{path}")
    assert file is not None, path
    return file.read()


def local(text: str, page: str) -> str:
    """The page with every element that loads from the web pointed to the folder beside it."""
    names = {name for wanted in PACKAGES.values() for name in wanted}

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in names:
            sys.exit(f"{page} loads {name}, which this script does not know; add its package to PACKAGES")
        if match["tag"] == "link":
            return f'<link rel="stylesheet" href="vendor/{name}">'
        return f'<script src="vendor/{name}" onerror="js_load_failure()">'

    return LOADED.sub(replaced, text)


if __name__ == "__main__":
    main()
