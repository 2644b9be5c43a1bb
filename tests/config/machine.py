"""A machine's configuration in a temporary directory: the admin's files, a user's, one that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, ConfigError, load_config, places
from agent.config.loading import Loaded, load


class Machine:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.etc = directory / "etc"
        self.home = directory / "home"
        self.var = directory / "var"
        self.named = directory / "named.toml"
        self.environment = {"HOME": str(self.home)}
        monkeypatch.setattr(places, "SYSTEM_DIRECTORY", str(self.etc))
        monkeypatch.setattr(places, "SYSTEM_STATE_DIRECTORY", str(self.var))

    @property
    def users(self) -> Path:
        return self.home / ".config" / "learnpack-agent" / "config.toml"

    def write(self, name: str, text: str) -> Path:
        """`name`: "config.toml" and "config.d/..." are the admin's, "user" and "named" the others."""
        path = {"user": self.users, "named": self.named}.get(name) or self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, course: str | None = None, **arguments: object) -> Config:
        file = str(self.named) if self.named.exists() else None
        return load_config(file=file, environment=self.environment, arguments=arguments, course=course)

    def loaded(self, course: str | None = None, **arguments: object) -> Loaded:
        file = str(self.named) if self.named.exists() else None
        return load(file=file, environment=self.environment, arguments=arguments, course=course)

    def faults(self, course: str | None = None, **arguments: object) -> list[str]:
        """Each fault's line, with the directory of this machine left out; none where the configuration is well."""
        try:
            self.load(course, **arguments)
        except ConfigError as error:
            return [str(fault).replace(f"{self.etc.parent}/", "") for fault in error.faults]
        return []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)
