"""A configuration as TOML: what holds now, with the source of each key, and the file that an admin begins with.

Promised: what `shown` writes loads back to the same Config, as far as it is no secret.  Of a token, of headers, of a
URL's path and a proxy's password it says only that they are set, in a comment that is no TOML either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Any
from urllib.parse import urlsplit

from ..core.course import one_line
from .checking import Path, keys_of
from .loading import Layer, Loaded, Source
from .positions import Positions, holds
from .settings import Config, Credential, Send, SinkConfig
from .words import WORDS

_LETTERS = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def toml(value: object) -> str:
    """A text, a number, true or false, a list or a table of these, in one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case tuple() | list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{ {', '.join(f'{toml(key)} = {toml(one)}' for key, one in value.items())} }}" if value else "{}"
        case _:
            return '"' + "".join(map(_letter, str(value))) + '"'


def _letter(letter: str) -> str:
    if letter in _LETTERS:
        return _LETTERS[letter]
    return (
        letter
        if letter.isprintable()
        else f"\\u{ord(letter):04x}"
        if ord(letter) < 0x10000
        else f"\\U{ord(letter):08x}"
    )


# --- what holds ---


def shown(loaded: Loaded, *, origin: bool) -> str:
    """The configuration; with `origin` each line says where its value is from."""
    origins = Origins(loaded) if origin else None

    def line(text: str, path: Path) -> str:
        return f"{text}  # {one_line(origins.of(path))}" if origins else text

    return "".join(f"{one}\n" for one in _lines(loaded.config, line))


def _lines(config: Config, line: Callable[[str, Path], str]) -> Iterator[str]:
    for key in keys_of(Config):
        yield line(f"{key} = {toml(getattr(config, key))}", (key,))
    yield from ("", "[send]")
    for key in keys_of(Send):
        value = getattr(config.send, key)
        is_secret = key == "proxy" and "@" in value
        yield line(f"# {key} = [set]" if is_secret else f"{key} = {toml(value)}", ("send", key))
    for sink in config.sinks:
        yield from ("", "[[sink]]")
        for key in keys_of(SinkConfig):
            if text := _sink_key(key, getattr(sink, key)):
                yield line(text, ("sink", sink.name, key))
    for host, credential in config.credentials.items():
        yield from ("", f"[credentials.{toml(host)}]")
        for key in keys_of(Credential):
            value = getattr(credential, key)
            if key == "token" and value:
                yield line("# token = [set]", ("credentials", host, key))
            elif value not in ("", False):
                yield line(f"{key} = {toml(value)}", ("credentials", host, key))


def _sink_key(key: str, value: Any) -> str | None:
    """Its line; None where there is nothing to say."""
    if value in ("", None) or value == {}:
        return None
    if key == "headers":
        return f"# headers = [set: {', '.join(map(one_line, value))}]"
    if key == "url":
        parts = urlsplit(value)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            return f"# url = [set: {parts.scheme}://{one_line(parts.netloc)}/...]"
    return f"{key} = {toml(value)}"


class Origins:
    """Where the value of a key is from: `FILE:LINE`, a variable, the command line, or "default"."""

    def __init__(self, loaded: Loaded) -> None:
        self._layers: tuple[Layer, ...] = loaded.layers
        self._positions: dict[str, Positions] = {}

    def of(self, path: Path) -> str:
        """`path` as in Config, a sink by its name: ("log_level",), ("send", "output"), ("sink", "lrs", "url")."""
        for layer in reversed(self._layers):
            if (at := _written(layer, path)) is not None:
                return self._place(layer.source, at)
        return "default"

    def _place(self, source: Source, at: Path) -> str:
        if source.text is None:
            return source.name
        if not holds(source.table, at):
            return "default"  # its table is there, and without this key
        if source.name not in self._positions:
            self._positions[source.name] = Positions(source.text)
        line = self._positions[source.name].line(at)
        return source.name if line is None else f"{source.name}:{line}"


def _written(layer: Layer, path: Path) -> Path | None:
    """Where in this layer's source it stands that decides this key; None: nothing there does."""
    table = layer.source.table or {}
    match path:
        case (str(key),):
            return (*layer.at, key) if key in layer.part.top else None
        case ("send", str(key)):
            return (*layer.at, "send", key) if key in layer.part.send else None
        case ("sink", str(name), str(key)):
            names = [sink.get("name") for sink in table.get("sink", [])] if layer.part.sinks else []
            return ("sink", names.index(name), key) if name in names else None
        case ("credentials", str(host), str(key)):
            hosts = [one for one in table.get("credentials", {}) if one.lower() == host]
            return ("credentials", hosts[-1], key) if hosts and layer.part.credentials else None
        case _:
            return None


