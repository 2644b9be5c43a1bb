"""The commands about delivery, as an admin and a script see them, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.commands import delivery
from agent.config import Config, course_state_dir
from agent.core.events import Event, SessionStart
from agent.store.control import NAME as CONTROL
from agent.store.control import change_control
from agent.store.journal import Journal
from agent.store.lock import holder
from agent.store.outbox import Outbox
from tests.conftest import Stage
from tests.making import (
    FULL,
    a_compile,
    a_test,
    asked,
    attempt,
    completed,
    evidence,
    gap,
    learnpack_document,
    learnpack_step,
    ms,
    opened,
    session_end,
    session_start,
)
from tests.sinks.faults import FaultServer, Request, ok, page, reset_read, status
from tests.standin.courses import PYTHON, make_course
from tests.test_cli import called
from tests.test_host import say, work
from tests.until import until

TOKEN, PATH, QUERY, HEADER = "t0ken0123456789", "p4th-secret", "qu3ry-secret", "h3ader-secret"
SECRETS = (TOKEN, PATH, QUERY, HEADER)
KINDS = ("learnpack-streaming", "learnpack-batch", "otlp", "xapi", "jsonl")

EVENTS: list[Event] = [
    session_start(0),
    opened("01-hello", 1),
    a_compile("01-hello", 2, 3, 1, **{**FULL, "source_code": "API_KEY = 'abcd1234efgh'\nprint('ñandú')\n"}),
    a_test("01-hello", 4, 5, **{**FULL, "stdout": "token ghp_" + "A1b2C3d4E5" * 3 + "F6g7H8\n"}),
    completed("01-hello", 5),
    asked("01-hello", 6, 7, "why ñ?"),
    gap(8, 9),
    opened("02-loop", 10),
    session_end(20),
]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


class Desk:
    """A course, what is recorded of it, and the command line in front of it."""

    def __init__(self, capfd: pytest.CaptureFixture[str], tmp_path: Path, server: FaultServer) -> None:
        self.capfd, self.server = capfd, server
        self.course = tmp_path / "course"
        for name in ("00-welcome", "01-hello", "02-loop"):
            (self.course / "exercises" / name).mkdir(parents=True)
            (self.course / "exercises" / name / "README.md").write_text("# hi\n")
        self.learn()
        self.course = self.course.resolve()
        self.files = tmp_path / "files"
        self.files.mkdir()
        self.config = tmp_path / "config.toml"
        self.state = tmp_path / "state"
        self.said = ""
        self.configure()

    def learn(self, **telemetry: str) -> None:
        (self.course / "learn.json").write_text(json.dumps({"slug": "demo", "telemetry": telemetry}))

    @property
    def directory(self) -> Path:
        return Path(course_state_dir(Config(state_dir=str(self.state)), str(self.course)))

    def url(self, path: str = PATH) -> str:
        return f"{self.server.url}/{path}?key={QUERY}"

    def configure(self, *kinds: str, more: str = "", **urls: str) -> None:
        text = '[send]\nproxy = "none"\nstart_spread_seconds = 0\n' + more
        for kind in kinds:
            text += f'[[sink]]\nname = "{kind}"\nkind = "{kind}"\n'
            text += (
                f'directory = "{self.files}"\n' if kind == "jsonl" else f'url = "{urls.get(kind, self.url(kind))}"\n'
            )
            text += f'headers = {{ "X-Key" = "{HEADER}" }}\n'
        self.config.write_text(text + f'[credentials."127.0.0.1:{self.server.port}"]\ntoken = "{TOKEN}"\n')

    def record(self, *events: Event) -> None:
        with Journal.open(self.directory, create=True) as journal:
            journal.append(events or EVENTS, None)

    def call(self, verb: str, *arguments: object) -> tuple[int, str]:
        """The exit code and all that was printed."""
        code, out, err = self.ask(verb, *arguments)
        return code, out + err

    def ask(self, verb: str, *arguments: object) -> tuple[int, str, str]:
        words = list(arguments)
        if verb != "check":  # the course stands behind the words that are no options
            words.insert(
                next((at for at, word in enumerate(words) if str(word).startswith("-")), len(words)), self.course
            )
        code, out, err = called(self.capfd, verb, *words, "--state-dir", self.state, "--config", self.config)
        self.said += out + err
        assert "Traceback" not in err
        return code, out, err


@pytest.fixture
def desk(capfd: pytest.CaptureFixture[str], tmp_path: Path, server: FaultServer) -> Iterator[Desk]:
    """Whatever a test does, no word of a token, a header, or a URL's path and query is ever said."""
    desk = Desk(capfd, tmp_path, server)
    yield desk
    assert not [secret for secret in SECRETS if secret in desk.said]
    for path in desk.state.rglob("*"):
        if path.is_file():
            assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()], path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PATIENCE_S", 5.0)


