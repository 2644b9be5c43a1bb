"""What a sink is given and what it makes of it: plain values, no sending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose records these are: LearnPack's `telemetry_id` and `user_id` (None before a login), the course's slug."""

    telemetry_id: str
    user_id: int | str | None
    course: str


@dataclass(frozen=True, slots=True)
class Sendable:
    """A record as it may leave: its number, its id (the same at every try), and its content.

    `content` is a line of `core.export.public`, or for LearnPack's streaming {slug, step_position, event, data}; what
    is private is taken out of it already.
    """

    number: int
    id: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent: `content` byte for byte, a file where it is long; `headers` besides those of every request; `count`
    is the number of records in it, `name` the name of the file where it becomes one."""

    content: bytes | BinaryIO
    headers: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    name: str = ""
