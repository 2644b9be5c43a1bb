"""What a student leaves where root's commands and the own agent come by: links, pipes, endless and countless things."""

from __future__ import annotations

import json
import stat
import subprocess
from dataclasses import dataclass

import pytest

from tests.machine.lab import AGENT, MAKE_COURSE, PROGRAM, STEPS, UNITS, Lab, Student

#: So long one of root's commands may take on a busy machine, whatever it finds (s).
PATIENCE_S = 30.0

#: $1 the course, $2 its directory of records, $3 a directory of the student with one file, "precious"; the agent is
#: stopped.
TRAPS = {
    "learn is a link": 'rm -rf "$1/.learn"; ln -s "$3" "$1/.learn"',
    "learn is a link to what is root's": 'rm -rf "$1/.learn"; ln -s /etc "$1/.learn"',
    "telemetry is a link": 'mkdir -p "$1/.learn"; ln -sf "$3/precious" "$1/.learn/telemetry.json"',
    "telemetry is a link to what is root's": 'mkdir -p "$1/.learn"; ln -sf /etc/passwd "$1/.learn/telemetry.json"',
    "telemetry is a pipe": 'mkdir -p "$1/.learn"; rm -f "$1/.learn/telemetry.json"; mkfifo "$1/.learn/telemetry.json"',
    "learn.json is a pipe": 'rm "$1/learn.json"; mkfifo "$1/learn.json"',
    "learn.json is a link to a secret": 'rm "$1/learn.json"; ln -s /etc/shadow "$1/learn.json"',
    "records are a link": 'rm -rf "$2"; ln -s "$3" "$2"',
    "records are a link to what is root's": 'rm -rf "$2"; ln -s /etc "$2"',
    "the journal is a pipe": 'rm "$2"/journal.sqlite3*; mkfifo "$2/journal.sqlite3"',
    "the journal is a link": 'rm "$2"/journal.sqlite3*; ln -s "$3/precious" "$2/journal.sqlite3"',
    "what was said is a link": 'ln -sf "$3/precious" "$2/control.json"; ln -sf "$3/precious" "$2/control.json.tmp"',
    "what was said is a pipe": 'rm -f "$2/control.json"; mkfifo "$2/control.json"',
    "the lock is a pipe": 'rm "$2/lock"; mkfifo "$2/lock"',
    "the queues are a pipe": 'rm -f "$2"/delivery.sqlite3*; mkfifo "$2/delivery.sqlite3"',
    "the lock is a link": 'ln -sf "$3/precious" "$2/lock"',
    "the configuration is a pipe": "mkdir -p ~/.config/learnpack-agent; mkfifo ~/.config/learnpack-agent/config.toml",
}


#: What changes all the time, and what may: the students' own directories, and the units.
ELSEWHERE = ("/home/", "/var/lib/learnpack-agent/", "/var/log", "/var/lib/systemd", "/var/tmp", "/etc/systemd/system")


def outside(lab: Lab) -> set[tuple[str, int, int, int]]:
    """All that a link could lead to and that is not the student's."""
    return {
        (path, found.st_uid, found.st_mode, 0 if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns)
        for path, found in lab.changes()
        if not path.startswith(ELSEWHERE)
    }


def roots_files(lab: Lab, student: Student) -> str:
    """What root left in the student's directories."""
    return lab.shell('find "$1" "$2" -user root', student.home, student.journals())


@dataclass(frozen=True)
class Trapped:
    lab: Lab
    outside: set[tuple[str, int, int, int]]

    def student(self, trap: str) -> Student:
        name = f"mal{list(TRAPS).index(trap)}"
        return Student(self.lab, name, int(self.lab.run("id", "-u", name)))


@pytest.fixture(scope="module")
def trapped(lab: Lab) -> Trapped:
    """Each trap has a student and a course of its own, with an agent that ran when it was not there yet, and again."""
    students = [lab.student(f"mal{number}") for number in range(len(TRAPS))]
    courses = [student.course() for student in students]
    lab.installed(*courses)
    lab.agent("stop", *courses)
    before = outside(lab)
    for student, course, script in zip(students, courses, TRAPS.values(), strict=True):
        records = lab.shell('ls -d "$1"/course-*', student.journals()).strip()
        student.shell("mkdir elsewhere; echo kept > elsewhere/precious")
        student.shell(script, course, records, f"{student.home}/elsewhere")
    lab.run("systemctl", "start", "--no-block", *map(lab.unit, courses))
    for student, course in zip(students, courses, strict=True):
        student.works(course)
    return Trapped(lab, before)


def roots(lab: Lab, *command: str) -> bytes:
    """Root asks; returns what came, however it ended."""
    try:
        done = subprocess.run(lab.argv(AGENT, *command), capture_output=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"`{' '.join(command)}` hangs")
    assert b"Traceback" not in done.stderr, (command, done.stderr)
    assert b"root:" not in done.stdout + done.stderr, "told what is in /etc/passwd or /etc/shadow"
    return done.stdout


def test_all_of_them_together_hold_up_no_answer_about_all(trapped: Trapped) -> None:
    shown = {row["course"] for row in json.loads(roots(trapped.lab, "status", "--all", "--json"))}
    assert shown >= {f"/home/mal{number}/course" for number in range(len(TRAPS))}
    assert b"learnpack_agent" in roots(trapped.lab, "metrics")
    roots(trapped.lab, "discover", "/home", "--install")


@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_is_written_through_a_trap_nobody_is_held_up_and_root_leaves_nothing(
    trapped: Trapped, trap: str
) -> None:
    lab, student = trapped.lab, trapped.student(trap)
    course = f"{student.home}/course"
    for command in ("doctor", "events", "pause", "repair", "forget --yes", "uninstall --purge"):
        roots(lab, *command.split(), course)
    assert outside(lab) == trapped.outside
    assert student.shell("cat elsewhere/precious; ls -A elsewhere") == "kept\nprecious\n"
    assert roots_files(lab, student) == ""
    assert lab.pid(course) == 0


def test_a_hundred_courses_of_one_student_do_not_become_a_hundred_agents(lab: Lab) -> None:
    student = lab.student("greedy")
    student.shell(f'for n in $(seq 100); do (set -- "course$n" "$@"; {MAKE_COURSE}); done', PROGRAM, *STEPS)
    assert lab.agent("discover", student.home).count("left out") > 50
    with lab.configuration("discover_per_user = 3"):
        said = lab.agent("discover", student.home, "--install")
        assert said.count("installed, running") == 3
        assert said.count("left out") == 97 and "discover_per_user" in said
        lab.agent("discover", student.home, "--install")
    assert int(lab.shell('ls -d "$1"/*home-greedy*.d | wc -l', UNITS)) == 3


def test_what_is_found_is_bounded_and_no_link_is_followed(lab: Lab) -> None:
    student = lab.student("sly")
    student.shell("mkdir a; ln -s / a/everything; ln -s .. a/up; ln -s ../sly/a a/self; mkdir b; mkfifo b/learn.json")
    student.shell('p=.; for n in $(seq 60); do p=$p/d; done; mkdir -p "$p"; echo {} > "$p/learn.json"')
    student.shell("mkdir c; ln -s /etc/passwd c/learn.json")
    assert lab.agent("discover", student.home) == ""
