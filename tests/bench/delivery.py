"""How fast queued events leave, what that costs in memory, and what a room full of machines does to one server.

`drain`: a journal with 20,000 events, of which four of five are runs with 1 KB of texts, is delivered by a courier in a
process of its own, to one sink of each kind.  The server is a bare one on loopback, in a third process.  The floor,
turn by turn with it, is a loop of `requests.Session().post` over the very same bodies, which it reads from a file (for
"jsonl": write, fsync, rename).  Memory is compared with a process that has only imported `requests`.

`room`: 500 couriers, each with a state directory and 4 queued events of its own, in ten processes, begin in the same
moment to send to one OTLP collector, with `start_spread_seconds` 0 and with the default.  The server's times of arrival
tell the largest number of requests in a second; each event's id is counted there, so nothing can be lost or doubled
unseen.

Known to be weak: server and couriers share this machine's processors, so a real server would see a higher peak without
a spread.  500 couriers of ten processes start no 500 interpreters and have no 500 memories.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .courses import make_course
from .kernel import memory
from .options import Options
from .report import Report, median

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("learnpack-streaming", "learnpack-batch", "otlp", "xapi", "jsonl")
_SIZE = struct.Struct("<I")
_EXERCISES = 25
_AGENTS, _PROCESSES = 500, 10
#: Events that wait in each agent of a room; `start_spread_seconds` unless an admin says otherwise.
_QUEUED, _SPREAD_S = 4, 5
_PATIENCE_S = 360.0


def measure(options: Options) -> list[Report]:
    scratch = Path(options.scratch) / "delivery"
    course = str(make_course(scratch / "course", _EXERCISES))
    return [_drain(scratch, course, options), _room(scratch, course, options)]


# --- drain ---


def _drain(scratch: Path, course: str, options: Options) -> Report:
    state = str(scratch / "state")
    _call("fill", state, options.records)
    report = Report(
        f"delivery: {options.records:,} queued events, drained to one sink",
        ("agent", "floor", "import requests"),
        against=("floor", "import requests"),
    )
    bare = _here("bare")["rss"]
    for kind in KINDS:
        bodies = str(scratch / f"{kind}.bodies")
        made = _call("bodies", course, state, kind, bodies)
        found: dict[str, list[dict[str, Any]]] = {"agent": [], "floor": []}
        for number in range(min(options.rounds, 3)):
            where = scratch / f"{kind}-{number}"
            where.mkdir()
            with _collector() as ask:
                target = str(where) if kind == "jsonl" else f"http://127.0.0.1:{ask('port')}/in"
                found["agent"].append(_call("drain", course, state, kind, target))
                arrived = ask("report")["requests"]
                if kind != "jsonl" and arrived != made["count"]:
                    report.notes.append(f"{kind}: {arrived} requests came, not {made['count']}")
                found["floor"].append(_here("floor", bodies, kind, target))
        rate = {name: median([options.records / one["took"] for one in each]) for name, each in found.items()}
        report.add(f"{kind} ({made['count']:,} bodies, {made['bytes'] / 1e6:.1f} MB)", "events/s", rate)
        cpu = {name: median([1e6 * one["cpu"] / options.records for one in each]) for name, each in found.items()}
        report.add(f"{kind}: CPU time", "us/event", cpu)
        for what, words in (("peak", "RSS at most"), ("rss", "RSS at the end")):
            values = {name: median([one[what] for one in each]) for name, each in found.items()}
            report.add(f"{kind}: {words}", "MB", {**values, "import requests": bare})
    return report


def bare() -> dict[str, Any]:
    import requests  # noqa: F401

    return {"rss": memory(os.getpid()).rss}


def floor(path: str, kind: str, target: str) -> dict[str, Any]:
    import requests

    began, used = time.monotonic(), time.process_time()
    with open(path, "rb") as stream, requests.Session() as session:
        session.trust_env = False
        count = 0
        while head := stream.read(_SIZE.size):
            content = stream.read(*_SIZE.unpack(head))
            count += 1
            if kind == "jsonl":
                _write(os.path.join(target, f"floor-{count}"), content)
            else:
                session.post(target, data=content, headers={"Content-Type": "application/json"}).raise_for_status()
    found = memory(os.getpid())
    return {"took": time.monotonic() - began, "cpu": time.process_time() - used, "rss": found.rss, "peak": found.peak}


def _write(path: str, content: bytes) -> None:
    with open(f"{path}.part", "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(f"{path}.part", path)


# --- room ---


def _room(scratch: Path, course: str, options: Options) -> Report:
    spreads = {"spread 0 s": 0, f"spread {_SPREAD_S} s (default)": _SPREAD_S}
    agents = _AGENTS if options.records >= 20_000 else _AGENTS // 10
    report = Report(f"delivery: {agents} agents with {_QUEUED} queued events each, one server", tuple(spreads))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in spreads}
    for number in range(min(options.rounds, 3)):
        for name, spread_s in spreads.items():
            found[name].append(_begin_all(scratch / f"room-{number}-{spread_s}", course, agents, spread_s))
    for what, unit in _ROOM.items():
        report.add(what, unit, {name: median([one[what] for one in each]) for name, each in found.items()})
    return report


_ROOM = {
    "most requests in a second": "1/s",
    "most requests in a tenth": "1/0.1 s",
    "most new connections in a tenth": "1/0.1 s",
    "until all was there": "s",
    "events lost": "",
    "events that came twice": "",
}


def _begin_all(scratch: Path, course: str, agents: int, spread_s: int) -> dict[str, Any]:
    each = agents // _PROCESSES
    with _collector() as ask:
        url = f"http://127.0.0.1:{ask('port')}/in"
        work = [
            _start(_WORK, "room", course, str(scratch / str(number)), each, _QUEUED, url, spread_s)
            for number in range(_PROCESSES)
        ]
        for one in work:
            assert one.stdout is not None and one.stdout.readline() == "ready\n"
        began = time.monotonic()
        for one in work:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        for one in work:
            _result(one)
        told = ask("report")
    times, connections = sorted(told["times"]), sorted(told["connections"])
    return {
        "most requests in a second": _most_within(times, 1.0),
        "most requests in a tenth": _most_within(times, 0.1),
        "most new connections in a tenth": _most_within(connections, 0.1),
        "until all was there": times[-1] - began,
        "events lost": each * _PROCESSES * _QUEUED - told["different"],
        "events that came twice": told["events"] - told["different"],
    }


def _most_within(times: list[float], seconds: float) -> int:
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@contextmanager
def _collector() -> Iterator[Callable[[str], Any]]:
    """`ask("port")`, `ask("report")`."""
    process = _start(_WORK, "collect")

    def ask(what: str) -> Any:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{what}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()


# --- processes ---


#: What needs the agent's modules runs there, what is to be without them here.
_WORK, _HERE = "tests.bench.deliverywork", "tests.bench.delivery"


def _start(module: str, work: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, work, json.dumps(arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=_PATIENCE_S)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _call(work: str, *arguments: object) -> dict[str, Any]:
    return _result(_start(_WORK, work, *arguments))


def _here(work: str, *arguments: object) -> dict[str, Any]:
    return _result(_start(_HERE, work, *arguments))


_WORKS: dict[str, Callable[..., dict[str, Any]]] = {"bare": bare, "floor": floor}

if __name__ == "__main__":
    print(json.dumps(_WORKS[sys.argv[1]](*json.loads(sys.argv[2]))), flush=True)
