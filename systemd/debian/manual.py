"""The man page, from the parser itself (argparse-manpage) and `manual.include` for what no parser knows.

    python systemd/debian/manual.py > learnpack-agent.1

What argparse-manpage would say once for each command is said once: the options of all commands.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent import __version__
from agent.cli import parser

SHARED = "options of all commands"
_NAME = "concludes what students do in LearnPack courses"


def manual(date: str) -> str:
    from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped,unused-ignore]

    os.environ["COLUMNS"] = "10000"  # a usage is one line: troff breaks it
    whole = parser()
    whole.epilog = None
    whole._action_groups.sort(key=lambda group: group.title != SHARED)
    for _, sub in commands_of(whole):
        _without_shared_options(sub)
        sub.description = None  # it would be said twice
    page = Manpage(
        whole, {"include": str(Path(__file__).with_name("manual.include"))}, format="single-commands-section"
    )
    page.description, page.date, page.manual = _NAME, date, "User Commands"
    page.source = f"learnpack-agent {__version__}"
    page.synopsis = ["learnpack-agent", "COMMAND [options] ..."]
    text = re.sub(r"^usage: (learnpack\\-agent(?: [a-z\\-]+)*)(.*)$", r"\\fB\1\\fR\2", str(page), flags=re.MULTILINE)
    text = re.sub(r"^(arguments|options):\n", "", text, flags=re.MULTILINE)
    return text.replace(".SH\nPOSITIONAL ARGUMENTS\n", ".SH COMMANDS\n")


def commands_of(of: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser, and the commands of commands (`config show`)."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield sub.prog, sub
                yield from commands_of(sub)


def _without_shared_options(sub: argparse.ArgumentParser) -> None:
    for group in sub._action_groups:
        if group.title == SHARED:
            for action in group._group_actions:
                sub._actions.remove(action)
            group._group_actions.clear()
    for action in [one for one in sub._actions if "--help" in one.option_strings]:
        sub._actions.remove(action)


if __name__ == "__main__":
    day = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    sys.stdout.write(manual(f"{time.strftime('%B', day)} {day.tm_mday}, {day.tm_year}"))
