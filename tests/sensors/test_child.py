"""Short programs that are asked a question: real ones, well-behaved and not."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from agent.sensors import child
from agent.sensors.child import Answer, ask
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process left open is read from /proc")

SECONDS = 60.0


def shell(script: str, given: bytes = b"", *, seconds: float = SECONDS, limit: int = 1 << 20) -> Answer:
    return ask(["sh", "-c", script], os.environ, given, until=time.monotonic() + seconds, limit=limit)


def test_what_a_program_prints_and_how_it_ends_is_told() -> None:
    assert shell("echo out; echo err >&2; exit 3") == Answer(3, b"out\n", b"err\n")


def test_a_program_gets_its_environment_and_nothing_else() -> None:
    answer = ask(["env"], {"PATH": os.environ["PATH"], "ONLY": "this"}, until=time.monotonic() + SECONDS, limit=4096)
    assert sorted(answer.stdout.split()) == sorted([b"ONLY=this", b"PATH=" + os.environb[b"PATH"]])


def test_more_than_a_pipe_holds_goes_in_and_comes_out() -> None:
    given = os.urandom(500_000)
    assert shell("cat", given) == Answer(0, given, b"")


def test_input_that_nobody_reads_is_left() -> None:
    assert shell("exec <&-; echo done", bytes(500_000)) == Answer(0, b"done\n", b"")


def test_without_input_a_program_reads_the_end_at_once() -> None:
    assert shell("cat; echo over") == Answer(0, b"over\n", b"")


def test_an_answer_that_is_too_long_is_cut_off_and_the_program_killed() -> None:
    answer = shell("yes", limit=100_000)
    assert answer.code is None
    assert len(answer.stdout) == 100_000


def test_a_long_complaint_does_not_stop_a_program() -> None:
    answer = shell("head -c 1000000 /dev/zero >&2; echo done")
    assert (answer.code, answer.stdout) == (0, b"done\n")
    assert len(answer.stderr) < 100_000


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    for seconds in (0.5, 2, 8, 32):  # a busy machine may need longer to start the shell
        answer = shell(f"sleep 1000 & echo $! > {pids}; echo $$ >> {pids}; echo first; wait", seconds=seconds)
        if answer.stdout:
            break
    assert answer == Answer(None, b"first\n", b"")
    for pid in pids.read_text().split():
        until(lambda pid=pid: not Path(f"/proc/{pid}/cmdline").exists() or is_dead(int(pid)))  # type: ignore[misc]


def is_dead(pid: int) -> bool:
    """Gone, or a zombie whose new parent has not looked after it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_program_that_closes_its_output_and_stays_is_killed() -> None:
    assert shell("exec >&- 2>&-; sleep 1000", seconds=0.3) == Answer(None, b"", b"")


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match=r"No such file|Permission"):  # of a directory on the PATH
        ask(["no-such-program-anywhere"], os.environ, until=time.monotonic() + SECONDS, limit=10)


def test_nothing_is_left_open_or_unreaped() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        shell("echo out")
        shell("yes", limit=10)
        shell("sleep 1000", seconds=0.05)
        with pytest.raises(OSError, match=r"No such file|Permission"):
            ask(["no-such-program-anywhere"], os.environ, until=time.monotonic() + SECONDS, limit=10)
    assert len(os.listdir("/proc/self/fd")) == len(before)

    def is_all_reaped() -> bool:
        child._reap_left_behind()  # as the next question does with what takes long to die
        return not child._left_behind

    until(is_all_reaped)


def test_the_agents_own_files_are_not_open_in_the_program(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w"):
        shown = shell("ls -l /proc/self/fd").stdout.decode()
    assert "pipe:" in shown
    assert "secret" not in shown
