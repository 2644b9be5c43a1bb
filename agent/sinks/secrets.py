"""Keys, tokens and passwords in a text become `[secret]`: by the rules of detect-secrets (Yelp), which are kept up.

All its rules are used but those that guess by entropy (half of a student's output would be secrets to them) and the one
for IP addresses.  Its own `analyze_string` tells only a part of what it found (of a GitHub token "ghp"), so its regular
expressions are used by themselves.  They look at lines; a private key has many, so its block is found here.  The lines
of a student's program come again with each run, so what was found in one is remembered.

Known to be weak: a secret that crosses the 1024th character of its line, and one that no rule knows ("my pin is 4711").
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module

import detect_secrets.plugins
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.ip_public import IPPublicDetector
from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

MASK = "[secret]"

_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL)
#: A line can only hold a secret if it has one of these, or a long word.
_WORDS = ("key", "pass", "pwd", "secret", "contrase", "token", "://")
_LONG_WORD = re.compile(r"(?<![A-Za-z0-9_+/=.-])[A-Za-z0-9_+/=.-]{16}")
#: Some rules take time that grows with the square of the line's length.
_LONGEST = 1024
#: `API_KEY=…` without quotes is how a program prints it; `password = input()` and `key: value` are no secrets.
_VALUE = re.compile(r"(?=\S*\d)[^\s()\[\]{}]{8,}+(?![(\[])")


def mask(text: str) -> str:
    """The text without its secrets."""
    if "PRIVATE KEY" in text:
        text = _BLOCK.sub(MASK, text)
    return "\n".join([_masked(line) if len(line) > 5 else line for line in text.split("\n")])


def _masked(line: str) -> str:
    if len(line) <= _LONGEST:
        return _masked_piece(line)
    return "".join(_masked_piece(line[at : at + _LONGEST]) for at in range(0, len(line), _LONGEST))


@lru_cache(4096)
def _masked_piece(line: str) -> str:
    lower = line.lower()
    if _LONG_WORD.search(line) is None and not any(word in lower for word in _WORDS):
        return line
    kept, done = [], 0
    for start, end in sorted(_secrets_in(line)):
        if end > done:
            kept += [line[done : max(done, start)], MASK if start >= done else ""]
            done = end
    return "".join((*kept, line[done:]))


def _secrets_in(line: str) -> Iterator[tuple[int, int]]:
    """From where to where."""
    for rule in _RULES:
        for match in rule.finditer(line):
            yield match.span()
    for rule, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
        for match in rule.finditer(line):
            yield match.span(group)
    for rule, group in CONFIG_DENYLIST_REGEX_TO_GROUP.items():
        for match in rule.finditer(line):
            if (value := _VALUE.match(line, match.start(group))) is not None:
                yield value.span()


def _rules() -> Iterator[re.Pattern[str]]:
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__, "detect_secrets.plugins."):
        for kind in vars(import_module(module.name)).values():
            is_detector = isinstance(kind, type) and issubclass(kind, RegexBasedDetector)
            if is_detector and kind.__module__ == module.name and kind not in (RegexBasedDetector, IPPublicDetector):
                yield from kind().denylist


_RULES = tuple(_rules())
