"""What the real pytest leaves in its cache, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.commands import files_to_read
from agent.core.observations import FileText, ProcessExecuted
from agent.sensors.processes.procfs import has_procfs
from agent.sensors.processes.pytest_cache import PytestCaches
from agent.sensors.processes.scan import Polling
from agent.sensors.processes.sensor import ProcessSensor
from tests.sensors.student import WAIT, Desk, Seen, Student, make_desk
from tests.until import until

TEST = "exercises/01-a/test.py"

#: LearnPack's own conftest.py makes the student's answers a parameter of the tests that want them.
CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--stdin", action="append", default=[])
def pytest_generate_tests(metafunc):
    if "stdin" in metafunc.fixturenames:
        metafunc.parametrize("stdin", metafunc.config.getoption("stdin"))
"""

#: None of our own plugins is needed, and they take half of the time of a run.
QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

FAILING = """
def test_it(): assert False
def test_well(): pass
"""


class Runs:
    """Runs pytest in a course, and asks before and after."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.caches = desk, PytestCaches()
        (desk.root / "conftest.py").write_text(CONFTEST)

    def write(self, text: str, step: int = 0) -> None:
        (self.desk.step(step) / "test.py").write_text(text)

    def executed(self, *arguments: str, cwd: Path) -> ProcessExecuted:
        argv = (sys.executable, "-m", "pytest", *arguments)
        paths = files_to_read(self.desk.course, argv, str(cwd), None)
        texts = tuple(FileText(path, (self.desk.root / path).read_text()) for path in paths)
        return ProcessExecuted(1, 10, 10, 1, argv, str(cwd), 1, texts=texts)

    def run(self, *arguments: str, cwd: Path | None = None, code: int = 1) -> tuple[str, ...] | None:
        """Run it, which has to end with this exit code; the tests that failed, without their path."""
        cwd = cwd or self.desk.root
        executed = self.executed(*arguments, cwd=cwd)
        self.caches.begin(self.desk.course, executed)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        environment |= QUICK | {"PYTHONDONTWRITEBYTECODE": "1"}  # two saves in a second are two texts all the same
        done = subprocess.run(executed.argv, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return self.caches.end(10, code)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    steps = {"01-a": {"app.py": "", "test.py": FAILING}, "02-b": {"app.py": "", "test.py": FAILING}}
    return Runs(make_desk(tmp_path / "course", steps))


def test_what_failed_is_told_each_time_it_fails_and_not_when_it_passes(runs: Runs) -> None:
    assert runs.run(TEST) == (f"{TEST}::test_it",)
    assert runs.run(TEST) == (f"{TEST}::test_it",)
    runs.write("def test_it(): pass\ndef test_well(): assert False\n")
    assert runs.run(TEST) == (f"{TEST}::test_well",)
    runs.write("def test_it(): pass\ndef test_well(): pass\n")
    assert runs.run(TEST, code=0) == ()


def test_of_a_test_that_was_renamed_only_the_new_name_is_told(runs: Runs) -> None:
    runs.run(TEST)
    runs.write("def test_other(): assert False\n")
    assert runs.run(TEST) == (f"{TEST}::test_other",)


def test_of_another_step_nothing_is_told(runs: Runs) -> None:
    runs.run("exercises/02-b/test.py")
    assert runs.run(TEST) == (f"{TEST}::test_it",)


def test_an_id_with_the_answers_of_another_time_is_not_told(runs: Runs) -> None:
    runs.write("def test_age(stdin): assert stdin == '[60]'\ndef test_it(): assert False\n")
    assert runs.run(TEST, "--stdin=[5]") == (f"{TEST}::test_age[[5]]", f"{TEST}::test_it")
    assert runs.run(TEST, "--stdin=[5]") == (f"{TEST}::test_age[[5]]", f"{TEST}::test_it")
    assert runs.run(TEST, "--stdin=[60]") == (f"{TEST}::test_it",)


@pytest.mark.parametrize("configured", [False, True], ids=["rootdir is the step", "rootdir is the course"])
def test_a_terminal_in_the_step_is_understood_wherever_the_cache_lies(runs: Runs, configured: bool) -> None:
    if configured:
        (runs.desk.root / "pytest.ini").write_text("[pytest]\n")
    assert runs.run("test.py", cwd=runs.desk.step(0)) == (f"{TEST}::test_it",)
    assert (runs.desk.root / ".pytest_cache").exists() == configured


def test_a_terminal_above_the_course_is_understood(runs: Runs) -> None:
    assert runs.run(f"course/{TEST}", cwd=runs.desk.root.parent) == (f"{TEST}::test_it",)


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("-pno:cacheprovider", 1),
        ("-ocache_dir=other", 1),
        ("--no-such-option", 4),
        ("-knothing", 5),
    ],
)
def test_where_the_cache_says_nothing_of_this_run_nothing_is_told(runs: Runs, option: str, code: int) -> None:
    runs.run(TEST)
    assert runs.run(TEST, option, code=code) is None


def test_where_a_test_file_cannot_be_imported_nothing_is_told_and_all_when_it_can(runs: Runs) -> None:
    runs.write("import nothing_of_this_name\n" + FAILING)
    assert runs.run(TEST, code=2) is None
    runs.write(FAILING)
    assert runs.run(TEST) == (f"{TEST}::test_it",)


def test_a_run_of_a_part_tells_nothing_that_it_cannot_know(runs: Runs) -> None:
    runs.write("def test_one(): assert False\ndef test_two(): assert False\n")
    assert runs.run(TEST, "-kone") == (f"{TEST}::test_one",)
    assert runs.run(TEST, "-x") is None, "test_one failed again, or so it seems"
    assert runs.run(f"{TEST}::test_two") == (f"{TEST}::test_two",)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"7", b'{"7": 7}', b'[["x"]]'])
def test_a_cache_that_is_none_tells_nothing(runs: Runs, content: bytes) -> None:
    cache = runs.desk.root / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    for name in ("lastfailed", "nodeids"):
        (cache / name).write_bytes(b"[]")
    runs.caches.begin(runs.desk.course, runs.executed(TEST, cwd=runs.desk.root))
    for name in ("lastfailed", "nodeids"):
        (cache / name).write_bytes(content)
        os.utime(cache / name, (1, 1))
    assert runs.caches.end(10, 1) is None


def test_a_process_that_is_no_pytest_has_no_tests(runs: Runs) -> None:
    executed = ProcessExecuted(1, 10, 10, 1, ("python", "exercises/01-a/app.py"), str(runs.desk.root), 1)
    runs.caches.begin(runs.desk.course, executed)
    assert runs.caches.end(10, 0) is None


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Iterator[Student]:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    with Student() as student:
        yield student


@pytest.mark.skipif(not has_procfs(), reason="no Linux with a /proc")
def test_the_sensor_tells_the_failed_tests_with_the_end_of_the_run(runs: Runs, student: Student) -> None:
    (runs.desk.root / "conftest.py").write_text(WAIT)
    seen = Seen()
    # It looks every 50 ms to 1 s, and an exit code is told while nobody has reaped the process.
    sensor = ProcessSensor(runs.desk.course, seen.put, levels=[Polling])
    sensor.start()
    try:
        seen.listed()
        pid = student.start([sys.executable, "-m", "pytest", TEST], runs.desk.root)
        tracker = sensor._tracker
        assert tracker is not None
        until(lambda: pid in tracker._pytest._runs)
        student.open_gate()
        exited = seen.exit_of(pid)
        assert (exited.exit_code, exited.failed_tests) == (1, (f"{TEST}::test_it",))
        student.reap(pid)
    finally:
        sensor.stop()
