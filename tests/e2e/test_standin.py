"""The stand-in leaves what the real LearnPack leaves: otherwise the other tests here would prove nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.courses import PYTHON, make_course
from tests.standin.learnpack import LearnPack
from tests.until import until

#: A student's program that tells who started it, up to the server, and what its three standard files are.
ANCESTRY = """\
import json, os

def ancestors():
    pid = os.getpid()
    while True:
        argv = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
        stat = open(f"/proc/{pid}/stat").read()
        yield pid, stat[stat.index("(") + 1:stat.rindex(")")], argv, os.readlink(f"/proc/{pid}/cwd")
        if argv[1].endswith("/bin/learnpack"):
            return
        pid = int(stat[stat.rindex(")") + 2:].split()[1])

with open("ancestry.json", "w") as file:
    json.dump([list(ancestors()), [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]], file)
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON)


@pytest.fixture
def learnpack(stage: Stage, course: Path) -> Iterator[LearnPack]:
    yield stage.learnpack(course, own_telemetry=True, STANDIN_LOADED_SECONDS="never").start()


def ancestry(course: Path) -> tuple[list[Any], list[str]]:
    chain, files = json.loads((course / "ancestry.json").read_text())
    return chain, files


def queue(course: Path) -> list[tuple[str, Any]]:
    entries = json.loads((course / ".learn/vscode_queue.json").read_text())
    return [(entry["name"], entry.get("data")) for entry in entries]


def current(course: Path) -> Any:
    return json.loads((course / ".learn/config.json").read_text())["currentExercise"]


