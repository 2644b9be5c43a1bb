"""The state directory is deleted, or something else lies in its place, while the agent runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.making import attempt, learnpack_document, learnpack_step
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import PYTHON, make_course
from tests.until import until

RUN = "python exercises/07-free/app.py"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON, lasting=True)


def is_in_document(agent: Agent, slug: str) -> bool:
    """Whether a run of this step is: then the journal that there is now has taken over all else that was in it."""
    document = agent.document()
    return document is not None and any(step["slug"] == slug and step["compilations"] for step in document["steps"])


def losses(events: list[Event]) -> int:
    return sum(event.get("reason") == "the journal was deleted" for event in events)


def test_what_learnpack_recorded_before_is_the_past_of_another_journal_too(stage: Stage, course: Path) -> None:
    old = learnpack_step("01-hello", compilations=[attempt(10 * n, 10 * n + 1) for n in range(5)])
    document = learnpack_document(old, slug=json.loads((course / "learn.json").read_text())["slug"])
    (course / ".learn/telemetry.json").write_text(json.dumps(document))
    agent = stage.agent(course).start()
    assert count(agent.events(), "compile") == 0
    for path in agent.state.iterdir():
        shutil.rmtree(path)
    student = stage.student(course)
    student.type(RUN)
    agent.wait_for(lambda _: is_in_document(agent, "07-free"))
    assert is_in_document(agent, "07-free"), agent.log
    student.type(RUN)
    events = agent.wait_for(lambda events: count(events, "compile", "07-free") == 2)
    assert agent.stop() == 0, agent.log
    assert count(events, "compile", "07-free") == 2, agent.log
    assert count(agent.events(), "compile", "01-hello") == 0
    assert losses(agent.events()) == 1
    found = agent.document()
    assert found is not None and [len(step["compilations"]) for step in found["steps"]][:2] == [0, 5]


def test_a_file_in_place_of_the_state_directory_is_waited_out(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    shutil.rmtree(agent.state)
    agent.state.write_text("a file")
    student = stage.student(course)
    student.type(RUN)
    until(lambda: "the journal takes nothing" in agent.log)
    assert agent.process is not None and agent.process.poll() is None, agent.log
    agent.state.unlink()
    until(agent.state.exists)
    events = agent.wait_for(lambda events: count(events, "compile") == 1)
    assert count(events, "compile") == 1 and losses(events) == 1, agent.log
    assert agent.stop() == 0, agent.log


def test_an_agent_that_cannot_write_to_the_end_still_ends_in_order(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    shutil.rmtree(agent.state)
    agent.state.write_text("a file")
    assert agent.stop() == 0, agent.log
    assert "events could not be written" in agent.log and agent.log.rstrip().endswith("stopped")
    assert "Traceback" not in agent.log
