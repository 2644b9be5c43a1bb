"""Server and agent are killed at random moments while a student works and LearnPack writes telemetry of its own.

Thirty times in CI; LEARNPACK_TEST_KILLS=300 for a long look.  LEARNPACK_TEST_SEED repeats a sequence of moments.

What can't be demanded of anybody: a document that was whole on the disk for a moment only, or while no agent looked,
before the server died in the middle of the next write.  Everything that stood there for MARGIN_MS while an agent was
up has to be in the document at the end, every run of a program that the agent saw from its beginning to its end, too;
on a slow machine three times what the slowest of the student's runs took, if that is more.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, was_too_short
from tests.standin.courses import A_LITTLE, PYTHON, WEB, make_course
from tests.standin.learnpack import LearnPack
from tests.standin.score import shown
from tests.standin.telemetry_file import identities, now_ms

KILLS = int(os.environ.get("LEARNPACK_TEST_KILLS", "30"))
SEED = int(os.environ.get("LEARNPACK_TEST_SEED", "0")) or random.randrange(1, 1_000_000)
#: What was so long before a kill must have been written down.
MARGIN_MS = 700
#: Two times of one thing differ by less, where it is not known from when to when it lasted.
SAME_MS = 600
#: So long after its death a server starts again, if the agent was up all the while: it has to mend the file first.
START_SECONDS = 60.0

PROGRAMS = ("01-hello", "02-sum", "07-free")
PAGE = "08-page"
STEPS = {**{slug: PYTHON[slug] for slug in (*PROGRAMS, "03-reading")}, PAGE: WEB["01-page"]}

pytestmark = pytest.mark.timeout(300 + 10 * KILLS)

Item = dict[str, Any]
KINDS = {"compile": "compilations", "test": "tests"}


@dataclass
class Done:
    """Something that the student did: `text` tells it apart, `ended` is None where the server died of it or before."""

    kind: str
    slug: str
    text: str
    began: int
    ended: int | None = None
    is_typed: bool = False


@dataclass
class Work:
    """A student who never stops, in the UI and in a terminal, and starts the server again whenever it is gone."""

    stage: Stage
    course: Path
    moments: random.Random
    log: Path
    done: list[Done] = field(default_factory=list)
    failed_starts: int = 0
    servers: int = 0
    complaint: str | None = None
    fate: str | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    server: LearnPack | None = None
    agent_since: float | None = None

    def go_on(self) -> None:
        try:
            while not self.stopping.wait(self.moments.choice([0, 0.02, 0.02, 0.05, 0.1, 0.3, 0.9])):
                # A server that is killed in the middle of an action: the next turn starts another.
                with contextlib.suppress(AssertionError, OSError, ValueError):
                    self.turn(self.living_server())
        except BaseException as error:
            self.complaint = f"{type(error).__name__}: {error}"
            raise

    def margin_ms(self) -> int:
        typed = [done for done in self.done if done.is_typed and done.ended is not None]
        return max([MARGIN_MS, *(3 * ((done.ended or 0) - done.began) for done in typed)])

    def living_server(self) -> LearnPack:
        if self.server is not None and self.server.process is not None and self.server.process.poll() is None:
            return self.server
        down_since = time.monotonic()
        while True:
            self.servers += 1
            # A killed server leaves its temporary files: in a directory that no other test looks at.
            log, temporary = str(self.log), str(self.log.parent)
            server = self.stage.learnpack(self.course, own_telemetry=True, STANDIN_WRITES=log, TMPDIR=temporary)
            try:
                server.start()
                break
            except (AssertionError, OSError):
                server.stop(signal.SIGKILL)
                self.failed_starts += 1
            agent_since = self.agent_since
            if agent_since is not None and time.monotonic() - max(agent_since, down_since) > START_SECONDS:
                self.complaint = "the server does not start any more"
                raise SystemExit
            time.sleep(0.1)
        self.server = server
        return server

    def turn(self, server: LearnPack) -> None:
        number = len(self.done)
        if self.fate is not None:
            fate, self.fate = self.fate, None
            server.spoil(fate)
        what = self.moments.choices(
            [self.build, self.build_page, self.build_then_test, self.ask, self.read, self.type], [30, 15, 4, 15, 6, 20]
        )[0]
        what(server, number)

    def keep(self, done: Done, act: Callable[[], object]) -> None:
        self.done.append(done)
        act()
        done.ended = now_ms()

    def save_program(self, server: LearnPack | None, number: int) -> tuple[str, str]:
        slug = self.moments.choice(PROGRAMS)
        text = f"# run {number}\nprint({number})\n{A_LITTLE}"
        if server is None:
            (self.course / f"exercises/{slug}/app.py").write_text(text)
        else:
            server.open(slug)
            server.save(slug, text)
        return slug, text

    def build(self, server: LearnPack, number: int) -> None:
        slug, text = self.save_program(server, number)
        self.keep(Done("compilations", slug, text, now_ms()), lambda: server.build(slug))

    def build_page(self, server: LearnPack, number: int) -> None:
        server.open(PAGE)
        self.keep(Done("compilations", PAGE, "", now_ms()), lambda: server.build(PAGE))

    def build_then_test(self, server: LearnPack, number: int) -> None:
        """The test blocks the server right after the build's telemetry was truncated: the file is empty meanwhile."""
        slug, text = self.save_program(server, number)
        slug = "01-hello" if "test.py" not in STEPS[slug] else slug
        (self.course / f"exercises/{slug}/app.py").write_text(text)
        done = Done("tests", slug, text, now_ms())
        self.done.append(Done("compilations", slug, text, now_ms()))
        self.done.append(done)
        first, second = server.send_both({"do": "build", "slug": slug}, {"do": "test", "slug": slug})
        first.result()
        self.done[-2].ended = now_ms()
        second.result()
        done.ended = now_ms()

    def ask(self, server: LearnPack, number: int) -> None:
        slug, question = self.moments.choice(PROGRAMS), f"question {number}?"
        self.keep(Done("ai_interactions", slug, question, now_ms()), lambda: server.ask_tutor(slug, question, "no"))

    def read(self, server: LearnPack, number: int) -> None:
        server.open("03-reading")

    def type(self, server: LearnPack, number: int) -> None:
        slug, text = self.save_program(None, number)
        command = ["python", f"exercises/{slug}/app.py"]
        environment = self.stage.toolbox.environment()
        run = subprocess.DEVNULL
        self.keep(
            Done("compilations", slug, text, now_ms(), is_typed=True),
            lambda: subprocess.run(command, cwd=self.course, env=environment, stdin=run, stdout=run, stderr=run),
        )


