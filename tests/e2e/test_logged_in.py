"""A student who is logged in to LearnPack: conversations with its tutor, quizzes, and the telemetry of version 5."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import PYTHON, make_course
from tests.standin.learnpack import LearnPack
from tests.standin.score import assert_perfect
from tests.standin.tab import Tab
from tests.until import until

Document = dict[str, Any]
TOKEN = "a-token-that-nobody-may-keep"
LOGIN = {"token": TOKEN, "user_id": 4711, "email": "ada@example.org", "expires_at": None}
FULLNAME = "Ada Lovelace of Example"
SOURCE = "print('ñandú')\n"
STEPS = [
    {
        "slug": slug,
        "files": [{"path": f"exercises/{slug}/{name}", "name": name, "hidden": name != "app.py"} for name in files],
        "is_testeable": "test.py" in files,
    }
    for slug, files in PYTHON.items()
]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON, lasting=True)


def asked(events: list[Event]) -> list[str]:
    return [event["student_message"] for event in events if event["event"] == "ai_interaction"]


def step_of(document: Document, slug: str) -> Document:
    found: Document = next(step for step in document["steps"] if step["slug"] == slug)
    return found


def settle(agent: Agent, conversations: int) -> list[Event]:
    """The events once the agent has read so many conversations, and has concluded of each what it wanted to."""
    query = "SELECT count(*), coalesce(sum(waits), 0) FROM adopted WHERE kind = 'ai_interaction'"

    def have_been_read() -> bool:
        with agent.journal() as journal:
            return bool(journal.connection.execute(query).fetchone() == (conversations, 0))

    until(have_been_read, every=0.02)
    return agent.events()


def wait_for_document(agent: Agent, condition: Any) -> Document:
    def met(_: list[Event]) -> bool:
        try:
            document = agent.document()
        except ValueError:  # LearnPack is writing it
            return False
        return document is not None and bool(condition(document))

    agent.wait_for(met)
    document = agent.document()
    assert document is not None
    return document


def kept_by(agent: Agent) -> list[Path]:
    kept = [path for path in agent.state.rglob("*") if path.is_file()]
    return kept + list(agent.state.parent.glob(f"{agent.state.name}-*"))


# ---------------------------------------------------------------------------------------------- the tutor


def test_a_conversation_is_an_event_only_while_the_student_is_logged_in(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-hello")
    learnpack.ask_tutor("01-hello", "before the login?", "nobody hears it")
    settle(agent, 1)
    learnpack.do("keep_tutor_token", token="a token of the tutor is no login")
    learnpack.ask_tutor("01-hello", "with the tutor's token?", "no")
    settle(agent, 2)
    learnpack.log_in(**LOGIN)
    times = learnpack.ask_tutor("01-hello", "¿por qué?", "because ñ", source=SOURCE)
    agent.wait_for(lambda events: bool(asked(events)))
    learnpack.log_out()
    learnpack.ask_tutor("01-hello", "after the logout?", "no")
    learnpack.build("01-hello")
    events = agent.wait_for(lambda events: count(events, "compile") > 0)
    assert asked(settle(agent, 4)) == ["¿por qué?"]
    (event,) = [event for event in events if event["event"] == "ai_interaction"]
    assert (event["step_slug"], event["ai_response"], event["source_code"]) == ("01-hello", "because ñ", SOURCE)
    assert (event["started_at"], event["ended_at"]) == (times["started_at"], times["ended_at"])
    assert event["evidence"], "why it is believed"
    learnpack.stop()
    document = wait_for_document(agent, lambda document: step_of(document, "01-hello")["compilations"])
    assert agent.stop() == 0, agent.log
    questions = [row["student_message"] for row in step_of(document, "01-hello")["ai_interactions"]]
    assert questions == ["before the login?", "with the tutor's token?", "¿por qué?", "after the logout?"], (
        "what LearnPack wrote is never reduced"
    )
    assert_perfect(agent.events(), learnpack.truth, {})


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_conversation_is_one_event_over_restarts_of_both(stage: Stage, course: Path, sig: signal.Signals) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.log_in(**LOGIN)
    learnpack.open("01-hello")
    learnpack.ask_tutor("01-hello", "one?", "one")
    agent.wait_for(lambda events: asked(events) == ["one?"])
    agent.stop(sig)
    # Nobody looks, and LearnPack writes on.
    learnpack.ask_tutor("01-hello", "two?", "two")
    agent.start()
    agent.wait_for(lambda events: len(asked(events)) >= 2)
    learnpack.stop(sig)
    again = stage.learnpack(course, own_telemetry=True)

    def starts() -> bool:
        try:
            again.start()
        except AssertionError:
            again.stop(signal.SIGKILL)
            return False
        return True

    until(starts)
    again.open("02-sum")
    again.ask_tutor("02-sum", "three?", "three")
    agent.wait_for(lambda events: len(asked(events)) >= 3)
    again.stop()
    document = wait_for_document(agent, lambda document: step_of(document, "02-sum")["ai_interactions"])
    agent.stop()
    assert asked(agent.events()) == ["one?", "two?", "three?"]
    questions = [[row["student_message"] for row in step["ai_interactions"]] for step in document["steps"][1:3]]
    assert questions == [["one?", "two?"], ["three?"]]


def test_two_conversations_in_one_burst_are_two(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.log_in(**LOGIN)
    learnpack.open("01-hello")
    questions = [f"question {number}?" for number in range(5)]
    pending = [learnpack.send("ask_ai", slug="01-hello", question=one, answer="yes") for one in questions]
    for one in pending:
        one.result()
    agent.wait_for(lambda events: len(asked(events)) >= 5)
    assert asked(settle(agent, 5)) == questions


def test_no_token_no_name_and_no_address_is_kept(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.log_in(**LOGIN)
    learnpack.open("01-hello")
    learnpack.ask_tutor("01-hello", "why?", "because")
    learnpack.build("01-hello")
    agent.wait_for(lambda events: bool(asked(events)) and count(events, "compile") > 0)
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    agent.stop()
    for path in [*kept_by(agent), course / ".learn/telemetry.json"]:
        content = path.read_bytes()
        for secret in (TOKEN, "ada@example.org"):
            assert secret.encode() not in content, (path, secret)


# ---------------------------------------------------------------------------------------------- version 5


def decoded_v5(text: str) -> str:
    import urllib.parse

    return urllib.parse.unquote(base64.b64decode(text).decode())


@pytest.fixture
def tab(stage: Stage, course: Path) -> Tab:
    learnpack = stage.learnpack(course).start()
    learnpack.log_in(**LOGIN)
    tab = Tab(learnpack, STEPS, user_id="4711", fullname=FULLNAME)
    tab.load()
    return tab


def test_documents_of_version_5_are_read_and_each_run_is_there_once(stage: Stage, course: Path, tab: Tab) -> None:
    agent = stage.agent(course).start()
    learnpack = tab.learnpack
    student = stage.student(course)
    completed: dict[str, int | None] = {}
    tab.open("00-welcome")
    completed["00-welcome"] = tab.open("01-hello")["at"]
    tab.build("01-hello")
    learnpack.save("01-hello", SOURCE)
    tab.build("01-hello")
    assert tab.test("01-hello")["exit_code"] == 1
    times = tab.ask_tutor("01-hello", "¿por qué?", "because ñ", SOURCE)
    agent.wait_for(lambda events: bool(asked(events)))
    learnpack.save("01-hello", "print('hello')\n")
    completed["01-hello"] = tab.test("01-hello")["ended_at"]
    learnpack.truth.append(student.type("python exercises/07-free/app.py").ran("compile", "07-free"))
    completed["07-free"] = tab.open("03-reading")["at"]
    submissions = [tab.submit_quiz("03-reading", "quiz-1", right=right) for right in (False, True)]
    assert learnpack.touched == 0, "the agent does not write while the server lives"
    learnpack.stop()
    document = wait_for_document(agent, lambda document: step_of(document, "07-free")["compilations"])
    assert agent.stop() == 0, agent.log

    events = agent.events()
    assert_perfect(events, learnpack.truth, completed)
    (asking,) = [event for event in events if event["event"] == "ai_interaction"]
    assert (asking["student_message"], asking["ai_response"], asking["source_code"]) == (
        "¿por qué?",
        "because ñ",
        SOURCE,
    )
    assert (asking["started_at"], asking["ended_at"]) == (times["started_at"], times["ended_at"])

    hello, reading = step_of(document, "01-hello"), step_of(document, "03-reading")
    assert (len(hello["compilations"]), len(hello["tests"]), len(hello["ai_interactions"])) == (2, 2, 1)
    sources = {base64.b64decode(one["source_code"]).decode() for one in hello["compilations"]}
    assert SOURCE in sources, "one form of base64 in what the agent writes"
    assert reading["quiz_submissions"] == submissions, "quizzes are the document's, whole"
    assert [element["hash"] for element in reading["testeable_elements"]] == ["quiz-1"]
    assert document["telemetry_id"] == tab.document["telemetry_id"]
    for key in ("version", "user_id", "tutorial_started_at"):
        assert str(document[key]) == str(tab.document[key]), key
    assert "fullname" not in document, "the agent writes no name"


def test_a_tab_that_outlives_its_server_erases_nothing_for_good(stage: Stage, course: Path, tab: Tab) -> None:
    """Its next post is its own memory: what the agent had united is gone from the file until it is united again."""
    agent = stage.agent(course).start()
    student = stage.student(course)
    tab.open("01-hello")
    tab.build("01-hello")
    tab.submit_quiz("01-hello", "quiz-1", right=True)
    truth = [*tab.learnpack.truth, student.type("python exercises/07-free/app.py").ran("compile", "07-free")]
    tab.learnpack.stop()
    wait_for_document(agent, lambda document: step_of(document, "07-free")["compilations"])

    tab.learnpack = stage.learnpack(course).start()
    tab.open("01-hello")
    tab.build("01-hello")
    posted = json.loads((course / ".learn/telemetry.json").read_text())
    assert step_of(posted, "07-free")["compilations"] == [], "the tab knows nothing of the terminal"
    tab.learnpack.stop()
    document = wait_for_document(agent, lambda document: step_of(document, "07-free")["compilations"])
    agent.stop()
    assert_perfect(agent.events(), [*truth, *tab.learnpack.truth], {"07-free": None})
    assert len(step_of(document, "01-hello")["compilations"]) == 2
    assert len(step_of(document, "07-free")["compilations"]) == 1
    assert len(step_of(document, "01-hello")["quiz_submissions"]) == 1


def test_a_tab_that_is_loaded_again_takes_over_what_the_agent_wrote(stage: Stage, course: Path, tab: Tab) -> None:
    """It keeps only the keys that it knows, but attempts whole: the agent knows its own runs again."""
    agent = stage.agent(course).start()
    student = stage.student(course)
    tab.open("01-hello")
    tab.build("01-hello")
    tab.ask_tutor("01-hello", "one?", "one", SOURCE)
    truth = [*tab.learnpack.truth, student.type("python exercises/07-free/app.py").ran("compile", "07-free")]
    agent.wait_for(lambda events: count(events, "compile") >= 2 and bool(asked(events)))
    tab.learnpack.stop()
    wait_for_document(agent, lambda document: step_of(document, "07-free")["compilations"])

    tab.learnpack = stage.learnpack(course).start()
    tab.load()
    assert len(step_of(tab.document, "07-free")["compilations"]) == 1
    assert len(step_of(tab.document, "01-hello")["ai_interactions"]) == 1
    tab.open("02-sum")
    tab.build("02-sum")
    tab.learnpack.stop()
    truth += tab.learnpack.truth
    document = wait_for_document(agent, lambda document: step_of(document, "02-sum")["compilations"])
    agent.stop()
    assert_perfect(agent.events(), truth, {"07-free": None})
    runs = {step["slug"]: len(step["compilations"]) for step in document["steps"] if step["compilations"]}
    assert runs == {"01-hello": 1, "02-sum": 1, "07-free": 1}
    assert asked(agent.events()) == ["one?"]
    for path in kept_by(agent):
        assert FULLNAME.encode() not in path.read_bytes(), path


def test_an_overlap_of_two_posts_costs_nothing(stage: Stage, course: Path, tab: Tab) -> None:
    """The newer, shorter document stands before the tail of the older one: what was whole once is not forgotten."""
    agent = stage.agent(course).start()
    learnpack: LearnPack = tab.learnpack
    tab.open("01-hello")
    tab.build("01-hello")
    tab.ask_tutor("01-hello", "one?", "one" * 1000, SOURCE)
    agent.wait_for(lambda events: count(events, "compile") > 0 and bool(asked(events)))
    learnpack.spoil("newer_last")
    shorter = {**tab.document, "steps": [{**step, "ai_interactions": []} for step in tab.document["steps"]]}
    first = learnpack.send("post_telemetry", document=tab.document)
    second = learnpack.send("post_telemetry", document=shorter)
    first.result()
    second.result()
    with pytest.raises(ValueError):
        json.loads((course / ".learn/telemetry.json").read_text())
    learnpack.stop(signal.SIGKILL)
    document = wait_for_document(agent, lambda document: step_of(document, "01-hello")["compilations"])
    agent.stop()
    assert len(step_of(document, "01-hello")["compilations"]) == 1
    assert len(step_of(document, "01-hello")["ai_interactions"]) == 1
    assert os.stat(course / ".learn/telemetry.json").st_size > 1000
