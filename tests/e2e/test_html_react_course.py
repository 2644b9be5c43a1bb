"""HTML, React and plain pages in LearnPack's UI: builds without a process, seen by what they leave in the preview."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import JAVA, JAVA_SETTINGS, WEB, make_course
from tests.standin.learnpack import LearnPack
from tests.standin.score import Truth, assert_perfect, shown
from tests.standin.telemetry_file import now_ms
from tests.standin.toolbox import Toolbox, needs_java, needs_jest
from tests.until import until

APP = 'import React from "react";\nimport ReactDOM from "react-dom";\nReactDOM.render(<h1>{}</h1>, document.body);\n'
#: Nobody clicks twice sooner.
CLICK_SECONDS = 0.25


@dataclass
class Scene:
    learnpack: LearnPack
    agent: Agent
    truth: list[Truth] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    completed: dict[str, int | None] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)


def play_pages(do: LearnPack) -> None:
    """HTML: a build that ends well, one with an unchanged page, failing ones with and without a trace."""
    do.open("01-page")
    assert do.build("01-page")["exit_code"] == 0
    assert do.build("01-page")["exit_code"] == 0, "nothing changed, and the page is rewritten all the same"
    # The UI asks for a window of its own, with an object as its data: no build.
    do.open_window("01-page")
    do.save("01-page", "<html><body>\n  <div>\n</body></html>\n", name="index.html")
    assert do.build("01-page")["exit_code"] == 1, "the other files of the step were copied: a trace"
    assert do.build("01-page")["exit_code"] == 1, "a second click, and each file is copied again"
    do.save("01-page", "<html><body><h1>hello</h1></body></html>\n", name="index.html")
    do.save("01-page", "h1{color:red", name="styles.css")
    assert do.build("01-page")["exit_code"] == 1
    do.save("01-page", "h1{color:blue}", name="styles.css")
    do.build("01-page")
    do.open("02-lone")
    do.build("02-lone")
    do.save("02-lone", "<p>broken</div>\n", name="index.html")
    assert do.build("02-lone")["kind"] == "nothing", "one page, and it is broken: nothing is written anywhere"
    do.save("02-lone", "<p>mended</p>\n", name="index.html")
    do.build("02-lone")
    # The student works in the solution with an editor: a page is written, and nothing was built.
    do.save("01-page", "<html><body><h1>not built</h1></body></html>\n", name="solution.hide.html")


def play_apps(do: LearnPack) -> None:
    """React: formatted by the build, unchanged, with a missing module, with a syntax error."""
    do.open("03-app")
    do.build("03-app")
    do.build("03-app")
    assert do.build("03-app")["exit_code"] == 0, "nothing changed, and nothing is written but the window"
    do.save("03-app", 'import thing from "./missing";\n' + APP.format("oh"), name="app.jsx")
    assert do.build("03-app")["exit_code"] == 1, "a module is missing: the window opens all the same"
    assert do.build("03-app")["exit_code"] == 1
    do.save("03-app", "const app = <h1>broken</h2>;\n", name="app.jsx")
    assert do.build("03-app")["kind"] == "nothing", "a syntax error leaves nothing"
    do.save("03-app", APP.format("well"), name="app.jsx")
    do.build("03-app")

    # Another step is opened while webpack works: the build is of the step that it was started in.
    do.save("03-app", APP.format("again"), name="app.jsx")
    building = do.send("build", slug="03-app")
    time.sleep(0.15)
    do.open("04-other")
    do.note(building.result())
    do.build("04-other")


def play_plain(do: LearnPack) -> None:
    do.open("05-plain")
    do.build("05-plain")
    do.build("05-plain")
    do.save("05-plain", "let x = ;\n", name="index.js")
    assert do.build("05-plain")["exit_code"] == 1, "the error is in the bundle, and the window opens"
    do.save("05-plain", "let x = 1;\n", name="index.js")
    do.build("05-plain")


def leave(scene: Scene, slug: str, to: str) -> None:
    """A step without tests is completed when another one is opened."""
    opened = next(truth for truth in scene.truth if (truth.kind, truth.slug) == ("open_step", to))
    scene.completed[slug] = opened.started_at


def play(stage: Stage, own_telemetry: bool) -> Scene:
    course = make_course(stage.directory / "course", WEB)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=own_telemetry).start()
    learnpack.pace_seconds = CLICK_SECONDS
    scene = Scene(learnpack, agent, learnpack.truth)
    learnpack.open("00-welcome")
    play_pages(learnpack)
    play_apps(learnpack)
    play_plain(learnpack)
    builds = sum(truth.kind == "compile" for truth in scene.truth)
    agent.wait_for(lambda events: count(events, "compile") >= builds)
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    scene.events = agent.events()
    scene.document = agent.document() or {}
    for slug, to in (("00-welcome", "01-page"), ("02-lone", "03-app"), ("04-other", "05-plain")):
        leave(scene, slug, to)
    return scene


@pytest.fixture(scope="module")
def scenes(toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Scene]]:
    """With LearnPack's own telemetry and without, played at the same time: most of it is waiting."""
    stages = {own: Stage(toolbox, tmp_path_factory.mktemp("web")) for own in (True, False)}
    with ThreadPoolExecutor() as pool:
        playing = {own: pool.submit(play, stage, own) for own, stage in stages.items()}
    try:
        yield {own: played.result() for own, played in playing.items()}
    finally:
        for stage in stages.values():
            stage.end()


