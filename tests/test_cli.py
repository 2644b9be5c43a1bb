"""The command line as an admin and a script see it: what is printed, and which exit code comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__, cli
from agent.config import Config, ConfigError, course_key, course_state_dir, load_config
from agent.core.events import Compile, Evidence, Gap, OpenStep, Origin, Run, StepName
from agent.store.journal import Journal

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

    trace = tmp_path / "trace"
    inference = Inference()
    writer = TraceWriter(str(trace), Settings(), inference.snapshot())
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

    code, out, _ = called(capfd, "replay", trace)
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == [event.name for event in events]
    assert called(capfd, "replay", trace)[1] == out
    assert trace.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"format": "something else"}\n'])
def test_a_file_that_is_no_recording_fails_with_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    trace = tmp_path / "trace"
    trace.write_text(content)
    code, out, err = called(capfd, "replay", trace)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_failure(recorded: Path, state_dir: Path) -> None:
    asked = f"{sys.executable} -m agent events {recorded} --state-dir {state_dir}"
    command = f"{asked} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


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


def test_each_course_has_a_directory_of_its_own_with_a_readable_name() -> None:
    assert course_key("/home/a/my-course").startswith("my-course-")
    assert course_key("/home/a/my-course") != course_key("/home/b/my-course")
    assert "/" not in course_key("/home/a/ünï cödé\n")
    assert len(os.fsencode(course_key("/" + "x" * 250))) < 100
