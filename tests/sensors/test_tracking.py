"""What the memory of all process sensors makes of odd processes and odd moments; the processes are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.course import Course
from agent.core.observations import CourseRead, EventsLost, ProcessesListed, ProcessExecuted
from agent.sensors.clock import now_ms
from agent.sensors.course import read_course
from agent.sensors.processes import tracking
from agent.sensors.processes.procfs import FOREIGN, Ended, Look, Procfs, Words, has_procfs
from agent.sensors.processes.tracking import MAX_LEARNED, Finder, Tracker, Unread
from tests.sensors.student import Desk, Seen, make_desk

HOSTILE = "hostile"


class Made:
    """A reader of made-up processes: pid -> (parent, command line)."""

    def __init__(self, desk: Desk, processes: Mapping[int, tuple[int, tuple[str, ...]]]) -> None:
        self.cwd = str(desk.root)
        self.processes = dict(processes)
        self.at = now_ms()

    def pids(self) -> Mapping[int, int]:
        return {pid: pid for pid in self.processes}

    def is_mine(self, pid: int) -> bool:
        return True

    def argv(self, pid: int) -> tuple[str, ...] | None:
        return self.processes[pid][1]

    def words(self, pid: int) -> Words | None:
        return Words(self.processes[pid][1], self.cwd, None) if pid in self.processes else None

    def look(self, pid: int, words: Words | None = None) -> Look | None:
        found = self.words(pid)
        return Look(pid, pid, self.processes[pid][0], found, False, self.at, pid) if found is not None else None

    def ended(self, pid: int, born: int) -> Ended | None:
        return None if pid in self.processes else Ended(None)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = make_desk(tmp_path / "course", {"01-hello": {"app.py": "print(1)\n"}})
    (desk.root / "learn.json").write_text('{"slug": "course"}')
    return desk


@pytest.fixture
def seen() -> Seen:
    return Seen()


RUN = ("python", "exercises/01-hello/app.py")


def is_hostile(course: Course, argv: tuple[str, ...], *_: object) -> bool:
    if HOSTILE in argv:
        raise OverflowError("too large\nto be true")
    return "python" in argv


def reading_fails(course: Course, argv: tuple[str, ...], *_: object) -> tuple[str, ...]:
    if HOSTILE in argv:
        raise RecursionError("too deep")
    return ()


def by_exec(tracker: Tracker) -> None:
    for pid in tracker.reader.pids():
        tracker.executed(pid, now_ms())


def by_looking(tracker: Tracker) -> None:
    finder = Finder(tracker)
    finder.find()
    finder.find()


@pytest.mark.parametrize("notice", [by_exec, by_looking, Tracker.survey], ids=["exec", "looking", "survey"])
@pytest.mark.parametrize(
    ("name", "fails"), [("is_relevant", is_hostile), ("files_to_read", reading_fails)], ids=["judging", "reading"]
)
def test_a_process_that_cannot_be_understood_is_skipped_and_the_others_are_seen(
    desk: Desk,
    seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
    notice: Callable[[Tracker], None],
    name: str,
    fails: Callable[..., object],
) -> None:
    monkeypatch.setattr(tracking, name, fails)
    bad = ("python", "exercises/01-hello/app.py", HOSTILE)
    reader = Made(desk, {10: (1, bad), 11: (1, RUN), 12: (1, bad), 13: (12, RUN)})
    logged: list[str] = []
    tracker = Tracker(desk.course, seen.put, reader, logged.append)
    notice(tracker)
    assert sorted(one.pid for one in seen.of(ProcessExecuted)) == [11, 13]
    assert sorted(tracker.tracked) == [11, 13], "no end is told of what was never reported"
    assert tracker.skipped >= 2
    assert len(logged) == 1, "once, not for each process"
    assert "\n" not in logged[0]


def test_a_process_that_cannot_be_read_is_skipped(desk: Desk, seen: Seen) -> None:
    class Odd(Made):
        def words(self, pid: int) -> Words | None:
            if pid == 10:
                raise ValueError("no such thing")
            return super().words(pid)

        def argv(self, pid: int) -> tuple[str, ...] | None:
            if pid == 10:
                raise ValueError("no such thing")
            return super().argv(pid)

    tracker = Tracker(desk.course, seen.put, Odd(desk, {10: (1, RUN), 11: (10, RUN)}))
    by_looking(tracker)
    by_exec(tracker)
    tracker.survey()
    assert {one.pid for one in seen.of(ProcessExecuted)} == {11}
    assert tracker.skipped > 2


class Dying(Made):
    """Process 11 is reaped while it is looked at: its words were still read, its birth is an estimate."""

    is_dying = False

    def look(self, pid: int, words: Words | None = None) -> Look | None:
        look = super().look(pid, words)
        if look is None or not self.is_dying or pid != 11:
            return look
        return replace(look, born=look.born + 2, parent=0, image=0, is_over=True)

    def ended(self, pid: int, born: int) -> Ended | None:
        return Ended(None) if self.is_dying and pid == 11 else super().ended(pid, born)


@pytest.mark.parametrize("notice", [by_exec, by_looking, Tracker.survey], ids=["exec", "looking", "survey"])
def test_a_process_that_dies_while_it_is_looked_at_ends_once(
    desk: Desk, seen: Seen, notice: Callable[[Tracker], None]
) -> None:
    reader = Dying(desk, {11: (1, RUN), 12: (1, RUN)})
    tracker = Tracker(desk.course, seen.put, reader)
    tracker.survey()
    reader.is_dying = True
    notice(tracker)
    tracker.exited(11, now_ms(), 0)  # what the kernel tells of it, perhaps too late
    assert {(one.pid, one.born) for one in seen.of(ProcessExecuted)} == {(11, 11), (12, 12)}
    assert [(one.pid, one.born) for one in seen.exits(11)] == [(11, 11)]
    assert sorted(tracker.tracked) == [12]


def test_a_process_that_dies_right_after_a_survey_looked_at_it_ends_once(desk: Desk, seen: Seen) -> None:
    class Late(Made):
        is_late = False

        def ended(self, pid: int, born: int) -> Ended | None:
            return Ended(None) if self.is_late and pid == 11 else super().ended(pid, born)

    reader = Late(desk, {11: (1, RUN), 12: (1, RUN)})
    tracker = Tracker(desk.course, seen.put, reader)
    tracker.survey()
    reader.is_late = True
    tracker.survey()
    tracker.exited(11, now_ms(), 0)
    assert len(seen.exits(11)) == 1
    assert sorted(tracker.tracked) == [12]


def test_a_program_that_a_shell_became_is_the_shells_process_though_it_was_over_at_once(desk: Desk, seen: Seen) -> None:
    reader = Dying(desk, {11: (1, ("bash", "exercises/01-hello/go.sh")), 12: (1, RUN)})
    tracker = Tracker(desk.course, seen.put, reader)
    tracker.survey()
    reader.is_dying = True
    reader.processes[11] = (1, RUN)
    tracker.executed(11, now_ms())
    assert [(one.born, one.argv) for one in seen.of(ProcessExecuted) if one.pid == 11][-1] == (11, RUN)
    assert not seen.exits(11)


def told(seen: Seen) -> list[tuple[int, int]]:
    return [(one.pid, one.parent) for one in seen.of(ProcessExecuted)]


def test_a_fork_that_is_over_before_its_parent_is_known_is_no_run_of_its_own(desk: Desk, seen: Seen) -> None:
    """`$(dirname "$(readlink -f "$0")")`: a subshell has its shell's command line, and executes nothing itself."""
    reader = Dying(desk, {10: (1, RUN), 11: (10, RUN), 12: (11, ("readlink", "-f", "exercises/01-hello/app.py"))})
    tracker = Tracker(desk.course, seen.put, reader)
    tracker.executed(10, now_ms())
    reader.is_dying = True
    tracker.executed(12, now_ms())
    by_looking(tracker)
    assert 11 not in {pid for pid, _ in told(seen)}