# --- the file that an admin begins with ---

_HEAD = (
    "Configuration of learnpack-agent.  Each key stands here with its default: to change one, take the # before it away"
    " (and before the [table] that it is in).",
    "Read in this order, later wins: this file, config.d/*.toml beside it by name, the user's"
    " ~/.config/learnpack-agent/config.toml, the file of --config, $LEARNPACK_AGENT_<KEY>, the options of a command.",
    "`learnpack-agent config check` finds faults, `learnpack-agent config show --origin` says what holds, and why. A"
    " running agent reads it again at SIGHUP.",
)

#: What the default file shows of the tables that have no defaults.
_SINKS: tuple[dict[str, Any], ...] = (
    {
        "name": "school",
        "kind": "otlp",
        "url": "https://collector.school.example/v1/logs",
        "delay_seconds": 1,
        "headers": {"X-Class": "9b"},
    },
    {"name": "lrs", "kind": "xapi", "url": "https://lrs.school.example/xapi", "version": SinkConfig().version},
    {"name": "files", "kind": "jsonl", "directory": "/srv/learnpack", "file_mode": SinkConfig().file_mode},
)
_CREDENTIALS: dict[str, dict[str, Any]] = {
    "collector.school.example": {"token": "what the collector's admin gave you", "plain_http": False},
    "lrs.school.example": {"credential": "lrs", "scheme": "Basic", "for_courses": False},
    "breathecode.herokuapp.com": {"learnpack_session": True},
}
_COURSE = "/home/*/python-*"


def default_file() -> str:
    """Every key with its meaning and its default.  A line that begins with "#" and no space is TOML without it."""
    return "\n".join(_default_lines()) + "\n"


def _default_lines() -> Iterator[str]:
    for paragraph in _HEAD:
        yield from _prose(paragraph)
    for key in keys_of(Config):
        yield from _setting("", key, getattr(Config(), key))
    yield from ("", *_prose("What leaves the machine, whoever named the destination."), "#[send]")
    for key in keys_of(Send):
        yield from _setting("send", key, getattr(Send(), key))
    told: set[str] = set()
    words = (
        "Where records go, a [[sink]] for each place.  What follows are examples; without a sink nothing is sent but to"
    )
    yield from ("", *_prose(f"{words} the URLs that a learn.json names."))
    for number, sink in enumerate(_SINKS):
        yield from ("",) * (number > 0)
        yield from _example("#[[sink]]", "sink", sink, told)
    yield from ("", *_prose("What is sent to a host, with the port that the URL names, and to no other."))
    for number, (host, credential) in enumerate(_CREDENTIALS.items()):
        yield from ("",) * (number > 0)
        yield from _example(f"#[credentials.{toml(host)}]", "credentials", credential, told)
    words = "Other values for courses whose path is like the pattern (* is any text, / too), also of [send]; not for"
    yield from ("", *_prose(f"{words} state_dir, discover_*, sinks and credentials."))
    yield from (f"#[course.{toml(_COURSE)}]", f"#idle_minutes = {Config().idle_minutes}")
    yield from (f"#[course.{toml(_COURSE)}.send]", f"#output = {toml(Send().output)}")


def _prose(words: str) -> Iterator[str]:
    return (f"# {line}" for line in wrap(words, 110, break_on_hyphens=False))


def _words(table: str, key: str) -> Iterator[str]:
    words = WORDS[table][key]
    return _prose(f"{words[0].upper()}{words[1:]}.")


def _setting(table: str, key: str, value: object) -> Iterator[str]:
    yield ""
    yield from _words(table, key)
    yield f"#{key} = {toml(value)}"


def _example(header: str, table: str, keys: dict[str, Any], told: set[str]) -> Iterator[str]:
    """The words of a key stand where it is for the first time."""
    yield header
    for key, value in keys.items():
        if f"{table}.{key}" not in told:
            told.add(f"{table}.{key}")
            yield from _words(table, key)
        yield f"#{key} = {toml(value)}"
