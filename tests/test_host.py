"""Pauses, consent and the lock: when an agent works, when none does, and what is left of the time between."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import host as module
from agent.config import Config, ConfigError, Fault, course_state_dir
from agent.host import Host
from agent.sensors.clock import now_ms
from agent.sensors.course import read_course
from agent.store.control import NAME as CONTROL
from agent.store.control import change_control, read_control
from agent.store.journal import NAME as JOURNAL
from agent.store.lock import Lock, holder
from tests.conftest import Stage
from tests.making import b64, learnpack_document, learnpack_step
from tests.sinks.faults import FaultServer
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import PYTHON, make_course
from tests.until import until

STEP = "01-hello"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON)


# --- the host alone, with an agent that does nothing ---


class Idle:
    """Stands in for the agent: it runs until it is stopped, or until it is over."""

    made: list[Idle]
    made_by: Callable[[Idle], object]
    status_line = "idle"

    def __init__(
        self,
        course: object,
        config: Config,
        directory: str,
        record: object,
        lock: Lock,
        watchdog: object,
        away: str | None,
        silence: object,
    ) -> None:
        self.lock, self.silence, self.directory = lock, silence, directory
        self.config, self.away = config, away
        self.sent = 0
        self.is_end = False
        self._wake = threading.Event()
        self._looks = threading.Semaphore(0)
        self._is_stopped = False
        Idle.made.append(self)
        Idle.made_by(self)

    def run(self, is_over: Callable[[Any], bool]) -> None:
        while not self._is_stopped:
            self._looks.acquire()
            if is_over(self):
                return

    def stop(self, *, is_end: bool) -> None:
        self.is_end = is_end
        self._is_stopped = True
        self._looks.release()

    def look(self) -> None:
        self._looks.release()

    def send_now(self, *, to_all: bool) -> None:
        self.sent += 1

    def set_config(self, config: Config) -> bool:
        """As the agent: what its sensors were made with is another agent's."""
        if config.idle_minutes != self.config.idle_minutes:
            return False
        self.config = config
        return True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Idle]:
    monkeypatch.setattr(module, "Agent", Idle)
    Idle.made, Idle.made_by = [], lambda _: None
    return Idle.made


class Hosted:
    """A host that runs in a thread of this test."""

    def __init__(self, course: Path, state: Path, config: Config) -> None:
        found = read_course(str(course))
        self.directory = Path(course_state_dir(Config(state_dir=str(state)), found.root))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config: Config | ConfigError = config  # what is read at the next reload
        self.host = Host(found, config, str(self.directory), self._read, None)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.host.run()
        except BaseException as error:
            self.failure = error

    def _read(self) -> Config:
        if isinstance(self.config, ConfigError):
            raise self.config
        return self.config

    def say(self, **changes: Any) -> None:
        change_control(self.directory, **changes)
        self.host.look()

    def end(self) -> None:
        self.host.stop()
        if self.thread.ident is not None:
            self.thread.join(20)
            assert not self.thread.is_alive()


@pytest.fixture
def hosted(course: Path, state_dir: Path, made: list[Idle]) -> Iterator[Callable[..., Hosted]]:
    all_: list[Hosted] = []

    def make(*, is_started: bool = True, **config: Any) -> Hosted:
        all_.append(Hosted(course, state_dir, Config(**config)))
        if is_started:
            all_[-1].thread.start()
        return all_[-1]

    yield make
    for one in all_:
        one.end()


def test_in_a_pause_there_is_no_agent_and_afterwards_another_one_that_knows_of_it(
    hosted: Callable[..., Hosted], made: list[Idle]
) -> None:
    one = hosted()
    until(lambda: len(made) == 1)
    one.say(silent_since=5, silent_until=0)
    until(lambda: one.host._agent is None)
    assert holder(one.directory) == os.getpid()
    one.say(silent_until=9)
    until(lambda: len(made) == 2)
    assert [agent.silence for agent in made] == [None, (5, 9)]


def test_a_pause_that_ends_by_itself_needs_nobody(hosted: Callable[..., Hosted], made: list[Idle]) -> None:
    one = hosted(is_started=False)
    until_ms = now_ms() + 300
    change_control(one.directory, silent_since=now_ms(), silent_until=until_ms)
    one.thread.start()
    until(lambda: made)
    assert now_ms() >= until_ms