def queue(desk: Desk, name: str) -> dict[str, Any]:
    code, out, _ = desk.ask("queue", "--json")
    assert code == 0
    found: dict[str, dict[str, Any]] = {sink["name"]: sink for sink in json.loads(out)["sinks"]}
    return found[name]


# --- send, and its preview ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_preview_is_byte_for_byte_what_a_server_then_gets(desk: Desk, kind: str) -> None:
    desk.configure(kind)
    desk.record()
    code, shown, words = desk.ask("send", "--preview")
    assert code == 0
    assert desk.server.received == [] and list(desk.files.iterdir()) == []
    assert desk.ask("send", "--preview")[1] == shown  # it changes nothing
    assert queue(desk, kind)["waiting"] > 0

    assert desk.call("send")[0] == 0
    if kind == "jsonl":
        (path,) = desk.files.iterdir()
        bodies = [path.read_bytes()]
    else:
        bodies = [request.body for request in desk.server.received]
    assert shown.encode() == b"".join(body if body.endswith(b"\n") else body + b"\n" for body in bodies)
    assert [int(line.split(" bytes")[0].rpartition(" ")[2]) for line in words.splitlines()] == [*map(len, bodies)]
    assert "ghp_" not in shown and "abcd1234efgh" not in shown
    for request, line in zip(desk.server.received, words.splitlines(), strict=kind != "jsonl"):
        assert request.headers["authorization"] == f"Token {TOKEN}"
        assert request.headers["x-key"] == HEADER
        if "idempotency-key" in request.headers:
            assert request.headers["idempotency-key"] in line
    assert desk.ask("send", "--preview") == (0, "", "nothing waits\n")


def test_the_preview_of_one_sink_and_of_one_that_there_is_not(desk: Desk) -> None:
    desk.configure("otlp", "xapi")
    desk.record()
    code, out, err = desk.ask("send", "--preview", "--sink", "xapi")
    assert code == 0 and "resourceLogs" not in out and err.startswith("xapi to 127.0.0.1:")
    code, said = desk.call("send", "--preview", "--sink", "xpai")
    assert (code, said) == (78, "learnpack-agent: there is no sink xpai, only otlp, xapi\n")
    assert desk.call("send", "--sink", "xapi")[0] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_preview_of_records_that_are_nothing_for_a_sink_moves_nothing(desk: Desk, kind: str) -> None:
    desk.configure(kind)
    desk.record(SessionStart(ms(1), evidence(ms(1))) if kind == "learnpack-streaming" else gap(1, 2))
    for _ in range(2):
        assert desk.call("send", "--preview")[0] == 0
    desk.configure(kind, more="source_code = false\n")
    assert not (desk.directory / "delivery.sqlite3").exists()
    assert desk.call("send")[0] == 0
    desk.record(gap(3, 4))
    with Outbox(desk.directory, _journal_id(desk), read_only=True) as outbox:
        before = outbox.cursor(kind)
    desk.call("send", "--preview")
    with Outbox(desk.directory, _journal_id(desk), read_only=True) as outbox:
        assert outbox.cursor(kind) == before


