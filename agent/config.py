"""What the agent may be told: a frozen `Config`, put together once, before anything starts.

Later sources win: defaults < /etc/learnpack-agent/config.toml < the user's config.toml < the file named by
`--config` or LEARNPACK_AGENT_CONFIG < environment < arguments.  A fault is a `ConfigError` of one line: file,
key, what is wrong, and the key that was probably meant.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .core.course import printable

SYSTEM_FILE = "/etc/learnpack-agent/config.toml"
PROCESS_SENSORS = ("auto", "connector", "pidfd", "polling")
LOG_LEVELS = ("debug", "info", "warning", "error")
#: A year; and more than any receiver takes.  Beyond, times would no longer fit into what they are stored in.
AT_MOST = {
    "session_silence_minutes": 365 * 24 * 60,
    "idle_minutes": 365 * 24 * 60,
    "output_max_kb": 65_536,
    "document_max_mb": 4096,
}


class ConfigError(Exception):
    """A fault in the configuration, in one line."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; the names are the keys of config.toml.

    `state_dir` holds one directory per course.  `session_silence_minutes`: without a LearnPack server a session
    ends after so long without work.  `idle_minutes`: a longer time without a save, a run or an opening is not counted
    as work in a step.  `output_max_kb`: of more than that on a stream only the head and the tail are kept.
    `document_max_mb`: above this size telemetry.json leaves out the oldest outputs.
    `process_sensor`: "auto" takes the best that works here.
    """

    state_dir: str = ""
    log_level: str = "info"
    session_silence_minutes: int = 30
    idle_minutes: int = 5
    output_max_kb: int = 256
    document_max_mb: int = 8
    process_sensor: str = "auto"


def load_config(*, file: str | None, environment: Mapping[str, str], arguments: Mapping[str, object | None]) -> Config:
    """The configuration from all sources.  `arguments` holds only what was given (None: not given).

    Raises ConfigError; a file named explicitly must exist, the others may.
    """
    named = file if file is not None else environment.get("LEARNPACK_AGENT_CONFIG") or None
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    config = Config(state_dir=_default_state_dir(environment))
    for path, required in (
        (SYSTEM_FILE, False),
        (os.path.join(home, "learnpack-agent", "config.toml"), False),
        (named, True),
    ):
        if path is not None:
            config = replace(config, **_from_file(path, required=required))
    if environment.get("LEARNPACK_AGENT_STATE_DIR"):
        config = replace(config, state_dir=environment["LEARNPACK_AGENT_STATE_DIR"])
    given = {key: value for key, value in arguments.items() if value is not None}
    config = replace(config, **_checked(given, "the command line"))
    return replace(config, state_dir=os.path.abspath(config.state_dir))


def _default_state_dir(environment: Mapping[str, str]) -> str:
    # systemd names the directory of `StateDirectory=` in $STATE_DIRECTORY (several are separated by ":").
    if environment.get("STATE_DIRECTORY"):
        return environment["STATE_DIRECTORY"].split(":")[0]
    base = environment.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "learnpack-agent")


def _from_file(path: str, *, required: bool) -> dict[str, Any]:
    if not required and not os.path.exists(path):
        return {}
    import tomllib

    try:
        with open(path, "rb") as stream:
            found = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return _checked(found, path)


def _checked(found: Mapping[str, object], origin: str) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(Config)}
    for key, value in found.items():
        if key not in defaults:
            import difflib

            meant = difflib.get_close_matches(key, defaults, n=1)
            hint = f" (did you mean {meant[0]}?)" if meant else ""
            raise ConfigError(f"{origin}: unknown key {key}{hint}")
        expected = type(defaults[key])
        if type(value) is not expected:
            raise ConfigError(f"{origin}: {key} must be {'a whole number' if expected is int else 'a text'}")
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{origin}: {key} must be at least 1")
        if isinstance(value, int) and value > AT_MOST[key]:
            raise ConfigError(f"{origin}: {key} must be at most {AT_MOST[key]}")
    for key, allowed in (("process_sensor", PROCESS_SENSORS), ("log_level", LOG_LEVELS)):
        if key in found and found[key] not in allowed:
            raise ConfigError(f"{origin}: {key} must be one of {', '.join(allowed)}")
    return dict(found)


def course_key(root: str) -> str:
    """The name of a course's directory in the state directory: readable, and one per absolute path."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in printable(os.path.basename(root)))
    # A checksum tells courses of one name apart; hashlib would cost 3.4 MB of OpenSSL in every agent.
    return f"{name[:48] or 'course'}-{binascii.crc32(os.fsencode(root)):08x}"


def course_state_dir(config: Config, root: str) -> str:
    return os.path.join(config.state_dir, course_key(root))
