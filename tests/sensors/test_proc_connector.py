"""The proc connector against the real kernel: short lives, chains, codes, losses, spoofs, namespaces.

A program that must be seen waits at the student's gate until it was: how soon the scheduler lets the sensor look is
no matter of these tests, and measured in `tests/bench/catch.py`.  What may be missed here must have been heard of.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.course import Course
from agent.core.observations import EventsLost, FileText, Observation, ProcessesListed, ProcessExecuted, ProcessExited
from agent.sensors.clock import now_ms
from agent.sensors.processes import proc_connector
from agent.sensors.processes.level import Mailbox, has_ended, spawn_child
from agent.sensors.processes.proc_connector import Connector
from agent.sensors.processes.proc_socket import EXEC, EXIT, Listener, open_socket
from agent.sensors.processes.sensor import NO_LEVEL, ProcessSensor
from tests.sensors.student import (
    PATIENCE_S,
    PYTHON,
    WAIT,
    WAIT_SH,
    Desk,
    Heard,
    Seen,
    Student,
    child_of,
    make_desk,
    refusal_of,
    run_seen,
    settle,
    until_it_runs,
)
from tests.until import until

REPOSITORY = Path(__file__).parents[2]


@functools.cache
def refusal() -> str | None:
    """Why this machine has no proc connector, or None."""
    return refusal_of(Connector) if sys.platform == "linux" else "not Linux"


pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"no proc connector here: {refusal()}")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

STEPS = {
    "01-short": {"app.py": WAIT, "app.sh": f"{WAIT_SH}:\n", "quick.py": "pass\n"},
    "02-code": {"app.py": f"{WAIT}import sys; sys.exit(int(sys.argv[1]))\n"},
    "03-slow": {"app.py": "import time; time.sleep(60)\n"},
}

#: A program with 20 short threads.
THREADS = """
import threading
for _ in range(20):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path / "course", STEPS)


@pytest.fixture
def student() -> Iterator[Student]:
    with Student() as student:
        yield student


@contextmanager
def watching(
    course: Course, put: Callable[[Observation], None], open_socket: Callable[[], socket.socket] = open_socket
) -> Iterator[ProcessSensor]:
    # A self-test that is refused because the machine is too busy is soon tried again.
    sensor = ProcessSensor(course, put, levels=[lambda: Connector(open_socket)], waits_s=(0.1, 1.0))
    sensor.start()
    try:
        yield sensor
    finally:
        sensor.stop()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(monkeypatch)


@pytest.fixture
def seen(heard: Heard, desk: Desk) -> Iterator[Seen]:
    seen = Seen()
    with watching(desk.course, seen.put):
        seen.listed()
        yield seen


class Opener:
    """`open_socket` that remembers what it opened: for each try the one that wakes us, then the one with all exits."""

    def __init__(self) -> None:
        self.opened: list[socket.socket] = []

    def __call__(self) -> socket.socket:
        self.opened.append(open_socket())
        return self.opened[-1]

    @property
    def events(self) -> socket.socket:
        return self.opened[-2]

    @property
    def ends(self) -> socket.socket:
        return self.opened[-1]


def is_of_the_kernel(lost: EventsLost) -> bool:
    """The kernel tells of all programs of the machine: how many there are meanwhile is no matter of these tests."""
    return "the kernel dropped" in lost.reason


def check_whole(desk: Desk, student: Student, seen: Seen, heard: Heard, argv: list[str]) -> bool:
    """Run a program; whether it was seen, and then whether all that is said of it is right.  If it was not, the
    kernel told of it all the same, and it is known to have been missed."""
    before = now_ms()
    pid, _ = student.run(argv, desk.step(0))
    after = now_ms()
    settle(student, seen, desk.step(0))
    if not seen.executed(pid):
        assert seen.exits(pid) == []
        assert heard.unreadable.count(pid) == 1 or any(map(is_of_the_kernel, seen.of(EventsLost)))
        return False
    ((executed,), (exited,)) = seen.executed(pid), seen.exits(pid)
    assert executed.argv == tuple(argv)
    assert executed.cwd == str(desk.step(0))
    assert executed.parent == student.pid
    assert not executed.found
    assert before - 11 <= executed.started_at <= executed.at <= exited.at <= after + 1
    assert (exited.born, exited.exit_code, exited.signal, exited.exact) == (executed.born, 0, None, True)
    return True


