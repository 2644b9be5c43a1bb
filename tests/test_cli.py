"""The command line as an admin and a script see it: what is printed, and which exit code comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__, cli, trace
from agent.config import Config, ConfigError, course_key, course_state_dir, load_config
from agent.core.events import Compile, Evidence, Gap, OpenStep, Origin, Run, StepName
from agent.store import lines
from agent.store.adoption import adopt, same_runs
from agent.store.journal import Journal, JournalError
from agent.store.lock import Lock
from tests.making import COURSE, a_compile, a_test, attempt, b64, learnpack_document, learnpack_step, session_end
from tests.until import until

EVIDENCE = (Evidence(7, 1_000, "process 5 executed python app.py"),)
STEP = StepName("01-hello", 1)


@pytest.fixture
def course(tmp_path: Path) -> Path:
    course = tmp_path / "course"
    for name in ("00-welcome", "01-hello"):
        (course / "exercises" / name).mkdir(parents=True)
        (course / "exercises" / name / "README.md").write_text("# hi\n")
    (course / "learn.json").write_text('{"slug": "demo"}')
    return course.resolve()


@pytest.fixture
def recorded(course: Path, state_dir: Path) -> Path:
    """A course of which three events are journaled."""
    directory = course_state_dir(Config(state_dir=str(state_dir)), str(course))
    run = Run(1_000, 1_040, 1, None, ("python", "app.py"), Origin.TERMINAL, source_code="print('ñandú')\n")
    with Journal.open(directory, create=True) as journal:
        journal.append(
            [
                OpenStep(1_000, STEP, EVIDENCE),
                Compile(1_040, STEP, run, EVIDENCE),
                Gap(2_000, 1_500, "buffer overflow", EVIDENCE),
            ],
            None,
        )
    return course


def called(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of one command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as ending:
        code = int(ending.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def test_help_names_every_command_and_shows_first_steps(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capfd, "--help")
    assert code == 0
    for command in ("run", "demo", "status", "events", "explain", "export", "replay"):
        assert f"\n    {command} " in out
    assert "first steps" in out


@pytest.mark.parametrize("arguments", [["--version"], ["status", "--version"]])
def test_the_version_is_told_before_and_after_a_command(
    capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert called(capfd, *arguments)[:2] == (0, f"learnpack-agent {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["export"], ["explain", "."], ["run", "--no-such"]])
def test_wrong_usage_exits_with_2(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert called(capfd, *arguments)[0] == 2


@pytest.mark.parametrize("command", ["run", "status", "events"])
def test_a_directory_that_is_no_course_exits_with_78_and_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    code, out, err = called(capfd, command, tmp_path, "--state-dir", tmp_path / "state")
    assert (code, out) == (78, "")
    assert len(err.splitlines()) == 1
    assert "learn.json" in err


def test_a_course_of_which_nothing_is_recorded_exits_with_69(
    capfd: pytest.CaptureFixture[str], course: Path, state_dir: Path
) -> None:
    code, _, err = called(capfd, "events", course, "--state-dir", state_dir)
    assert code == 69
    assert len(err.splitlines()) == 1
    assert not state_dir.exists()  # asking makes nothing


def test_events_prints_a_line_each(capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path) -> None:
    code, out, _ = called(capfd, "events", recorded, "--state-dir", state_dir)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("compile 01-hello: exit code 1, 40 ms (terminal)")
    assert "buffer overflow" in lines[2]


def test_export_prints_decoded_json_lines_and_events_json_the_same(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    _, out, _ = called(capfd, "export", recorded, "--format", "jsonl", "--state-dir", state_dir)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3]
    run = lines[1]
    assert (run["event"], run["step_slug"], run["step_position"]) == ("compile", "01-hello", 1)
    assert (run["started_at"], run["ended_at"], run["exit_code"], run["signal"]) == (1_000, 1_040, 1, None)
    assert (run["source_code"], run["output"], run["stdout"]) == ("print('ñandú')\n", "none", None)
    assert (run["command"], run["origin"]) == (["python", "app.py"], "terminal")
    assert called(capfd, "events", recorded, "--json", "--state-dir", state_dir)[1] == out


def test_export_writes_a_private_file(capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path) -> None:
    file = recorded.parent / "out.jsonl"
    code, out, _ = called(capfd, "export", recorded, "--format", "jsonl", "--output", file, "--state-dir", state_dir)
    assert (code, out) == (0, "")
    assert len(file.read_text().splitlines()) == 3
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_directory_inside_the_course_is_the_course(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    inside = recorded / "exercises" / "01-hello"
    assert called(capfd, "events", inside, "--state-dir", state_dir)[0] == 0


def test_what_was_recorded_can_be_read_whatever_became_of_the_course(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    (recorded / "learn.json").write_text("{")
    assert called(capfd, "status", recorded, "--state-dir", state_dir)[0] == 0
    shutil.rmtree(recorded)
    assert len(called(capfd, "events", recorded, "--state-dir", state_dir)[1].splitlines()) == 3


def test_a_students_names_cannot_write_to_the_terminal(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    odd = StepName("02-\x1b[2J\x1b]0;owned\x07\x9b", 2)
    why = (Evidence(7, 3_000, "process 5 executed python 02-\x1b[2J\u202e/app.py"),)
    with Journal.open(state_of(recorded, state_dir), create=False) as journal:
        journal.append([OpenStep(3_000, odd, why)], None)
    (recorded / "exercises" / odd.slug).mkdir()
    for arguments in (["status", recorded], ["events", recorded], ["explain", recorded, "4"]):
        code, out, err = called(capfd, *arguments, "--state-dir", state_dir)
        assert (code, err) == (0, "")
        assert r"02-\x1b[2J" in out
        assert all(letter.isprintable() for letter in out.replace("\n", ""))
    missing = recorded.parent / "\x1b[2Jnowhere"
    assert "\x1b" not in called(capfd, "status", missing, "--state-dir", state_dir)[2]


def test_explain_tells_the_observations_behind_an_event(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    code, out, _ = called(capfd, "explain", recorded, "2", "--state-dir", state_dir)
    assert code == 0
    assert "process 5 executed python app.py (observation 7)" in out
    assert called(capfd, "explain", recorded, "99", "--state-dir", state_dir)[0] == 1


def test_status_tells_progress_and_gaps(capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path) -> None:
    code, out, _ = called(capfd, "status", recorded, "--json", "--state-dir", state_dir)
    status = json.loads(out)
    assert code == 0
    assert status["agent"]["running"] is False
    assert status["events"] == {"compile": 1, "gap": 1, "open_step": 1}
    assert status["gaps"] == [{"started_at": 1_500, "ended_at": 2_000, "reason": "buffer overflow"}]
    hello = status["steps"][1]
    assert (hello["opened_at"], hello["compilations"], hello["failures"]) == (1_000, 1, 1)
    _, text, _ = called(capfd, "status", recorded, "--state-dir", state_dir)
    assert "not running" in text
    assert "buffer overflow" in text


def test_a_recording_replays_to_the_same_events(
    capfd: pytest.CaptureFixture[str], course: Path, tmp_path: Path
) -> None:
    from agent.core.inference import Inference, Settings
    from agent.core.observations import AgentStarted, CourseRead, Observation, QueueEntry, QueueRead
    from agent.sensors.course import read_course
    from agent.trace import TraceWriter

    recording = tmp_path / "trace"
    inference = Inference()
    writer = TraceWriter(str(recording), Settings(), inference.snapshot())
    observations: list[Observation] = [
        AgentStarted(5),
        CourseRead(6, read_course(str(course))),
        QueueRead(10, (QueueEntry("initializing"), QueueEntry("start_exercise", "00-welcome"))),
    ]
    events = []
    for seen in observations:
        writer.observation(seen)
        events += inference.receive(seen)
    deadline = inference.next_deadline()
    assert deadline is not None
    writer.deadline(deadline)
    events += inference.handle_deadline(deadline)
    writer.close()

    code, out, _ = called(capfd, "replay", recording)
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == [event.name for event in events]
    assert called(capfd, "replay", recording)[1] == out
    assert recording.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"format": "something else"}\n'])
def test_a_file_that_is_no_recording_fails_with_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    recording = tmp_path / "trace"
    recording.write_text(content)
    code, out, err = called(capfd, "replay", recording)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_failure(recorded: Path, state_dir: Path) -> None:
    asked = f"{sys.executable} -m agent events {recorded} --state-dir {state_dir}"
    command = f"{asked} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-", "0<&- >&- 2>&-"])
def test_streams_that_were_closed_change_nothing(recorded: Path, state_dir: Path, closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "agent"]
    here = Path(cli.__file__).parent.parent

    def call(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        words = [*command, *map(str, arguments), "--state-dir", str(state_dir)]
        return subprocess.run(words, cwd=here, capture_output=True, timeout=60)

    done = call("events", recorded)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"buffer overflow" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert call("status", recorded / "nowhere").returncode == 78


@pytest.mark.parametrize("closed", [">&-", "2>&-", "0<&- >&- 2>&-"])
def test_an_agent_whose_streams_were_closed_watches_and_ends_as_ever(
    course: Path, state_dir: Path, closed: str
) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "agent", "run", str(course)]
    directory = state_of(course, state_dir)
    log = course.parent / "log"
    with log.open("wb") as output:
        agent = subprocess.Popen(
            [*command, "--state-dir", str(state_dir)],
            cwd=Path(cli.__file__).parent.parent,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: agent.poll() is not None or is_ready(directory))
        assert agent.poll() is None, log.read_text()
        agent.terminate()
        assert agent.wait(60) == 0
    finally:
        agent.kill()
        agent.wait()
    assert "Traceback" not in log.read_text()


def is_ready(directory: str) -> bool:
    try:
        with Journal.open(directory, create=False, read_only=True) as journal:
            return "ready_at" in (journal.fact("status") or {})
    except JournalError:
        return False


@pytest.mark.parametrize("is_replaced", [False, True])
def test_following_a_journal_that_is_deleted_or_another_one_ends_with_69(
    recorded: Path, state_dir: Path, is_replaced: bool
) -> None:
    directory = state_of(recorded, state_dir)
    words = ["events", str(recorded), "--follow", "--state-dir", str(state_dir)]
    reader = subprocess.Popen(
        [sys.executable, "-m", "agent", *words],
        cwd=Path(cli.__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout is not None
        for _ in range(3):
            assert reader.stdout.readline() != ""
        with Journal.open(directory, create=False) as journal:
            journal.append([Gap(3_000, 2_500, "the last one", EVIDENCE)], None)
            shutil.rmtree(directory)
        if is_replaced:
            Journal.open(directory, create=True).close()
        out, err = reader.communicate(timeout=60)
    finally:
        reader.kill()
        reader.wait()
    assert reader.returncode == 69
    assert len(err.splitlines()) == 1 and "deleted or moved away" in err
    assert "the last one" in out


# --- what is read may be damaged, missing or odd ------------------------------------------------------------------


def state_of(course: Path, state_dir: Path) -> str:
    return course_state_dir(Config(state_dir=str(state_dir)), str(course))


def started(*arguments: object, stdout: int = subprocess.PIPE, **more: str) -> subprocess.CompletedProcess[bytes]:
    """One command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *map(os.fsencode, map(str, arguments))],
        cwd=Path(cli.__file__).parent.parent,
        env={**os.environ, **more},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [["status"], ["events"], ["export", "--format", "jsonl"]])
