"""The part of the benchmark `journal` that runs in a process of its own, so that its memory is the store's alone.

`python -m tests.bench.storework WORK JSON` prints one JSON object.  The runs are those of baselines measured on
LearnPack: 2 KB of source and 8 KB of output, 13.8 KB in its document.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.core.events import Compile, Event, Evidence, Origin, Output, Run, StepName
from agent.sensors.course import read_course
from agent.store.document_file import DocumentFile
from agent.store.journal import Journal

from .courses import entry, slug
from .kernel import memory

T0 = 1_700_000_000_000
EXERCISES = 25
_BATCH = 500
_STATE = b'{"session": null}' * 30  # what the inference keeps is about 500 bytes


def a_run(number: int) -> Event:
    at = T0 + number * 60_000
    step = number * 7919 % EXERCISES
    lines = "".join(f"{number} {line} the quick brown fox jumps over the lazy dog\n" for line in range(160))
    run = Run(
        started_at=at,
        ended_at=at + 25,
        exit_code=number % 2,
        signal=None,
        command=("python", entry(step)),
        origin=Origin.TERMINAL,
        source_code=lines[:2048],
        stdout=lines[:8192],
        stderr="",
        output=Output.FULL,
    )
    evidence = tuple(Evidence(number, at, f"process {number} executed python {entry(step)}") for _ in range(2))
    return Compile(at + 25, StepName(slug(step), step), run, evidence)


def fill(directory: str, count: int) -> dict[str, Any]:
    """A journal with so many runs, all settled into its main file."""
    with Journal.open(directory, create=True) as journal:
        for first in range(journal.last_number, count, _BATCH):
            journal.append([a_run(number) for number in range(first, min(first + _BATCH, count))], _STATE)
        journal.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {}


def append(directories: list[str], floor: str, times: int) -> dict[str, Any]:
    """ms for one append of one run and the state, in each journal and as a bare write + fdatasync, in turns."""
    journals = [Journal.open(directory, create=False) for directory in directories]
    took: list[list[float]] = [[] for _ in range(len(journals) + 1)]
    event = a_run(1)
    file = os.open(floor, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    size = 0
    for turn in range(times + 5):
        for index, journal in enumerate(journals):
            began = time.perf_counter()
            record = journal.append([event], _STATE)[-1]
            took[index].append(1000 * (time.perf_counter() - began))
            if not size:
                query = "SELECT length(body) + coalesce(length(texts), 0) FROM records WHERE number=?"
                size = journal.connection.execute(query, (record.number,)).fetchone()[0]
        began = time.perf_counter()
        os.write(file, b"x" * (size + len(_STATE)))
        os.fdatasync(file)
        took[-1].append(1000 * (time.perf_counter() - began))
        if turn == 4:
            took = [[] for _ in took]
    for journal in journals:
        journal.close()
    return {"took": took, "bytes": size + len(_STATE)}


def document(course: str, directory: str, limit: int, times: int) -> dict[str, Any]:
    """What writing the whole document costs: ms, CPU ms, bytes, and memory (MB) before, at most and after."""
    found = read_course(course)
    with Journal.open(directory, create=False) as journal:
        file = DocumentFile(course, journal, limit=limit)
        file.foreign_since(0)
        before = memory(os.getpid()).rss
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        took, cpu, size = [], [], 0
        for turn in range(times):
            began, used = time.perf_counter(), time.process_time()
            size = file.write(found, T0 + turn).size
            took.append(1000 * (time.perf_counter() - began))
            cpu.append(1000 * (time.process_time() - used))
        after = memory(os.getpid())
    return {"took": took, "cpu": cpu, "size": size, "before": before, "peak": after.peak, "after": after.rss}


_WORKS: Mapping[str, Callable[..., dict[str, Any]]] = {"fill": fill, "append": append, "document": document}

if __name__ == "__main__":
    print(json.dumps(_WORKS[sys.argv[1]](**json.loads(sys.argv[2]))))