def test_a_build_is_a_launcher_and_a_program_with_sockets(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-hello")
    learnpack.save("01-hello", ANCESTRY)
    built = learnpack.build("01-hello")
    (program, launcher, server), files = ancestry(course)
    assert program[2] == ["python", str(course / "exercises/01-hello/app.py")]
    assert launcher[1] == "node" and launcher[2][0] == "node"
    assert launcher[2][1].endswith("node_modules/compile-run/dist/lib/box")
    assert server[1] == "node" and server[2][0] == "node" and server[2][2:] == ["start", "-p", "3000"]
    assert {program[3], launcher[3], server[3]} == {str(course)}
    assert all(name.startswith("socket:") for name in files)
    assert (built["program"], built["launcher"], built["exit_code"]) == (program[0], launcher[0], 0)


def test_a_test_goes_through_exec_child_and_a_shell(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-hello")
    learnpack.save("01-hello", ANCESTRY)
    tested = learnpack.test("01-hello", answers=["5"])
    (program, shell, launcher, server), _ = ancestry(course)
    assert program[2][1].endswith("/bin/pytest") and program[2][2] == "./exercises/01-hello/test.py"
    assert program[2][-1] == '--stdin=["5"]'
    assert shell[2][:2] == ["/bin/sh", "-c"] and shell[2][2].startswith("pytest ./exercises/01-hello/test.py --testdox")
    assert launcher[2][1].endswith("node_modules/shelljs/src/exec-child.js")
    assert os.path.basename(launcher[2][2]).startswith("shelljs_")
    assert server[2][1].endswith("/bin/learnpack")
    assert tested["exit_code"] == 1 and "1 failed" in tested["stdout"]
    assert not list(learnpack.toolbox.temporary.glob("shelljs_*")), "the files of shelljs are deleted"


def test_a_pyenv_shim_ends_in_the_real_python_with_an_absolute_name(stage: Stage, course: Path) -> None:
    learnpack = stage.learnpack(course, pyenv=True).start()
    learnpack.open("01-hello")
    learnpack.save("01-hello", ANCESTRY)
    learnpack.build("01-hello")
    (program, _, _), _ = ancestry(course)
    assert program[2][0].endswith("/versions/3.99.0/bin/python")


def test_opening_writes_config_and_queue_in_place_and_opening_again_writes_neither(
    learnpack: LearnPack, course: Path
) -> None:
    config, entries = course / ".learn/config.json", course / ".learn/vscode_queue.json"
    before = config.stat().st_ino, entries.stat().st_ino
    learnpack.open("02-sum")
    assert (config.stat().st_ino, entries.stat().st_ino) == before
    assert current(course) == "02-sum" and queue(course)[-1] == ("start_exercise", "02-sum")
    assert sorted(path.name for path in (course / ".learn/resets/02-sum").iterdir()) == sorted(PYTHON["02-sum"])
    written = entries.stat().st_mtime_ns
    learnpack.open("02-sum")
    assert entries.stat().st_mtime_ns == written and queue(course)[-1] == ("start_exercise", "02-sum")
    learnpack.burst("01-hello", "02-sum", "03-reading")
    opened = [data for name, data in queue(course) if name == "start_exercise"]
    assert opened == ["02-sum", "01-hello", "02-sum", "03-reading"]
    assert not (course / ".learn/resets/03-reading").exists(), "nothing to reset in a step without code"


def test_a_program_that_runs_too_long_is_ended_by_sigterm(learnpack: LearnPack) -> None:
    learnpack.open("01-hello")
    learnpack.save("01-hello", "while True:\n    pass\n")
    built = learnpack.build("01-hello", limit=0.8)
    assert (built["exit_code"], built["signal"]) == (None, signal.SIGTERM)
    assert built["ended_at"] - built["started_at"] >= 800


def test_an_open_during_a_test_comes_after_it(learnpack: LearnPack) -> None:
    learnpack.open("01-hello")
    test = learnpack.send("test", slug="01-hello")
    opened = learnpack.send("open", slug="02-sum").result()
    assert opened["at"] >= test.result()["ended_at"]


def test_a_reset_writes_the_copies_back(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-hello")
    learnpack.save("01-hello", "print('mine')\n")
    learnpack.reset("01-hello")
    assert (course / "exercises/01-hello/app.py").read_text() == PYTHON["01-hello"]["app.py"]
    assert queue(course)[-1] == ("reset_exercise", "01-hello")
    assert "error" in learnpack.send("reset", slug="06-twin-b").result(allow_error=True)


def test_its_own_telemetry_has_the_real_defects(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("00-welcome")
    learnpack.open("01-hello")
    learnpack.save("01-hello", "print('hello')\n")
    learnpack.test("01-hello")
    learnpack.open("03-reading")
    learnpack.open("03-reading")
    document = json.loads((course / ".learn/telemetry.json").read_text())
    welcome, hello, _, reading = document["steps"][:4]
    assert "opened_at" not in welcome
    assert "opened_at" in hello and "completed_at" not in hello
    assert "completed_at" in reading, "a step without tests is completed by re-opening itself"
    attempt = hello["tests"][0]
    assert attempt["exitCode"] == 0 and "starting_at" in attempt and "exit_code" not in attempt


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_only_sigterm_says_goodbye(learnpack: LearnPack, course: Path, sig: signal.Signals) -> None:
    learnpack.open("01-hello")
    code = learnpack.stop(sig)
    said = queue(course)[-1] == ("connection_ended", None)
    assert (said, current(course)) == ((True, None) if sig == signal.SIGTERM else (False, "01-hello"))
    assert code == (-signal.SIGKILL if sig == signal.SIGKILL else 0)


def test_an_empty_telemetry_file_ends_the_next_start(stage: Stage, course: Path) -> None:
    (course / ".learn/telemetry.json").write_text("")
    learnpack = stage.learnpack(course, own_telemetry=True)
    with pytest.raises(AssertionError):
        learnpack.start()
    assert learnpack.stop(signal.SIGKILL) == 1


def test_the_queue_says_a_second_later_that_the_configuration_is_loaded(stage: Stage, course: Path) -> None:
    began = time.monotonic()
    stage.learnpack(course, own_telemetry=True).start()
    until(lambda: queue_names(course) == ["initializing", "configuration_loaded"])
    assert time.monotonic() - began >= 1


def queue_names(course: Path) -> list[str]:
    try:
        return [name for name, _ in queue(course)]
    except ValueError:  # read in the middle of a write
        return []
