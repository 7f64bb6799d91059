"""Look at asv's published page in a headless browser that has no network: the pictures of docs/dashboard.md.

    asv publish && python benchmarks/offline.py .asv/html
    python benchmarks/screenshots.py .asv/html docs/_static

The page is served to this machine alone, and the browser finds no other host. Ends with 1 if a view stays empty, a
script fails or anything is asked of the web. Needs Chromium or Chrome; CHROMIUM names one that is not on the path.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

GRAPH = urlencode(
    {
        "x-axis-scale": "even",
        "y-axis-scale": "log",
        "p-buffer": "'10,000,000 float32'",
        "p-runtime": ["'numpy'", "'opencl:intel'", "'opencl:portable'"],
    },
    doseq=True,
)

# Where each view is, how high its picture, what its page holds once it has been drawn, and how often at least.
VIEWS = {
    "grid": ("#/", 2050, r'class="[^"]*benchmark-container', 10),
    "list": ("#/summarylist?sort=3&dir=desc", 900, r"<tr[ >]", 50),
    "graph": (f"#update.UpdateCalls.time_fused_adam?{GRAPH}", 900, r'class="flot-base"', 1),
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP, from which alone asv's page can read its data."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def browse(browser: str, url: str, *options: str) -> tuple[str, list[str]]:
    """The page once its scripts have run, and what went wrong in them."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
            "--virtual-time-budget=20000", f"--user-data-dir={profile}", *options, url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = re.findall(r"CONSOLE:\d+\] (.*)", done.stderr)
    return done.stdout, [line for line in said if re.search(r"Failed to load|Uncaught|ERR_", line)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="the folder that asv publish has written")
    parser.add_argument("output", type=Path, help="the folder for dashboard-grid.png and the others")
    options = parser.parse_args(argv)
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser: none of {', '.join(BROWSERS)} is on the path; install one or name it in CHROMIUM")
    if not (options.html / "index.html").is_file():
        sys.exit(f"{options.html} holds no index.html; run asv publish first")
    failed = False
    with served(options.html) as address:
        for name, (place, height, drawn, least) in VIEWS.items():
            size = f"--window-size=1400,{height}"
            page, errors = browse(browser, address + place, size, "--dump-dom")
            found = len(re.findall(drawn, page))
            failed |= bool(errors) or found < least
            print(f"{name}: {found} of {drawn}, at least {least} wanted", *errors, sep="\n  ")
            picture = options.output / f"dashboard-{name}.png"
            browse(browser, address + place, size, f"--screenshot={picture}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