def test_lives_of_15_ms_are_seen_whole(desk: Desk, student: Student, seen: Seen, heard: Heard) -> None:
    for _ in range(10):
        until(lambda: check_whole(desk, student, seen, heard, [PYTHON, "-S", "-E", "quick.py"]))


def test_lives_of_3_ms_are_seen_whole(desk: Desk, student: Student, seen: Seen, heard: Heard) -> None:
    (desk.step(0) / "quick.sh").write_text("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done\n")
    for _ in range(10):
        until(lambda: check_whole(desk, student, seen, heard, ["/bin/sh", "quick.sh"]))


def test_the_text_of_what_is_run_is_read_at_its_start(desk: Desk, student: Student, seen: Seen) -> None:
    app = desk.step(2) / "app.py"
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    seen.wait_for(lambda seen: seen.executed(pid))
    app.write_text("print('saved while it ran')\n")
    student.kill(pid, signal.SIGKILL)
    student.reap(pid)
    seen.exit_of(pid)
    assert seen.executed(pid)[0].texts == (FileText("exercises/03-slow/app.py", STEPS["03-slow"]["app.py"]),)


def test_a_text_that_is_no_utf8_or_very_long_is_still_read(desk: Desk, student: Student, seen: Seen) -> None:
    app = desk.step(0) / "app.py"
    app.write_bytes(b"# coding: latin-1\n# \xff\n" + WAIT.encode() + b"#" * 300_000)
    pid, status = run_seen(student, seen, [PYTHON, "app.py"], desk.step(0))
    assert status == 0
    (text,) = seen.executed(pid)[0].texts
    assert text.text.startswith(f"# coding: latin-1\n# \N{REPLACEMENT CHARACTER}\n{WAIT}###")
    assert len(text.text) == 256 * 1024


