"""LearnPack writes a telemetry.json of its own: read while it lives, united afterwards, each run once."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import LASTS, PYTHON, make_course
from tests.standin.learnpack import LearnPack
from tests.standin.score import Truth, assert_perfect

Document = dict[str, Any]
KEYS = {"compile": "compilations", "test": "tests"}


@dataclass
class Scene:
    course: Path
    agent: Agent
    servers: list[LearnPack]
    truth: list[Truth] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    completed: dict[str, int | None] = field(default_factory=dict)
    #: What LearnPack had in its file when its server ended, and what was there a little later; for each server.
    theirs: list[Document] = field(default_factory=list)
    united: list[Document] = field(default_factory=list)


def started(attempt: Document) -> int:
    return int(attempt.get("started_at") or attempt["starting_at"])


def attempts(document: Document, slug: str, kind: str) -> list[Document]:
    (step,) = [step for step in document["steps"] if step["slug"] == slug]
    found: list[Document] = step[KEYS[kind]]
    return found


def runs_of(truths: list[Truth], slug: str, kind: str) -> list[Truth]:
    return [truth for truth in truths if (truth.slug, truth.kind) == (slug, kind)]


def has_all(document: Document | None, truths: list[Truth]) -> bool:
    return document is not None and all(
        len(attempts(document, slug, kind)) >= len(runs_of(truths, slug, kind))
        for slug, kind in {(truth.slug, truth.kind) for truth in truths if truth.kind in KEYS}
    )


def wait_for_union(scene: Scene) -> None:
    """After a server's end: takes what it left, then waits until the agent's runs and completions are there too."""

    def readable() -> Document | None:
        try:
            return scene.agent.document()
        except ValueError:
            return None

    def is_united(document: Document | None) -> bool:
        steps = document["steps"] if document else []
        completed = {step["slug"] for step in steps if step.get("completed_at")}
        return has_all(document, scene.truth) and completed >= set(scene.completed)

    scene.agent.wait_for(lambda _: is_united(readable()))
    document = scene.agent.document()
    assert document is not None
    scene.united.append(document)


@pytest.fixture(scope="module")
def scene(long_stage: Stage) -> Scene:
    course = make_course(long_stage.directory / "course", PYTHON, lasting=True)
    telemetry = course / ".learn/telemetry.json"
    agent = long_stage.agent(course).start()
    student = long_stage.student(course)
    first = long_stage.learnpack(course, own_telemetry=True).start()
    second = long_stage.learnpack(course, own_telemetry=True)
    scene = Scene(course, agent, [first, second], first.truth)

    first.open("00-welcome")
    scene.completed["00-welcome"] = first.open("01-hello")["at"]
    first.build("01-hello")
    first.test("01-hello")
    first.save("01-hello", "print('hello')\n" + LASTS)
    scene.completed["01-hello"] = first.test("01-hello")["ended_at"]
    scene.truth.append(student.type("python exercises/01-hello/app.py").ran("compile", "01-hello"))
    first.build("01-hello")
    first.do("ask_ai", slug="01-hello", question="why?", answer="because")
    first.open("07-free")
    first.build("07-free")
    scene.truth.append(student.type("python exercises/07-free/helper.py").ran("compile", "07-free"))
    # The agent has concluded all of it, and had reason enough to write.
    agent.wait_for(lambda events: count(events, "compile", "07-free") >= 2)
    scene.completed["07-free"] = first.open("01-hello")["at"]
    scene.theirs.append(json.loads(telemetry.read_text()))
    first.stop()
    wait_for_union(scene)

    second.start()
    second.open("02-sum")
    second.build("02-sum")
    second.save("02-sum", "print(5)\n" + LASTS)
    scene.completed["02-sum"] = second.test("02-sum")["ended_at"]
    scene.theirs.append(json.loads(telemetry.read_text()))
    second.stop()
    scene.truth += second.truth
    wait_for_union(scene)
    assert agent.stop() == 0, agent.log
    scene.events = agent.events()
    return scene


def test_the_agent_never_writes_the_file_while_its_server_lives(scene: Scene) -> None:
    assert [server.touched for server in scene.servers] == [0, 0]


def test_the_events_are_the_same_as_without_it(scene: Scene) -> None:
    assert_perfect(scene.events, scene.truth, scene.completed)


@pytest.mark.parametrize("life", [0, 1])
def test_afterwards_each_run_is_there_once(scene: Scene, life: int) -> None:
    document = scene.united[life]
    truths = scene.truth if life else [truth for truth in scene.truth if truth not in scene.servers[1].truth]
    for slug in PYTHON:
        for kind in KEYS:
            found = sorted(attempts(document, slug, kind), key=started)
            wanted = sorted(runs_of(truths, slug, kind), key=lambda truth: truth.started_at)
            assert len(found) == len(wanted), (slug, kind, found)
            for attempt, truth in zip(found, wanted, strict=True):
                assert truth.bounds is not None
                assert truth.bounds[0] <= started(attempt) <= truth.bounds[1]


@pytest.mark.parametrize("life", [0, 1])
def test_what_learnpack_wrote_is_never_reduced(scene: Scene, life: int) -> None:
    theirs, united = scene.theirs[life], scene.united[life]
    assert united["telemetry_id"] == theirs["telemetry_id"]
    for step in theirs["steps"]:
        for kind, key in KEYS.items():
            ours = attempts(united, step["slug"], kind)
            for attempt in step[key]:
                same = min(ours, key=lambda one: abs(started(one) - started(attempt)))
                both = started(same), started(attempt)
                spans = [truth.bounds for truth in runs_of(scene.truth, step["slug"], kind) if truth.bounds]
                assert any(first <= min(both) and max(both) <= last for first, last in spans), both
                for name in ("stdout", "stderr"):
                    if attempt.get(name):
                        kept = same.get(f"learnpack_{name}") or same[name]
                        assert base64.b64decode(kept) == base64.b64decode(attempt[name])
        (now,) = [one for one in united["steps"] if one["slug"] == step["slug"]]
        assert len(now["ai_interactions"]) == len(step["ai_interactions"])


def test_what_learnpack_gets_wrong_is_right_afterwards(scene: Scene) -> None:
    steps = {step["slug"]: step for step in scene.united[1]["steps"]}
    assert "completed_at" not in scene.theirs[0]["steps"][1], "LearnPack itself never completes a tested step"
    assert steps["00-welcome"]["opened_at"]
    assert {slug for slug, step in steps.items() if step.get("completed_at")} >= set(scene.completed)


def test_learnpack_reads_what_the_agent_wrote_before(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON, lasting=True)
    agent = stage.agent(course).start()
    student = stage.student(course)
    truth = [student.type("python exercises/07-free/app.py").ran("compile", "07-free")]
    agent.wait_for(lambda _: has_all(agent.document(), truth))
    before = agent.document()
    assert before is not None and len(attempts(before, "07-free", "compile")) == 1

    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    truth.append(student.type("python exercises/07-free/app.py").ran("compile", "07-free"))
    learnpack.build("01-hello")
    assert learnpack.touched == 0
    learnpack.stop()
    truth += learnpack.truth
    agent.wait_for(lambda _: has_all(agent.document(), truth))
    agent.stop()
    document = agent.document()
    assert document is not None and document["telemetry_id"] == before["telemetry_id"]
    for slug in ("01-hello", "07-free"):
        assert len(attempts(document, slug, "compile")) == 2
