"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.package import newer, package, unpacked
from tests.standin.agent import Agent, clean_environment
from tests.standin.learnpack import LearnPack
from tests.standin.student import Student
from tests.standin.toolbox import REPOSITORY, Toolbox, make_toolbox

__all__ = ["newer", "package", "unpacked"]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="session")
def toolbox(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    return make_toolbox(tmp_path_factory.mktemp("toolbox"))


class Stage:
    """Everything that a scene needs; at the end each process that it started is ended by its pid."""

    def __init__(self, toolbox: Toolbox, directory: Path) -> None:
        self.toolbox = toolbox
        self.directory = directory
        self._ends: list[Callable[[], object]] = []

    def agent(self, course: Path, name: str = "state", arguments: tuple[str, ...] = ()) -> Agent:
        environment = clean_environment(self.toolbox.environment())
        agent = Agent(course, self.directory / name, environment, arguments=arguments)
        self._ends.append(agent.end)
        return agent

    def learnpack(
        self, course: Path, *, own_telemetry: bool = False, pyenv: bool = False, **environment: str
    ) -> LearnPack:
        learnpack = LearnPack(course, self.toolbox, own_telemetry=own_telemetry, pyenv=pyenv, **environment)
        self._ends.append(learnpack.end)
        return learnpack

    def student(self, course: Path, *, pyenv: bool = False, **environment: str) -> Student:
        student = Student(course, self.toolbox.environment(pyenv, **environment))
        self._ends.append(student.close)
        return student

    def end(self) -> None:
        for end in reversed(self._ends):
            end()


@pytest.fixture
def stage(toolbox: Toolbox, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(toolbox, tmp_path)
    yield stage
    stage.end()


@pytest.fixture(scope="module")
def long_stage(toolbox: Toolbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage for one scripted session that many tests look at."""
    stage = Stage(toolbox, tmp_path_factory.mktemp("stage"))
    yield stage
    stage.end()
