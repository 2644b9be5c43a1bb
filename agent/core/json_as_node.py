"""JSON as node reads it: the reader for everything that LearnPack, its plugins and a course's author write.

Two things that node takes are refused by a strict parser: a lone surrogate as an escape (`"\\ud83d"`, half an emoji:
`JSON.stringify` writes it where a text was cut in the middle of one) and bytes that are no UTF-8.  Both become U+FFFD,
and the rest of the file counts.  What is no JSON for node either (torn, empty, NaN) is refused as ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

#: A pair, a lone surrogate (the group), any other escape: passed in this order, so that `\\ud83d` is a backslash.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|(\\u[dD][89a-fA-F][0-9A-Fa-f]{2})|\\.", re.DOTALL
)


def read_as_node(text: bytes, loads: Callable[[bytes], Any]) -> Any:
    """What `loads`, a strict parser, makes of the text, or of the text with both replaced.

    Raises ValueError, the parser's own, where it is no JSON for node either.
    """
    try:
        return loads(text)
    except ValueError:
        valid, replaced = valid_unicode(text)
        if not replaced:
            raise
    return loads(valid)


def valid_unicode(text: bytes) -> tuple[bytes, list[str]]:
    """The same JSON with U+FFFD in the place of lone surrogates and of bytes that are no UTF-8, and what was replaced,
    in words."""
    words = []
    if rb"\u" in text:
        lone = 0

        def replaced(escape: re.Match[bytes]) -> bytes:
            nonlocal lone
            if escape[1] is None:
                return escape[0]
            lone += 1
            return rb"\ufffd"

        text = _ESCAPE.sub(replaced, text)
        if lone:
            words.append(f"{lone} lone surrogates, now U+FFFD")
    try:
        if not text.isascii():
            text.decode()
    except UnicodeDecodeError:
        text = text.decode("utf-8", "replace").encode()
        words.append("bytes that are no UTF-8, now U+FFFD")
    return text, words
