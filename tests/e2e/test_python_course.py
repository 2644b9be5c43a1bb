"""A Python course in LearnPack's UI: one long scripted session, looked at from many sides; then the smaller scenes."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import PYTHON, make_course, make_incremental_course
from tests.standin.learnpack import Answer, LearnPack
from tests.standin.score import CLOCK_MS, Truth, assert_perfect
from tests.standin.telemetry_file import now_ms

SECRET = "a-secret-that-nobody-may-keep"

SEGFAULT = "import os\nprint('before', flush=True)\nos.kill(os.getpid(), 11)\n"
ENDLESS = "while True:\n    pass\n"
CATCHES_SIGTERM = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("catches", flush=True)
time.sleep(300)
"""
RUNS_ANOTHER_STEP = """\
import subprocess, sys
subprocess.run([sys.executable, "exercises/02-sum/app.py"])
"""
BECOMES_ANOTHER = """\
import os, sys
os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(5)"])
"""
LEAVES_A_CHILD = "import subprocess\nsubprocess.Popen(['sleep', '0.6'])\n"
SLOW = "import time\ntime.sleep(0.7)\nprint({})\n"


@dataclass
class Scene:
    """What was played and what the agent made of it."""

    course: Path
    agent: Agent
    learnpack: LearnPack
    #: Before and after the server's start, and its end.
    server_up: tuple[int, int] = (0, 0)
    server_down: tuple[int, int] = (0, 0)
    events: list[Event] = field(default_factory=list)
    completed: dict[str, int | None] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    files_before: set[str] = field(default_factory=set)
    may_miss: float = 0.0

    @property
    def truth(self) -> list[Truth]:
        return self.learnpack.truth


def play(learnpack: LearnPack) -> dict[str, int | None]:
    """The session; returns what was completed, and when."""
    completed: dict[str, int | None] = {}
    do = learnpack

    def leaves(slug: str, to: str) -> None:
        """A step without tests is completed when another one is opened."""
        completed.setdefault(slug, do.open(to)["at"])

    def passes(slug: str, **more: Any) -> Answer:
        tested = do.test(slug, **more)
        assert tested["exit_code"] == 0, tested["stdout"]
        completed.setdefault(slug, tested["ended_at"])
        return tested

    do.open("00-welcome")
    do.open("00-welcome")
    leaves("00-welcome", "01-hello")
    do.build("01-hello")
    assert do.test("01-hello")["exit_code"] == 1
    do.save("01-hello", "print('hello')\n")
    do.build("01-hello")
    passes("01-hello")
    passes("01-hello")

    do.open("02-sum")
    do.save("02-sum", "print('5\n")
    assert do.build("02-sum")["exit_code"] == 1
    do.save("02-sum", "print('é' * 100_000)\nraise SystemExit(3)\n")
    assert do.build("02-sum")["exit_code"] == 3
    do.save("02-sum", SEGFAULT)
    assert do.build("02-sum")["signal"] == signal.SIGSEGV
    do.save("02-sum", ENDLESS)
    assert do.build("02-sum", limit=0.8)["signal"] == signal.SIGTERM
    do.save("02-sum", CATCHES_SIGTERM)
    assert do.build("02-sum", limit=0.4, from_output=True)["exit_code"] == 0
    do.save("02-sum", "print(2 + 3)\n")
    passes("02-sum")

    do.open("03-reading")
    leaves("03-reading", "04-input")
    do.build("04-input", answers=["Ada"])
    do.save("04-input", "name = input('name? ')\nprint('Hello', name)\n")
    do.build("04-input", answers=["Ada"])
    passes("04-input", answers=["Ada"])

    # Three opens at once; then identical stubs, told apart by the path.
    do.burst("05-twin-a", "06-twin-b", "07-free")
    do.build("07-free")
    leaves("07-free", "06-twin-b")
    do.build("06-twin-b")
    do.open("05-twin-a")
    do.build("05-twin-a")

    # One click is one run, however many processes it takes.
    for text in (RUNS_ANOTHER_STEP, BECOMES_ANOTHER, LEAVES_A_CHILD):
        do.save("05-twin-a", text)
        do.build("05-twin-a")

    # Two builds at once, and an open that has to wait for a test.
    do.save("05-twin-a", SLOW.format("'a'"))
    do.save("06-twin-b", SLOW.format("'b'"))
    first = do.send("build", slug="05-twin-a")
    time.sleep(0.2)  # the student's own pace: the second click comes while the first program runs
    second = do.send("build", slug="06-twin-b")
    do.note(first.result())
    do.note(second.result())
    do.open("06-twin-b")
    test = do.send("test", slug="06-twin-b")
    waiting = do.send("open", slug="01-hello")
    do.note(test.result())
    do.note(waiting.result())

    do.reset("01-hello")
    do.build("01-hello")
    return completed


