"""An hour of bad luck in half a minute: outages, resets, 429s, 500s, slow answers, and an agent that is killed.

Five sinks, one of each kind, get a journal that was filled before and what a student does meanwhile.  Whatever the
servers do, everything arrives, with the same id and the same bytes each time, in order, and nothing is parked.

The agent's pauses between two tries are real, and grow to 15 minutes; where the script lets time go by, somebody says
`send --now` instead.  LEARNPACK_TEST_SEED repeats a sequence of faults; the moments are the machine's.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.config import course_key
from agent.core.events import Event, OpenStep
from agent.core.receiver import reduced, summary
from agent.destinations import KINDS
from agent.store.control import change_control
from agent.store.journal import Journal, Record
from agent.store.outbox import Outbox
from tests.conftest import Stage
from tests.making import a_compile, a_test, completed, opened, session_end, session_start
from tests.sinks import faults
from tests.sinks.faults import Fault, FaultServer, Request, status
from tests.standin.agent import Agent
from tests.standin.courses import PYTHON, make_course
from tests.until import until

SEED = int(os.environ.get("LEARNPACK_TEST_SEED", "0")) or random.randrange(1, 1_000_000)
#: A kind's own delay would let it see one burst of events instead of many.
CONFIG = """\
[send]
proxy = "none"
start_spread_seconds = 0
final_milliseconds = 30000
"""
#: The hour has so many parts, each with faults, an outage, and one kill or two.
PARTS = 8

pytestmark = pytest.mark.timeout(240)

FAULTS: Mapping[str, Fault] = {
    "500": status(500),
    "502": status(502, body=b"<html><body>Bad gateway</body></html>"),
    "503": status(503, {"Retry-After": "120"}),
    "429": status(429, {"Retry-After": "1"}),
    "429 without": status(429),
    "408": status(408),
    "reset before reading": faults.reset_unread,
    "reset after reading": faults.reset_read,
    "end without an answer": faults.close_read,
    "reset in the answer": faults.reset_answering,
    "end in the answer's head": faults.close_in_head,
    "a portal's page": faults.page,
    "no HTTP": faults.garbage,
    "too short an answer": faults.wrong_length(50),
}


class Moody(FaultServer):
    """Fails at random.  `taken` are the requests that it said yes to, in their order of arrival."""

    def __init__(self, rate: float, seed: int, deck: list[str]) -> None:
        self.taken: list[Request] = []
        self.met: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._rate = rate
        self._deck = deck  # of all servers, so that each fault has its turn
        super().__init__()
        self.behave = self.moody

    def moody(self, request: Request) -> Fault:
        if self._chance.random() >= self._rate:
            return self.slowly if self._chance.random() < 0.1 else self.take
        if not self._deck:
            self._deck += self._chance.sample(list(FAULTS), len(FAULTS))
        name = self._deck.pop()
        self.met[name] += 1
        return FAULTS[name]

    def take(self, request: Request) -> None:
        _ = request.body
        request.answer(200, b"{}")
        self.taken.append(request)

    def slowly(self, request: Request) -> None:
        _ = request.body
        self.met["slow"] += 1
        if not request.pause(0.3):
            self.take(request)

    def silent(self, request: Request) -> None:
        self.met["silence"] += 1
        faults.silence(request)


class Student:
    """Works until told to stop: saves a new program in a step, runs it, goes to another step now and then."""

    def __init__(self, course: Path, environment: Mapping[str, str]) -> None:
        self._course, self._environment = course, environment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.runs = 0

    def __enter__(self) -> Student:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.wait(0.05):
            slug = ["01-hello", "02-sum", "07-free"][self.runs // 3 % 3]
            program = self._course / f"exercises/{slug}/app.py"
            program.write_text(f"import time\ntime.sleep(0.1)\nprint('ñandú', {self.runs})\n")
            subprocess.run(
                ["python", str(program)],
                cwd=self._course,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            self.runs += 1


def earlier_work() -> list[Event]:
    """What waits from before: 30 steps' work, 300 events."""
    events: list[Event] = [session_start(0)]
    slugs = [slug for slug, files in PYTHON.items() if "app.py" in files]
    for number in range(30):
        slug, at = slugs[number % len(slugs)], 100.0 * number
        events.append(opened(slug, at))
        for run in range(4):
            text = {"source_code": f"print({number})\n" * 20, "stdout": f"{number} ñ\n" * 50, "stderr": ""}
            events.append(a_compile(slug, at + 10 * run, at + 10 * run + 1, run % 2, **text))
            events.append(a_test(slug, at + 10 * run + 3, at + 10 * run + 4, run % 2, **text))
        events.append(completed(slug, at + 60))
    return [*events, session_end(4000)]