def _journal_id(desk: Desk) -> str:
    with Journal.open(desk.directory, create=False, read_only=True) as journal:
        return journal.id


def test_a_document_that_holds_less_than_the_last_one_is_previewed_with_the_reason(desk: Desk) -> None:
    desk.configure("learnpack-batch")
    desk.record()
    assert desk.call("send")[0] == 0
    with Outbox(desk.directory, _journal_id(desk)) as outbox:
        sent = outbox.notes("learnpack-batch")["sent"]
        sent["01-hello"]["tests"] = 5
        outbox.note("learnpack-batch", sent=sent)
    desk.record(opened("01-hello", 30))
    code, out, err = desk.ask("send", "--preview")
    assert (code, out) == (0, "")
    assert "the document holds less than what was sent last (01-hello: tests 5 → 1): not sent" in err
    code, said = desk.call("send")
    assert code == 1 and "holds less" in said
    assert len(desk.server.received) == 1


def test_fields_that_are_switched_off_are_in_no_body(desk: Desk) -> None:
    desk.configure(*KINDS, more="source_code = false\noutput = false\n")
    desk.record()
    assert desk.call("send")[0] == 0
    bodies = b"\n".join(
        [request.body for request in desk.server.received] + [path.read_bytes() for path in desk.files.iterdir()]
    )
    for text in ("ñandú", "why ñ", "YW5kw7o", "print("):
        assert text.encode() not in bodies


def test_send_brings_everything_to_every_sink_and_says_so(desk: Desk) -> None:
    desk.configure(*KINDS)
    desk.learn(batch=desk.url())
    desk.record()
    code, said = desk.call("send")
    assert code == 1  # the course's URL leads to a private address
    assert "course-batch to 127.0.0.1:" in said and "private address" in said
    for kind in KINDS:
        assert queue(desk, kind)["waiting"] == 0
        assert f"{kind} to " in said and ": nothing waits, last sent at " in said
    desk.configure(*KINDS, more="private_addresses = true\n")
    assert desk.call("send", "--now")[0] == 0
    sent = [request.headers.get("authorization") for request in desk.server.received]
    assert set(sent[:-1]) == {f"Token {TOKEN}"}
    assert sent[-1] is None, "learn.json's URL does not get what was named for the admin's sinks"
    assert holder(desk.directory) is None


def test_without_sinks_there_is_nothing_to_send(desk: Desk) -> None:
    desk.record()
    for arguments in ((), ("--preview",), ("--now",)):
        code, said = desk.call("send", *arguments)
        assert code == 78 and "no sink is configured, and learn.json names no URL that may be used" in said
    assert desk.call("queue") == (0, "no sink is configured, and learn.json names no URL\n")


def test_a_dead_server_is_named_with_its_reason_and_the_queue_stays(desk: Desk) -> None:
    desk.configure("otlp", "jsonl")
    desk.record()
    desk.server.refuse()
    code, said = desk.call("send")
    assert code == 1
    assert "Connection refused; tried again at " in said and "9 wait, the oldest for " in said
    found = queue(desk, "otlp")
    assert (found["waiting"], found["oldest_at"], found["why"]) == (9, ms(0), "Connection refused")
    assert found["waits_for_somebody"] is False and found["next_at"] >= found["failed_at"]
    assert queue(desk, "jsonl")["waiting"] == 0
    assert "Connection refused" in desk.call("status")[1]
    desk.server.reopen()
    code, said = desk.call("send")
    assert code == 0 and "nothing waits" in said and "refused" not in said
    assert queue(desk, "otlp")["why"] is None