@pytest.fixture(params=[True, False], ids=["own telemetry", "no telemetry"])
def scene(request: pytest.FixtureRequest, scenes: dict[bool, Scene]) -> Scene:
    return scenes[request.param]


def runs(events: list[Event], slug: str | None = None) -> list[Event]:
    return [event for event in events if event["event"] == "compile" and slug in (None, event["step_slug"])]


def test_each_build_is_one_event_with_its_step_exit_code_and_source(scene: Scene) -> None:
    assert_perfect(scene.events, scene.truth, scene.completed)


@pytest.mark.parametrize(
    "slug, codes",
    [
        ("01-page", [0, 0, 1, 1, 1, 0]),
        ("02-lone", [0, 0]),
        ("03-app", [0, 0, 0, 1, 1, 0, 0]),
        ("04-other", [0]),
        ("05-plain", [0, 0, 1, 0]),
    ],
)
def test_the_builds_of_a_step_in_their_order(scene: Scene, slug: str, codes: list[int]) -> None:
    found = runs(scene.events, slug)
    assert [run["exit_code"] for run in found] == codes, "\n".join(map(shown, found))


def test_a_build_is_learnpacks_and_has_no_command(scene: Scene) -> None:
    for run in runs(scene.events):
        assert (run["origin"], run["command"], run["signal"]) == ("learnpack", [], None), shown(run)


def test_output_is_partial_where_learnpack_recorded_some_and_else_none(scene: Scene) -> None:
    recorded = scene.learnpack.environment["STANDIN_TELEMETRY"] == "1"
    for run in runs(scene.events):
        # A failed HTML build is in nobody's telemetry.
        told = recorded and (run["exit_code"] == 0 or run["step_slug"] != "01-page")
        assert run["output"] == ("partial" if told else "none"), shown(run)
        assert bool(run["stdout"]) == told, shown(run)


def test_the_document_has_each_build_once(scene: Scene) -> None:
    for step in scene.document["steps"]:
        events = runs(scene.events, step["slug"])
        found = sorted(step["compilations"], key=lambda one: one["ended_at"])
        assert len(found) == len(events), (step["slug"], found)
        assert [one["exit_code"] for one in found] == [event["exit_code"] for event in events], step["slug"]
        for one in found:
            assert type(one["started_at"]) is int and type(one["ended_at"]) is int, "LearnPack's own end is an ISO text"
            assert one["started_at"] <= one["ended_at"]


def test_what_the_agent_did_not_write_is_as_learnpack_wrote_it(scene: Scene) -> None:
    assert scene.learnpack.touched == 0


