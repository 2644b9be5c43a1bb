"""Work in a terminal, without LearnPack: every form that is a run, and every form that is none."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, count, was_too_short
from tests.standin.courses import A_LITTLE, JAVASCRIPT, LASTS, PYTHON, make_course
from tests.standin.score import Truth, assert_perfect, shown
from tests.standin.student import Student, Typed
from tests.standin.toolbox import base_python, needs_node

APP = "exercises/{}/app.py"
LONG = "import time\nprint('GO', flush=True)\ntime.sleep(300)\n"
#: So many lines may be typed once more because their program was over before the agent could read it, as it then says.
AGAIN = 3


@dataclass(frozen=True)
class Line:
    """One line that the student types.

    `expect` is "kind slug", or "" for: no event.  `sig` and `code` are for runs whose end the shell tells otherwise.
    `maybe`: an event is neither demanded nor forbidden (but a completion is).
    """

    text: str
    expect: str = ""
    sig: int | None = None
    code: int | None = None
    maybe: bool = False
    when: str | None = None
    then: Callable[[Student], object] | None = None

    @property
    def name(self) -> str:
        ending = f" ({signal.Signals(self.sig).name})" if self.sig else ""
        return self.text.replace("/", "|")[:60] + ending


HELLO = "compile 01-hello"
COUNTS = [
    Line("python exercises/01-hello/app.py", HELLO),
    Line("python -u exercises/01-hello/app.py", HELLO),
    Line("time python exercises/01-hello/app.py", HELLO),
    Line("python3 ./exercises/../exercises/01-hello/app.py", HELLO),
    Line("cd exercises/01-hello && python3 app.py; cd ../..", HELLO),
    Line("(cd exercises/01-hello/ && python3 ./app.py)", HELLO),
    Line("BASE_PYTHON exercises/01-hello/app.py", HELLO),
    Line("PYTHONDONTWRITEBYTECODE=1 python -B exercises/01-hello/app.py", HELLO),
    Line("bash exercises/01-hello/run.sh", HELLO),
    Line("./exercises/01-hello/app.py", HELLO),
    Line("python < exercises/01-hello/app.py", HELLO),
    Line("python exercises/01-hello/app.py | cat", HELLO),
    Line("python exercises/01-hello/app.py > /dev/null 2>&1", HELLO),
    Line("python exercises/01-hello/app.py with some arguments", HELLO),
    Line("nice python exercises/01-hello/app.py", HELLO),
    Line("env WHO=me python exercises/01-hello/app.py", HELLO),
    Line("python -i exercises/01-hello/app.py", HELLO, when=">>> ", then=lambda student: student.keys("exit()\n")),
    Line("python exercises/02-sum/app.py", "compile 02-sum"),  # leaves with 7
    Line("python exercises/03-broken/app.py", "compile 03-broken"),  # a syntax error
    Line("python exercises/04-input/app.py <<< Ada", "compile 04-input"),
    Line("timeout 0.3 python exercises/05-long/app.py", "compile 05-long", sig=signal.SIGTERM),
    Line(
        "python exercises/05-long/app.py",
        "compile 05-long",
        sig=signal.SIGINT,
        when="GO",
        then=lambda student: student.interrupt(),
    ),
    Line(
        "python exercises/05-long/app.py",
        "compile 05-long",
        sig=signal.SIGKILL,
        when="GO",
        then=lambda student: student.kill("05-long/app.py"),
    ),
    Line("python exercises/07-free/helper.py", "compile 07-free"),
    Line("pytest exercises/01-hello/test.py", "test 01-hello"),
    Line("python -m pytest -q exercises/01-hello/test.py", "test 01-hello"),
    Line("pytest exercises/06-fails/test.py", "test 06-fails"),
    Line("python -m pytest exercises/06-fails/broken_test.py exercises/06-fails/test.py", "test 06-fails", maybe=True),
]

#: Attempts at tests that say nothing about the step: whether they are events is open, a completion is not.
COMPLETES_NOTHING = [
    Line("cd exercises/08-untouched; pytest; cd ../..", "test 08-untouched", maybe=True),
    Line("pytest --collect-only exercises/08-untouched/test.py", "test 08-untouched", maybe=True),
    Line("pytest -k nothing_has_this_name exercises/08-untouched/test.py", "test 08-untouched", maybe=True),
    Line("pytest exercises/08-untouched/test.py::test_one", "test 08-untouched", maybe=True),
    Line("pytest -k one exercises/08-untouched/test.py", "test 08-untouched", maybe=True),
    Line("pytest --help exercises/08-untouched/test.py > /dev/null", "test 08-untouched", maybe=True),
    Line("pytest --version", "test 08-untouched", maybe=True),
    Line("cat exercises/08-untouched/app.py | python -", "compile 08-untouched", maybe=True),
]

NOTHING = [
    Line("python -m py_compile exercises/02-sum/app.py"),
    Line("python -m black exercises/02-sum/app.py"),
    Line("black exercises/02-sum/app.py"),
    Line("pylint exercises/02-sum/app.py"),
    Line("python -m pylint exercises/02-sum/app.py"),
    Line("python -m json.tool learn.json > /dev/null"),
    Line("python -c 'print(open(\"exercises/02-sum/app.py\").read())'"),
    Line("python -I -c 'import sys; print(sys.path)'"),
    Line("cd exercises/02-sum; python -c 'import app' ; cd ../.."),
    Line("python --version"),
    Line("python", when=">>> ", then=lambda student: student.keys("1 + 1\nexit()\n")),
    Line("git init -q . && git add -A && git status --short | head -2; git diff --stat; git rev-parse HEAD"),
    Line("cat exercises/02-sum/app.py; ls exercises/02-sum; head -1 exercises/02-sum/app.py"),
    Line("file exercises/02-sum/app.py; wc -l exercises/*/app.py; grep -r print exercises"),
    Line("sed -n 1p exercises/02-sum/app.py; sed -i s/a/a/ exercises/02-sum/README.md"),
    Line("cp exercises/02-sum/app.py exercises/02-sum/app.bak; rm exercises/02-sum/app.bak"),
    Line("touch exercises/02-sum/app.py"),
    Line("bash -c 'cat exercises/02-sum/app.py'"),
    Line("python /dev/null"),
    Line("python exercises/no-such-step/app.py", maybe=True),
    Line("find . -name '*.py' -newer learn.json -exec true {} ';'"),
]


@dataclass
class Scene:
    events: list[Event]
    typed: dict[str, Typed]
    truth: dict[str, Truth] = field(default_factory=dict)
    #: Of lines that were typed once more: the first time, in which a run may have been missed.
    missed: list[Truth] = field(default_factory=list)

    def play(self, student: Student, line: Line) -> None:
        typed = student.type(line.text.replace("BASE_PYTHON", base_python()), when=line.when, then=line.then)
        self.typed[line.name] = typed
        if line.expect:
            kind, slug = line.expect.split()
            truth = typed.ran(kind, slug, sig=line.sig, code=line.code)
            if line.maybe:
                truth = Truth(kind, slug, typed.t0, typed.t1, typed.code, optional=True, window=True)
            self.truth[line.name] = truth


def prepare(course: Path) -> None:
    """The steps that the lines above speak of."""
    app = course / "exercises/01-hello/app.py"
    app.write_text("#!/usr/bin/env python3\nprint('hello')\n" + A_LITTLE)
    app.chmod(0o755)
    (course / "exercises/01-hello/run.sh").write_text('cd "$(dirname "$0")"\npython3 app.py\n')
    (course / "exercises/02-sum/app.py").write_text(
        A_LITTLE + "print(5)\nif __name__ == '__main__':\n    raise SystemExit(7)\n"
    )
    for slug, name in (("04-input", "app.py"), ("07-free", "app.py"), ("07-free", "helper.py")):
        with open(course / "exercises" / slug / name, "a") as file:
            file.write(A_LITTLE)
    for slug, app_text, test_text in (
        ("03-broken", "print('oops\n", ""),
        ("05-long", LONG, ""),
        ("06-fails", "print(1)\n" + A_LITTLE, "def test_one():\n    assert False\n"),
        ("08-untouched", "print(8)\n" + A_LITTLE, "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"),
        ("09-last", LASTS, ""),
    ):
        directory = course / "exercises" / slug
        directory.mkdir()
        (directory / "README.md").write_text(f"# {slug}\n")
        (directory / "app.py").write_text(app_text)
        if test_text:
            (directory / "test.py").write_text(test_text)


@pytest.fixture(scope="module")
def scene(long_stage: Stage) -> Scene:
    course = make_course(long_stage.directory / "course", PYTHON)
    prepare(course)
    agent = long_stage.agent(course).start()
    agent.require_connector()
    agent.await_document()
    student = long_stage.student(course)
    scene = Scene([], {})
    lines = COUNTS + COMPLETES_NOTHING + NOTHING
    for line in lines:
        scene.play(student, line)
    events = seen_so_far(agent, student)
    too_short = [line for line in lines if line.expect and hides(events, scene, line)]
    assert len(too_short) <= AGAIN, f"the agent could not read {[line.text for line in too_short]}"
    for line in too_short:
        scene.missed.append(replace(scene.truth[line.name], optional=True))
        scene.play(student, line)
    seen_so_far(agent, student)
    assert agent.stop() == 0, agent.log
    scene.events = agent.events()
    assert count(scene.events, "compile", "01-hello") > 0, f"the agent saw nothing at all:\n{agent.log}"
    return scene


def hides(events: list[Event], scene: Scene, line: Line) -> bool:
    """Whether the agent itself says that it could not read a program of this line."""
    typed = scene.typed[line.name]
    return was_too_short(events, typed.t0, typed.t1)


def seen_so_far(agent: Agent, student: Student) -> list[Event]:
    """The events when one more run is there: then everything before it is.  It is of a step of its own."""
    last = student.type("python exercises/09-last/app.py")
    return agent.wait_for(
        lambda events: any(
            (event["event"], event["step_slug"]) == ("compile", "09-last") and event["at"] >= last.t0
            for event in events
        )
    )


def runs_during(scene: Scene, line: Line) -> list[Event]:
    typed = scene.typed[line.name]
    return [
        event
        for event in scene.events
        if event["event"] in ("compile", "test") and typed.t0 - 50 <= event["started_at"] <= typed.t1 + 50
    ]


@pytest.mark.parametrize("line", [line for line in COUNTS if not line.maybe], ids=lambda line: line.name)
def test_this_line_is_one_run(scene: Scene, line: Line) -> None:
    typed = scene.typed[line.name]
    kind, slug = line.expect.split()
    runs = runs_during(scene, line)
    assert [(run["event"], run["step_slug"]) for run in runs] == [(kind, slug)], (typed, list(map(shown, runs)))
    expected = (None, line.sig) if line.sig else (typed.code, None)
    assert (runs[0]["exit_code"], runs[0]["signal"]) == expected, (typed, shown(runs[0]))
    assert runs[0]["origin"] == "terminal"
    assert runs[0]["ended_at"] is not None


@pytest.mark.parametrize("line", [line for line in NOTHING if not line.maybe], ids=lambda line: line.name)
def test_this_line_is_no_run(scene: Scene, line: Line) -> None:
    assert [shown(run) for run in runs_during(scene, line)] == [], scene.typed[line.name]


@pytest.mark.parametrize("line", COMPLETES_NOTHING, ids=lambda line: line.name)
def test_this_attempt_completes_nothing(scene: Scene, line: Line) -> None:
    typed = scene.typed[line.name]
    completions = [
        shown(event)
        for event in scene.events
        if event["event"] == "complete_step" and typed.t0 - 50 <= event["at"] <= typed.t1 + 1000
        if event["step_slug"] == "08-untouched"
    ]
    assert completions == []


def test_the_whole_terminal_session_is_one_event_a_run(scene: Scene) -> None:
    others = [event for event in scene.events if event["step_slug"] != "09-last"]
    assert_perfect(others, [*scene.truth.values(), *scene.missed])


def test_a_passing_pytest_completes_once_and_a_failing_one_never(scene: Scene) -> None:
    assert count(scene.events, "complete_step", "01-hello") == 1
    assert count(scene.events, "complete_step", "06-fails") == 0


def test_terminal_work_without_a_server_has_a_session(scene: Scene) -> None:
    assert count(scene.events, "session_start") == 1


def test_a_pyenv_shim_in_a_terminal_is_one_run(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON)
    (course / "exercises/01-hello/app.py").write_text("print('hello')\n" + A_LITTLE)
    free = course / "exercises/07-free/app.py"
    free.write_text(free.read_text() + A_LITTLE)
    agent = stage.agent(course).start()
    agent.require_connector()
    agent.await_document()
    student = stage.student(course, pyenv=True)
    truth = [
        student.type("python exercises/07-free/app.py").ran("compile", "07-free", source=free.read_text()),
        student.type("cd exercises/07-free; python app.py; cd ../..").ran("compile", "07-free"),
        student.type("time python exercises/01-hello/app.py").ran("compile", "01-hello"),
        student.type("pytest -q exercises/01-hello/test.py").ran("test", "01-hello"),
    ]
    student.type("python -c 'print(1)'")
    agent.wait_for(lambda events: count(events, "test") > 0)
    agent.stop()
    assert_perfect(agent.events(), truth, {"07-free": None, "01-hello": None})


def test_a_run_that_lasts_a_while_is_seen_with_its_end_by_any_sensor(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON)
    path = "exercises/07-free/app.py"
    (course / path).write_text("import time\nprint('GO', flush=True)\ntime.sleep(0.8)\nraise SystemExit(7)\n")
    agent = stage.agent(course).start()
    student = stage.student(course)
    truth = [
        student.type(f"python {path}").ran("compile", "07-free"),
        student.type("(cd exercises/07-free; python app.py)").ran("compile", "07-free"),
        student.type(f"timeout 0.5 python {path}").ran("compile", "07-free", sig=signal.SIGTERM),
    ]
    agent.wait_for(lambda events: count(events, "compile") >= 3)
    agent.stop()
    assert_perfect(agent.events(), truth, {})


def test_the_source_of_a_run_is_what_ran_not_what_was_saved_meanwhile(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON)
    path = "exercises/01-hello/app.py"
    sleeps = "import time\nprint('GO', flush=True)\ntime.sleep(0.5)\n"
    agent = stage.agent(course).start()
    agent.require_connector()
    agent.await_document()
    student = stage.student(course)
    truth = [student.save_in_place(path, sleeps)]
    first = student.type(
        f"python {path}",
        when="GO",
        then=lambda student: truth.append(student.save_by_rename(path, "print(2)\n" + A_LITTLE)),
    )
    second = student.type(f"python {path}")
    truth.append(student.save_like_vim(path, "print(3)\n" + A_LITTLE))
    third = student.type(f"python {path}")
    for typed, source in ((first, sleeps), (second, "print(2)\n" + A_LITTLE), (third, "print(3)\n" + A_LITTLE)):
        truth.append(typed.ran("compile", "01-hello", source=source))
    agent.wait_for(lambda events: count(events, "compile") >= 3)
    agent.stop()
    assert_perfect(agent.events(), truth, {})


def test_a_server_in_the_students_terminal_still_makes_its_runs_learnpacks(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON, lasting=True)
    agent = stage.agent(course).start()
    terminal, other = stage.student(course), stage.student(course)
    learnpack = stage.learnpack(course).start_in_terminal(terminal.type)
    learnpack.open("07-free")
    learnpack.build("07-free")
    learnpack.truth.append(other.type("python exercises/07-free/helper.py").ran("compile", "07-free"))
    learnpack.build("07-free")
    terminal.type("fg", when="learnpack", then=lambda student: student.interrupt())
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert count(events, "session_end") == 1, "Ctrl-C of the server ends the session at once"
    agent.stop()
    assert_perfect(agent.events(), learnpack.truth, {})


@needs_node
def test_node_in_a_terminal(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", JAVASCRIPT)
    (course / "exercises/02-sum/app.js").write_text("process.exit(6);\n")
    agent = stage.agent(course).start()
    agent.require_connector()
    student = stage.student(course)
    truth = [
        student.type("node exercises/06-free/app.js").ran("compile", "06-free"),
        student.type("cd exercises/06-free; node app; cd ../..").ran("compile", "06-free", code=0),
        student.type("node exercises/02-sum/app.js").ran("compile", "02-sum"),
    ]
    for nothing in ("node -e 'console.log(1)'", "node --check exercises/06-free/app.js", "node --version"):
        student.type(nothing)
    student.type("node", when="> ", then=lambda student: student.keys("1 + 1\n.exit\n"))
    last = student.type("node exercises/02-sum/app.js")
    truth.append(last.ran("compile", "02-sum"))
    agent.wait_for(lambda events: count(events, "compile") >= 4)
    agent.stop()
    assert_perfect(agent.events(), truth)