@pytest.mark.parametrize(
    ("fault", "words", "waits"),
    [
        (status(401), "401: it wants credentials", True),
        (status(403), "403: it does not allow it with these credentials", True),
        (status(302, {"Location": f"http://evil.example/{PATH}"}), "302: it points to another address", True),
        (status(503), "503: it failed", False),
        (status(429, {"Retry-After": "30"}), "429: it is asked too often", False),
        (page, "200 with a web page: another server answered", False),
        (reset_read, "", False),
    ],
)
def test_what_a_server_answers_is_told_and_nothing_is_lost(
    desk: Desk, fault: Callable[[Request], None], words: str, waits: bool
) -> None:
    desk.configure("otlp")
    desk.record()
    desk.server.behave = lambda _: fault
    code, said = desk.call("send")
    assert code == 1 and words in said
    assert ("somebody must change something" in said) == waits
    found = queue(desk, "otlp")
    assert (found["waiting"], found["waits_for_somebody"], found["parked"]) == (9, waits, [])
    desk.server.behave = lambda _: ok
    assert desk.call("send", "--now")[0] == 0
    assert queue(desk, "otlp")["waiting"] == 0


def test_what_a_server_rejects_is_kept_told_and_sent_again(desk: Desk) -> None:
    desk.configure("otlp")
    desk.record()
    desk.server.behave = lambda request: status(422) if b"ai_interaction" in request.body else ok
    code, said = desk.call("send")
    assert code == 0  # nothing waits: one is kept
    assert "1 rejected and kept (`send --parked` tries them again), the newest: record 6 at " in said
    assert "422: it does not take this" in said
    (parked,) = queue(desk, "otlp")["parked"]
    assert (parked["number"], parked["again"]) == (6, False)
    desk.server.behave = lambda _: ok
    count = len(desk.server.received)
    assert desk.call("send")[0] == 0
    assert len(desk.server.received) == count
    code, said = desk.call("send", "--parked")
    assert code == 0 and "rejected" not in said
    assert queue(desk, "otlp")["parked"] == []
    assert b"ai_interaction" in desk.server.received[-1].body


def test_a_sink_that_is_configured_no_more_is_shown_with_what_waits_for_it(desk: Desk) -> None:
    desk.configure("otlp", "xapi")
    desk.record(*EVENTS[:3])
    assert desk.call("send")[0] == 0
    desk.record(*EVENTS[3:])
    desk.configure("xapi")
    found = queue(desk, "otlp")
    assert (found["waiting"], found["refused"], found["kind"]) == (6, "it is not configured any more", None)
    for verb in ("queue", "status"):
        assert "otlp: not used, it is not configured any more, 6 wait" in desk.call(verb)[1]
    assert desk.call("send")[0] == 0
    desk.configure("otlp", "xapi")
    assert desk.call("send")[0] == 0
    assert queue(desk, "otlp")["waiting"] == 0


def test_a_courses_url_that_is_not_used_is_told_with_the_reason_and_without_the_url(desk: Desk) -> None:
    desk.learn(streaming=f"file:///{PATH}", batch=f"https://api.example.org/{PATH}?key={QUERY}")
    desk.configure(more='course_hosts = ["*.school.org"]\n')
    desk.record()
    for verb, *arguments in (("queue",), ("status",), ("sinks", "list"), ("sinks", "test")):
        said = desk.call(verb, *arguments)[1]
        assert "learn.json's URL can't be used: the URL does not begin with http:// or https://" in said
        assert "the configuration does not let a course name api.example.org (send.course_hosts)" in said
    assert desk.call("send")[0] == 78


@pytest.mark.parametrize("said", [{"silent_until": 0}, {"silent_until": 1 << 50}, {"consent": False}, "damaged"])
def test_in_a_silence_nothing_is_sent_and_it_is_said_why(desk: Desk, said: Any) -> None:
    desk.configure("otlp")
    desk.record()
    if said == "damaged":
        (desk.directory / CONTROL).write_text("{")
    else:
        change_control(desk.directory, **said)
    for arguments in ((), ("--now",), ("--parked",)):
        code, words = desk.call("send", *arguments)
        assert code == 1 and words.startswith("learnpack-agent: nothing is sent: ")
    assert desk.server.received == []
    assert "silent    nothing is recorded: " in desk.call("status")[1]
    assert desk.call("send", "--preview")[0] == 0