@pytest.fixture(scope="module")
def scene(long_stage: Stage) -> Scene:
    course = make_course(long_stage.directory / "course", PYTHON)
    files_before = {path.name for path in (course / ".learn").iterdir()}
    agent = long_stage.agent(course).start()
    learnpack = long_stage.learnpack(course, GITHUB_TOKEN=SECRET)
    scene = Scene(course, agent, learnpack, may_miss=agent.may_miss(), files_before=files_before)
    agent.await_document()
    before = now_ms()
    learnpack.start()
    scene.server_up = before, now_ms()
    scene.completed = play(learnpack)
    before = now_ms()
    learnpack.stop()
    scene.server_down = before, now_ms()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    scene.events = agent.events()
    scene.document = agent.document() or {}
    return scene


def test_each_action_is_one_event_and_nothing_is_invented(scene: Scene) -> None:
    assert_perfect(scene.events, scene.truth, scene.completed, may_miss=scene.may_miss)


def test_the_order_of_the_opens_is_the_order_of_the_clicks(scene: Scene) -> None:
    clicks = [truth.slug for truth in scene.truth if truth.kind == "open_step"]
    opens = iter([event["step_slug"] for event in scene.events if event["event"] == "open_step"])
    # Each is found behind the one before it; work in another step may open that one in between.
    assert [slug for slug in clicks if slug not in opens] == []


def test_the_session_is_as_long_as_the_server_lives(scene: Scene) -> None:
    starts = [event["at"] for event in scene.events if event["event"] == "session_start"]
    ends = [event["at"] for event in scene.events if event["event"] == "session_end"]
    assert (len(starts), len(ends)) == (1, 1)
    for (at,), (first, last) in ((starts, scene.server_up), (ends, scene.server_down)):
        assert first - CLOCK_MS <= at <= last + CLOCK_MS


def test_no_gap_is_reported_when_nothing_was_missed(scene: Scene) -> None:
    assert [event for event in scene.events if event["event"] == "gap"] == []


def test_the_document_has_each_run_once_and_decodes_to_the_source(scene: Scene) -> None:
    steps = {step["slug"]: step for step in scene.document["steps"]}
    assert list(steps) == list(PYTHON)
    for slug, step in steps.items():
        for key, kind in (("compilations", "compile"), ("tests", "test")):
            wanted = [event for event in scene.events if (event["event"], event.get("step_slug")) == (kind, slug)]
            found = step[key]
            assert len(found) == len(wanted), (slug, key, found)
            events = {event["id"]: event for event in wanted}
            assert {attempt["event_id"] for attempt in found} == set(events)
            for attempt in found:
                event = events[attempt["event_id"]]
                assert base64.b64decode(attempt["source_code"]).decode() == (event["source_code"] or "")
                for name in ("exit_code", "started_at", "ended_at"):
                    assert attempt.get(name) == event[name]


