"""Every benchmark once, all in this process: do they run?

asv starts a process for each benchmark and parameter, which takes minutes; what it would find, by its own discovery, is
called here one after the other. The gate runs this, and asv itself on a single benchmark.

    NETCL_BENCH_SHORT=1 python benchmarks/once.py
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run them; the exit status says whether all of them did."""
    from asv_runner.discovery import disc_benchmarks

    sys.path.insert(0, str(ROOT))
    ran, left_out, failed = 0, 0, 0
    started = time.monotonic()
    for benchmark in disc_benchmarks("benchmarks", ignore_import_errors=False):
        for position, _ in enumerate(itertools.product(*benchmark.params)):
            benchmark.set_param_idx(position)
            try:
                if benchmark.do_setup():  # asv's word for a benchmark that says it cannot run here
                    left_out += 1
                    continue
                run_once(benchmark)
                benchmark.do_teardown()
                ran += 1
            except Exception as error:
                failed += 1
                print(f"{benchmark.name}{benchmark._current_params}: {type(error).__name__}: {error}")
    took = time.monotonic() - started
    print(f"benchmarks: {ran} ran once in {took:.0f} s, {left_out} cannot run here, {failed} failed")
    return 1 if failed or not ran else 0


def run_once(benchmark: object) -> None:
    """Call one benchmark: a raw one as the program that it is, in a process of its own."""
    if type(benchmark).__name__ == "TimerawBenchmark":
        benchmark._load_vars()
        benchmark._get_timer(*benchmark._current_params).timeit(1)
    else:
        benchmark.func(*benchmark._current_params)


if __name__ == "__main__":
    sys.exit(main())
