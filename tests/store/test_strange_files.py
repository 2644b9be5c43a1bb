"""What is in a state directory may be anything: a pipe there holds nobody up, a link leads nobody astray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.forgetting import erase_state
from agent.store.control import Control, change_control, read_control
from agent.store.journal import NAME as JOURNAL
from agent.store.journal import Journal, JournalCorrupt, open_or_replace
from agent.store.lock import NAME as LOCK
from agent.store.lock import Lock, holder
from agent.store.outbox import NAME as OUTBOX
from agent.store.outbox import Outbox, OutboxError

pytestmark = pytest.mark.timeout(10)


def test_a_pipe_for_a_journal_is_not_waited_for_and_the_agent_moves_it_aside(state_dir: Path) -> None:
    Journal.open(state_dir, create=True).close()
    for suffix in ("", "-wal"):
        path = state_dir / f"{JOURNAL}{suffix}"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        with pytest.raises(JournalCorrupt, match="no regular file"):
            Journal.open(state_dir, create=False, read_only=True)
        journal, aside = open_or_replace(state_dir, f"now{suffix}")
        journal.close()
        assert aside is not None and Path(f"{aside}{suffix}").is_fifo()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_pipe_for_the_queues_is_not_waited_for(state_dir: Path, read_only: bool) -> None:
    state_dir.mkdir()
    os.mkfifo(state_dir / OUTBOX)
    with pytest.raises(OutboxError, match="no regular file"):
        Outbox(state_dir, "journal", read_only=read_only)


def test_a_pipe_for_what_was_said_is_not_waited_for_and_written_over_with_a_no(state_dir: Path) -> None:
    state_dir.mkdir()
    os.mkfifo(state_dir / "control.json")
    with pytest.raises(ValueError, match="no regular file"):
        read_control(state_dir)
    change_control(state_dir, send_at=7)
    assert read_control(state_dir) == Control(consent=False, send_at=7)


def test_a_pipe_for_the_lock_is_not_waited_for(state_dir: Path) -> None:
    state_dir.mkdir()
    os.mkfifo(state_dir / LOCK)
    assert holder(state_dir) is None
    with pytest.raises(OSError):
        Lock.acquire(state_dir)


def test_a_link_for_a_state_directory_is_not_used_and_erased_without_what_it_leads_to(state_dir: Path) -> None:
    elsewhere = state_dir.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    state_dir.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError, match="it is a link"):
        Lock.acquire(state_dir)
    with pytest.raises(NotADirectoryError):
        change_control(state_dir, send_at=7)
    assert erase_state(str(state_dir))
    assert not state_dir.is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