@pytest.mark.parametrize("control", [{"silent_until": 1 << 60}, {"silent_until": 0}, {"consent": False}])
def test_a_silence_of_any_length_is_waited_through_and_ends_at_once_with_the_host(
    hosted: Callable[..., Hosted], made: list[Idle], control: dict[str, Any]
) -> None:
    one = hosted(is_started=False)
    change_control(one.directory, **control)
    one.thread.start()
    until(lambda: one.host._said is not None)
    began = time.monotonic()
    one.end()
    assert time.monotonic() - began < 5
    assert (one.failure, made) == (None, [])
    assert holder(one.directory) is None


@pytest.mark.parametrize("control", [{"silent_until": 7}, {}])
def test_who_waits_for_the_students_consent_does_so_without_work(
    hosted: Callable[..., Hosted], made: list[Idle], monkeypatch: pytest.MonkeyPatch, control: dict[str, Any]
) -> None:
    """After a `resume` before the consent, the end of that pause is in the past."""
    looks = 0

    def counted(directory: str) -> Any:
        nonlocal looks
        looks += 1
        return read_control(directory)

    monkeypatch.setattr(module, "read_control", counted)
    one = hosted(is_started=False, consent=True)
    change_control(one.directory, **control)
    one.thread.start()
    until(lambda: one.host._said is not None)
    time.sleep(0.3)  # nothing happens: there is no condition to wait for
    assert looks <= 3
    assert made == []
    one.say(consent=True)
    until(lambda: made)


def test_what_is_said_while_the_agent_is_made_is_heard(hosted: Callable[..., Hosted], made: list[Idle]) -> None:
    one = hosted(is_started=False)
    Idle.made_by = lambda _: one.say(silent_since=5, silent_until=0)
    one.thread.start()
    until(lambda: one.host._said is not None)
    assert len(made) == 1
    assert one.host._agent is None


def test_a_stop_while_the_agent_is_made_is_heard(hosted: Callable[..., Hosted], made: list[Idle]) -> None:
    one = hosted(is_started=False)
    Idle.made_by = lambda _: one.host.stop()
    one.thread.start()
    one.thread.join(20)
    assert not one.thread.is_alive()
    assert holder(one.directory) is None


def test_send_now_reaches_the_agent_once_for_each_time_it_was_said(
    hosted: Callable[..., Hosted], made: list[Idle]
) -> None:
    one = hosted()
    until(lambda: made)
    one.say(send_at=5)
    until(lambda: made[0].sent == 1)
    one.say(send_at=6)
    until(lambda: made[0].sent == 2)
    one.host.look()
    one.say(silent_until=0)
    until(lambda: one.host._agent is None)
    assert made[0].sent == 2


