"""Values to plain JSON-able data and back: how observations and events are written down.

Promised: `from_plain(type, to_plain(value)) == value` for the frozen dataclasses of this package, made of numbers,
texts, enums, tuples, frozensets, text-keyed mappings, optional values and one another.  A member of one of the closed
unions (`Observation`, `Event`) carries a "kind", so that it can be read without knowing which it is.  The same value
gives the same data in the same order, always: sets are sorted.

What is read is checked: a field too many, a field too few or a value of another type is one `CodecError` that names
the class and the field.  Fields that a class derives by itself (`compare=False`) are not written.

Lone surrogates (file names that are not UTF-8) pass through `to_plain` unharmed; the standard `json` module writes
them as escapes.  Where only valid Unicode is taken (orjson, the document), `cleaned` replaces them.

A field with a default may be missing: it was added after the data were written, and the default is what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from .course import printable
from .events import EVENT_TYPES, Event
from .observations import Observation

#: Data as `json` knows them: None, bool, int, float, str, list, dict with text keys.
Plain = Any


class CodecError(ValueError):
    """The data do not describe a value of the wanted type.  One line, naming the class and the field."""


def _kind_of(observation: type) -> str:
    """`ProcessExecuted` → "process_executed"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", observation.__name__).lower()


#: The "kind" of every member of a closed union.
KINDS: Mapping[type, str] = {
    **{kind: _kind_of(kind) for kind in get_args(Observation)},
    **{kind: name for name, kind in EVENT_TYPES.items()},
}


def to_plain(value: object) -> Plain:
    """The value as JSON-able data.  Raises CodecError for a type that this file does not know."""
    kind: Any = type(value)
    return _encoder(kind)(value)


def from_plain(wanted: Any, plain: Plain) -> Any:
    """The value of type `wanted` (a class, a union, a generic like `tuple[int, ...]`) that `to_plain` made `plain` of.

    Raises CodecError when `plain` is something else.
    """
    return _decoder(wanted)(plain)


def event_from(plain: Plain) -> Event:
    return cast(Event, _decoder(Event)(plain))


def observation_from(plain: Plain) -> Observation:
    return cast(Observation, _decoder(Observation)(plain))


def valid_text(text: str) -> str:
    """The text as valid Unicode: what came from undecodable bytes, and any other lone surrogate, becomes U+FFFD."""
    if text.isascii():
        return text
    try:
        return printable(text)
    except UnicodeEncodeError:  # a surrogate that no byte was decoded to: from a JSON escape
        return re.sub("[\ud800-\udfff]", "\ufffd", text)


def cleaned(plain: Plain) -> Plain:
    """The same data with every text valid Unicode."""
    if isinstance(plain, str):
        return valid_text(plain)
    if isinstance(plain, list):
        return [cleaned(item) for item in plain]
    if isinstance(plain, dict):
        return {valid_text(key): cleaned(item) for key, item in plain.items()}
    return plain


def _same(value: Any) -> Any:
    return value


@cache
def _written_fields(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in fields(kind) if field.compare)


def _needed_fields(kind: type) -> frozenset[str]:
    return frozenset(
        field.name
        for field in fields(kind)
        if field.compare and field.default is MISSING and field.default_factory is MISSING
    )


@cache
def _encoder(wanted: Any) -> Callable[[Any], Plain]:
    if wanted in (int, str, bool, float, NoneType):
        return _same
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return _union_encoder(arguments)
    if origin is tuple:
        return _tuple_encoder(arguments)
    if origin is frozenset:
        item = _encoder(arguments[0])
        return lambda value: sorted(item(each) for each in value)
    if origin in (dict, Mapping) and arguments[0] is str:
        item = _encoder(arguments[1])
        return lambda value: {key: item(each) for key, each in value.items()}
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return lambda value: value.value
    if isinstance(wanted, type) and is_dataclass(wanted):
        return _dataclass_encoder(wanted)
    raise CodecError(f"no way to write a {wanted!r}")


def _union_encoder(arguments: tuple[Any, ...]) -> Callable[[Any], Plain]:
    others = [each for each in arguments if each is not NoneType]
    if all(is_dataclass(each) for each in others):
        return lambda value: None if value is None else to_plain(value)
    if len(others) != 1:
        raise CodecError("no way to write a union of several types that are no dataclasses")
    inner = _encoder(others[0])
    return inner if inner is _same else lambda value: None if value is None else inner(value)


def _tuple_encoder(arguments: tuple[Any, ...]) -> Callable[[Any], Plain]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = _encoder(arguments[0])
        return list if item is _same else lambda value: [item(each) for each in value]
    items = [_encoder(each) for each in arguments]
    return lambda value: [item(each) for item, each in zip(items, value, strict=True)]