# --- sinks ---


def test_sinks_list_names_every_sink_and_whose_credentials_go_with_it(desk: Desk) -> None:
    desk.configure(*KINDS)
    desk.learn(batch="https://api.example.org/")
    code, said = desk.call("sinks", "list")
    assert code == 0
    place = f"127.0.0.1:{desk.server.port}"
    assert said.splitlines() == [
        *(
            f"{kind}: {kind} to {place}, named by the configuration; Token, a token of the configuration"
            for kind in KINDS[:-1]
        ),
        f"jsonl: jsonl to {desk.files}, named by the configuration; no credentials",
        "course-batch: learnpack-batch to api.example.org, named by learn.json; no credentials",
    ]
    desk.learn()
    desk.configure()
    assert desk.call("sinks", "list")[0] == 78


@pytest.mark.parametrize("is_recorded", [False, True])
def test_sinks_test_sends_a_marked_event_and_says_what_came_back(desk: Desk, is_recorded: bool) -> None:
    desk.configure(*KINDS)
    if is_recorded:
        desk.record()
    code, said = desk.call("sinks", "test")
    assert code == 0
    assert said.splitlines()[0] == f"learnpack-streaming (127.0.0.1:{desk.server.port}): delivered: 200: taken"
    assert said.splitlines()[-1] == f"jsonl ({desk.files}): delivered: written"
    bodies = [request.body for request in desk.server.received] + [path.read_bytes() for path in desk.files.iterdir()]
    assert len(bodies) == 5
    for kind, body in zip(KINDS, bodies, strict=True):
        assert b"learnpack_agent_test" in body or kind == "xapi"
        assert "ñandú".encode() not in body
    assert all(request.headers["authorization"] == f"Token {TOKEN}" for request in desk.server.received)
    if is_recorded:
        assert all(queue(desk, kind)["sent_at"] is None for kind in KINDS)  # no cursor moves
        assert queue(desk, "otlp")["waiting"] == 9


def test_sinks_test_without_a_server_fails_and_names_the_reason(desk: Desk) -> None:
    desk.configure("otlp", "jsonl", otlp=desk.url())
    desk.server.refuse()
    code, said = desk.call("sinks", "test")
    assert code == 1
    assert f"otlp (127.0.0.1:{desk.server.port}): retry: Connection refused" in said
    assert "jsonl" in said and "delivered" in said  # the others are still tested
    assert desk.call("sinks", "test", "--sink", "jsonl")[0] == 0
    assert desk.call("sinks", "test", "--sink", "nosuch") == (78, "learnpack-agent: there is no sink nosuch\n")
    desk.server.reopen()
    desk.server.behave = lambda _: status(401)
    code, said = desk.call("sinks", "test", "--sink", "otlp")
    assert code == 1 and "wait: 401: it wants credentials" in said