def test_a_build_after_learnpacks_clean_is_one_that_failed(stage: Stage, tmp_path: Path) -> None:
    """The directory of the preview is gone: pages are rewritten in place and nothing can be copied."""
    course = make_course(tmp_path / "course", WEB)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-page")
    learnpack.build("01-page")
    time.sleep(CLICK_SECONDS)
    learnpack.stop()
    learnpack.clean()
    assert not (course / ".learn/config.json").exists()
    again = stage.learnpack(course).start()
    again.open("01-page")
    again.build("01-page")
    events = agent.wait_for(lambda events: count(events, "compile") > 1)
    again.stop()
    assert_perfect(events, learnpack.truth + again.truth, {})


def test_a_page_that_is_copied_by_hand_is_no_build(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", WEB)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-page")
    student = stage.student(course)
    student.type("cp exercises/01-page/index.html exercises/01-page/copy.html; rm exercises/01-page/copy.html")
    learnpack.open("03-app")
    student.type("sed -i s/your/my/ exercises/03-app/app.jsx; cat .learn/dist/* 2>/dev/null; touch .learn/dist")
    learnpack.open_window("03-app")
    learnpack.build("03-app")
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert_perfect(events, learnpack.truth, {})


def test_two_builds_at_once_are_two(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", WEB)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("03-app")
    first = learnpack.send("build", slug="03-app", seconds=0.8)
    time.sleep(0.1)
    learnpack.open("04-other")
    second = learnpack.send("build", slug="04-other", seconds=1.2)
    time.sleep(0.1)
    learnpack.open("01-page")
    learnpack.build("01-page")
    learnpack.note(first.result())
    learnpack.note(second.result())
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0 and count(events, "compile") > 2)
    agent.stop()
    assert_perfect(agent.events(), learnpack.truth, {"04-other": None})
    assert count(events, "compile", "03-app") == count(events, "compile", "04-other") == 1


def test_the_react_course_as_it_is_published_is_built_only_after_its_first_change(stage: Stage, tmp_path: Path) -> None:
    """Its grading says that the code is in the root, and the code is in the steps: an opening forgets where it is."""
    course = make_course(tmp_path / "course", WEB, {"grading": "incremental"})
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("03-app")
    assert learnpack.build("03-app")["kind"] == "nothing"
    config = course / ".learn/config.json"
    written = config.stat().st_mtime_ns
    learnpack.save("03-app", APP.format("mine"), name="app.jsx")
    until(lambda: config.stat().st_mtime_ns != written)
    learnpack.build("03-app")
    learnpack.build("03-app")
    events = agent.wait_for(lambda events: count(events, "compile") > 1)
    learnpack.stop()
    assert_perfect(events, [*learnpack.truth, Truth("edit", "03-app", learnpack.truth[0].started_at, now_ms())], {})


@needs_jest
def test_a_test_of_a_page_is_jests(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", WEB)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-page")
    learnpack.build("01-page")
    assert learnpack.test("01-page")["exit_code"] == 1
    learnpack.save("01-page", "<html><body><h1>hello</h1></body></html>\n", name="index.html")
    learnpack.build("01-page")
    tested = learnpack.test("01-page")
    assert tested["exit_code"] == 0
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    agent.stop()
    assert_perfect(agent.events(), learnpack.truth, {"01-page": tested["ended_at"]})


SAYS: Mapping[str, str] = {
    "well": 'System.out.println("ñandú");',
    "badly": "System.exit(4);",
    "throws": 'throw new RuntimeException("no");',
    "broken": "int x = ;",
}


@needs_java
def test_a_java_build_is_one_event_of_two_programs(stage: Stage, tmp_path: Path) -> None:
    """A step with Java: LearnPack has no engine for it; this is what its runner for programs does."""
    course = make_course(tmp_path / "course", JAVA, JAVA_SETTINGS)
    agent = stage.agent(course).start()
    may_miss = agent.may_miss()
    learnpack = stage.learnpack(course).start()
    learnpack.open("00-welcome")
    opened = learnpack.open("01-hello")
    codes = []
    for body in SAYS.values():
        text = f"public class App {{\n    public static void main(String[] args) {{\n        {body}\n    }}\n}}\n"
        learnpack.save("01-hello", text, name="App.java")
        codes.append(learnpack.build("01-hello")["exit_code"])
    assert codes == [0, 4, 1, 1]
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    agent.stop()
    assert_perfect(agent.events(), learnpack.truth, {"00-welcome": opened["at"]}, may_miss=may_miss)
