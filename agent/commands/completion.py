"""`completion`: what a shell needs to complete our command line, from the parser itself (shtab).

The script is fixed text: pressing Tab starts no Python.  Weak: a directory with a space in its name is not completed
further in bash.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

SHELLS = ("bash", "zsh", "fish")

#: What is completed for an argument with this metavar.
_KINDS = {"COURSE_DIR": "DIRECTORY", "DIR": "DIRECTORY", "FILE": "FILE", "TRACE": "FILE"}


def add_completion(command: Callable[..., argparse.ArgumentParser], whole: argparse.ArgumentParser) -> None:
    """`command(name, function, words)` makes a parser; `whole` is the parser of the program."""

    def completion(arguments: argparse.Namespace) -> int:
        print(script(whole, arguments.shell))
        return 0

    sub = command("completion", completion, "what a shell needs to complete this command's words, for its start file")
    sub.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def script(whole: argparse.ArgumentParser, shell: str) -> str:
    import shtab

    _mark(whole, shtab)
    return shtab.complete(whole, shell).rstrip()


def _mark(parser: argparse.ArgumentParser, shtab: object) -> None:
    """Says which arguments are files, in the way that shtab reads it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _mark(sub, shtab)
        elif isinstance(action.metavar, str) and action.metavar in _KINDS:
            action.complete = getattr(shtab, _KINDS[action.metavar])  # type: ignore[attr-defined]