def test_sinks_test_says_which_credentials_it_did_not_have(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    desk.configure("otlp")
    text = desk.config.read_text()
    for now, words in (
        ('credential = "lrs"', "here is no credential lrs (systemd gives it to its service only)"),
        ("learnpack_session = true", "nobody is logged in to LearnPack in this course"),
    ):
        desk.config.write_text(text.replace(f'token = "{TOKEN}"', now))
        assert f"; sent without credentials, because {words}" in desk.call("sinks", "test")[1]
        assert "authorization" not in desk.server.received[-1].headers


# --- check ---


def check(desk: Desk, document: object) -> tuple[int, str]:
    file = desk.course.parent / "telemetry.json"
    file.write_text(json.dumps(document) if not isinstance(document, str) else document)
    return desk.call("check", file)


def whole(**more: Any) -> dict[str, Any]:
    run = attempt(2, 3)
    run["started_at"], run["exit_code"] = run.pop("starting_at"), run.pop("exitCode")
    steps = [
        learnpack_step(slug, opened_at=ms(1), completed_at=ms(60), tests=[dict(run)])
        for slug in ("00-welcome", "01-hello", "02-loop")
    ]
    return learnpack_document(*steps, last_interaction_at=ms(100), user_id=4711) | more


def test_check_tells_what_would_be_counted_and_whether_the_task_is_approved(desk: Desk) -> None:
    code, said = check(desk, whole())
    assert code == 0
    assert "completed  01-hello (59 s)" in said
    assert "completed 100 %" in said
    assert "the student's task would be done and approved" in said
    document = whole()
    del document["steps"][1]["completed_at"]
    document["steps"][1]["tests"][0]["exit_code"] = 1
    code, said = check(desk, document)
    assert code == 0
    assert "attempted  01-hello (2 s, failed 0 builds and 1 tests before)" in said
    assert "would not be done and approved" in said


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in whole().items() if name != key}


def with_step(**changes: Any) -> dict[str, Any]:
    document = whole()
    document["steps"][1].update(changes)
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        *(
            (without(key), f"{key} is missing")
            for key in ("user_id", "tutorial_started_at", "workout_session", "steps")
        ),
        (with_step(tests=None), "tests is no list"),
        (with_step(tests=[{"started_at": ms(2), "ended_at": ms(3)}]), "a test has no exit_code"),
        (whole(event="open_step"), "it would be taken for a streamed event"),
    ],
)
def test_check_fails_on_what_the_receiver_would_break_on(desk: Desk, document: object, words: str) -> None:
    code, said = check(desk, document)
    assert code == 1
    assert "it does nothing with the document, and answers 200 all the same" in said and words in said
    assert "approved" not in said


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (whole(last_interaction_at=ms(100) // 1000), "looks like seconds"),
        (with_step(completed_at=ms(0)), "completed before it was opened"),
        (with_step(opened_at=None), "opened_at is no time: the step counts as unread"),
    ],
)
def test_check_tells_what_would_be_counted_wrongly(desk: Desk, document: object, words: str) -> None:
    code, said = check(desk, document)
    assert code == 0
    assert "it counts wrongly: " in said and words in said


@pytest.mark.parametrize(
    ("text", "words"), [("{", "no JSON"), ("[]", "no JSON object"), ("", "no JSON"), ("7", "no JSON")]
)
def test_check_of_no_document_is_one_line(desk: Desk, text: str, words: str) -> None:
    code, said = check(desk, text)
    assert code == 1 and words in said and len(said.splitlines()) == 1


def test_check_of_no_file_is_one_line_and_json_is_one_object(desk: Desk) -> None:
    code, said = desk.call("check", desk.course / "none.json")
    assert code != 0 and len(said.splitlines()) == 1 and "none.json" in said
    file = desk.course.parent / "telemetry.json"
    file.write_text(json.dumps(whole()))
    code, out, _ = desk.ask("check", file, "--json")
    assert (code, json.loads(out)["approves"], json.loads(out)["completion_rate"]) == (0, True, 100.0)
    file.write_text(json.dumps(without("steps")))
    code, out, _ = desk.ask("check", file, "--json")
    assert (code, json.loads(out)["errors"]) == (1, ["steps is missing"])


# --- pause and its words, without an agent ---


@pytest.mark.parametrize("span", ["", "1", "h", "0s", "1w", "1.5h", "-1h", "1h30m", "9999999d", "1 h", "１h"])
def test_a_span_that_is_none_is_wrong_usage(desk: Desk, span: str) -> None:
    code, said = desk.call("pause", f"--for={span}")
    assert code == 2 and "as in 90m" in said
    assert not desk.state.exists()


