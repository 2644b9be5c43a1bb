"""Fifty students on one machine: each has an agent of his or her own, that sees nobody else and costs little."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from tests.machine.lab import AGENT, MAKE_COURSE, PROGRAM, STEPS, Lab, Student
from tests.until import until

COUNT = 50
FIRST_UID = 30_000
MOST_MEMORY = 1_300_000_000
REST_S = 30.0
#: Of all fifty together in that time, in seconds: 0.3 % of one processor.
MOST_CPU_S = 0.1
#: `status --all` asks as each student, one after the other: 1.3 s, when nobody else wants the processor.
PATIENCE_S = 20.0

#: The process ids are the words; of all of them together: proportional and resident set in bytes, processor time in s.
COSTS = """
import json, os, re, sys
costs = [0, 0, 0.0]
for pid in sys.argv[1:]:
    said = open(f"/proc/{pid}/smaps_rollup").read()
    costs[0] += 1024 * int(re.search(r"^Pss: +(\\d+)", said, re.M)[1])
    costs[1] += 1024 * int(re.search(r"^Rss: +(\\d+)", said, re.M)[1])
    ticks = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:13]
    costs[2] += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
print(json.dumps(costs))
"""


@dataclass(frozen=True)
class Room:
    lab: Lab
    students: list[Student]
    seconds: float

    def course(self, number: int) -> str:
        return f"{self.students[number].home}/course"

    def pids(self) -> list[str]:
        return [str(row["pid"]) for row in self.lab.states().values()]

    def costs(self) -> tuple[int, int, float]:
        proportional, resident, cpu = json.loads(self.lab.run("python3", "-c", COSTS, *self.pids()))
        return proportional, resident, cpu


@pytest.fixture(scope="module")
def room(lab: Lab) -> Room:
    students = [Student(lab, f"seat{number:02}", FIRST_UID + number) for number in range(COUNT)]
    lab.shell(
        "printf '%s\n' \"$@\" | newusers", *(f"{one.name}:x:{one.uid}:::{one.home}:/bin/bash" for one in students)
    )
    lab.shell(
        f'for name in "${{@:4}}"; do (set -- "/home/$name/course" "$1" "$2" "$3"; {MAKE_COURSE}); '
        'touch "/home/$name/.profile"; chown -R "$name:" "/home/$name"; done',
        *(PROGRAM, *STEPS, *(one.name for one in students)),
    )
    began = time.monotonic()
    said = lab.agent("discover", "/home", "--install")
    took = time.monotonic() - began
    assert said.count("installed, running") == COUNT, said
    return Room(lab, students, took)


def test_one_command_gives_each_of_them_an_agent_that_runs_as_that_student(room: Room) -> None:
    print(f"{COUNT} agents installed and ready in {room.seconds:.1f} s")
    began = time.monotonic()
    states = room.lab.states()
    took = time.monotonic() - began
    print(f"`status --all` of {COUNT}: {took:.1f} s")
    assert took < PATIENCE_S
    assert {row["uid"] for row in states.values()} == {one.uid for one in room.students}
    assert {row["state"] for row in states.values()} == {"running"}
    said = room.lab.run("ps", "-o", "uid=,args=", "-p", ",".join(room.pids())).splitlines()
    uids = {int(line.split()[0]): line.split()[-1] for line in said}
    assert uids == {one.uid: f"{one.home}/course" for one in room.students}


def test_at_rest_they_take_little_memory_and_no_processor_time(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, before = room.costs()
    time.sleep(REST_S)
    proportional, resident, after = room.costs()
    with capsys.disabled():
        print(
            f"\n{COUNT} agents: Pss {proportional / 1e6:.0f} MB, Rss {resident / 1e6:.0f} MB, "
            f"{after - before:.2f} s of processor time in {REST_S:.0f} s; "
            f"installed and ready in {room.seconds:.1f} s"
        )
    assert proportional <= MOST_MEMORY
    assert after - before <= MOST_CPU_S


def test_a_run_is_in_the_journal_of_its_student_alone(room: Room) -> None:
    worker, other = room.students[7], room.students[8]
    worker.works(room.course(7))
    room.lab.until_recorded(room.course(7), "compile")
    states = room.lab.states()
    assert [course for course, row in states.items() if row["events"]] == [room.course(7)]
    for command in (["ls", worker.journals()], ["cat", f"{worker.journals()}/../{worker.uid}"]):
        assert room.lab.tried(*command, user=other.name).returncode != 0
    assert room.lab.tried(AGENT, "events", room.course(7), user=other.name).stdout == b""
    assert "compile" in worker.run(AGENT, "events", cwd=room.course(7))


def test_a_student_is_shown_the_own_agent_only(room: Room) -> None:
    said = room.students[3].run(AGENT, "status", "--all", "--json")
    assert [row["course"] for row in json.loads(said)] == [room.course(3)]
    assert json.loads(said)[0]["state"] == "running"


def test_no_student_can_stop_anothers_agent_or_have_one_for_anothers_course(room: Room) -> None:
    victim, student = room.course(5), room.students[6].name
    pid = room.lab.pid(victim)
    for command in (["stop", victim], ["uninstall", victim, "--purge"], ["pause", victim], ["forget", victim, "--yes"]):
        room.lab.tried(AGENT, *command, user=student)
    assert room.lab.pid(victim) == pid
    assert room.lab.state(victim) == "running"


def test_all_are_stopped_and_uninstalled_by_root_at_once(room: Room) -> None:
    assert room.lab.agent("stop", "--all").count(": stopped") == COUNT
    room.lab.run("rm", "-rf", *map(room.course, range(COUNT)))
    room.lab.agent("discover", "/home", "--install")
    until(lambda: room.lab.run("systemctl", "list-units", "--plain", "--no-legend", f"{AGENT}@*") == "")