@dataclass
class Scene:
    work: Work
    lives: list[tuple[int, int]]
    events: list[Event]
    document: dict[str, Any]
    #: What the server ever wrote whole, and of that what an agent had time to read.
    whole: list[Item]
    due: list[Item]

    @property
    def label(self) -> str:
        work = self.work
        return f"seed {SEED}: {len(work.done)} things done, {work.servers} servers, {work.failed_starts} did not start"

    def was_watched(self, done: Done) -> bool:
        """Whether one life of the agent saw it from before its beginning to well after its end."""
        ended, margin = done.ended, self.work.margin_ms()
        if ended is None:
            return False
        return any(ready + 50 <= done.began and ended <= killed - margin for ready, killed in self.lives)

    def was_found_late(self, event: Event, asked: list[Done]) -> bool:
        """Whether this is a build that was over when the agent started: it found the window's wish in LearnPack's queue
        and dates it by its own start.  LearnPack's telemetry may tell of the same build, with its own time.
        """
        before = [done for done in asked if done.began <= event["ended_at"]]
        if not before or event["exit_code"] is not None:
            return False
        at = before[-1].ended or before[-1].began
        return not any(ready <= at <= killed for ready, killed in self.lives)


def start_agent(agent: Agent, work: Work) -> int:
    """Returns since when it is ready."""
    agent.start()
    work.agent_since = time.monotonic()
    return now_ms()


def kill_at_random(agent: Agent, work: Work, moments: random.Random, ready: int) -> list[tuple[int, int]]:
    """Thirty kills; returns from when to when each agent was up, the first one since `ready`."""
    lives: list[tuple[int, int]] = []
    for _ in range(KILLS):
        time.sleep(moments.choice([moments.uniform(0, 0.1), moments.uniform(0.1, 0.6), moments.uniform(0.6, 1.2)]))
        if work.complaint is not None:
            break
        victim = moments.choices(["agent", "server", "both", "truncated", "half", "older_last"], [10, 6, 4, 4, 4, 2])[0]
        if victim in ("server", "both") and work.server is not None and work.server.process is not None:
            work.server.process.kill()
        if victim in ("agent", "both"):
            work.agent_since = None
            lives.append((ready, now_ms()))
            agent.kill()
            ready = start_agent(agent, work)
        if victim in ("truncated", "half", "older_last"):
            work.fate = victim
    lives.append((ready, 0))
    return lives