@pytest.mark.parametrize(("span", "seconds"), [("45s", 45), ("90m", 5_400), ("1h", 3_600), ("2d", 172_800)])
def test_a_pause_lasts_as_long_as_it_is_said(desk: Desk, span: str, seconds: int) -> None:
    code, said = desk.call("pause", "--for", span)
    assert code == 0 and said.startswith("nothing is recorded and nothing is sent until 20")
    control = json.loads((desk.directory / CONTROL).read_text())
    assert control["silent_until"] - control["silent_since"] == pytest.approx(seconds * 1000, abs=5_000)
    assert desk.call("resume") == (0, "recording goes on\n")
    assert json.loads((desk.directory / CONTROL).read_text())["silent_until"] <= time.time_ns() // 1_000_000


def test_after_a_no_resume_says_what_would_change_that(desk: Desk) -> None:
    assert desk.call("consent", "no")[0] == 0
    code, said = desk.call("resume")
    assert code == 1 and "the student said no (`learnpack-agent consent yes` changes that)" in said
    assert desk.call("consent", "yes") == (0, "your work in this course may be recorded\n")
    assert desk.call("consent", "maybe")[0] == 2


# --- with a running agent ---


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


def test_a_running_agent_is_told_to_send_and_no_secret_is_seen_anywhere(
    stage: Stage, tmp_path: Path, server: FaultServer
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[send]\nproxy = "none"\nstart_spread_seconds = 0\n[[sink]]\nname = "otlp"\nkind = "otlp"\n'
        f'url = "{server.url}/{PATH}?key={QUERY}"\ndelay_seconds = 0\nheaders = {{ "X-Key" = "{HEADER}" }}\n'
        f'[credentials."127.0.0.1:{server.port}"]\ntoken = "{TOKEN}"\n'
    )
    course = make_course(tmp_path / "course", PYTHON, {"telemetry": {"batch": f"{server.url}/{PATH}?key={QUERY}"}})
    server.behave = lambda _: status(503, {"Retry-After": "3000"})
    agent = stage.agent(course, arguments=(f"--config={config}",)).start()
    assert agent.process is not None
    work(agent)
    agent.wait_for(lambda events: any(event["event"] == "compile" for event in events))
    until(lambda: "takes nothing now" in agent.log)
    said = say(agent, "queue") + say(agent, "status")
    assert "503: it failed; tried again at " in said
    server.behave = lambda _: ok
    # The course's own URL is refused (a private address), so not everything goes: code 1.
    said += say(agent, "send", "--now", code=1)
    assert "otlp to 127.0.0.1" in said and "nothing waits, last sent at" in said
    assert any(b"compile" in request.body and request.is_delivered for request in server.received)
    assert {request.headers.get("authorization") for request in server.received} == {f"Token {TOKEN}"}
    seen = arguments_of(agent.process.pid) + agent.log.encode() + said.encode()
    assert agent.stop() == 0
    seen += agent.log.encode()
    for path in agent.state.rglob("*"):
        seen += path.read_bytes() if path.is_file() else b""
    assert not [secret for secret in SECRETS if secret.encode() in seen]


def test_send_without_an_agent_and_one_that_starts_meanwhile_do_not_meet(
    desk: Desk, stage: Stage, tmp_path: Path
) -> None:
    """While a command sends, it holds the course's lock."""
    desk.configure("otlp")
    desk.record()
    agent = stage.agent(desk.course, arguments=(f"--config={desk.config}",))
    agent.state = desk.state
    seen: list[int | None] = []

    def look(request: Request) -> None:
        seen.append(holder(desk.directory))
        ok(request)

    desk.server.behave = lambda _: look
    done = subprocess.run(
        [*agent.command("send"), f"--config={desk.config}"], env=agent.environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(seen) == 1 and seen[0] not in (None, os.getpid())
    assert holder(desk.directory) is None
