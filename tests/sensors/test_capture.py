"""What LearnPack's tests print: real launchers, real files, at all three levels; and hostile parameter files."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.core.commands import parameter_file
from agent.core.events import Captured
from agent.core.observations import ProcessExecuted, ProcessExited
from agent.sensors.processes.capture import MOST, Captures
from agent.sensors.processes.level import Level, Mailbox
from agent.sensors.processes.pidfd import PidfdScan
from agent.sensors.processes.proc_connector import Connector
from agent.sensors.processes.procfs import has_procfs
from agent.sensors.processes.scan import Polling
from agent.sensors.processes.sensor import ProcessSensor
from tests.sensors.student import PYTHON, Desk, Seen, Student, make_desk
from tests.sensors.test_pidfd import opens_of
from tests.sensors.test_pidfd import refusal as no_pidfd
from tests.sensors.test_proc_connector import refusal as no_connector
from tests.standin.toolbox import REPOSITORY, Toolbox, make_toolbox
from tests.until import until

pytestmark = pytest.mark.skipif(not has_procfs(), reason="no Linux with a /proc")

LEVELS = [
    pytest.param(Connector, id="connector", marks=pytest.mark.skipif(no_connector() is not None, reason="refused")),
    pytest.param(PidfdScan, id="pidfd", marks=pytest.mark.skipif(no_pidfd() is not None, reason="refused")),
    pytest.param(Polling, id="polling"),
]

#: Who makes the output files: 0.8.4's launcher, or before it 0.8.5's server.
ORDERS = [pytest.param(0o644, id="0.8.4"), pytest.param(0o600, id="0.8.5")]

#: A LearnPack server with one test to run; it writes a file of the course first, as the real one does.
_SERVER = f"""
import json, os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.standin.shelljs import ShellJs
order = json.loads(sys.argv[1])
os.environ["TMPDIR"], os.environ["STUDENTS_TOKEN"] = order["temporary"], "-".join(("not", "to", "be", "told"))
open("exercises/01-a/test.py", "a").close()
result = ShellJs(order["bin"], order["modules"], os.getcwd()).run(order["command"], order["mode"])
with open(order["answer"] + ".part", "w", errors="surrogatepass") as file:
    json.dump(result, file)
os.rename(order["answer"] + ".part", order["answer"])
"""


@dataclass
class Lab:
    """A course in which tests are run as LearnPack does."""

    desk: Desk
    toolbox: Toolbox
    student: Student
    answer: Path

    @property
    def temporary(self) -> Path:
        return self.toolbox.temporary

    def _argv(self, command: str, mode: int) -> list[str]:
        learnpack = self.toolbox.learnpack_bin
        order = {
            "bin": str(learnpack),
            "modules": str(learnpack.parent / "node_modules"),
            "temporary": str(self.temporary),
            "command": command,
            "mode": mode,
            "answer": str(self.answer),
        }
        return [PYTHON, "-c", _SERVER, json.dumps(order)]

    def test(self, seen: Seen, command: str, mode: int, *, is_captured: bool = True) -> dict[str, Any]:
        """Run it to its end, once its launcher was seen and (`is_captured`) its output is being captured: its exit
        code, what the server read of its output, and the launcher's pid."""
        before = len(launchers(seen))
        server = self.start(f"{self.until_go()}; {command}", mode)
        seen.wait_for(lambda seen: len(launchers(seen)) > before)
        if is_captured:
            until(lambda: sum("shelljs_" in target for target in held()) == 2)
        self.go.touch()
        assert self.student.reap(server) == 0
        self.go.unlink()
        answer: dict[str, Any] = json.loads(self.answer.read_text(errors="surrogatepass"))
        return answer

    @property
    def go(self) -> Path:
        return self.answer.with_name("go")

    def until_go(self) -> str:
        """A command that waits for a file."""
        return f"while [ ! -e '{self.go}' ]; do sleep 0.05; done"

    def wait_until_printed(self, text: str) -> None:
        def is_there() -> bool:
            for path in self.temporary.glob("shelljs_*"):
                with suppress(FileNotFoundError):
                    if path.read_text() == text:
                        return True
            return False

        until(is_there)

    def start(self, command: str, mode: int) -> int:
        return self.student.start(self._argv(command, mode), self.desk.root)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    desk = make_desk(tmp_path / "course", {"01-a": {"app.py": "", "test.py": ""}})
    with Student() as student:
        yield Lab(desk, make_toolbox(tmp_path / "tools"), student, tmp_path / "answer.json")


@pytest.fixture
def seen() -> Seen:
    return Seen()