def read_log(log: Path, lives: list[tuple[int, int]], margin: int) -> tuple[list[Item], list[Item]]:
    """What stood whole on the disk at any time, and what stood there so long that an agent must have read it."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    whole: dict[str, Item] = {}
    due: dict[str, Item] = {}
    for number, line in enumerate(lines):
        if line["what"] != "whole":
            continue
        until = lines[number + 1]["at"] if number + 1 < len(lines) else lives[-1][1]
        read = any(min(until, killed) - max(line["at"], ready) >= margin for ready, killed in lives)
        for item in line["has"]:
            whole[json.dumps(item)] = item
            if read:
                due[json.dumps(item)] = item
    return list(whole.values()), list(due.values())


@pytest.fixture(scope="module")
def scene(long_stage: Stage) -> Scene:
    moments = random.Random(SEED)
    course = make_course(long_stage.directory / "course", STEPS)
    agent = long_stage.agent(course)
    log = long_stage.directory / "writes.jsonl"
    work = Work(long_stage, course, random.Random(moments.random()), log)
    # The login is from an earlier day.
    session = course / ".learn/.session/05e0e91281041156e1ad7112f0238c2b"
    session.parent.mkdir()
    session.write_text(json.dumps({"key": "bc-payload", "value": {"token": "t", "user_id": 1}}))
    ready = start_agent(agent, work)
    worker = threading.Thread(target=work.go_on)
    worker.start()
    try:
        lives = kill_at_random(agent, work, moments, ready)
    finally:
        work.stopping.set()
        worker.join()
    assert work.complaint is None, f"seed {SEED}: {work.complaint}\n{agent.log}"
    work.living_server().stop()

    def is_complete(events: list[Event]) -> bool:
        """The document follows the journal, and the journal what only LearnPack told of."""
        with contextlib.suppress(ValueError):
            document = agent.document() or {"steps": []}
            is_whole = all(texts_in(document, kind) == sources_of(events, event) for event, kind in KINDS.items())
            return is_whole and len(pages_in(document)) == len(pages_of(events))
        return False

    agent.wait_for(is_complete)
    assert agent.stop() == 0, agent.log
    # Its end is in order: nothing that it saw, and nothing that stands in the file, is lost.
    lives[-1] = (lives[-1][0], now_ms() + work.margin_ms())
    whole, due = read_log(log, lives, work.margin_ms())
    document = agent.document()
    assert document is not None
    return Scene(work, lives, agent.events(), document, whole, due)


def texts_in(document: dict[str, Any], kind: str) -> Counter[str]:
    """The programs that ran, or the questions that were asked, each as often as it is there."""
    name = "student_message" if kind == "ai_interactions" else "source_code"
    rows = [row[name] for step in document["steps"] for row in step[kind] if step["slug"] != PAGE]
    return Counter(row if kind == "ai_interactions" else base64.b64decode(row).decode() for row in rows)


def sources_of(events: list[Event], event: str) -> Counter[str]:
    """What ran, as the journal has it."""
    rows = [row for row in events if row["event"] == event and row["step_slug"] != PAGE]
    return Counter(row["source_code"] or "" for row in rows)


def pages_in(document: dict[str, Any]) -> list[Any]:
    """The page's builds."""
    return [row for step in document["steps"] if step["slug"] == PAGE for row in step["compilations"]]


def pages_of(events: list[Event]) -> list[Event]:
    """The page's builds, as the journal has them."""
    return [row for row in events if row["event"] == "compile" and row["step_slug"] == PAGE]


def windows_of(asked: list[Done]) -> list[tuple[int, int]]:
    """When each build can have been: of one that nobody saw end, until the next one was asked for."""
    later = [*(done.began for done in asked[1:]), now_ms()]
    return [(done.began - 50, (done.ended or until) + 50) for done, until in zip(asked, later, strict=False)]


def nearest(windows: list[tuple[int, int]], found: list[int]) -> dict[int, int]:
    """Index of a window → index of the time in it, or else of one that is less than SAME_MS away; each at most once."""
    near = sorted(
        (max(first - at, at - last, 0), i, j) for i, (first, last) in enumerate(windows) for j, at in enumerate(found)
    )
    pairs: dict[int, int] = {}
    for distance, i, j in near:
        if distance <= SAME_MS and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def milliseconds(at: Any) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000) if isinstance(at, str) else int(at)


def test_the_torture_was_one(scene: Scene) -> None:
    assert min(len(scene.lives), scene.work.servers) > KILLS / 10, scene.label
    assert scene.whole and scene.due, f"{scene.label}: LearnPack's file never stood whole for long enough"


