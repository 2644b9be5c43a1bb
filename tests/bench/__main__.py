"""`python -m tests.bench [NAME...]`: measures, and prints one table for each; see the package's docstring."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import replace

from .kernel import file_system, stolen
from .options import Options

NAMES = ("idle", "latency", "journal", "storm", "many", "catch", "delivery")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"what to measure (default: all of {', '.join(NAMES)})")
    parser.add_argument("--json", action="store_true", help="one JSON object and no table")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--large", action="store_true", help="idle: also a course of 500 exercises")
    parser.add_argument("--rounds", type=int, help="how often each thing is repeated (default: 7)")
    parser.add_argument(
        "--directory",
        default="/var/tmp",
        help="where courses and journals are made; not in memory (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="learnpack-agent-bench-", dir=arguments.directory))
    options = Options(scratch, large=arguments.large)
    if arguments.quick:
        options = replace(options, rounds=2, window_s=3.0, windows=1, repetitions=20, records=1_000)
    if arguments.rounds:
        options = replace(options, rounds=arguments.rounds)
    results = []
    try:
        if not arguments.json:
            print(_machine(scratch), flush=True)
        for name in arguments.name or NAMES:
            before = stolen()
            for report in importlib.import_module(f".{name}", __package__).measure(options):
                report.notes.append(_disturbances(before))
                results.append(report.plain())
                if not arguments.json:
                    print("\n" + "\n".join(report.lines()), flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if arguments.json:
        print(json.dumps(results))
    return 0


def _disturbances(before: tuple[int, int]) -> str:
    lost, total = (now - then for now, then in zip(stolen(), before, strict=True))
    share = 100 * lost / max(1, total)
    return f"load at the end {os.getloadavg()[0]:.1f}; the host below kept {share:.1f} % of the time for others"


def _machine(scratch: str) -> str:
    return (
        f"{os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}, "
        f"{file_system(scratch)}, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
