"""What it costs to write down: one event in the journal, and the whole document, with few runs and with 20,000.

`append` stands beside a write and fdatasync of the same bytes, one after each append, in the same process.  The
document stands beside LearnPack's way to write the same one in node (`JSON.stringify`, `writeFile`), which it does at
each event; the agent waits 50 times as long as the last one took, and keeps within 8 MB (`bounded`) by leaving out the
oldest texts, so the whole one is shown, too.  Last, the real agent on that journal: ready, and at rest after its first
document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agent.config import Config, course_state_dir
from agent.store.fold import LIMIT

from . import kernel, subjects
from .courses import make_course
from .options import Options
from .report import Report, median, percentile
from .subjects import REPOSITORY, CannotRun

_UNBOUNDED = 1 << 40

#: As `lib/managers/telemetry.js` of LearnPack 2.1.34 saves it; it holds the document all the time.
_LEARNPACK = """
const fs = require("fs")
const current = JSON.parse(fs.readFileSync(process.argv[1], "utf8"))
const [took, blocked] = [[], []]
async function save() {
  const began = performance.now()
  const text = JSON.stringify(current)
  const writing = fs.promises.writeFile(process.argv[2], text)
  blocked.push(performance.now() - began)
  await writing
  took.push(performance.now() - began)
}
(async () => {
  for (let n = 0; n < Number(process.argv[3]); n++) await save()
  console.log(JSON.stringify({took, blocked, peak: process.resourceUsage().maxRSS / 1024}))
})()
"""


def measure(options: Options) -> list[Report]:
    scratch = Path(options.scratch) / "journal"
    course = make_course(scratch / "course", 25)
    state = scratch / "state"
    directory = course_state_dir(Config(state_dir=str(state)), str(course))
    empty, small = str(scratch / "empty"), str(scratch / "small")
    state.mkdir()
    for path, count in ((directory, options.records), (empty, 0), (small, 100)):
        _work("fill", directory=path, count=count)
    return [
        _appends(options, scratch, [directory, empty]),
        *(_documents(options, scratch, course, path, name) for path, name in _journals(options, small, directory)),
        _agent(options, course, state),
    ]


def _journals(options: Options, small: str, large: str) -> list[tuple[str, str]]:
    return [(small, "100"), (large, f"{options.records:,}")]


def _work(work: str, **arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.storework", work, json.dumps(arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRun(f"{work} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _appends(options: Options, scratch: Path, directories: list[str]) -> Report:
    names = (f"at {options.records:,} records", "at 0 records", "write + fdatasync")
    report = Report("journal: one append, durable", names, against=names[1:])
    found = _work("append", directories=directories, floor=str(scratch / "floor"), times=2 * options.repetitions)
    for percent in (50, 95, 99):
        values = {name: percentile(took, percent) for name, took in zip(names, found["took"], strict=True)}
        report.add(f"p{percent}", "ms", values)
    report.notes.append(f"{found['bytes']:,} bytes each: the run with its texts, and the inference's state")
    return report


def _documents(options: Options, scratch: Path, course: Path, directory: str, runs: str) -> Report:
    report = Report(
        f"journal: the document of {runs} runs",
        ("bounded", "whole", "LearnPack"),
        against=("LearnPack",),
    )
    times = max(3, options.rounds // 2)
    # LearnPack's is last, because it needs the whole document on the disk.
    bounded = _work("document", course=str(course), directory=directory, limit=LIMIT, times=times)
    whole = _work("document", course=str(course), directory=directory, limit=_UNBOUNDED, times=times)
    theirs: dict[str, Any] = {}
    try:
        arguments = [str(course / ".learn" / "telemetry.json"), str(scratch / "theirs.json"), str(times)]
        command = [subjects.node(), "--max-old-space-size=8192", "-e", _LEARNPACK, "--", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            theirs = json.loads(done.stdout)
        else:
            report.notes.append(f"LearnPack's way failed in node: {done.stderr.strip()[-200:]}")
    except CannotRun as error:
        report.notes.append(str(error))
    (course / ".learn" / "telemetry.json").unlink()
    for each in (bounded, whole):
        each["blocked"] = each["took"]  # the agent's loop writes the document itself
    for what, unit, key in (
        ("time", "ms", "took"),
        ("nothing else is done for", "ms", "blocked"),
        ("CPU time", "ms", "cpu"),
        ("size", "MB", "size"),
        ("RSS before", "MB", "before"),
        ("RSS at most", "MB", "peak"),
        ("RSS after", "MB", "after"),
    ):
        found = {"bounded": bounded, "whole": whole, "LearnPack": theirs}
        report.add(what, unit, {name: _value(each, key) for name, each in found.items()})
    report.notes.append("LearnPack does this at each event, the agent 0.3 s after one and for 2 % of the time at most")
    return report


def _value(found: dict[str, Any], key: str) -> float | None:
    value = found.get(key)
    if isinstance(value, list):
        return median(value)
    return None if value is None else value / 1e6 if key == "size" else float(value)


def _agent(options: Options, course: Path, state: Path) -> Report:
    large, new = f"{options.records:,} runs", "new journal"
    report = Report("journal: the agent on it", (large, new), against=(new,))
    ready: dict[str, list[float]] = {large: [], new: []}
    ended: dict[str, list[float]] = {large: [], new: []}
    memory: dict[str, list[kernel.Memory]] = {large: [], new: []}
    for number in range(max(3, options.rounds // 2)):
        for which, directory in ((large, state), (new, state.with_name(f"new-{number}"))):
            agent = subjects.agent(str(course), str(directory))
            ready[which].append(1000 * agent.start())
            _wait_for_document(course)
            memory[which].append(kernel.memory(agent.pid))
            began = time.monotonic()
            agent.stop()
            ended[which].append(1000 * (time.monotonic() - began))
            (course / ".learn" / "telemetry.json").unlink()
    report.add("ready after", "ms", {which: median(each) for which, each in ready.items()})
    report.add("RSS at rest", "MB", {which: median([one.rss for one in each]) for which, each in memory.items()})
    report.add("RSS at most", "MB", {which: median([one.peak for one in each]) for which, each in memory.items()})
    report.add("SIGTERM → end", "ms", {which: median(each) for which, each in ended.items()})
    return report


def _wait_for_document(course: Path) -> None:
    """Until the first document is there, and a moment more."""
    deadline = time.monotonic() + 30
    while not (course / ".learn" / "telemetry.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