@pytest.mark.parametrize("notice", [by_exec, by_looking, Tracker.survey], ids=["exec", "looking", "survey"])
def test_what_a_run_leaves_behind_is_no_other_run(desk: Desk, seen: Seen, notice: Callable[[Tracker], None]) -> None:
    """As daemons are made: the parent forks and ends, the child works on, and has its command line."""

    class Forked(Made):
        def look(self, pid: int, words: Words | None = None) -> Look | None:
            look = super().look(pid, words)
            return replace(look, image=10) if look is not None and pid == 11 else look

    reader = Forked(desk, {10: (1, RUN)})
    tracker = Tracker(desk.course, seen.put, reader)
    tracker.executed(10, now_ms())
    reader.processes = {11: (1, RUN)}
    tracker.exited(10, now_ms(), 0)
    if notice is by_exec:
        reader.processes[12] = (11, ("ls",))
        tracker.executed(12, now_ms())
    else:
        notice(tracker)
    assert 11 not in {pid for pid, _ in told(seen)}
    reader.at = now_ms() + 1_000
    reader.processes = {11: (1, RUN)}
    by_looking(tracker)
    assert (11, 1) in told(seen), "where the kernel gives every program the same addresses, a later one is another"


@pytest.mark.parametrize("parent", [10, 1], ids=["part of a run", "a run"])
def test_a_program_that_was_over_before_its_parent_was_known_is_reported_with_its_end(
    desk: Desk, seen: Seen, parent: int
) -> None:
    reader = Dying(desk, {10: (1, RUN), 11: (parent, RUN)})
    tracker = Tracker(desk.course, seen.put, reader)
    tracker.executed(10, now_ms())
    reader.is_dying = True
    began = now_ms()
    assert tracker.executed(11, began), "its end is waited for"
    assert told(seen) == [(10, 1)]
    assert tracker.is_over(11)
    tracker.exited_unread(11, parent, began + 40, 3 << 8)
    assert told(seen) == [(10, 1), (11, parent)]
    assert [(one.at, one.started_at) for one in seen.executed(11)] == [(began, min(began, reader.at))]
    assert [(one.at, one.exit_code) for one in seen.exits(11)] == [(began + 40, 3)]
    assert sorted(tracker.tracked) == [10]