def test_a_damaged_record_is_one_line_and_exit_code_1(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path, arguments: list[str]
) -> None:
    with Journal.open(state_of(recorded, state_dir), create=False) as journal, journal.transaction():
        journal.connection.execute("UPDATE records SET body='{' WHERE number=2")
    code, _, err = called(capfd, *arguments, recorded, "--state-dir", state_dir)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "record 2" in err


def test_a_journal_without_its_tables_is_one_line_and_exit_code_1(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    with Journal.open(state_of(recorded, state_dir), create=False) as journal:
        journal.connection.execute("DROP TABLE adopted")
    code, _, err = called(capfd, "export", recorded, "--format", "jsonl", "--state-dir", state_dir)
    assert code == 1
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("fact", [None, {}, {"processes": {}, "files": {"level": "x"}}, [1], "text"])
def test_status_of_an_agent_that_told_little_yet(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path, fact: object
) -> None:
    directory = state_of(recorded, state_dir)
    with Journal.open(directory, create=False) as journal:
        journal.put_fact("status", fact if not isinstance(fact, dict) else {**fact, "pid": os.getpid()})
    lock = Lock.acquire(directory)
    try:
        code, out, _ = called(capfd, "status", recorded, "--state-dir", state_dir)
    finally:
        lock.release()
    assert code == 0
    assert f"running, process {os.getpid()}, nothing told yet" in out


def test_what_an_earlier_agent_told_is_not_taken_for_the_running_ones(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    directory = state_of(recorded, state_dir)
    with Journal.open(directory, create=False) as journal:
        journal.put_fact("status", {"pid": os.getpid() + 1, "started_at": 1, "ready_at": 2, "stopped_at": 3})
    assert "stopped_at" in json.loads(called(capfd, "status", recorded, "--json", "--state-dir", state_dir)[1])["agent"]
    lock = Lock.acquire(directory)
    try:
        _, out, _ = called(capfd, "status", recorded, "--json", "--state-dir", state_dir)
    finally:
        lock.release()
    assert json.loads(out)["agent"] == {"running": True, "pid": os.getpid()}


def test_status_tells_of_a_course_whose_name_is_not_utf8(
    capfd: pytest.CaptureFixture[str], course: Path, state_dir: Path
) -> None:
    odd = course.rename(os.fsdecode(os.fsencode(course) + b"-\xff"))
    Journal.open(state_of(odd, state_dir), create=True).close()
    code, out, err = called(capfd, "status", odd, "--json", "--state-dir", state_dir)
    assert (code, err) == (0, "")
    assert json.loads(out)["course"].endswith("course-\ufffd")


def test_replay_shows_names_that_are_not_utf8(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = OpenStep(3_000, StepName(os.fsdecode(b"02-\xff"), 2), EVIDENCE)
    monkeypatch.setattr(trace, "replay", lambda path, course: iter([odd]))
    code, out, err = called(capfd, "replay", tmp_path / "trace")
    assert (code, err) == (0, "")
    assert json.loads(out)["step_slug"] == "02-\ufffd"


@pytest.mark.parametrize(
    "line", ["5", "[]", '"deadline"', "{}", '{"deadline": "x"}', '{"observation": 7}', "[" * 9_999]
)
def test_a_recording_with_an_odd_line_fails_with_the_lines_number(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, line: str
) -> None:
    from agent.core.inference import Inference, Settings
    from agent.trace import TraceWriter

    recording = tmp_path / "trace"
    TraceWriter(str(recording), Settings(), Inference().snapshot()).close()
    with recording.open("a") as stream:
        stream.write(line + "\n")
    code, _, err = called(capfd, "replay", recording)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "line 2:" in err


def test_a_terminal_that_cannot_show_a_letter_gets_its_escape_and_json_stays_utf8(
    recorded: Path, state_dir: Path
) -> None:
    with Journal.open(state_of(recorded, state_dir), create=False) as journal:
        journal.append([OpenStep(3_000, StepName("02-ñandú", 2), EVIDENCE)], None)
    for command in ("events", "status"):
        done = started(command, recorded, "--state-dir", state_dir, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, b"")
        assert rb"02-\xf1and\xfa" in done.stdout
    done = started("events", recorded, "--json", "--state-dir", state_dir, PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout.splitlines()[-1])["step_slug"] == "02-ñandú"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this machine")
def test_a_full_disk_under_stdout_is_one_line(recorded: Path, state_dir: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = started("export", recorded, "--format", "jsonl", "--state-dir", state_dir, stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 73
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(JournalError("odd"), 1), (OSError(5, "odd"), 73), (PermissionError(13, "odd"), 77), (KeyboardInterrupt(), 130)],
)
def test_whatever_a_command_meets_is_no_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_demo", fail)
    found, _, err = called(capfd, "demo")
    assert found == code
    assert len(err.splitlines()) == (0 if code == 130 else 1)


# --- export -------------------------------------------------------------------------------------------------------


def test_export_writes_through_what_is_no_regular_file(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    fifo = recorded.parent / "fifo"
    os.mkfifo(fifo)
    export = ("export", recorded, "--format", "jsonl", "--state-dir", state_dir, "--output")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert called(capfd, *export, fifo)[0] == 0
        assert os.read(reader, 1 << 16).count(b"\n") == 3
    finally:
        os.close(reader)
    assert fifo.is_fifo()


def test_export_to_a_name_of_stdout_is_export_to_stdout(recorded: Path, state_dir: Path) -> None:
    # What /dev/stdout names.  Not a name in /dev itself: there a fault in `export`, run as root, would replace it.
    stdout = "/proc/self/fd/1"
    out = recorded.parent / "out"
    out.write_text("before\n")
    with out.open("a") as stream:  # as the shell's >> does
        arguments = ("export", recorded, "--format", "jsonl", "--state-dir", state_dir, "--output", stdout)
        done = started(*arguments, stdout=stream.fileno())
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(out.read_text().splitlines()) == 4
    assert started(*arguments).stdout.count(b"\n") == 3


def test_export_through_a_link_replaces_what_it_names(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path
) -> None:
    target, link = recorded.parent / "target", recorded.parent / "link"
    target.write_text("old")
    target.chmod(0o644)
    link.symlink_to(target)
    assert called(capfd, "export", recorded, "--format", "jsonl", "--state-dir", state_dir, "--output", link)[0] == 0
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 3
    assert target.stat().st_mode & 0o777 == 0o600


def test_what_learnpack_recorded_of_the_same_run_is_in_the_line_of_ours(
    capfd: pytest.CaptureFixture[str], course: Path, state_dir: Path
) -> None:
    theirs = attempt(2, 3, stdout=b64("printed\n"))
    data = json.dumps(learnpack_document(learnpack_step("01-hello", tests=[theirs, attempt(20, 21)]))).encode()
    with Journal.open(state_of(course, state_dir), create=True) as journal:
        adopt(journal, COURSE, lambda offset, size: data[offset : offset + size])
        journal.append(
            [
                a_test("01-hello", 2, 3),
                a_test("01-hello", 40, 41),
                a_compile("01-hello", 2, 3),
                a_test("02-loop", 2, 3),
                session_end(50),
            ],
            None,
        )
    for command in (["export", "--format", "jsonl"], ["events", "--json"]):
        code, out, _ = called(capfd, *command, course, "--state-dir", state_dir)
        assert code == 0
        lines = [json.loads(line) for line in out.splitlines()]
        assert [(line.get("stdout"), line.get("output")) for line in lines] == [
            ("printed\n", "partial"),
            (None, "none"),
            (None, "none"),
            (None, "none"),
            (None, None),
        ]


def test_which_runs_are_learnpacks_is_asked_once_and_again_for_a_later_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def counted(journal: Journal, kind: str, slug: str) -> dict[int, int]:
        asked.append((kind, slug))
        return same_runs(journal, kind, slug)

    monkeypatch.setattr(lines, "same_runs", counted)
    with Journal.open(tmp_path / "state", create=True) as journal:
        read = lines.Lines(journal)
        journal.append([a_test("01-hello", start, start + 1) for start in range(5)], None)
        for record in journal.records():
            read.line(record)
        assert asked == [("test", "01-hello")]
        document = learnpack_document(learnpack_step("01-hello", tests=[attempt(9, 10, stdout=b64("late"))]))
        data = json.dumps(document).encode()
        adopt(journal, COURSE, lambda offset, size: data[offset : offset + size])
        journal.append([a_test("01-hello", 9, 10)], None)
        assert json.loads(read.line(next(journal.records(after=5))))["stdout"] == "late"


def test_status_does_not_read_texts(recorded: Path, state_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Journal.open(state_of(recorded, state_dir), create=False) as journal, journal.transaction():
        journal.connection.execute("UPDATE records SET texts='{' WHERE number=2")
    assert called(capfd, "status", recorded, "--state-dir", state_dir)[0] == 0
    assert called(capfd, "export", recorded, "--format", "jsonl", "--state-dir", state_dir)[0] == 1


# --- logging and recording ----------------------------------------------------------------------------------------


def test_priorities_are_written_only_into_the_stream_of_systemds_journal(tmp_path: Path) -> None:
    script = (
        "import logging, sys; from agent.commands.common import log_to;"
        " log_to(logging.StreamHandler(sys.stderr), 'info'); logging.getLogger('x').info('hi')"
    )
    top = Path(cli.__file__).parent.parent

    def logged(stream: str) -> str:
        with (tmp_path / "err").open("w+") as stderr:
            status = os.fstat(stderr.fileno())
            own = f"{status.st_dev}:{status.st_ino}"
            environment = {**os.environ, "JOURNAL_STREAM": stream or own}
            subprocess.run([sys.executable, "-c", script], cwd=top, env=environment, stderr=stderr, check=True)
            stderr.seek(0)
            return stderr.read()

    assert logged("") == "<6>hi\n"
    assert logged("8:12345").endswith(" INFO hi\n")


def test_a_recording_into_an_existing_file_makes_it_private(tmp_path: Path) -> None:
    from agent.core.inference import Inference, Settings
    from agent.trace import TraceWriter

    recording = tmp_path / "trace"
    recording.write_text("old")
    recording.chmod(0o644)
    TraceWriter(str(recording), Settings(), Inference().snapshot()).close()
    assert recording.stat().st_mode & 0o777 == 0o600
    assert recording.read_text().count("\n") == 1


def test_a_recording_whose_reader_went_away_ends_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from agent.core.inference import Inference, Settings
    from agent.core.observations import AgentStarted
    from agent.trace import TraceWriter

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = TraceWriter(str(fifo), Settings(), Inference().snapshot())
    os.close(reader)
    for at in range(3):
        writer.observation(AgentStarted(at))
        writer.deadline(at)
    writer.close()
    assert len(caplog.records) == 1
    assert "the recording in" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this machine")
def test_a_recording_onto_a_full_disk_ends_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    from agent.core.inference import Inference, Settings
    from agent.trace import TraceWriter

    writer = TraceWriter("/dev/full", Settings(), Inference().snapshot())
    writer.deadline(1)
    writer.close()
    assert len(caplog.records) == 1


# --- configuration ------------------------------------------------------------------------------------------------


def load(tmp_path: Path, text: str | None = None, **arguments: object) -> Config:
    file = tmp_path / "config.toml"
    if text is not None:
        file.write_text(text)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "none"), "XDG_STATE_HOME": str(tmp_path / "xdg")}
    return load_config(file=str(file) if text is not None else None, environment=environment, arguments=arguments)


def test_arguments_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path).session_silence_minutes == 30
    assert load(tmp_path, "session_silence_minutes = 5").session_silence_minutes == 5
    assert load(tmp_path, 'log_level = "debug"', log_level="error").log_level == "error"
    assert load(tmp_path, 'log_level = "debug"', log_level=None).log_level == "debug"


def test_the_state_directory_comes_from_the_argument_the_environment_or_xdg(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": "/xdg", "STATE_DIRECTORY": "/var/lib/a:/b"}
    assert load_config(file=None, environment=environment, arguments={}).state_dir == "/var/lib/a"
    environment["LEARNPACK_AGENT_STATE_DIR"] = "/mine"
    assert load_config(file=None, environment=environment, arguments={}).state_dir == "/mine"
    assert load_config(file=None, environment=environment, arguments={"state_dir": "/x"}).state_dir == "/x"
    del environment["LEARNPACK_AGENT_STATE_DIR"], environment["STATE_DIRECTORY"]
    assert load_config(file=None, environment=environment, arguments={}).state_dir == "/xdg/learnpack-agent"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sesion_silence_minutes = 5", "did you mean session_silence_minutes?"),
        ('session_silence_minutes = "5"', "must be a whole number"),
        ("session_silence_minutes = true", "must be a whole number"),
        ("session_silence_minutes = 0", "at least 1"),
        ("session_silence_minutes = 525601", "at most 525600"),
        ("document_max_mb = 9223372036854775807", "at most 4096"),
        ('process_sensor = "magic"', "one of auto, connector"),
        ("log_level = [", "config.toml"),
    ],
)
def test_a_fault_in_the_configuration_is_one_clear_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_named_configuration_file_must_exist(capfd: pytest.CaptureFixture[str], course: Path, tmp_path: Path) -> None:
    code, _, err = called(capfd, "status", course, "--config", tmp_path / "missing.toml")
    assert code == 78
    assert "missing.toml" in err


def test_an_empty_variable_names_no_configuration_file_but_an_empty_argument_is_a_fault(
    capfd: pytest.CaptureFixture[str], recorded: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARNPACK_AGENT_CONFIG", "")
    assert called(capfd, "status", recorded, "--state-dir", state_dir)[0] == 0
    assert called(capfd, "status", recorded, "--state-dir", state_dir, "--config", "")[0] == 78


def test_each_course_has_a_directory_of_its_own_with_a_readable_name() -> None:
    assert course_key("/home/a/my-course").startswith("my-course-")
    assert course_key("/home/a/my-course") != course_key("/home/b/my-course")
    assert "/" not in course_key("/home/a/ünï cödé\n")
    assert len(os.fsencode(course_key("/" + "x" * 250))) < 100