def test_each_program_of_a_chain_is_seen_under_one_identity(desk: Desk, student: Student, seen: Seen) -> None:
    env = shutil.which("env") or "/usr/bin/env"
    programs = [("/bin/sh", "1.sh"), ("sh", "2.sh"), ("sh", "3.sh"), (PYTHON, "app.py")]
    for (_, name), following in itertools.pairwise(programs):
        (desk.step(0) / name).write_text(f"{WAIT_SH}exec {env} {' '.join(following)}\n")
    pid = student.start(list(programs[0]), desk.step(0))
    for program in programs:
        seen.wait_for(lambda seen, program=program: program in [one.argv for one in seen.executed(pid)])  # type: ignore[misc]
        student.open_gate()
    student.reap(pid)
    seen.exit_of(pid)
    chain = seen.executed(pid)
    # sh, env, sh, env, sh, env, python.  What replaces itself at once (env) may be gone before it is read: then the
    # program that it became is read twice.
    assert 4 <= len(chain) <= 7
    assert list(dict.fromkeys(one.argv for one in chain if one.argv[0] != env)) == programs
    assert len({(one.pid, one.born, one.started_at) for one in chain}) == 1
    assert [one.at for one in chain] == sorted(one.at for one in chain)
    assert chain[-1].texts
    assert len(seen.exits(pid)) == 1


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_programs(code: int, desk: Desk, student: Student, seen: Seen) -> None:
    pid, _ = run_seen(student, seen, [PYTHON, "-S", "app.py", str(code)], desk.step(1))
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.signal) == (code, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_told_and_leaves_no_exit_code(
    number: signal.Signals, desk: Desk, student: Student, seen: Seen
) -> None:
    program = f"{WAIT}os.kill(os.getpid(), {int(number)})"
    pid, _ = run_seen(student, seen, [PYTHON, "-S", "-c", program], desk.step(2))
    exited = seen.exit_of(pid)
    assert (exited.exit_code, exited.signal) == (None, number)


def test_an_operand_or_standard_input_in_the_course_is_enough(desk: Desk, student: Student, seen: Seen) -> None:
    by_operand, _ = run_seen(student, seen, [PYTHON, "-S", str(desk.step(0) / "app.py")], "/")
    by_stdin, _ = run_seen(student, seen, [PYTHON, "-S"], "/", stdin=desk.step(0) / "app.py")
    assert seen.executed(by_operand)[0].cwd == "/"
    (executed,) = seen.executed(by_stdin)
    assert executed.stdin == str(desk.step(0) / "app.py")
    assert executed.texts == (FileText("exercises/01-short/app.py", STEPS["01-short"]["app.py"]),)


def test_what_has_nothing_to_do_with_the_course_is_not_reported(
    desk: Desk, student: Student, seen: Seen, heard: Heard
) -> None:
    beside = desk.root.with_name("other")
    beside.mkdir()
    (beside / "app.py").write_text(STEPS["03-slow"]["app.py"])
    for argv, cwd in (
        ([PYTHON, "-S", "-c", "import time; time.sleep(60)"], Path("/")),
        ([PYTHON, "-S", str(beside / "app.py")], beside),
    ):
        stranger = student.start(argv, cwd)
        until(lambda stranger=stranger: stranger in heard.executed)  # type: ignore[misc]
    ours, _ = run_seen(student, seen, [PYTHON, "-S", "app.py"], desk.step(0))
    assert {one.pid for one in seen.of(ProcessExecuted)} == {ours}


def test_the_agents_own_children_are_not_reported(desk: Desk, student: Student, seen: Seen, heard: Heard) -> None:
    with subprocess.Popen([PYTHON, "-S", "app.py"], cwd=desk.step(2)) as own:
        until(lambda: own.pid in heard.executed)
        own.kill()
    ours, _ = run_seen(student, seen, [PYTHON, "-S", "app.py"], desk.step(0))
    assert {one.pid for one in seen.of(ProcessExecuted)} == {ours}


def test_what_a_reported_process_starts_is_reported_wherever_it_works(desk: Desk, student: Student, seen: Seen) -> None:
    pid = student.start(["/bin/sh", "-c", f"{WAIT_SH}cd /; {PYTHON} -S -c '{WAIT}'; :"], desk.step(0))
    seen.executions_of(pid)
    student.open_gate()
    (child,) = seen.wait_for(lambda seen: [one for one in seen.of(ProcessExecuted) if one.parent == pid])
    student.open_gate()
    student.reap(pid)
    seen.exit_of(pid)
    assert [one for one in seen.of(ProcessExecuted) if one.parent == pid] == [child]
    assert (child.cwd, child.argv) == ("/", (PYTHON, "-S", "-c", WAIT))
    assert seen.exits(child.pid)


def test_an_unknown_parent_is_reported_before_its_child(desk: Desk, student: Student, seen: Seen) -> None:
    # The subshell is a fork that executes nothing: there is no event of it.
    pid = student.start(["/bin/sh", "-c", f"( {PYTHON} -S app.py; : ); :"], desk.step(0))
    (program,) = seen.wait_for(
        lambda seen: [one for one in seen.of(ProcessExecuted) if one.argv == (PYTHON, "-S", "app.py")]
    )
    student.open_gate()
    student.reap(pid)
    seen.exit_of(pid)
    (subshell,) = seen.executed(program.parent)
    assert subshell.found
    assert subshell.parent == pid
    order = [one.pid for one in seen.of(ProcessExecuted)]
    assert order == [pid, subshell.pid, program.pid]
    assert {one.pid for one in seen.of(ProcessExited)} == set(order)


def test_the_ends_of_threads_end_nothing(desk: Desk, student: Student, seen: Seen) -> None:
    (desk.step(0) / "app.py").write_text(f"{WAIT}{THREADS}raise SystemExit(3)\n")
    pid, _ = run_seen(student, seen, [PYTHON, "app.py"], desk.step(0))
    settle(student, seen, desk.step(0))
    (exited,) = seen.exits(pid)
    assert exited.exit_code == 3, "that of the process, and not of a thread"


def test_another_users_processes_are_not_looked_at(
    tmp_path: Path, desk: Desk, seen: Seen, student: Student, heard: Heard
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    for directory in (desk.root, *desk.root.parents):
        if directory.stat().st_uid == 0 and str(directory).startswith(str(tmp_path.parent.parent)):
            directory.chmod(0o755)
    with Student(uid=1500) as other:
        pid = other.start(["/bin/sh", "app.sh"], desk.step(0))
        until(lambda: pid in heard.executed)
        other.open_gate()
        status = other.reap(pid)
    assert os.waitstatus_to_exitcode(status) == 0, "the other user could not run anything in the course"
    run_seen(student, seen, ["/bin/sh", "app.sh"], desk.step(0))
    assert seen.executed(pid) == []
    assert seen.exits(pid) == []


@as_root
def test_a_setuid_program_started_from_a_shell_in_the_course_is_not_missed(
    tmp_path: Path, desk: Desk, seen: Seen, student: Student, heard: Heard
) -> None:
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip("no setuid programs on this file system")
    program = tmp_path / "as-another-user"
    shutil.copy("/bin/cat", program)
    os.chown(program, 1500, 1500)
    program.chmod(0o4755)
    shell = student.start(["/bin/sh", "-c", f'{program} "$GATE"; :'], desk.step(0))
    foreign = child_of(shell)
    until(lambda: foreign in heard.executed)
    assert os.stat(f"/proc/{foreign}").st_uid == 1500
    student.open_gate()
    student.reap(shell)
    seen.exit_of(shell)
    assert foreign not in heard.unreadable
    assert all(map(is_of_the_kernel, seen.of(EventsLost)))


def test_of_300_programs_at_50_a_second_each_is_heard_of_and_what_is_seen_has_its_exit_code(
    desk: Desk, student: Student, seen: Seen, heard: Heard
) -> None:
    (desk.step(1) / "quick.py").write_text("import sys; sys.exit(int(sys.argv[1]))\n")
    orders = [([PYTHON, "-S", "-E", "quick.py", str(number % 256)], desk.step(1)) for number in range(300)]
    runs = student.burst(orders, per_second=50)
    settle(student, seen, desk.step(1))
    caught = [run for run in runs if seen.executed(run[0])]
    for pid, number, status in caught:
        (exited,) = seen.exits(pid)
        assert exited.exit_code == os.waitstatus_to_exitcode(status) == number % 256
        assert [one.argv[-1] for one in seen.executed(pid)] == [str(number % 256)]
    assert caught
    # The kernel told of each, though a busy machine may not have let us read one in time.
    unheard = {pid for pid, _, _ in runs} - set(heard.executed)
    lost = seen.of(EventsLost)
    assert unheard == set() or any(map(is_of_the_kernel, lost))
    assert all(map(is_of_the_kernel, lost)), "the others were not started by a process of the course"


@contextmanager
def other_people_at_work() -> Iterator[None]:
    """A shell elsewhere that starts some 100 programs a second, and three forks that execute nothing beside each."""
    work = "while :; do /bin/true; (:); (:); (:); sleep 0.015; done"
    shell = subprocess.Popen(["/bin/sh", "-c", work], cwd="/")
    try:
        yield
    finally:
        shell.kill()
        shell.wait()


def test_beside_other_people_each_run_of_1_to_20_ms_has_its_exit_code(
    desk: Desk, student: Student, seen: Seen, heard: Heard
) -> None:
    (desk.step(1) / "quick.sh").write_text("i=0; while [ $i -lt $1 ]; do i=$((i+1)); done; exit $2\n")
    living = student.start([PYTHON, "app.py"], desk.step(2))
    seen.executions_of(living)
    orders = [
        (["/bin/sh", "quick.sh", str(number * 37 % 6000), str(number % 256)], desk.step(1)) for number in range(300)
    ]
    with other_people_at_work():
        runs = student.burst(orders, per_second=50)
        settle(student, seen, desk.step(1))
    caught = [run for run in runs if seen.executed(run[0])]
    is_whole = not any(map(is_of_the_kernel, seen.of(EventsLost)))
    for pid, number, status in caught:
        (exited,) = seen.exits(pid)
        assert os.waitstatus_to_exitcode(status) == number % 256
        assert (exited.exit_code, exited.exact) == (number % 256, True) or not is_whole
        assert seen.executed(pid)[0].argv[-1] == str(number % 256)
    assert caught
    assert {pid for pid, _, _ in runs} <= set(heard.executed) or not is_whole
    student.kill(living, signal.SIGTERM)
    student.reap(living)
    assert seen.exit_of(living).signal == signal.SIGTERM


def test_forks_that_execute_nothing_cost_no_exit_status_though_they_overflow_the_buffer(
    tmp_path: Path, desk: Desk, student: Student
) -> None:
    forks = tmp_path / "forks.py"
    forks.write_text("import os\nfor _ in range(300):\n    os.waitpid(os.fork() or os._exit(1), 0)\n")
    seen, opener = Seen(), Opener()
    with watching(desk.course, seen.put, opener):
        seen.listed()
        living = student.start([PYTHON, "app.py"], desk.step(2))
        seen.executions_of(living)
        for _ in range(20):  # after so many exits of others the filter names it
            student.run(["/bin/sh", "-c", ":"], "/")
        settle(student, seen, desk.step(0))
        opener.ends.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        student.run([PYTHON, "-S", str(forks)], "/")
        opener.ends.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        later = student.start([PYTHON, "app.py"], desk.step(2))
        seen.executions_of(later)
        for pid, number in ((living, signal.SIGTERM), (later, signal.SIGKILL)):
            student.kill(pid, number)
            student.reap(pid)
            assert seen.exit_of(pid).signal == number


def test_what_runs_already_is_found_at_the_start_parents_first(desk: Desk, student: Student) -> None:
    shell = student.start(["/bin/sh", "-c", f"{PYTHON} app.py; :"], desk.step(2))

    program = child_of(shell)
    until_it_runs(program)
    seen = Seen()
    with watching(desk.course, seen.put):
        listed = seen.listed()
        found = seen.of(ProcessExecuted)
        assert [one.pid for one in found] == [shell, program]
        assert all(one.found for one in found)
        assert listed.alive == {(one.pid, one.born) for one in found}
        assert found[1].texts == (FileText("exercises/03-slow/app.py", STEPS["03-slow"]["app.py"]),)
        student.kill(program, signal.SIGTERM)
        student.reap(shell)
        assert seen.exit_of(program).signal == signal.SIGTERM


def test_a_text_saved_after_a_found_process_started_is_not_taken_for_what_it_runs(desk: Desk, student: Student) -> None:
    app = desk.step(2) / "app.py"
    app.write_text("open('running', 'w').close()\nimport time; time.sleep(60)\n")
    pid = student.start([PYTHON, "app.py"], desk.step(2))
    until((desk.step(2) / "running").exists)
    saved = time.time() + 60
    app.write_text("print('later')\n")
    os.utime(app, (saved, saved))
    seen = Seen()
    with watching(desk.course, seen.put):
        seen.listed()
        student.kill(pid, signal.SIGKILL)
        student.reap(pid)
    (found,) = seen.executed(pid)
    assert found.found
    assert found.texts == ()


def test_a_zombie_is_not_found(desk: Desk, student: Student, seen: Seen) -> None:
    zombie = student.start(["/bin/sh", "app.sh"], desk.step(0))
    seen.executions_of(zombie)
    student.open_gate()
    seen.exit_of(zombie)
    later = Seen()
    with watching(desk.course, later.put):
        assert later.listed().alive == frozenset()
    student.reap(zombie)
    assert later.of(ProcessExecuted) == []


def test_a_course_in_another_place_is_surveyed_at_once(tmp_path: Path, desk: Desk, student: Student) -> None:
    other = make_desk(tmp_path / "moved", STEPS)
    living = student.start([PYTHON, "app.py"], other.step(2))
    until_it_runs(living)
    seen = Seen()
    with watching(desk.course, seen.put) as sensor:
        assert seen.listed().alive == frozenset()
        sensor.set_course(other.course)
        assert {pid for pid, _ in seen.listed(2).alive} == {living}
        run_seen(student, seen, [PYTHON, "-S", "app.py"], other.step(0))
        student.kill(living, signal.SIGKILL)
        student.reap(living)
        assert seen.exit_of(living).signal == signal.SIGKILL


def test_a_copy_made_by_compile_run_is_traced_to_the_files_whose_text_ends_it(tmp_path: Path, student: Student) -> None:
    steps = {
        "01-a": {"app.py": "print(1)\n", "solution.hide.py": "print(1)\n"},
        "02-b": {"app.py": "x = 2\nprint(1)\n"},
        "03-c": {"app.py": "x = 2\nprint(1)\n", "app.js": "x = 2\nprint(1)\n"},
        "04-d": {"app.py": "\n", "test.py": "x = 2\nprint(1)\n"},
    }
    desk = make_desk(tmp_path / "course", steps)
    copies = tmp_path / ".compile-run2" / "tmp" / "python"
    copies.mkdir(parents=True)
    copy = copies / "source-0123456789abcdef0123456789abcdef-1700000000000.py"
    seen = Seen()
    with watching(desk.course, seen.put):
        seen.listed()
        for text, expected in (
            ("x = 2\nprint(1)\n", ("exercises/02-b/app.py", "exercises/03-c/app.py")),
            ("print(1)\n", ("exercises/01-a/app.py",)),
            ("print(3)\n", ()),
        ):
            copy.write_text(WAIT + text)
            pid, _ = run_seen(student, seen, [PYTHON, "-S", str(copy)], desk.root)
            assert seen.executed(pid)[0].copy_of == expected, text
            assert [one.path for one in seen.executed(pid)[0].texts] == list(expected)
            assert all(text.endswith(one.text) for one in seen.executed(pid)[0].texts)


@pytest.mark.parametrize("kernel_filter", [True, False], ids=["filtered by the kernel", "filtered by BPF alone"])
def test_only_execs_and_exits_of_whole_processes_wake_the_sensor(
    kernel_filter: bool, desk: Desk, student: Student
) -> None:
    (desk.step(0) / "app.py").write_text(THREADS)
    with open_socket(kernel_filter=kernel_filter) as connection:
        pid, _ = student.run([PYTHON, "app.py"], desk.step(0))
        connection.setblocking(True)
        connection.settimeout(PATIENCE_S)
        heard: list[tuple[int, int, int]] = []
        while (EXIT, pid, pid) not in heard:
            heard.append(struct.unpack_from("=I12xii", connection.recv(4096), 36))
    assert {what for what, _, _ in heard} == {EXEC, EXIT}
    assert all(pid == tgid for _, pid, tgid in heard)
    assert [what for what, one, _ in heard if one == pid] == [EXEC, EXIT]


def test_of_the_exits_only_those_of_the_named_wake_the_sensor(desk: Desk, student: Student) -> None:
    others, named = (student.start([PYTHON, "app.py"], desk.step(2)) for _ in range(2))
    for pid in (others, named):
        until_it_runs(pid)
    connection = open_socket()
    listener = Listener(connection)
    try:
        listener.hear_exits_of([1, named, 2])
        for pid in (others, named):
            student.kill(pid, signal.SIGKILL)
            student.reap(pid)
        heard: list[tuple[int, int]] = []

        def is_heard(what: int, pid: int) -> bool:
            while listener.has_more():
                message = listener.receive()
                if message is not None:
                    heard.append((message[0], message[2]))
            return (what, pid) in heard

        until(lambda: is_heard(EXIT, named))
        last = student.start([PYTHON, "app.py"], desk.step(2))
        until(lambda: is_heard(EXEC, last))
        assert [pid for what, pid in heard if what == EXIT] == [named]
    finally:
        listener.close()


def test_a_kernel_without_a_filter_of_its_own_serves_as_well(desk: Desk, student: Student) -> None:
    seen = Seen()
    with watching(desk.course, seen.put, lambda: open_socket(kernel_filter=False)):
        seen.listed()
        pid, _ = run_seen(student, seen, [PYTHON, "-S", "app.py", "3"], desk.step(1))
        assert seen.exit_of(pid).exit_code == 3


class SlowReader(Seen):
    """Holds the sensor's thread up at the second process that it reports, until told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = threading.Event()
        self.go_on = threading.Event()

    def put(self, observation: Observation) -> None:
        super().put(observation)
        if isinstance(observation, ProcessExecuted) and len(self.of(ProcessExecuted)) == 2:
            self.holding.set()
            self.go_on.wait(PATIENCE_S)


def test_what_the_kernel_dropped_is_said_and_made_good(desk: Desk, student: Student) -> None:
    seen, opener = SlowReader(), Opener()
    with watching(desk.course, seen.put, opener):
        seen.listed()
        for connection in (opener.events, opener.ends):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least: a few events
        known, second = (student.start([PYTHON, "app.py"], desk.step(2)) for _ in range(2))
        assert seen.holding.wait(PATIENCE_S)
        for _ in range(30):
            student.run(["/bin/sh", "-c", ":"], desk.step(0))
        living = student.start([PYTHON, "app.py"], desk.step(2))
        until_it_runs(living)
        for pid in (known, second):
            student.kill(pid, signal.SIGKILL)
            student.reap(pid)
        seen.go_on.set()
        # What other programs of this machine do may overflow so small a buffer at any time, before and after.
        listed = seen.wait_for(
            lambda seen: [one for one in seen.of(ProcessesListed) if {pid for pid, _ in one.alive} == {living}]
        )[0]
        before = seen.all()[: seen.all().index(listed)]
        lost = [one for one in before if isinstance(one, EventsLost)][-1]
        assert lost.since <= lost.at <= listed.at
        assert lost.sensor == "processes"
        assert "dropped" in lost.reason
        assert any(character.isdigit() for character in lost.reason), lost.reason
        found = [one for one in before if isinstance(one, ProcessExecuted) and one.pid == living][-1]
        assert before.index(lost) < before.index(found)
        assert found.found
        gone = seen.exit_of(known)
        assert (gone.exit_code, gone.signal, gone.exact) == (None, None, False)
        # and it goes on
        student.kill(living, signal.SIGKILL)
        student.reap(living)
        seen.exit_of(living)


@as_root
@pytest.mark.parametrize("which", ["events", "ends"])
def test_a_message_that_is_not_the_kernels_is_ignored(which: str, desk: Desk, student: Student) -> None:
    seen, opener = Seen(), Opener()
    with watching(desk.course, seen.put, opener):
        seen.listed()
        pid = student.start([PYTHON, "app.py"], desk.step(2))
        seen.wait_for(lambda seen: seen.executed(pid))
        address = getattr(opener, which).getsockname()
        body = struct.pack("=IIIIHHIIQiiII8x", 1, 1, 0, 0, 40, 0, EXIT, 0, time.monotonic_ns(), pid, pid, 0, 17)
        spoof = struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body
        assert len(spoof) == 76
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as liar:
            for message in (spoof, spoof[:40], spoof[:16], b"x"):
                liar.sendto(message, address)
            run_seen(student, seen, [PYTHON, "-S", "app.py", "0"], desk.step(1))
        assert seen.exits(pid) == []
        student.kill(pid, signal.SIGTERM)
        student.reap(pid)
        assert seen.exit_of(pid).signal == signal.SIGTERM


_REFUSAL = """
import sys
from agent.sensors.processes.level import Mailbox, Refused
from agent.sensors.processes.proc_connector import Connector
try:
    Connector().open(Mailbox())
except Refused as refused:
    print("permanently" if not refused.passing else "for now", refused)
else:
    print("works")
"""


@pytest.mark.parametrize(
    "flags",
    [["--net"], ["--user", "--map-root-user", "--net"], ["--pid", "--fork"], ["--user", "--pid", "--fork"]],
    ids=" ".join,
)
def test_in_a_container_the_self_test_refuses_for_good(flags: list[str]) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, *flags, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make such a namespace")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
    told = "for now"
    while told.startswith("for now"):
        told = subprocess.run(
            [unshare, *flags, sys.executable, "-c", _REFUSAL],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
            timeout=PATIENCE_S,
        ).stdout
    assert told.startswith("permanently"), told


def test_events_that_came_in_time_are_not_overlooked_because_the_self_test_was_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread is set aside for long, as by a busy host, right after it has reaped the self-test's child."""
    monkeypatch.setattr(proc_connector, "_AFTER_REAPING_S", -1.0)
    with open_socket() as ear:
        ear.setblocking(True)
        ear.settimeout(PATIENCE_S)

        def has_ended_and_was_told(child: int) -> bool:
            assert has_ended(child, wait=True)
            while struct.unpack_from("=I12xi", ear.recv(4096), 36) != (EXIT, child):
                pass
            return True

        monkeypatch.setattr(proc_connector, "has_ended", has_ended_and_was_told)
        connector, mailbox = Connector(), Mailbox()
        try:
            connector.open(mailbox)
        finally:
            connector.close()
            mailbox.close()


def test_starting_does_not_wait_for_the_self_test(desk: Desk) -> None:
    go_on = threading.Event()

    class Held(Connector):
        def open(self, mailbox: Mailbox) -> None:
            go_on.wait(PATIENCE_S)
            super().open(mailbox)

    seen = Seen()
    sensor = ProcessSensor(desk.course, seen.put, levels=[Held], waits_s=(0.1, 1.0))
    sensor.start()
    try:
        assert sensor.level == NO_LEVEL
        go_on.set()
        seen.listed()
        assert sensor.level == "connector"
    finally:
        sensor.stop()


def is_our_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_a_self_test_leaves_no_child(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[int] = []

    def spawn_and_tell() -> int:
        child = spawn_child()
        assert is_our_child(child)
        spawned.append(child)
        return child

    monkeypatch.setattr(proc_connector, "spawn_child", spawn_and_tell)
    seen = Seen()
    with watching(desk.course, seen.put) as sensor:
        seen.listed()
        before = len(spawned)
        sensor.check()
        until(lambda: len(spawned) > before)
    assert not any(map(is_our_child, spawned))
