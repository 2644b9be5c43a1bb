"""A machine with the Debian package on it, its students and their courses; the agents are asked by their commands."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machine.machine import Broken, Machine
from tests.until import until

AGENT = "learnpack-agent"
UNITS = "/etc/systemd/system"
STEPS = ("01-hello", "02-loop")
#: Long enough to be seen without process events.
PROGRAM = "import time\ntime.sleep(0.3)\n"
#: For a busy machine: what is promised about the time until something is recorded is tested elsewhere.
PATIENCE_S = 40.0


class Lab(Machine):
    """`with Lab(directory, package) as lab:`"""

    def __init__(self, directory: Path, package: Path) -> None:
        super().__init__(directory)
        self._package = package

    def __enter__(self) -> Lab:
        super().__enter__()
        try:
            # Images for containers have one that forbids packages to start anything.
            self.run("rm", "--force", "/usr/sbin/policy-rc.d")
            self.install_package(self._package)
        except BaseException:
            self.stop()
            raise
        return self

    def install_package(self, package: Path, *options: str) -> None:
        """With the real maintainer scripts.  (The manual's index, another package's trigger, is left out: 5 s.)"""
        self.write("/root/package.deb", package.read_bytes())
        command = ("dpkg", "--no-triggers", "--force-confold", *options, "--install", "/root/package.deb")
        self.run(*command, DEBIAN_FRONTEND="noninteractive")

    def student(self, name: str) -> Student:
        self.run("useradd", "--create-home", "--user-group", "--shell=/bin/bash", name)
        return Student(self, name, int(self.run("id", "-u", name)))

    # --- the agents ---

    def agent(self, *command: str, ok: tuple[int, ...] = (0,), user: str | None = None) -> str:
        """What the command prints, on both streams."""
        done = self.tried(AGENT, *command, user=user)
        words = (done.stdout + done.stderr).decode()
        assert done.returncode in ok, f"{command} ended with {done.returncode}: {words}"
        return words

    def installed(self, *courses: str) -> None:
        self.agent("install", *courses)
        for course in courses:
            self.until_running(course)

    def events(self, course: str) -> list[dict[str, Any]]:
        done = self.tried(AGENT, "events", course, "--json")
        if done.returncode not in (0, 69):
            raise Broken(done.stderr.decode())
        return [json.loads(line) for line in done.stdout.splitlines()]

    def kinds(self, course: str) -> list[str]:
        return [event["event"] for event in self.events(course)]

    def until_recorded(self, course: str, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """All events, as soon as so many are of this kind."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            found[:] = self.events(course)
            return [event["event"] for event in found].count(kind) >= count

        try:
            until(are_there, PATIENCE_S, every=0.1)
        except AssertionError:
            names = [event["event"] for event in found]
            raise AssertionError(f"not {count} {kind} but {names}; the log: {self.log(course)}") from None
        return found

    def states(self) -> dict[str, dict[str, Any]]:
        """By course, what root is told of all."""
        done = self.tried(AGENT, "status", "--all", "--json")
        assert done.returncode in (0, 1), done.stderr
        return {row["course"]: row for row in json.loads(done.stdout)}

    def state(self, course: str) -> str:
        return str(self.states().get(course, {"state": "not installed"})["state"])

    def until_running(self, course: str) -> None:
        self.until_active(self.unit(course), "active", course)

    def until_active(self, unit: str, state: str, course: str | None = None) -> None:
        try:
            until(lambda: self.show(unit, "ActiveState") == state, PATIENCE_S, every=0.05)
        except AssertionError:
            raise AssertionError(f"{unit} is {self.show(unit, 'ActiveState')}; its log: {self.log(course)}") from None

    def log(self, course: str | None, *options: str) -> str:
        which = f"--unit={self.unit(course)}" if course else "--unit=learnpack-agent*"
        return self.run("journalctl", "--no-pager", "--output=cat", which, *options)

    @contextmanager
    def configuration(self, text: str) -> Iterator[str]:
        """What an admin writes into a file of config.d; gives its path."""
        path = "/etc/learnpack-agent/config.d/50-test.toml"
        self.write(path, text + "\n")
        try:
            yield path
        finally:
            self.run("rm", path)

    def look_for_courses(self) -> None:
        """What the timer does, without the time that a course may be gone to be cloned again."""
        unit = f"{AGENT}-discover.service"
        command = f"\nExecStart=/usr/bin/{AGENT} discover --install --grace 0.1"  # the empty one takes the other away
        with self.settings(unit, ExecStart=command):
            self.run("systemctl", "start", unit)

    # --- systemd ---

    def is_installed(self, course: str) -> bool:
        return self.exists(f"{UNITS}/{self.unit(course)}.d/50-course.conf")

    def unit(self, course: str) -> str:
        return self.run("systemd-escape", "--path", f"--template={AGENT}@.service", course).strip()

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def seconds(self, unit: str, name: str) -> float:
        """A moment, as systemd noted it."""
        return int(self.show(unit, f"{name}TimestampMonotonic")) / 1e6

    def pid(self, course: str) -> int:
        return int(self.show(self.unit(course), "MainPID"))

    @contextmanager
    def settings(self, unit: str = f"{AGENT}@.service", **service: str) -> Iterator[None]:
        """What an admin writes beside this unit, for what is started meanwhile."""
        path = f"{UNITS}/{unit}.d/90-test.conf"
        self.write(path, "[Service]\n" + "".join(f"{name}={value}\n" for name, value in service.items()))
        self.run("systemctl", "daemon-reload")
        try:
            yield
        finally:
            self.run("rm", path)
            self.run("systemctl", "daemon-reload")


@dataclass(frozen=True)
class Student:
    lab: Lab
    name: str
    uid: int

    @property
    def home(self) -> str:
        return f"/home/{self.name}"

    def run(self, *command: str, cwd: str | None = None, **environment: str) -> str:
        return self.lab.run(*command, user=self.name, cwd=cwd or self.home, **environment)

    def shell(self, script: str, *words: str, cwd: str | None = None) -> str:
        return self.lab.shell(script, *words, user=self.name, cwd=cwd or self.home)

    def course(self, name: str = "course") -> str:
        """Makes one; returns its path."""
        path = f"{self.home}/{name}"
        self.shell(MAKE_COURSE, path, PROGRAM, *STEPS)
        return path

    def works(self, course: str, step: str = STEPS[0]) -> None:
        """Runs the program of this step in a shell; returns when it is over."""
        self.shell("python3 app.py; true", cwd=f"{course}/exercises/{step}")

    def journals(self) -> str:
        return f"/var/lib/learnpack-agent/{self.uid}"


#: $1 the path, $2 the program, then the steps.
MAKE_COURSE = """
course=$1 program=$2; shift 2
mkdir -p -- "$course"
for step; do
  mkdir -p -- "$course/exercises/$step"
  printf '%s' "$program" > "$course/exercises/$step/app.py"
done
echo '{}' > "$course/learn.json"
"""


@contextmanager
def new_lab(package: Path) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="learnpack-machine-") as directory, Lab(Path(directory), package) as lab:
        yield lab