class Watching:
    """A running sensor of one level, triggered as the file sensor would."""

    def __init__(self, lab: Lab, seen: Seen, level: Callable[[], Level], **more: Any) -> None:
        self.logged: list[str] = []
        self.sensor = ProcessSensor(lab.desk.course, seen.put, levels=[level], log=self.logged.append, **more)
        self._lab, self._seen, self._stack = lab, seen, ExitStack()

    def __enter__(self) -> Watching:
        self.sensor.start()
        self._stack.callback(self.sensor.stop)
        self._seen.listed()
        self._stack.enter_context(opens_of([self._lab.desk.step(0)], self.sensor.trigger))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def launchers(seen: Seen) -> set[int]:
    return {one.pid for one in seen.of(ProcessExecuted) if parameter_file(one.argv) is not None}


def output_of(exited: ProcessExited) -> tuple[str | None, str | None]:
    return tuple(one.text if one is not None else None for one in (exited.stdout, exited.stderr))  # type: ignore[return-value]


def pid_of(seen: Seen, is_it: Callable[[tuple[str, ...]], bool]) -> int:
    return seen.wait_for(lambda seen: [one.pid for one in seen.of(ProcessExecuted) if is_it(one.argv)])[0]


PRINTING = r"printf 'one \303\261 \377 two\n'; echo trouble >&2; exit 3"


@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.parametrize("level", LEVELS)
def test_what_a_test_prints_is_told_with_its_launchers_end(
    lab: Lab, seen: Seen, level: Callable[[], Level], mode: int
) -> None:
    with Watching(lab, seen, level):
        result = lab.test(seen, PRINTING, mode)
        exited = seen.exit_of(result["launcher"])
    assert exited.stdout == Captured("one ñ \ufffd two\n", 13)
    assert exited.stderr == Captured("trouble\n", 8)
    assert output_of(exited) == (result["stdout"], result["stderr"]), "what LearnPack itself read"


@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.skipif(no_connector() is not None, reason="no proc connector")
def test_of_many_tests_each_output_is_told(lab: Lab, seen: Seen, mode: int) -> None:
    with Watching(lab, seen, Connector):
        for number in range(5):
            result = lab.test(seen, f"echo {number}; echo {number} >&2; exit {number}", mode)
            exited = seen.exit_of(result["launcher"])
            assert (exited.exit_code, output_of(exited)) == (number, (f"{number}\n", f"{number}\n"))


@pytest.mark.parametrize("level", LEVELS)
def test_a_long_output_is_cut_to_the_limit(lab: Lab, seen: Seen, level: Callable[[], Level]) -> None:
    with Watching(lab, seen, level, output_bytes=1_000):
        result = lab.test(seen, "yes 12345678 | head -n 100000", 0o644)
        stdout = seen.exit_of(result["launcher"]).stdout
    assert stdout is not None and (stdout.size, stdout.whole) == (900_000, False)
    assert stdout.text == "12345678\n" * 55 + "12345\n… 899000 bytes left out …\n5678\n" + "12345678\n" * 55


def test_nothing_of_the_parameter_file_but_its_two_paths_is_ever_told(lab: Lab, seen: Seen) -> None:
    # At a level that everybody has.
    with Watching(lab, seen, Polling) as watching:
        result = lab.test(seen, PRINTING, 0o644)
        assert seen.exit_of(result["launcher"]).stdout is not None
    assert "not-to-be-told" not in repr(seen.all()) + repr(watching.logged)


def test_with_a_limit_of_nothing_nothing_is_told(lab: Lab, seen: Seen) -> None:
    with Watching(lab, seen, Polling, output_bytes=0):
        result = lab.test(seen, PRINTING, 0o600, is_captured=False)
        assert output_of(seen.exit_of(result["launcher"])) == (None, None)


@pytest.mark.parametrize("level", LEVELS)
def test_the_output_of_a_test_that_ran_before_the_agent_came_is_told(
    lab: Lab, seen: Seen, level: Callable[[], Level]
) -> None:
    server = lab.start(f"echo before; {lab.until_go()}; echo after", 0o644)
    lab.wait_until_printed("before\n")
    with Watching(lab, seen, level):
        lab.go.touch()
        lab.student.reap(server)
        launcher = json.loads(lab.answer.read_text())["launcher"]
        assert output_of(seen.exit_of(launcher)) == ("before\nafter\n", "")


@pytest.mark.skipif(no_connector() is not None, reason="no proc connector")
def test_of_a_launcher_that_was_killed_nothing_is_told(lab: Lab, seen: Seen) -> None:
    with Watching(lab, seen, Connector):
        server = lab.start("echo half; sleep 60", 0o644)
        lab.wait_until_printed("half\n")
        launcher = pid_of(seen, lambda argv: parameter_file(argv) is not None)
        sleeping = pid_of(seen, lambda argv: argv[0] == "sleep")
        lab.student.kill(launcher, signal.SIGTERM)
        exited = seen.exit_of(launcher)
        assert (exited.signal, output_of(exited)) == (signal.SIGTERM, (None, None))
        lab.student.kill(sleeping, signal.SIGTERM)
        lab.student.reap(server)