def test_the_document_is_what_a_receiver_needs(scene: Scene) -> None:
    document = scene.document
    assert document["slug"] == "a-course-of-our-own"
    assert len(document["telemetry_id"]) == 16
    for name in ("tutorial_started_at", "last_interaction_at"):
        assert isinstance(document[name], int)
    (session,) = document["workout_session"]
    assert session["started_at"] < session["ended_at"]
    for step in document["steps"]:
        assert step["is_testeable"] == ("test.py" in PYTHON[step["slug"]])
        assert "fullname" not in document
        opened, completed = step.get("opened_at"), step.get("completed_at")
        assert (completed is not None) == (step["slug"] in scene.completed), step["slug"]
        if completed is not None:
            assert opened is not None and opened <= completed


def test_position_zero_is_opened_too(scene: Scene) -> None:
    assert scene.document["steps"][0]["opened_at"] > 0


def test_the_agent_leaves_only_telemetry_json_in_the_course(scene: Scene) -> None:
    ours = {".learn": {path.name for path in (scene.course / ".learn").iterdir()}}
    standins = {".session", "config.json", "dist", "reports", "resets", "vscode_queue.json"}
    assert ours[".learn"] - scene.files_before - standins == {"telemetry.json"}
    assert not list(scene.course.glob("*learnpack*"))


def test_what_the_agent_keeps_is_for_its_owner_only(scene: Scene) -> None:
    for directory, _, names in os.walk(scene.agent.state):
        for name in names:
            mode = stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode)
            assert mode & 0o077 == 0, (name, oct(mode))


def test_no_secret_of_the_servers_environment_is_kept(scene: Scene) -> None:
    kept = [path for path in scene.agent.state.rglob("*") if path.is_file()] + [scene.agent.trace_path]
    kept.append(scene.course / ".learn/telemetry.json")
    for path in kept:
        assert SECRET.encode() not in path.read_bytes(), path


def test_the_export_is_what_the_other_tests_read_of_the_journal(scene: Scene) -> None:
    done = scene.agent.call("export", "--format", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == scene.events


def test_the_recorded_observations_replay_to_the_same_events(scene: Scene) -> None:
    replayed = scene.agent.call("replay", course=scene.agent.trace_path)
    assert replayed.returncode == 0, replayed.stderr
    kinds = [(row["event"], row.get("step_slug"), row["at"]) for row in map(json.loads, replayed.stdout.splitlines())]
    assert kinds == [(event["event"], event.get("step_slug"), event["at"]) for event in scene.events]


def test_a_pyenv_shim_is_one_run(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON)
    agent = stage.agent(course).start()
    may_miss = agent.may_miss()
    learnpack = stage.learnpack(course, pyenv=True).start()
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    learnpack.save("01-hello", "raise SystemExit(4)\n")
    learnpack.build("01-hello")
    learnpack.save("01-hello", "print('hello')\n")
    tested = learnpack.test("01-hello")
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    agent.stop()
    assert_perfect(agent.events(), learnpack.truth, {"01-hello": tested["ended_at"]}, may_miss=may_miss)


def test_code_at_the_root_belongs_to_the_step_that_is_open(stage: Stage, tmp_path: Path) -> None:
    course = make_incremental_course(tmp_path / "course")
    agent = stage.agent(course).start()
    may_miss = agent.may_miss()
    learnpack = stage.learnpack(course).start()
    opened = learnpack.open("00-welcome")
    learnpack.open("01-first")
    learnpack.save("", "print('first')\n")
    learnpack.build("01-first")
    tested = learnpack.test("01-first")
    learnpack.open("02-second")
    learnpack.build("02-second")
    assert learnpack.test("02-second")["exit_code"] == 1
    student = stage.student(course)
    typed = student.type("python app.py")
    learnpack.truth.append(typed.ran("compile", "02-second", source="print('first')\n"))
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    agent.stop()
    assert opened["new"]
    completed = {"00-welcome": None, "01-first": tested["ended_at"]}
    assert_perfect(agent.events(), learnpack.truth, completed, may_miss=may_miss)