def test_each_run_of_a_program_is_one_event(scene: Scene) -> None:
    for event, kind in KINDS.items():
        runs = sources_of(scene.events, event)
        doubled = {text: number for text, number in runs.items() if number > 1 and text}
        assert not doubled, f"{scene.label}: {doubled}"
        known = {done.text for done in scene.work.done if done.kind == kind} | {""}
        stubs = {STEPS[slug]["app.py"] for slug in PROGRAMS}
        assert set(runs) <= known | stubs, f"{scene.label}: {set(runs) - known}"
        due = [done for done in scene.work.done if done.kind == kind and done.text and scene.was_watched(done)]
        lost = [done for done in due if done.text not in runs]
        unread = [done for done in lost if was_too_short(scene.events, done.began, done.ended or 0)]
        assert lost == unread, f"{scene.label}: {len(lost)} of {len(due)} lost: {lost[:5]}, as it says: {unread[:5]}"
        assert len(unread) <= len(due) / 5, f"{scene.label}: {len(unread)} were over before they could be read"
    failed = [shown(row) for row in scene.events if row["event"] == "compile" and row["exit_code"]]
    assert not failed, f"{scene.label}: no program and no page failed: {failed}"


def test_each_run_is_once_in_the_document_too(scene: Scene) -> None:
    for event, kind in KINDS.items():
        in_journal, in_document = sources_of(scene.events, event), texts_in(scene.document, kind)
        assert in_document == in_journal, f"{scene.label}: {in_document - in_journal} and {in_journal - in_document}"


def test_each_build_of_a_page_is_one_event(scene: Scene) -> None:
    asked = [done for done in scene.work.done if done.slug == PAGE]
    # One that was found late has the time of the agent's start, at which another one may have been asked for.
    events = sorted(pages_of(scene.events), key=lambda event: scene.was_found_late(event, asked))
    all_of_it = "\n".join([*map(str, asked), *map(shown, events)])
    pairs = nearest(windows_of(asked), [event["ended_at"] for event in events])
    lost = [done for number, done in enumerate(asked) if number not in pairs and scene.was_watched(done)]
    assert not lost, f"{scene.label}: {lost} are lost\n{all_of_it}"
    left = [event for number, event in enumerate(events) if number not in pairs.values()]
    invented = [shown(event) for event in left if not scene.was_found_late(event, asked)]
    assert not invented, f"{scene.label}: builds that nobody asked for: {invented}\n{all_of_it}"
    rows = pages_in(scene.document)
    assert len(rows) == len(events), f"{scene.label}\n{rows}\n{all_of_it}"


def test_nothing_that_stood_whole_in_learnpacks_file_is_missing(scene: Scene) -> None:
    final = identities(scene.document)
    windows = windows_of([done for done in scene.work.done if done.slug == PAGE])
    for item in scene.due:
        same = [one for one in final if (one["slug"], one["kind"]) == (item["slug"], item["kind"])]
        if item["slug"] != PAGE:
            found = sum(one["text"] == item["text"] for one in same)
        else:
            # LearnPack gives them no source: it is the same build when it ended while the same one was asked for.
            ended = [milliseconds(one["ended"]) for one in same]
            at = milliseconds(item["ended"])
            same_build = [(first, last) for first, last in windows if first <= at <= last]
            in_it = any(first <= one <= last for one in ended for first, last in same_build)
            found = int(in_it or any(abs(one - at) <= SAME_MS for one in ended))
        assert found == 1, f"{scene.label}: {item} is there {found} times:\n{same}\n{scene.lives}"


def test_each_conversation_is_one_event_and_one_row(scene: Scene) -> None:
    told = Counter(row["student_message"] for row in scene.events if row["event"] == "ai_interaction")
    rows = texts_in(scene.document, "ai_interactions")
    assert max(told.values(), default=1) == max(rows.values(), default=1) == 1, scene.label
    due = {item["text"] for item in scene.due if item["kind"] == "ai_interactions"}
    assert due <= set(rows), f"{scene.label}: {due - set(rows)}"
    assert due <= set(told), f"{scene.label}: {due - set(told)}"


def test_the_numbers_of_the_journal_ascend_and_every_event_has_evidence(scene: Scene) -> None:
    numbers = [row["number"] for row in scene.events]
    assert numbers == sorted(set(numbers)), scene.label
    assert len({row["id"] for row in scene.events}) == len(scene.events), scene.label
    assert all(row["evidence"] for row in scene.events), scene.label