def test_shells_nested_a_thousand_deep_do_not_end_a_survey(desk: Desk, seen: Seen) -> None:
    reader = Made(desk, {pid: (pid + 1, ("bash", str(pid))) for pid in range(10, 3000)} | {3000: (1, RUN)})
    Tracker(desk.course, seen.put, reader).survey()
    assert seen.of(ProcessesListed)
    assert seen.executed(3000)


def linked(desk: Desk, tmp_path: Path, name: str = "link") -> Path:
    link = tmp_path / name
    link.symlink_to(desk.root)
    return link


def aliases_told(seen: Seen) -> list[tuple[str, ...]]:
    return [one.course.aliases for one in seen.of(CourseRead)]


@pytest.mark.parametrize("test", ["", "::test_it"])
def test_a_link_to_the_course_in_a_command_is_learned(desk: Desk, seen: Seen, tmp_path: Path, test: str) -> None:
    link = linked(desk, tmp_path)
    tracker = Tracker(
        desk.course, seen.put, Made(desk, {10: (1, ("python", f"{link}/exercises/01-hello/app.py{test}"))})
    )
    tracker.executed(10, now_ms())
    assert aliases_told(seen) == [(str(link),)]
    assert seen.executed(10)


@pytest.mark.parametrize("is_all_gone", [True, False], ids=["the course is gone", "the file is gone"])
def test_a_link_to_what_is_gone_teaches_nothing(desk: Desk, seen: Seen, tmp_path: Path, is_all_gone: bool) -> None:
    link = linked(desk, tmp_path)
    shutil.rmtree(desk.root if is_all_gone else desk.step(0))
    tracker = Tracker(desk.course, seen.put, Made(desk, {10: (1, ("python", f"{link}/exercises/01-hello/app.py"))}))
    tracker.executed(10, now_ms())
    assert seen.of(CourseRead) == []
    assert tracker.course == desk.course