def handles() -> dict[str, str]:
    """The open descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def held() -> list[str]:
    """Those that a capture may hold.  (Others come and go in other threads.)"""
    return sorted(target for target in handles().values() if "shelljs_" in target or "inotify" in target)


def test_when_a_test_is_over_no_descriptor_is_left_open(lab: Lab, seen: Seen) -> None:
    with Watching(lab, seen, Polling):
        before = held()
        result = lab.test(seen, PRINTING, 0o644)
        assert seen.exit_of(result["launcher"]).stdout is not None
        assert held() == before


def test_a_sensor_that_stops_in_the_middle_of_a_test_leaves_nothing_open(lab: Lab, seen: Seen) -> None:
    before = held()
    with Watching(lab, seen, Polling):
        server = lab.start(f"echo before; {lab.until_go()}; echo after", 0o644)
        until(lambda: sum("shelljs_" in target for target in held()) == 2)
    assert held() == before
    lab.go.touch()
    lab.student.reap(server)


# --- without processes ----------------------------------------------------------------------------------------


class Orders:
    """shelljs's files in a directory, and captures that wait on a real mailbox."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.mailbox = Mailbox()
        self.captures = Captures(self.mailbox)
        self.directory = directory
        self.file, self.out, self.err = (directory / f"shelljs_{number:020x}" for number in range(3))

    def write(self, **changed: Any) -> None:
        content = {
            "command": "pytest",
            "execOptions": {"cwd": "/", "env": {"TOKEN": "secret"}},
            "stdoutFile": str(self.out),
            "stderrFile": str(self.err),
        }
        self.file.write_text(json.dumps({**content, **changed}))

    def begin(self, pid: int = 10) -> None:
        self.captures.begin(pid, str(self.file))

    def end(self, pid: int = 10) -> tuple[Captured | None, Captured | None]:
        return self.captures.end(pid, is_cut_off=False)

    def is_ready(self) -> bool:
        return bool(select.select([self.mailbox], [], [], 0)[0])


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    orders = Orders(tmp_path / "tmp")
    before = handles()
    yield orders
    orders.captures.close()
    assert handles() == before
    orders.mailbox.close()


def test_files_that_appear_later_are_opened_because_their_directory_is_watched(orders: Orders) -> None:
    orders.write()
    orders.begin()
    assert not orders.is_ready()
    orders.out.write_text("out")
    assert orders.is_ready(), "the thread is woken up"
    orders.mailbox.take()
    orders.out.unlink()  # a descriptor outlives that
    orders.err.write_text("err")
    orders.mailbox.take()
    orders.err.unlink()
    (orders.directory / "another").touch()
    assert not orders.is_ready(), "nothing is watched any more"
    assert orders.end() == (Captured("out", 3), Captured("err", 3))


def test_several_launchers_in_several_directories_are_watched_at_once(orders: Orders, tmp_path: Path) -> None:
    other = Orders(tmp_path / "other")
    for number, one in enumerate((orders, other)):
        one.write()
        orders.captures.begin(number, str(one.file))
    for one in (other, orders):
        one.out.write_text(str(one.directory))
        one.err.touch()
        assert orders.is_ready()
        orders.mailbox.take()
        one.out.unlink()
    for number, one in enumerate((orders, other)):
        text = str(one.directory)
        assert orders.end(number) == (Captured(text, len(text)), Captured("", 0))
    other.mailbox.close()


def test_what_was_deleted_before_it_could_be_opened_is_not_told(orders: Orders) -> None:
    orders.write()
    orders.begin()
    orders.out.write_text("out")
    orders.err.write_text("err")
    orders.err.unlink()
    assert orders.end() == (Captured("out", 3), None), "a file that is still there at the end is read"


def test_what_is_told_is_what_the_file_holds_at_the_end(orders: Orders) -> None:
    orders.write()
    orders.out.touch()
    orders.err.touch()
    orders.begin()
    with orders.out.open("w") as file:  # as the launcher does: truncated, and written to
        file.write("later")
    assert orders.end() == (Captured("later", 5), Captured("", 0))