@pytest.mark.parametrize("content", [b"{", b'{"consent": "no"}', b""])
def test_of_a_damaged_control_file_the_worst_is_believed_and_it_is_said(
    hosted: Callable[..., Hosted], made: list[Idle], caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    one = hosted(is_started=False)
    (one.directory / CONTROL).write_bytes(content)
    one.thread.start()
    until(lambda: one.host._said is not None)
    assert made == []
    assert "control.json is damaged" in caplog.text
    one.say(consent=True)
    until(lambda: made)


def test_a_control_file_that_is_damaged_while_the_agent_works_ends_its_work(
    hosted: Callable[..., Hosted], made: list[Idle]
) -> None:
    one = hosted()
    until(lambda: made)
    (one.directory / CONTROL).write_bytes(b"{")
    one.host.look()
    until(lambda: one.host._agent is None)


@pytest.mark.parametrize("where", ["made", "run"])
def test_whatever_fails_in_the_agent_the_lock_is_released(
    hosted: Callable[..., Hosted], made: list[Idle], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    if where == "made":
        Idle.made_by = fail
    else:
        monkeypatch.setattr(Idle, "run", fail)
    one = hosted()
    one.thread.join(20)
    assert isinstance(one.failure, RuntimeError)
    assert holder(one.directory) is None


def test_an_agent_that_had_to_take_another_lock_gives_that_back(
    hosted: Callable[..., Hosted], made: list[Idle]
) -> None:
    def replace(agent: Idle) -> None:
        agent.lock.release()
        agent.lock = Lock.acquire(agent.directory)

    Idle.made_by = replace
    one = hosted()
    until(lambda: made and one.host._agent is not None)
    one.end()
    assert holder(one.directory) is None


def test_to_forget_in_a_pause_erases_and_the_pause_goes_on(hosted: Callable[..., Hosted], made: list[Idle]) -> None:
    one = hosted(is_started=False)
    change_control(one.directory, silent_until=0)
    (one.directory / f"{JOURNAL}.damaged-1").write_text("x")
    one.thread.start()
    until(lambda: one.host._said is not None)
    one.say(forget_at=5)
    until((one.directory / "receipts" / "forgotten-5.json").exists)
    assert not (one.directory / f"{JOURNAL}.damaged-1").exists()
    assert made == []


def test_a_receipt_that_can_not_be_written_does_not_end_the_agent(
    hosted: Callable[..., Hosted], made: list[Idle], caplog: pytest.LogCaptureFixture
) -> None:
    one = hosted()
    until(lambda: made)
    (one.directory / "receipts").write_text("no directory")
    one.say(forget_at=5)
    until(lambda: len(made) == 2)
    assert "not everything was forgotten" in caplog.text
    assert one.failure is None


# --- the configuration is read again ---


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A reload sets that of the whole process."""
    before = module.log.level
    yield
    module.log.setLevel(before)


def test_what_the_agent_can_take_in_its_work_it_takes(hosted: Callable[..., Hosted], made: list[Idle]) -> None:
    one = hosted()
    until(lambda: made)
    one.config = Config(document_max_mb=9)
    one.host.reload()
    until(lambda: made[0].config == one.config)
    one.say(silent_until=0)
    until(lambda: one.host._agent is None)
    one.say(silent_until=1)
    until(lambda: len(made) == 2)
    assert (made[1].config, made[1].away) == (one.config, None)


def test_for_what_it_was_made_with_another_agent_begins_and_says_why(
    hosted: Callable[..., Hosted], made: list[Idle]
) -> None:
    one = hosted()
    until(lambda: made)
    one.config = Config(idle_minutes=9)
    one.host.reload()
    until(lambda: len(made) == 2)
    assert [agent.config.idle_minutes for agent in made] == [5, 9]
    assert [agent.away for agent in made] == [None, "the agent began anew with another configuration"]
    assert made[0].is_end is False
    one.host.look()
    one.say(silent_until=0)
    until(lambda: one.host._agent is None)
    one.say(silent_until=1)
    until(lambda: len(made) == 3)
    assert made[2].away is None, "that was told"


@pytest.mark.parametrize("is_paused", [False, True])
def test_with_a_fault_in_it_the_configuration_stays_as_it_was(
    hosted: Callable[..., Hosted], made: list[Idle], caplog: pytest.LogCaptureFixture, is_paused: bool
) -> None:
    one = hosted(is_started=False)
    change_control(one.directory, silent_until=0 if is_paused else 1)
    one.thread.start()
    until(lambda: one.host._said is not None if is_paused else made)
    fault = Fault("/etc/learnpack-agent/config.toml", 3, "no such key")
    one.config = ConfigError((fault,))
    one.host.reload()
    until(lambda: "the configuration was read again" in caplog.text)
    assert str(fault) in caplog.text
    assert "the configuration stays as it was" in caplog.text
    one.config = Config(document_max_mb=9)
    one.host.reload()
    until(lambda: one.host._config == one.config)
    assert len(made) == (0 if is_paused else 1)


def test_where_records_lie_is_no_other_place_before_the_next_start(
    hosted: Callable[..., Hosted], made: list[Idle], caplog: pytest.LogCaptureFixture
) -> None:
    one = hosted(state_dir="/var/one")
    until(lambda: made)
    one.config = Config(state_dir="/var/other", document_max_mb=9)
    one.host.reload()
    until(lambda: made[0].config.document_max_mb == 9)
    assert made[0].config.state_dir == "/var/one"
    assert "state_dir is another now; that holds from the next start on" in caplog.text


def test_who_must_be_asked_from_now_on_is_not_watched_until_then(
    hosted: Callable[..., Hosted], made: list[Idle]
) -> None:
    one = hosted()
    until(lambda: made)
    one.config = Config(consent=True)
    one.host.reload()
    until(lambda: one.host._said is not None)
    one.config = Config()
    one.host.reload()
    until(lambda: len(made) == 2)


def test_a_reload_while_the_agent_is_made_is_heard(hosted: Callable[..., Hosted], made: list[Idle]) -> None:
    one = hosted(is_started=False)
    one.config = Config(document_max_mb=9)
    Idle.made_by = lambda _: one.host.reload()
    one.thread.start()
    until(lambda: made and made[0].config.document_max_mb == 9)


def test_how_much_is_logged_is_another_at_once(
    hosted: Callable[..., Hosted], made: list[Idle], caplog: pytest.LogCaptureFixture
) -> None:
    one = hosted()
    until(lambda: made)
    for level, number in (("debug", logging.DEBUG), ("error", logging.ERROR), ("info", logging.INFO)):
        one.config = Config(log_level=level)
        one.host.reload()
        until(partial(_is_logged_from, number))
    one.host.reload()
    until(lambda: "the configuration was read again: nothing is different" in caplog.messages)
    assert len(made) == 1


def _is_logged_from(level: int) -> bool:
    return module.log.level == level


@pytest.mark.parametrize(
    ("calls", "is_end"),
    [(["stop"], True), (["give_way"], False), (["give_way", "stop"], True), (["stop", "give_way"], True)],
)
def test_the_agent_knows_whether_another_begins_at_once(
    hosted: Callable[..., Hosted], made: list[Idle], calls: list[str], is_end: bool
) -> None:
    one = hosted(is_started=False)

    def call(_: Idle) -> None:
        for name in calls:
            getattr(one.host, name)()

    Idle.made_by = lambda _: Idle.made[0].look()
    one.thread.start()
    until(lambda: one.host._agent is not None)
    call(made[0])
    one.thread.join(20)
    assert not one.thread.is_alive()
    assert made[0].is_end is is_end


# --- the real agent ---


def state_of(agent: Agent) -> Path:
    return Path(course_state_dir(Config(state_dir=str(agent.state)), os.path.realpath(agent.course)))


def say(agent: Agent, verb: str, *more: str, code: int = 0) -> str:
    """A command about this course; `more` stands before the course (`consent yes`)."""
    command = agent.command(verb)
    words = [*command[:4], *more, *command[4:]]
    config = [word for word in agent.arguments if word.startswith("--config")]
    done = subprocess.run(
        [*words, *config], cwd=agent.state.parent, env=agent.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def work(agent: Agent, slug: str = STEP) -> None:
    """The student runs the step's program, which lives long enough to be seen by every sensor."""
    program = agent.course / "exercises" / slug / "app.py"
    program.write_text("import time\ntime.sleep(0.4)\nprint('SECRET-WORK')\n")
    subprocess.run([sys.executable, "app.py"], cwd=program.parent, check=True, stdout=subprocess.DEVNULL, timeout=60)


def gaps(events: list[Event]) -> list[str]:
    return [event["reason"] for event in events if event["event"] == "gap"]


def silent(agent: Agent, times: int = 1) -> None:
    until(lambda: agent.log.count("nothing is recorded: ") >= times)


def test_what_happens_in_a_pause_is_neither_journaled_nor_sent(stage: Stage, course: Path, tmp_path: Path) -> None:
    with FaultServer() as server:
        config = tmp_path / "config.toml"
        config.write_text(
            f'[send]\nstart_spread_seconds = 0\n[[sink]]\nname = "batch"\nkind = "learnpack-batch"\n'
            f'url = "{server.url}/x"\ndelay_seconds = 0\n'
            f'[[sink]]\nname = "otlp"\nkind = "otlp"\nurl = "{server.url}/y"\ndelay_seconds = 0\n'
        )
        agent = stage.agent(course, arguments=(f"--config={config}",)).start()
        work(agent, "02-sum")
        agent.wait_for(lambda events: count(events, "compile", "02-sum") == 1)

        assert "until `resume`" in say(agent, "pause")
        silent(agent)
        assert "paused" in say(agent, "status")
        received = len(server.received)
        work(agent)
        began = now_ms() - 300  # LearnPack recorded it, too
        theirs = {"started_at": began, "ended_at": began + 100, "exit_code": 1, "stdout": b64("IN-THE-PAUSE\n")}
        document = learnpack_document(
            learnpack_step(STEP, opened_at=began, completed_at=began + 200, tests=[theirs], compilations=[theirs]),
            slug=json.loads((course / "learn.json").read_text())["slug"],
        )
        (course / ".learn" / "telemetry.json").write_text(json.dumps(document))
        assert "nothing is sent" in say(agent, "send", code=1)
        assert len(server.received) == received

        assert "recording goes on" in say(agent, "resume")
        until(lambda: agent.log.count("ready") == 2)
        work(agent, "07-free")
        events = agent.wait_for(lambda events: count(events, "compile") == 2)
        assert "recording was paused" in gaps(events)
        assert (
            count(events, "compile", STEP) == count(events, "test", STEP) == count(events, "complete_step", STEP) == 0
        )
        say(agent, "send", "--now")
        agent.stop()
        bodies = b"\n".join(request.body for request in server.received[received:])
        assert b'"steps"' in bodies and b"resourceLogs" in bodies
        assert b64("IN-THE-PAUSE\n").encode() not in bodies
        assert b64("IN-THE-PAUSE\n") in (course / ".learn" / "telemetry.json").read_text()  # it stays the student's


def test_a_restart_in_a_pause_stays_paused_and_its_end_is_short(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    say(agent, "pause", "--for", "1d")
    silent(agent)
    agent.kill()
    agent.start(wait=False)
    silent(agent)
    numbers = [event["number"] for event in agent.events()]
    work(agent)
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 5
    assert holder(state_of(agent)) is None
    assert [event["number"] for event in agent.events()] == numbers
    assert "ready" not in agent.log


def test_a_pause_that_ended_while_no_agent_ran_is_a_gap_with_its_reason(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    work(agent)
    agent.wait_for(lambda events: count(events, "compile") == 1)
    agent.stop()
    say(agent, "pause", "--for", "1s")
    until(lambda: "paused" not in say(agent, "status"))
    agent.start()
    events = agent.wait_for(lambda events: "recording was paused" in gaps(events))
    agent.stop()
    agent.start()
    agent.stop()
    assert gaps(agent.events()).count("recording was paused") == gaps(events).count("recording was paused")


def test_two_pauses_without_an_agent_between_are_both_known(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    agent.stop()
    say(agent, "pause")
    first = json.loads((state_of(agent) / CONTROL).read_text())["silent_since"]
    say(agent, "resume")
    say(agent, "pause")
    say(agent, "resume")
    assert json.loads((state_of(agent) / CONTROL).read_text())["silent_since"] == first
    agent.start()
    agent.stop()
    say(agent, "pause")  # of the first ones the journal knows
    assert json.loads((state_of(agent) / CONTROL).read_text())["silent_since"] > first


def test_before_a_yes_and_after_a_no_nothing_is_recorded(stage: Stage, course: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("consent = true\n")
    agent = stage.agent(course, arguments=(f"--config={config}",)).start(wait=False)
    silent(agent)
    assert "was not asked yet" in agent.log
    work(agent)
    assert "was not asked" in say(agent, "resume", code=1)
    assert not (state_of(agent) / JOURNAL).exists()
    assert not (course / ".learn/telemetry.json").exists()

    say(agent, "consent", "yes")
    agent.await_ready()
    assert count(agent.events(), "compile") == 0
    work(agent, "02-sum")
    agent.wait_for(lambda events: count(events, "compile", "02-sum") == 1)

    assert "nothing is recorded" in say(agent, "consent", "no")
    numbers = [event["number"] for event in agent.events()]
    document = agent.document()
    work(agent)
    assert "the student said no" in say(agent, "resume", code=1)
    assert agent.stop() == 0
    assert [event["number"] for event in agent.events()] == numbers
    assert agent.document() == document
    assert "the student said no" in say(agent, "status")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_two_quick_signals_are_one(stage: Stage, course: Path, sig: signal.Signals) -> None:
    agent = stage.agent(course).start()
    assert agent.process is not None
    for _ in range(2):
        agent.process.send_signal(sig)
    if sig is signal.SIGUSR1:
        for _ in range(20):
            agent.process.send_signal(sig)
        work(agent)
        agent.wait_for(lambda events: count(events, "compile") == 1)
        agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(30) == 0
    assert "Traceback" not in agent.log
    assert holder(state_of(agent)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="threads are looked at in /proc")
def test_one_thread_takes_all_signals_and_it_is_not_the_one_that_works(stage: Stage, course: Path) -> None:
    """A thread that waits for something else would take SIGTERM, tell nobody, and systemd would kill the agent."""
    agent = stage.agent(course).start()
    assert agent.process is not None
    tasks = Path(f"/proc/{agent.process.pid}/task")
    blocked = {}
    for task in tasks.iterdir():
        line = next(one for one in (task / "status").read_text().splitlines() if one.startswith("SigBlk:"))
        blocked[int(task.name)] = int(line.split()[1], 16)
    assert len(blocked) >= 4, "main, signals, files, processes"
    takers = set()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        (taker,) = (task for task, mask in blocked.items() if not mask & 1 << number - 1)
        takers.add(taker)
    assert len(takers) == 1
    assert agent.process.pid not in takers
    assert agent.stop() == 0


def test_what_the_caller_ignores_is_ignored_but_commands_are_heard(stage: Stage, course: Path) -> None:
    """As nohup leaves SIGHUP; SIGUSR1 is what `pause` sends."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGUSR1)}
    try:
        agent = stage.agent(course).start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    say(agent, "pause")
    silent(agent)
    assert "was read again" not in agent.log
    assert agent.stop() == 0


def test_signals_from_the_first_moment_of_the_lock_on_do_no_harm(stage: Stage, course: Path) -> None:
    """SIGUSR1 ends a process that does not listen yet."""
    agent = stage.agent(course).start(wait=False)
    until(lambda: state_of(agent).exists() and holder(state_of(agent)))
    assert agent.process is not None
    while "ready" not in agent.log:
        agent.process.send_signal(signal.SIGUSR1)
        assert agent.process.poll() is None, agent.log
        time.sleep(0.002)
    assert agent.stop() == 0


def test_a_configuration_that_is_read_again_is_worked_with_and_a_begin_anew_is_a_gap(
    stage: Stage, course: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    with FaultServer() as server:
        agent = stage.agent(course, arguments=(f"--config={config}",)).start()
        assert agent.process is not None

        def reload(text: str) -> None:
            assert agent.process is not None
            times = agent.log.count("the configuration was read again")
            config.write_text(text)
            agent.process.send_signal(signal.SIGHUP)
            until(lambda: agent.log.count("the configuration was read again") > times)

        sink = f'[[sink]]\nname = "otlp"\nkind = "otlp"\nurl = "{server.url}/y"\ndelay_seconds = 0\n'
        reload(sink)
        work(agent)
        until(lambda: server.received)
        assert gaps(agent.events()) == []

        reload(f"no_such_key = 1\n{sink}")
        assert f"{config}:1" in agent.log or f"{config}, line 1" in agent.log
        assert "the configuration stays as it was" in agent.log

        reload(f"idle_minutes = 9\n{sink}")
        until(lambda: agent.log.count("ready: ") == 2)
        work(agent, "02-sum")
        events = agent.wait_for(lambda events: count(events, "compile", "02-sum") == 1)
        assert gaps(events) == ["the agent began anew with another configuration"]
        assert count(events, "session_end") == 0, "the student works on"

        received = len(server.received)
        reload("idle_minutes = 9\n")
        work(agent, "07-free")
        agent.wait_for(lambda events: count(events, "compile", "07-free") == 1)
        assert agent.stop() == 0
        assert len(server.received) == received
    assert "Traceback" not in agent.log


@pytest.mark.parametrize("how", ["signal", "closed"])
def test_in_a_terminal_the_end_of_the_terminal_is_the_end(stage: Stage, course: Path, how: str) -> None:
    agent = stage.agent(course)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir("/")
        os.execve(sys.executable, agent.command("run"), {**agent.environment, "PYTHONWARNINGS": "error"})
    try:
        shown = b""
        while b"ready: watching" not in shown:
            shown += os.read(terminal, 4096)
        if how == "signal":
            os.kill(pid, signal.SIGHUP)
        else:
            os.close(terminal)
        _, status = os.waitpid(pid, 0)
        # 120: the interpreter could not write its last words to a terminal that is gone.
        assert os.waitstatus_to_exitcode(status) in ((0,) if how == "signal" else (0, 120))
        assert holder(state_of(agent)) is None
        with agent.journal() as journal:
            assert "stopped_at" in journal.fact("status")
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if how == "signal":
            os.close(terminal)