@pytest.fixture
def servers() -> Iterator[dict[str, Moody]]:
    # Streaming has a request for each event, the others have one for many.
    rates = {"streaming": 0.1, "batch": 0.4, "otlp": 0.4, "xapi": 0.4}
    deck: list[str] = []
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Moody(rate, SEED + number, deck))
            for number, (name, rate) in enumerate(rates.items())
        }


def configured(servers: Mapping[str, Moody], files: Path) -> str:
    kinds = {"streaming": "learnpack-streaming", "batch": "learnpack-batch", "otlp": "otlp", "xapi": "xapi"}
    places = {name: (kind, f'url = "{servers[name].url}/in"') for name, kind in kinds.items()}
    places["files"] = ("jsonl", f'directory = "{files}"')
    return CONFIG + "".join(
        f'[[sink]]\nname = "{name}"\nkind = "{kind}"\ndelay_seconds = 0\n{place}\n'
        for name, (kind, place) in places.items()
    )


class Hour:
    """The agent, its kills, and somebody who says `send --now` again and again."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.directory = agent.state / course_key(os.path.realpath(agent.course))
        self._lock = threading.Lock()  # a signal is for an agent that is ready
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Hour:
        self.agent.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._stopping.wait(0.15):
            with self._lock:
                change_control(self.directory, send_at=time.time_ns() // 1_000_000)
                assert self.agent.process is not None
                self.agent.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        with self._lock:
            self.agent.kill()
            self.agent.start()

    def stop(self) -> int:
        with self._lock:
            self._stopping.set()
            return self.agent.stop()

    def has_caught_up(self, names: list[str]) -> bool:
        with self.agent.journal() as journal, Outbox(self.directory, journal.id, read_only=True) as outbox:
            return all(outbox.cursor(name) == journal.last_number for name in names)


def all_met(servers: Mapping[str, Moody]) -> Counter[str]:
    return sum((Counter(server.met) for server in servers.values()), Counter[str]())


def test_in_an_hour_of_bad_luck_everything_arrives_in_order_and_nothing_is_parked(
    stage: Stage, tmp_path: Path, servers: dict[str, Moody]
) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    course = make_course(tmp_path / "course", PYTHON)
    files = tmp_path / "share"
    files.mkdir()
    (tmp_path / "config.toml").write_text(configured(servers, files))
    agent = stage.agent(course, arguments=("--config", str(tmp_path / "config.toml")))
    with Journal.open(agent.state / course_key(str(course)), create=True) as journal:
        before = len(journal.append(earlier_work(), None))
    names = [*servers, "files"]
    with Hour(agent) as hour, Student(course, stage.toolbox.environment()) as student:
        for part in range(PARTS):
            outage = servers[chance.choice(list(servers))]
            if part % 3 == 0:
                outage.behave = lambda _, one=outage: one.silent  # type: ignore[misc]
                until(lambda one=outage, had=outage.met["silence"]: one.met["silence"] > had)  # type: ignore[misc]
            outage.refuse()
            if part % 4 == 1:
                files.rename(tmp_path / "unmounted")
            runs = student.runs + 2
            until(lambda runs=runs: student.runs >= runs)  # type: ignore[misc]
            if part % 2:
                hour.kill()
            outage.behave = outage.moody
            outage.reopen()
            if part % 4 == 1:
                (tmp_path / "unmounted").rename(files)
            time.sleep(chance.uniform(0.2, 1.2))  # not a wait for something, but the choice of a moment
            hour.kill()
        # On a busy machine an hour has fewer requests.
        until(lambda: set(FAULTS) | {"slow", "silence"} == set(all_met(servers)), timeout=120)
        for server in servers.values():
            server.behave = lambda _, one=server: one.take  # type: ignore[misc]
        student.stop()
        until(lambda: hour.has_caught_up([name for name in names if name != "batch"]), every=0.1)
        assert hour.stop() == 0, agent.log  # the last document goes at the end

    with agent.journal() as journal, Outbox(hour.directory, journal.id, read_only=True) as outbox:
        records = list(journal.records())
        assert not any(outbox.parked(name) for name in names)
        assert {name: outbox.cursor(name) for name in names} == dict.fromkeys(names, len(records))
    assert len(records) > before + 20, "the student's work is among it"
    all_received = {name: of_requests(servers[name].received, items) for name, items in ITEMS.items()}
    all_taken = {name: of_requests(servers[name].taken, items) for name, items in ITEMS.items()}
    all_taken["files"] = all_received["files"] = lines_of(files)
    for name, arrived in all_received.items():
        check(name, records, arrived, [key for key, _ in all_taken[name]])
    check_documents([json.loads(request.body) for request in servers["batch"].taken], records)
    sent = {name: len(arrived) for name, arrived in all_received.items()}
    repeated = {name: len(arrived) - len({key for key, _ in arrived}) for name, arrived in all_received.items()}
    print(f"{len(records)} events; arrived {sent}, of these repeated {repeated}; faults {dict(all_met(servers))}")
    assert min(repeated[name] for name in ITEMS) > 0, "the script was no hour of bad luck"


#: What arrived: the event's id, and all that was said of it.
Item = tuple[str, Any]


def streamed(request: Request) -> Iterator[Item]:
    yield request.headers["idempotency-key"].strip('"'), request.body


def logged(request: Request) -> Iterator[Item]:
    (resource,) = json.loads(request.body)["resourceLogs"]
    for record in resource["scopeLogs"][0]["logRecords"]:
        attributes = {one["key"]: one["value"] for one in record["attributes"]}
        yield attributes["log.record.uid"]["stringValue"], [resource["resource"], record]


def stated(request: Request) -> Iterator[Item]:
    for statement in json.loads(request.body):
        yield statement["id"], statement


ITEMS: Mapping[str, Callable[[Request], Iterator[Item]]] = {"streaming": streamed, "otlp": logged, "xapi": stated}


def of_requests(requests: list[Request], items: Callable[[Request], Iterator[Item]]) -> list[Item]:
    return [item for request in requests for item in items(request)]


def lines_of(directory: Path) -> list[Item]:
    found = [json.loads(line) for path in sorted(directory.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [(line["id"], line) for line in found]


def ids_for(name: str, records: list[Record]) -> dict[str, str]:
    """The id of each event that this sink gets, in their order, and its step."""
    kind = {"streaming": "learnpack-streaming", "files": "jsonl"}.get(name, name)
    slugs = {
        record.id: getattr(getattr(record.event, "step", None), "slug", "")
        for record in records
        if record.event.name in KINDS[kind].events
    }
    if name != "xapi":
        return slugs
    from agent.sinks.xapi import _uuid

    return {_uuid(key): slug for key, slug in slugs.items()}


def check(name: str, records: list[Record], arrived: list[Item], taken: list[str]) -> None:
    wanted = ids_for(name, records)
    assert set(taken) == set(wanted), f"seed {SEED}: {name}: everything, and nothing else"
    bodies: dict[str, list[Any]] = defaultdict(list)
    for key, body in arrived:
        if body not in bodies[key]:
            bodies[key].append(body)
    different = {key: found for key, found in bodies.items() if len(found) > 1}
    assert not different, f"seed {SEED}: {name}: the same id, something else"
    first_arrivals: dict[str, list[str]] = defaultdict(list)
    for key in bodies:
        first_arrivals[wanted[key]].append(key)
    order: dict[str, list[str]] = defaultdict(list)
    for key, slug in wanted.items():
        order[slug].append(key)
    assert first_arrivals == order, f"seed {SEED}: {name}: the order of a step's events"


def check_documents(documents: list[dict[str, Any]], records: list[Record]) -> None:
    for earlier, later in pairwise(documents):
        assert reduced(summary(earlier), summary(later)) == [], f"seed {SEED}: a document that holds less"
    runs = {record.id for record in records if record.event.name in ("compile", "test")}
    last = documents[-1]
    attempts = [one for step in last["steps"] for name in ("compilations", "tests") for one in step[name]]
    assert {one["event_id"] for one in attempts} == runs
    assert len(attempts) == len(runs)
    opened_steps = {step["slug"] for step in last["steps"] if "opened_at" in step}
    assert opened_steps == {record.event.step.slug for record in records if isinstance(record.event, OpenStep)}