def _dataclass_encoder(kind: type) -> Callable[[Any], Plain]:
    written = [(name, _encoder(hint)) for name, hint in _written_fields(kind)]
    tag = KINDS.get(kind)

    def encode(value: Any) -> Plain:
        plain: dict[str, Plain] = {} if tag is None else {"kind": tag}
        for name, encoder in written:
            plain[name] = encoder(getattr(value, name))
        return plain

    return encode


@cache
def _decoder(wanted: Any) -> Callable[[Plain], Any]:
    if wanted in (int, str, bool, float, NoneType):
        return _scalar_decoder(wanted)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return _union_decoder(arguments)
    if origin is tuple:
        return _tuple_decoder(arguments)
    if origin is frozenset:
        item = _decoder(arguments[0])
        return lambda plain: frozenset(item(each) for each in _expected(list, plain))
    if origin in (dict, Mapping) and arguments[0] is str:
        item = _decoder(arguments[1])
        return lambda plain: {key: item(each) for key, each in _expected(dict, plain).items()}
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return _enum_decoder(wanted)
    if isinstance(wanted, type) and is_dataclass(wanted):
        return _dataclass_decoder(wanted)
    raise CodecError(f"no way to read a {wanted!r}")


def _expected(kind: type, plain: Plain) -> Any:
    # `type is`, not isinstance: True is an int to Python, and no number to anybody else.
    if type(plain) is not kind:
        raise CodecError(f"expected {kind.__name__}, got {type(plain).__name__}")
    return plain


def _scalar_decoder(kind: type) -> Callable[[Plain], Any]:
    if kind is float:
        return lambda plain: float(_expected(int if type(plain) is int else float, plain))
    return lambda plain: _expected(kind, plain)


def _enum_decoder(kind: type[Enum]) -> Callable[[Plain], Any]:
    members = {member.value: member for member in kind}

    def decode(plain: Plain) -> Any:
        member = members.get(plain) if isinstance(plain, (str, int)) else None
        if member is None:
            raise CodecError(f"{plain!r} is no {kind.__name__}")
        return member

    return decode


def _tuple_decoder(arguments: tuple[Any, ...]) -> Callable[[Plain], Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = _decoder(arguments[0])
        return lambda plain: tuple([item(each) for each in _expected(list, plain)])
    items = [_decoder(each) for each in arguments]

    def decode(plain: Plain) -> Any:
        if len(_expected(list, plain)) != len(items):
            raise CodecError(f"expected {len(items)} items, got {len(plain)}")
        return tuple([item(each) for item, each in zip(items, plain, strict=True)])

    return decode


def _union_decoder(arguments: tuple[Any, ...]) -> Callable[[Plain], Any]:
    others = [each for each in arguments if each is not NoneType]
    optional = len(others) < len(arguments)
    if len(others) == 1:
        inner = _decoder(others[0])
        return lambda plain: None if plain is None else inner(plain)
    if not all(each in KINDS for each in others):
        raise CodecError("no way to read a union whose members have no kind")
    by_kind = {KINDS[each]: each for each in others}

    def decode(plain: Plain) -> Any:
        if plain is None and optional:
            return None
        kind = _expected(dict, plain).get("kind")
        member = by_kind.get(kind) if isinstance(kind, str) else None
        if member is None:
            raise CodecError(f"unknown kind {kind!r}")
        return _decoder(member)(plain)

    return decode


def _dataclass_decoder(kind: type) -> Callable[[Plain], Any]:
    written = [(name, _decoder(hint)) for name, hint in _written_fields(kind)]
    tag = KINDS.get(kind)
    marks = {"kind"} if tag is not None else set()
    names, needed = {name for name, _ in written} | marks, _needed_fields(kind) | marks

    def decode(plain: Plain) -> Any:
        if type(plain) is not dict or not needed <= plain.keys() <= names or (tag is not None and plain["kind"] != tag):
            raise CodecError(_mismatch(kind.__name__, names, needed, tag, plain))
        try:
            return kind(**{name: decoder(plain[name]) for name, decoder in written if name in plain})
        except CodecError:
            for name, decoder in written:  # once more, to learn which field it was
                try:
                    if name in plain:
                        decoder(plain[name])
                except CodecError as error:
                    raise CodecError(f"{kind.__name__}.{name}: {error}") from None
            raise

    return decode


def _mismatch(name: str, wanted: set[str], needed: Set[str], tag: str | None, plain: Plain) -> str:
    if type(plain) is not dict:
        return f"{name}: expected dict, got {type(plain).__name__}"
    for what, fields_ in (("missing", needed - plain.keys()), ("unknown", plain.keys() - wanted)):
        if fields_:
            return f"{name}: {what} field {', '.join(sorted(map(repr, fields_)))}"
    return f"{name}: kind is {plain.get('kind')!r}, not {tag!r}"