def test_an_output_of_two_gigabytes_costs_nothing(orders: Orders) -> None:
    orders.write()
    orders.err.touch()
    with orders.out.open("wb") as file:
        file.write(b"begin")
        file.truncate((2 << 30) - 3)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    orders.begin()
    before = time.thread_time()
    stdout, _ = orders.end()
    assert time.thread_time() - before < 0.5
    assert stdout is not None and (stdout.size, stdout.whole) == (2 << 30, False)
    assert stdout.text.startswith("begin") and stdout.text.endswith("end")


def opens_nothing(orders: Orders) -> None:
    orders.out.write_text("out")
    orders.err.write_text("err")
    before = handles()
    orders.begin()
    assert handles() == before
    assert orders.end() == (None, None)


@pytest.mark.parametrize(
    "content", [b"", b'{"stdoutFile": "/tm', b"[" * 200_000, b'{"stdoutFile": "\xff\xfe"}', b'["stdoutFile"]', b"null"]
)
def test_a_parameter_file_that_is_no_json_object_opens_nothing(orders: Orders, content: bytes) -> None:
    orders.file.write_bytes(content)
    opens_nothing(orders)


#: What a parameter file may hold that shelljs never wrote.
HOSTILE: dict[str, Callable[[Orders], dict[str, Any]]] = {
    "no names": lambda orders: {"stdoutFile": None, "stderrFile": 7},
    "one name": lambda orders: {"stderrFile": {}},
    "/etc/shadow": lambda orders: {"stdoutFile": "/etc/shadow"},
    "another directory": lambda orders: {"stdoutFile": f"{orders.directory.parent}/{orders.out.name}"},
    "a way out": lambda orders: {"stdoutFile": f"{orders.directory}/../{orders.out.name}"},
    "another name": lambda orders: {"stdoutFile": f"{orders.directory}/private"},
    "the parameter file": lambda orders: {"stderrFile": str(orders.file)},
    "one file twice": lambda orders: {"stderrFile": str(orders.out)},
    "a NUL": lambda orders: {"stdoutFile": f"{orders.out}\0"},
    "more than any environment": lambda orders: {"command": "x" * (5 << 20)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_parameter_file_opens_nothing(orders: Orders, name: str) -> None:
    for path in (orders.directory.parent / orders.out.name, orders.directory / "private"):
        path.write_text("private")
    orders.write(**HOSTILE[name](orders))
    opens_nothing(orders)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def somebody_elses(path: Path) -> None:
    path.write_text("")
    os.chown(path, 1500, 1500)


ODD = [
    fifo,
    link,
    Path.mkdir,
    pytest.param(somebody_elses, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")),
]


@pytest.mark.parametrize("make", ODD)
def test_an_output_file_that_is_none_is_left_alone(orders: Orders, make: Callable[[Path], None]) -> None:
    make(orders.out)
    orders.err.write_text("err")
    orders.write()
    orders.begin()
    assert not any(str(orders.out) in target or "passwd" in target for target in handles().values())
    assert not any("inotify" in target for target in handles().values()), "nothing to wait for"
    assert orders.end() == (None, Captured("err", 3))


@pytest.mark.parametrize("make", ODD)
def test_a_parameter_file_that_is_none_is_left_alone(orders: Orders, make: Callable[[Path], None]) -> None:
    make(orders.file)
    orders.out.touch()
    orders.err.touch()
    orders.begin()
    assert orders.end() == (None, None)


def test_only_so_many_launchers_are_followed_at_once(orders: Orders) -> None:
    orders.write()
    orders.out.touch()
    orders.err.touch()
    for pid in range(MOST + 5):
        orders.begin(pid)
    assert sum("shelljs_" in target for target in handles().values()) == 2 * MOST
    assert orders.end(MOST) == (None, None)
    assert orders.end(0) == (Captured("", 0), Captured("", 0))


def test_a_launcher_that_is_met_again_is_followed_once(orders: Orders) -> None:
    orders.write()
    orders.out.touch()
    orders.err.touch()
    orders.begin()
    before = handles()
    orders.begin()
    assert handles() == before
    assert orders.end() == (Captured("", 0), Captured("", 0))


def test_without_an_ear_the_files_are_opened_when_something_is_executed_or_at_the_end(orders: Orders) -> None:
    captures = Captures(None)
    orders.write()
    captures.begin(10, str(orders.file))
    orders.out.write_text("out")
    captures.look()
    orders.out.unlink()
    orders.err.write_text("err")
    assert captures.end(10, is_cut_off=False) == (Captured("out", 3), Captured("err", 3))


def test_a_directory_that_is_gone_does_no_harm(orders: Orders) -> None:
    orders.write()
    orders.begin()
    orders.file.unlink()
    orders.directory.rmdir()
    assert orders.is_ready()
    orders.mailbox.take()
    assert not orders.is_ready(), "no busy loop"
    assert orders.end() == (None, None)
