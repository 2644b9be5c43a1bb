"""What was said to an agent: kept whole, durable, and never misunderstood in favour of recording."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from agent.store.control import FOR_EVER, NAME, Control, change_control, read_control


def test_nothing_was_said_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_control(tmp_path) == Control()
    assert Control().why_silent(5, needs_consent=False) is None
    assert os.listdir(tmp_path) == []


def test_what_is_said_later_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    change_control(tmp_path, consent=True)
    change_control(tmp_path, silent_since=3, silent_until=9)
    found = change_control(tmp_path, forget_at=7, send_at=8)
    assert found == read_control(tmp_path) == Control(3, 9, True, 8, forget_at=7)
    assert os.listdir(tmp_path) == [NAME]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("control", "needs_consent", "why"),
    [
        (Control(), False, None),
        (Control(), True, "the student was not asked yet (learnpack-agent consent yes)"),
        (Control(consent=True), True, None),
        (Control(consent=False), True, "the student said no"),
        (Control(consent=False), False, "the student said no"),
        (Control(1, FOR_EVER), False, "paused"),
        (Control(1, FOR_EVER, True), True, "paused"),
        (Control(1, 101), False, "paused"),
        (Control(1, 100), False, None),
        (Control(1, 99), False, None),
        (Control(1, 101, False), False, "the student said no"),
    ],
)
def test_why_nothing_is_recorded_at_a_moment(control: Control, needs_consent: bool, why: str | None) -> None:
    assert control.why_silent(100, needs_consent=needs_consent) == why


def test_a_silence_is_told_when_it_has_an_end() -> None:
    assert Control().silence is None
    assert Control(5, FOR_EVER).silence is None
    assert Control(5, 9).silence == (5, 9)


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"5",
    b"\xff\xfe",
    b'{"consent": "no"}',
    b'{"consent": 0}',
    b'{"silent_until": "x"}',
    b'{"silent_until": 1.5}',
    b'{"silent_until": true}',
    b'{"silent_since": null}',
    b'{"forget_at": "x"}',
    b'{"send_at": []}',
    b'{"consent": false}' + b" " * 70_000 + b"x",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_said_in_words_that_name_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    if content.startswith(b'{"consent": false}'):
        assert read_control(tmp_path).consent is False  # the first 64 KB are all that is read
        return
    with pytest.raises(ValueError, match=r"^control\.json is damaged: "):
        read_control(tmp_path)


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("changes", [{"send_at": 5}, {"forget_at": 5}, {"silent_since": 1, "silent_until": 4}])
def test_what_is_said_over_a_damaged_file_does_not_make_a_yes_of_what_may_have_been_a_no(
    tmp_path: Path, content: bytes, changes: dict[str, int]
) -> None:
    (tmp_path / NAME).write_bytes(content)
    change_control(tmp_path, **changes)
    assert read_control(tmp_path).why_silent(10, needs_consent=False) == "the student said no"
    change_control(tmp_path, consent=True)
    assert read_control(tmp_path).why_silent(10, needs_consent=False) is None


def test_keys_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps({"consent": True, "mood": "good"}))
    assert read_control(tmp_path) == Control(consent=True)


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "file"])
@pytest.mark.timeout(20)
def test_what_lies_at_the_temporary_name_is_not_written_to(tmp_path: Path, kind: str) -> None:
    """Root says it in a directory that is a student's."""
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    victim.write_text("precious")
    trap = state / f"{NAME}.tmp"
    match kind:
        case "symlink":
            trap.symlink_to(victim)
        case "hardlink":
            os.link(victim, trap)
        case "fifo":
            os.mkfifo(trap)
        case _:
            trap.write_text("half a l")
    owner = victim.stat()
    change_control(state, consent=False)
    assert read_control(state).consent is False
    assert victim.read_text() == "precious" and victim.stat().st_uid == owner.st_uid
    assert os.listdir(state) == [NAME]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can say something in another user's directory")
def test_what_root_says_the_students_agent_can_read_and_change(tmp_path: Path) -> None:
    os.chown(tmp_path, 1500, 1500)
    change_control(tmp_path, consent=False)
    status = (tmp_path / NAME).stat()
    assert (status.st_uid, status.st_gid) == (1500, 1500)


def test_what_many_say_at_once_is_all_kept(tmp_path: Path) -> None:
    def say(key: str) -> None:
        for value in range(1, 31):
            change_control(tmp_path, **{key: value})

    threads = [threading.Thread(target=say, args=(key,)) for key in ("send_at", "forget_at", "silent_since")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_control(tmp_path) == Control(silent_since=30, send_at=30, forget_at=30)


def test_a_directory_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        change_control(tmp_path / "none", consent=True)
    assert read_control(tmp_path / "none") == Control()
