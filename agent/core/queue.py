"""Which entries of LearnPack's queue are news.

LearnPack appends to `.learn/vscode_queue.json` and begins anew, with another first entry, at each start (2.1.34: the
stamp of "initializing" differs).  Anybody can write that file: what was read once is never news again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .observations import QueueEntry

#: LearnPack writes after each entry, so a reader who was away finds some tens; a student's forgery may hold 100,000.
MOST = 1_000


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """How far the queue was read: its first entry, the last one that was read, and how many there were."""

    first: QueueEntry
    last: QueueEntry
    length: int


@dataclass(frozen=True, slots=True)
class News:
    """`entries` are new, oldest first; `left_out` of them were too many to be LearnPack's."""

    position: QueuePosition | None
    entries: tuple[QueueEntry, ...]
    left_out: int = 0


def news(position: QueuePosition | None, entries: Sequence[QueueEntry]) -> News:
    """What the queue holds that was not there when it was read to this position."""
    if not entries:
        return News(position, ())  # emptied, or half written: what follows will tell
    here = QueuePosition(entries[0], entries[-1], len(entries))
    new: Sequence[QueueEntry]
    if position is None:
        new = entries
    elif len(entries) >= position.length and entries[position.length - 1] == position.last:
        new = entries[position.length :]
    elif not entries[0].stamp:  # a LearnPack that stamps nothing: another content is another queue
        new = entries
    elif position.last in entries:  # somebody took entries out, or put some in between: only the end counts
        new = entries[len(entries) - list(reversed(entries)).index(position.last) :]
    elif position.first != entries[0]:  # LearnPack began anew
        new = entries
    elif len(entries) < position.length:
        return News(position, ())  # an older copy was put back; LearnPack writes the whole queue again
    else:
        new = ()
    return News(here, tuple(new[-MOST:]), max(0, len(new) - MOST))