def test_a_step_is_not_told_when_the_course_has_gone_meanwhile(
    desk: Desk, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_at_the_last_moment(root: str) -> Course:
        course = read_course(root)
        shutil.rmtree(root)
        return course

    monkeypatch.setattr(tracking, "read_course", read_at_the_last_moment)
    new = desk.root / "exercises/02-new"
    new.mkdir()
    (new / "app.py").write_text("")
    tracker = Tracker(desk.course, seen.put, Made(desk, {10: (1, ("python", "exercises/02-new/app.py"))}))
    tracker.executed(10, now_ms())
    assert seen.of(CourseRead) == []
    assert tracker.course == desk.course


def test_only_so_many_names_of_the_course_are_remembered_and_the_first_always(
    desk: Desk, seen: Seen, tmp_path: Path
) -> None:
    course = replace(desk.course, aliases=("/the/first",))
    reader = Made(desk, {})
    tracker = Tracker(course, seen.put, reader)
    for number in range(MAX_LEARNED + 20):
        link = linked(desk, tmp_path, f"link{number}")
        reader.processes = {10: (1, ("python", f"{link}/exercises/01-hello/app.py"))}
        tracker.executed(10, now_ms())
    assert len(tracker.course.aliases) == MAX_LEARNED
    assert (tracker.course.aliases[0], tracker.course.aliases[-1]) == ("/the/first", str(link))


def test_only_so_many_directories_that_are_no_steps_are_remembered(
    desk: Desk, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def read_nothing_new(root: str) -> Course:
        asked.append(root)
        return desk.course

    monkeypatch.setattr(tracking, "read_course", read_nothing_new)
    reader = Made(desk, {})
    tracker = Tracker(desk.course, seen.put, reader)
    for number in range(MAX_LEARNED + 20):
        (desk.root / f"exercises/no-step-{number}").mkdir()
        reader.processes = {10: (1, ("python", f"exercises/no-step-{number}/app.py"))}
        tracker.executed(10, now_ms())
        tracker.executed(10, now_ms())
    assert len(asked) == MAX_LEARNED + 20, "each is asked about once"
    assert len(tracker._unknown) == MAX_LEARNED


@pytest.mark.parametrize(
    ("lived_ms", "parent", "is_lost"),
    [
        (15, 10, True),  # a shell that works in the course started it
        (1, 10, False),  # too short for any run
        (15, 99, False),  # somebody else's
    ],
)
def test_a_program_that_was_over_before_it_could_be_read_is_said_to_be_missed(
    desk: Desk, seen: Seen, lived_ms: int, parent: int, is_lost: bool
) -> None:
    tracker = Tracker(desk.course, seen.put, Made(desk, {10: (1, ("bash",))}))
    tracker.executed(20, 1_000)
    tracker.exited_unread(20, parent, 1_000 + lived_ms, 0)
    lost = seen.of(EventsLost)
    assert [(one.since, one.at) for one in lost] == ([(1_000, 1_000 + lived_ms)] if is_lost else [])
    assert tracker.unread == {}


def test_a_program_of_another_user_is_not_missed(desk: Desk, seen: Seen) -> None:
    """`sudo`, `passwd`, `ping` that the student starts from a shell in the course."""

    class Foreign(Made):
        def words(self, pid: int) -> Words | None:
            return FOREIGN if pid == 20 else super().words(pid)

        def look(self, pid: int, words: Words | None = None) -> Look | None:
            assert pid != 20, "it costs one stat and no more"
            return super().look(pid, words)

    tracker = Tracker(desk.course, seen.put, Foreign(desk, {10: (1, ("bash",))}))
    tracker.executed(20, 1_000)
    assert tracker.unread == {}
    tracker.unread[20] = Unread(1_000)  # it could not be read before it executed that program
    tracker.executed(20, 1_050)
    assert tracker.unread == {}
    assert seen.all() == []


@pytest.mark.skipif(not has_procfs() or os.geteuid() != 0, reason="only root has processes of two users")
def test_another_users_process_is_told_from_one_that_is_over() -> None:
    other = subprocess.Popen(["sleep", "60"], user=1500, group=1500, extra_groups=[])
    try:
        assert Procfs().words(other.pid) is FOREIGN
        assert Procfs().look(other.pid) is None
        assert Procfs(1500).look(other.pid) is not None
    finally:
        other.kill()
        other.wait()
    assert Procfs().words(other.pid) is None
