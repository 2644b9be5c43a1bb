"""A JavaScript course in LearnPack's UI: programs run as copies in the home directory, tests are jest's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.standin.agent import Event, count
from tests.standin.courses import JAVASCRIPT, make_course
from tests.standin.learnpack import LearnPack
from tests.standin.score import Truth, assert_perfect
from tests.standin.toolbox import find_jest, needs_jest, needs_node

pytestmark = needs_node


@dataclass
class Scene:
    truth: list[Truth]
    events: list[Event] = field(default_factory=list)
    completed: dict[str, int | None] = field(default_factory=dict)
    may_miss: float = 0.0


def play_builds(learnpack: LearnPack) -> None:
    def save(slug: str, text: str) -> None:
        learnpack.save(slug, text, name="app.js")

    learnpack.open("01-hello")
    learnpack.build("01-hello")
    save("01-hello", "console.log('ñandú'); process.exit(4);\n")
    assert learnpack.build("01-hello")["exit_code"] == 4
    save("01-hello", "throw new Error('no');\n")
    assert learnpack.build("01-hello")["exit_code"] == 1
    # What cannot be parsed starts no process at all.
    learnpack.do("build", slug="01-hello", parses=False)
    save("01-hello", "process.kill(process.pid, 'SIGKILL');\n")
    assert learnpack.build("01-hello")["signal"] == 9

    # Identical stubs: the argument of node is a copy that names no step.
    for slug in ("04-twin-a", "05-twin-b", "04-twin-a"):
        learnpack.open(slug)
        learnpack.build(slug)

    # Two programs at once, one in a step that is not the current one.
    save("04-twin-a", "setTimeout(() => console.log('a'), 700);\n")
    save("02-sum", "setTimeout(() => console.log('b'), 700);\n")
    first = learnpack.send("build", slug="04-twin-a")
    second = learnpack.send("build", slug="02-sum")
    learnpack.note(first.result())
    learnpack.note(second.result())

    # A program that starts another one is one run.
    save("04-twin-a", "require('child_process').execFileSync(process.execPath, ['exercises/06-free/app.js']);\n")
    learnpack.build("04-twin-a")


def play_tests(learnpack: LearnPack, completed: dict[str, int | None]) -> None:
    learnpack.open("02-sum")
    learnpack.save("02-sum", "console.log('4');\n", name="app.js")
    assert learnpack.test("02-sum")["exit_code"] == 1
    learnpack.save("02-sum", "console.log('5');\n", name="app.js")
    tested = learnpack.test("02-sum")
    assert tested["exit_code"] == 0
    completed["02-sum"] = tested["ended_at"]
    # A suite that can't be loaded: jest counts a failed suite and no test.
    learnpack.save("02-sum", "let x = ;\n", name="app.js")
    assert learnpack.test("02-sum")["exit_code"] == 1


@pytest.fixture(scope="module")
def scene(long_stage: Stage) -> Scene:
    course = make_course(long_stage.directory / "course", JAVASCRIPT)
    agent = long_stage.agent(course).start()
    learnpack = long_stage.learnpack(course).start()
    scene = Scene(learnpack.truth, may_miss=agent.may_miss())
    learnpack.open("00-welcome")
    scene.completed["00-welcome"] = learnpack.open("06-free")["at"]
    learnpack.build("06-free")
    play_builds(learnpack)
    scene.completed["06-free"] = next(
        truth.started_at for truth in scene.truth if (truth.kind, truth.slug) == ("open_step", "01-hello")
    )
    if find_jest():
        play_tests(learnpack, scene.completed)
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    scene.events = agent.events()
    return scene


def test_each_action_is_one_event_and_nothing_is_invented(scene: Scene) -> None:
    assert_perfect(scene.events, scene.truth, scene.completed, may_miss=scene.may_miss)


@needs_jest
def test_only_a_passing_jest_run_completes(scene: Scene) -> None:
    codes = [event["exit_code"] for event in scene.events if event["event"] == "test"]
    assert codes == [1, 0, 1]
    assert count(scene.events, "complete_step", "02-sum") == 1


@needs_jest
def test_npx_jest_in_a_terminal_completes_nothing(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", JAVASCRIPT)
    (course / "node_modules").symlink_to(find_jest() or "")
    (course / "package.json").write_text(json.dumps({"name": "course"}))
    agent = stage.agent(course).start()
    student = stage.student(course)
    attempt = student.type("npx jest exercises/01-hello/tests.js")
    assert attempt.code == 1 and "No tests found" in attempt.output
    ran = student.type("node exercises/01-hello/app.js")
    runs = [
        ran.ran("compile", "01-hello"),
        Truth("test", "01-hello", attempt.t0, attempt.t1, 1, optional=True, window=True),
    ]
    may_miss = agent.may_miss()
    agent.wait_for(lambda events: count(events, "compile") > 0)
    agent.stop()
    assert_perfect(agent.events(), runs, {}, may_miss=2 * may_miss)
