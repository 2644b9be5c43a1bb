"""Keys, tokens and passwords in a text become `[secret]`: by the rules of detect-secrets (Yelp), which are kept up.

All its rules are used but those that guess by entropy (half of a student's output would be secrets to them) and the one
for IP addresses.  Its own `analyze_string` tells only a part of what it found (of a GitHub token "ghp"), so its regular
expressions are used by themselves, and what hangs on a match belongs to it: of a JSON web token they leave the
signature.  They look at lines; a private key has many, so its block is found here.  The lines of a student's program
come again with each run, so what was found in one is remembered.

Known to be weak: a secret of more than 256 characters in a line of more than 1024, and one that no rule knows ("my pin
is 4711").  Three kinds that the rules of 1.5 do not know are in `_MORE`.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module

import detect_secrets.plugins
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.ip_public import IPPublicDetector
from detect_secrets.plugins.keyword import (
    CONFIG_DENYLIST_REGEX_TO_GROUP,
    DENYLIST_REGEX,
    PRECEDED_BY_EQUAL_COMPARISON_SIGNS_QUOTES_REQUIRED_REGEX,
    QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP,
)

MASK = "[secret]"

_BLOCK = re.compile(
    r"----[- ]BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*----.*?(?:----[- ]END [A-Z0-9 ]*----[- ]?|\Z)"
    r"|PuTTY-User-Key-File-\d.*?(?:Private-MAC: \w*|\Z)",
    re.DOTALL,
)
#: A line can only hold a secret if it has one of these, or a long word.
_WORDS = ("key", "pass", "pwd", "secret", "contrase", "token", "authorization", "://")
_LONG_WORD = re.compile(r"(?<![A-Za-z0-9_+/=.-])[A-Za-z0-9_+/=.-]{16}")
#: Some rules take time that grows with the square of the line's length: a long line is looked at in windows, each of
#: which begins where the last 256 characters of the one before begin.
_LONGEST, _STEP = 1024, 768
#: `API_KEY=…` without quotes is how a program prints it; `password = input()` and `key: value` are no secrets.
_VALUE = re.compile(r"(?=\S*\d)[^\s()\[\]{}]{8,}+(?![(\[])")
#: Where something was found it is looked again: what hung on it may be a secret, too.
_MOST_LOOKS = 5
#: What a match may go on with.
_REST = re.compile(r"[A-Za-z0-9_+/=-]*")
#: The rules for names of variables begin with one of them.  They take seconds for `pwdpwdpwd…`, begun at each of its
#: letters; to begin once in a word finds the same.
_NAME = re.compile(DENYLIST_REGEX, re.IGNORECASE)
#: The secret is the first group.
_MORE = (
    re.compile(r"(github_pat_\w{22,}|AIza[\w-]{35,})", re.ASCII),
    re.compile(r"authorization['\"]?\s?[:=]\s?['\"]?(?:bearer|token|basic)\s([^\s'\"]{8,})", re.IGNORECASE),
    re.compile(r"token['\"]?\s?[:=]\s?['\"]?((?=[^\s'\"]*\d)[\w.+/=-]{16,}+)(?![(\[])", re.IGNORECASE | re.ASCII),
)


def mask(text: str) -> str:
    """The text without its secrets."""
    if "PRIVATE KEY" in text or "PuTTY-" in text:
        text = _BLOCK.sub(MASK, text)
    return "\n".join([_masked(line) if len(line) <= _LONGEST else _masked_long(line) for line in text.split("\n")])


def _masked_long(line: str) -> str:
    for _ in range(_MOST_LOOKS):
        before, starts = line, range(0, len(line) - _LONGEST + _STEP, _STEP)
        found = [(at + start, at + end) for at in starts for start, end in _secrets_in(line[at : at + _LONGEST])]
        line = _without(line, sorted(found))
        if line == before:
            break
    return line


@lru_cache(4096)
def _masked(line: str) -> str:
    for _ in range(_MOST_LOOKS):
        before, line = line, _without(line, _secrets_in(line))
        if line == before:
            break
    return line


def _without(line: str, secrets: Sequence[tuple[int, int]]) -> str:
    kept, done = [], 0
    for start, end in secrets:
        if end > done:
            kept += [line[done : max(done, start)], MASK if start >= done else ""]
            done = end
    return "".join((*kept, line[done:])) if kept else line


@lru_cache(4096)
def _secrets_in(line: str) -> Sequence[tuple[int, int]]:
    """From where to where, in their order."""
    lower = line.lower()
    if _LONG_WORD.search(line) is None and not any(word in lower for word in _WORDS):
        return ()
    return sorted(_found_in(line))


def _found_in(line: str) -> Iterator[tuple[int, int]]:
    for rule in _RULES:
        for match in rule.finditer(line):
            start, end = match.span()
            if rule.pattern.startswith("://"):  # what is around the password is no secret
                yield match.span(1)
            elif not match[0].strip(' ="\t').isalpha():  # Artifactory's keys look like APARTAMENTO
                goes_on = line[end - 1].isalnum() or line[end - 1] == "."
                rest = _REST.match(line, end) if goes_on else None
                yield start, end if rest is None else rest.end()
    for rule in _MORE:
        for match in rule.finditer(line):
            yield match.span(1)
    for name in _NAME.finditer(line):
        for rule, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
            if (named := rule.match(line, name.start())) is not None:
                yield named.span(group)
        for rule, group in CONFIG_DENYLIST_REGEX_TO_GROUP.items():
            named = rule.match(line, name.start())
            if named is not None and (value := _VALUE.match(line, named.start(group))) is not None:
                yield value.start(), value.start() + len(value[0].rstrip("'\"`,;"))
    for match in PRECEDED_BY_EQUAL_COMPARISON_SIGNS_QUOTES_REQUIRED_REGEX.finditer(line):
        yield match.span(2)


def _rules() -> Iterator[re.Pattern[str]]:
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__, "detect_secrets.plugins."):
        for kind in vars(import_module(module.name)).values():
            is_detector = isinstance(kind, type) and issubclass(kind, RegexBasedDetector)
            if is_detector and kind.__module__ == module.name and kind not in (RegexBasedDetector, IPPublicDetector):
                yield from kind().denylist


_RULES = tuple(_rules())
