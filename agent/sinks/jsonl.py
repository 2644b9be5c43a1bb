"""Files of JSON lines in a directory that others read: on NFS or SMB, too.

A file is written under a name that begins with a dot, synced, and renamed, so whoever takes `*.jsonl` never sees a part
of one; who took it may delete it.  Its name tells course, student, the first record's id and the records' numbers; the
same records again (the machine died before it was noted that they are there) become the same name or, with more of
them, another file with the same ids in it.  The id is in it because nothing else is one student's alone: a
telemetry.json that came with a course names the same `telemetry_id` everywhere, and another journal counts from 1.

The directory is not made: where a share is not mounted, nothing is to lie under its mount point.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress

import orjson

from ..core.bodies import Body, Sendable, Whose
from ..core.delivery import Outcome, Sent

#: Somebody must change something.
_WAIT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)


class Files:
    def __init__(self, directory: str, mode: int) -> None:
        self._directory = directory
        self._mode = mode

    def body(self, sendables: Sequence[Sendable], whose: Whose) -> Body:
        head = {"course": whose.course, "telemetry_id": whose.telemetry_id, "user_id": whose.user_id}
        content = b"".join(orjson.dumps({**head, **one.content}) + b"\n" for one in sendables)
        first = sendables[0]
        numbers = f"{first.number:08}-{sendables[-1].number:08}"
        name = f"{_plain(whose.course)}.{_plain(whose.telemetry_id)}.{_plain(first.id)}.{numbers}.jsonl"
        return Body(content, count=len(sendables), name=name)

    def send(self, body: Body, within_s: float) -> Sent:
        assert isinstance(body.content, bytes)
        # Named by the first record only: what a killed agent left is replaced by the next try, which begins with it.
        part = os.path.join(self._directory, f".{body.name.rsplit('.', 2)[0]}.part")
        try:
            self._write(part, body.content)
            os.replace(part, os.path.join(self._directory, body.name))
            self._sync_directory()
        except OSError as error:
            outcome = Outcome.WAIT if error.errno in _WAIT else Outcome.RETRY
            return Sent(outcome, f"{self._directory}: {error.strerror}")
        return Sent(Outcome.DELIVERED, "written")

    def _write(self, part: str, content: bytes) -> None:
        # Whatever lies there is not written to: others may write in this directory, and lay a link or a FIFO.
        with suppress(FileNotFoundError):
            os.unlink(part)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                with suppress(OSError):  # SMB has no modes
                    os.fchmod(descriptor, self._mode)  # whatever the umask is
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise

    def _sync_directory(self) -> None:
        with suppress(OSError):  # SMB syncs none
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Nothing is kept open."""

    def abort(self) -> None:
        """A file system can't be interrupted."""


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64] or "_"
