"""Our own small formatters, in the place of prettier: they rewrite a text in one fixed form, or say that it is broken.

What is "broken" here is broken for prettier too: a closing tag that closes nothing, an open brace, a bracket without
its partner.  Standard library only.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
#: Elements whose end may be left out.
_IMPLIED = frozenset("p li dt dd option thead tbody tr td th html head body".split())
_PAIRS = {")": "(", "]": "[", "}": "{"}
_QUIET = re.compile(r"//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|`(?:\\.|[^`\\])*`", re.DOTALL)


class Broken(Exception):
    """The text can't be parsed; the message says why."""


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in _IMPLIED:
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            raise Broken(f'Unexpected closing tag "{tag}"')


def _tidy(text: str) -> str:
    """Tabs for two spaces at the start of lines, nothing at their ends, one line end at the end."""
    lines = [re.sub(r"^(?:  )+", lambda found: "\t" * (len(found[0]) // 2), line.rstrip()) for line in text.split("\n")]
    return "\n".join(lines).strip("\n") + "\n"


def format_html(text: str) -> str:
    tags = _Tags()
    tags.feed(text)
    tags.close()
    return _tidy(text)


def format_css(text: str) -> str:
    _check_brackets(text, "CssSyntaxError: Unclosed block")
    return _tidy(re.sub(r"\s*\{\s*", " {\n", re.sub(r";?\s*\}", ";\n}", text)) if text.count("\n") < 2 else text)


def format_jsx(text: str) -> str:
    check_jsx(text)
    return _tidy(text.replace("'", '"'))


def check_jsx(text: str) -> None:
    """Raises Broken where babel could not parse the text (as far as brackets and elements tell)."""
    _check_brackets(text, "SyntaxError: Unexpected token")
    elements: list[str] = []
    for closing, name, empty in re.findall(r"<(/?)([A-Za-z][\w.]*)[^<>]*?(/?)>", _QUIET.sub("''", text)):
        if closing:
            if not elements or elements.pop() != name:
                raise Broken(f"SyntaxError: Expected corresponding JSX closing tag for <{name}>")
        elif not empty:
            elements.append(name)
    if elements:
        raise Broken(f"SyntaxError: Unterminated JSX contents in <{elements[-1]}>")


def check_script(text: str) -> None:
    """Raises Broken where a script could not be parsed (as far as brackets and an empty assignment tell)."""
    _check_brackets(text, "SyntaxError: Unexpected token")
    if re.search(r"=\s*;", _QUIET.sub("''", text)):
        raise Broken("SyntaxError: Unexpected token")


def _check_brackets(text: str, complaint: str) -> None:
    waiting: list[str] = []
    for mark in _QUIET.sub("", text):
        if mark in "([{":
            waiting.append(mark)
        elif mark in _PAIRS and (not waiting or waiting.pop() != _PAIRS[mark]):
            raise Broken(complaint)
    if waiting:
        raise Broken(complaint)
