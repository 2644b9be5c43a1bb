"""What `forget` erases, what it leaves and says, and who may call it when."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from agent.config import Config, course_state_dir
from agent.core.course import Course
from agent.forgetting import forget, receipt_path
from agent.sensors.course import read_course
from agent.store.journal import NAME as JOURNAL
from agent.store.journal import Journal
from agent.store.lock import Lock, holder
from agent.store.outbox import NAME as OUTBOX
from agent.store.outbox import Outbox
from tests.conftest import Stage
from tests.making import FULL, a_compile, a_test, ms, opened
from tests.standin.courses import PYTHON, make_course
from tests.test_cli import called
from tests.test_host import say, work
from tests.until import until

#: It must not be in a receipt: the student's program and output, and who the student is.
PERSONAL = ("ñandú", "hello.py", "ada", "lovelace")


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return read_course(str(make_course(tmp_path / "ada-course", PYTHON)))


@pytest.fixture
def directory(course: Course, state_dir: Path) -> Path:
    """A state directory as it is after a while."""
    directory = Path(course_state_dir(Config(state_dir=str(state_dir)), course.root))
    with Journal.open(directory, create=True) as journal:
        journal.append([opened("01-hello", 1), a_test("01-hello", 2, 3, 1, **FULL), a_compile("01-hello", 4, 5)], b"{}")
        journal.put_fact("user_id", 4711)
        with Outbox(directory, journal.id) as outbox:
            outbox.acknowledge("lrs", 2)
            outbox.note("files", why="hello.py is not there")
    for name in (f"{JOURNAL}.damaged-17", f"{JOURNAL}.damaged-17-wal", "telemetry.json.damaged-18", "other.txt"):
        (directory / name).write_text("ñandú by ada lovelace")
    (directory / "control.json").write_text('{"consent": true}')
    Lock.acquire(directory).release()
    telemetry = Path(course.root, ".learn", "telemetry.json")
    telemetry.write_text('{"fullname": "ada lovelace"}')
    return directory


def telemetry(course: Course) -> Path:
    return Path(course.root, ".learn", "telemetry.json")


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_everything_is_erased_but_the_lock_what_was_said_and_the_receipt(course: Course, directory: Path) -> None:
    receipt = forget(course, directory, 99)
    assert files(directory) == ["control.json", "lock", "receipts/forgotten-99.json"]
    assert not telemetry(course).exists()
    assert sorted(os.listdir(Path(course.root, ".learn"))) == ["_app"]
    assert receipt["left"] == []


def test_the_receipt_says_how_much_there_was_and_who_got_it_without_personal_data(
    course: Course, directory: Path
) -> None:
    before = time.time_ns() // 1_000_000
    receipt = forget(course, directory, 99)
    assert before <= receipt.pop("forgotten_at") <= time.time_ns() // 1_000_000
    assert receipt.pop("files") >= 7
    assert receipt == {
        "events": 3,
        "first_at": ms(1),
        "last_at": ms(5),
        "sinks": [
            {"name": "files", "got_up_to": 0, "waited": 3},
            {"name": "lrs", "got_up_to": 2, "waited": 1},
        ],
        "telemetry_json": True,
        "left": [],
    }
    kept = receipt_path(directory, 99)
    assert json.loads(kept.read_text())["events"] == 3
    for word in PERSONAL:
        assert word not in kept.read_text()
    assert kept.parent.stat().st_mode & 0o077 == 0


def test_a_second_time_there_is_nothing_and_both_receipts_stay(course: Course, directory: Path) -> None:
    forget(course, directory, 99)
    receipt = forget(course, directory, 100)
    assert (receipt["events"], receipt["files"], receipt["sinks"], receipt["telemetry_json"]) == (0, 0, [], False)
    assert files(directory)[2:] == ["receipts/forgotten-100.json", "receipts/forgotten-99.json"]


@pytest.mark.parametrize("damage", [JOURNAL, OUTBOX])
def test_what_is_damaged_is_erased_too(course: Course, directory: Path, damage: str) -> None:
    (directory / damage).write_bytes(b"\xff" * 20_000)
    assert forget(course, directory, 99)["left"] == []
    assert files(directory) == ["control.json", "lock", "receipts/forgotten-99.json"]


def test_what_is_no_file_of_ours_is_named_and_not_followed(course: Course, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").touch()
    (directory / "link").symlink_to(tmp_path / "precious")
    (directory / "a-directory").mkdir()
    receipt = forget(course, directory, 99)
    assert [line.partition(":")[0] for line in receipt["left"]] == ["a-directory"]
    assert (tmp_path / "precious" / "x").exists()
    assert not (directory / "link").is_symlink()


def test_what_there_is_no_permission_for_is_named(
    course: Course, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == telemetry(course):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    receipt = forget(course, directory, 99)
    assert receipt["left"] == ["telemetry.json: Permission denied"]
    assert receipt["telemetry_json"] is False
    assert not (directory / JOURNAL).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root has every permission")
def test_without_permission_in_the_course_the_rest_is_erased(course: Course, directory: Path) -> None:
    learn = Path(course.root, ".learn")
    learn.chmod(0o500)
    try:
        assert forget(course, directory, 99)["left"] == ["telemetry.json: Permission denied"]
    finally:
        learn.chmod(0o700)
    assert not (directory / JOURNAL).exists()


# --- the command ---


def test_without_an_agent_the_command_erases_and_shows_the_receipt(
    capfd: pytest.CaptureFixture[str], course: Course, directory: Path, state_dir: Path
) -> None:
    code, out, err = called(capfd, "forget", course.root, "--yes", "--state-dir", state_dir)
    assert (code, err) == (0, "")
    receipt = json.loads(out[: out.rindex("}") + 1])
    assert receipt["events"] == 3
    assert "the receipt is kept in" in out
    assert files(directory)[:2] == ["control.json", "lock"]
    assert holder(directory) is None
    for word in PERSONAL[:2]:
        assert word not in out
    assert called(capfd, "events", course.root, "--state-dir", state_dir)[0] == 69


def test_who_does_not_type_yes_loses_nothing(course: Course, directory: Path, state_dir: Path, stage: Stage) -> None:
    agent = stage.agent(Path(course.root))
    agent.state = state_dir
    before = files(directory)
    for answer in ("", "y\n", "no\n", "yess\n"):
        done = subprocess.run(
            agent.command("forget"),
            input=answer,
            cwd="/",
            env=agent.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "type yes" in done.stdout and "nothing was erased" in done.stderr
    assert files(directory) == before
    done = subprocess.run(agent.command("forget"), input="yes\n", env=agent.environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert not (directory / JOURNAL).exists()


def test_a_course_of_which_nothing_is_recorded_has_nothing_to_forget(
    capfd: pytest.CaptureFixture[str], course: Course, state_dir: Path
) -> None:
    code, _, err = called(capfd, "forget", course.root, "--yes", "--state-dir", state_dir)
    assert code == 69
    assert "nothing is recorded" in err and len(err.splitlines()) == 1
    assert not state_dir.exists()


def test_what_was_recorded_of_a_course_that_is_gone_can_be_forgotten(
    capfd: pytest.CaptureFixture[str], course: Course, directory: Path, state_dir: Path
) -> None:
    import shutil

    shutil.rmtree(course.root)
    code, out, _ = called(capfd, "forget", course.root, "--yes", "--state-dir", state_dir)
    assert code == 0
    assert json.loads(out[: out.rindex("}") + 1])["events"] == 3
    assert not (directory / JOURNAL).exists()


def test_somebody_elses_agent_that_holds_the_lock_without_a_word_is_left_alone(
    capfd: pytest.CaptureFixture[str],
    course: Course,
    directory: Path,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from agent.commands import delivery

    monkeypatch.setattr(delivery, "_signal", lambda *_, **__: False)  # it took the lock after we had looked
    lock = Lock.acquire(directory)
    try:
        code, _, err = called(capfd, "forget", course.root, "--yes", "--state-dir", state_dir)
    finally:
        lock.release()
    assert code == 75 and "already running" in err
    assert (directory / JOURNAL).exists()


def test_while_learnpack_runs_it_is_refused(stage: Stage, tmp_path: Path) -> None:
    root = make_course(tmp_path / "course", PYTHON)
    agent = stage.agent(root)
    directory = Path(course_state_dir(Config(state_dir=str(agent.state)), os.path.realpath(root)))
    Journal.open(directory, create=True).close()
    learnpack = stage.learnpack(root).start()
    assert "LearnPack is running for this course" in say(agent, "forget", "--yes", code=75)
    assert (directory / JOURNAL).exists()
    learnpack.stop()
    say(agent, "forget", "--yes")
    assert not (directory / JOURNAL).exists()


def test_a_running_agent_does_it_itself_and_goes_on_with_a_new_journal(stage: Stage, tmp_path: Path) -> None:
    agent = stage.agent(make_course(tmp_path / "course", PYTHON)).start()
    agent.await_document()
    work(agent)
    agent.wait_for(lambda events: any(event["event"] == "compile" for event in events))
    with agent.journal() as journal:
        before = journal.id
    shown = say(agent, "forget", "--yes")
    assert json.loads(shown[: shown.rindex("}") + 1])["events"] >= 1
    until(lambda: agent.log.count("ready") == 2)
    with agent.journal() as journal:
        assert journal.id != before
    work(agent, "02-sum")
    agent.wait_for(lambda events: any(event.get("step_slug") == "02-sum" for event in events))
    assert all(event.get("step_slug") != "01-hello" for event in agent.events())
    assert agent.stop() == 0
    document = agent.document()
    assert document is not None
    hello = next(step for step in document["steps"] if step["slug"] == "01-hello")
    assert (hello["compilations"], hello["tests"]) == ([], [])


def test_an_agent_with_its_records_elsewhere_is_not_passed_over(stage: Stage, tmp_path: Path) -> None:
    """Root's state directory is not the student's: what is said there, nobody hears."""
    course = make_course(tmp_path / "course", PYTHON)
    agent = stage.agent(course).start()
    stranger = stage.agent(course, name="another-state")
    for verb, more in (("pause", ()), ("consent", ("no",)), ("forget", ("--yes",))):
        assert "in another directory: name that with --state-dir" in say(stranger, verb, *more, code=75)
    assert not stranger.state.exists()
    assert agent.stop() == 0
