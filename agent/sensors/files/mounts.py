"""Which file system a course lies on: what /proc/self/mountinfo says, and which kinds tell nothing to a watcher.

Pure text in, answers out, but for `read_mounts`.  Off Linux there is no such file: then nothing is known here,
and no course is taken for remote.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOUNTINFO = "/proc/self/mountinfo"

#: Kinds of file systems where another machine (or the host of a virtual one) may write: inotify does not tell.
REMOTE = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph gfs2 ocfs2 lustre beegfs gpfs glusterfs coda ncpfs orangefs davfs"
    " virtiofs vboxsf vmhgfs prl_fs drvfs acfs".split()
)

#: FUSE file systems that are local, so that all writes go through this kernel; every other one is taken for remote.
LOCAL_FUSE = frozenset(
    "fuse.fuse-overlayfs fuse.bindfs fuse.mergerfs fuse.ntfs fuse.ntfs-3g fuse.exfat fuse.encfs fuse.gocryptfs"
    " fuse.cryfs fuse.lxcfs fuse.snapfuse fuse.squashfuse fuse.unionfs fuse.zfs".split()
)

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """`identity` tells this mount from another one at the same place."""

    point: str
    kind: str
    identity: str


def parse_mounts(text: str) -> list[Mount]:
    """mountinfo's lines (proc(5)), in their order; a line of another form is left out."""
    mounts = []
    for line in text.split("\n"):
        fields, separator, rest = line.partition(" - ")
        words, kinds = fields.split(" "), rest.split(" ")
        if separator and len(words) >= 5 and kinds[0]:
            # Space, tab, newline and backslash are written in octal; other bytes as they are.
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), words[4])
            mounts.append(Mount(point, kinds[0], f"{words[0]} {words[2]}"))
    return mounts


def read_mounts() -> list[Mount]:
    """The mounts that this process sees; none where the system can't tell."""
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return parse_mounts(file.read())
    except OSError:
        return []


def mounts_within(root: str, mounts: list[Mount]) -> list[Mount]:
    """The mounts strictly below this absolute path."""
    prefix = root if root.endswith("/") else root + "/"
    return [mount for mount in mounts if mount.point.startswith(prefix) and mount.point != root]


def kind_of(path: str, mounts: list[Mount]) -> str | None:
    """The kind of the file system that this absolute path lies on, None if unknown."""
    best: Mount | None = None
    for mount in mounts:
        covers = mount.point in ("/", path) or path.startswith(mount.point + "/")
        # Of two mounts at one place the later line lies on top.
        if covers and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best.kind if best else None


def is_remote(kind: str) -> bool:
    return kind in REMOTE or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def remote_kind(root: str, mounts: list[Mount]) -> str | None:
    """The kind of a remote file system that the course lies on, or that lies within it; else None."""
    kinds = [kind_of(root, mounts), *(mount.kind for mount in mounts_within(root, mounts))]
    return next((kind for kind in kinds if kind is not None and is_remote(kind)), None)
