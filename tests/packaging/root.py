"""A throw-away copy of this machine's root file system, without a running systemd: the image that an admin builds.

What happens inside is written to memory (overlayfs on tmpfs) and gone at the end.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

_MOUNT = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
echo mounted
read -r _
"""


def why_there_is_none() -> str | None:
    """Why no such root can be made here; None: it can."""
    if shutil.which("unshare") is None or shutil.which("dpkg") is None:
        return "no unshare or no dpkg on this machine"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "mounting needs root"
    return None


class Root:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Root:
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "mounted\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._keeper.communicate("")

    def run(self, *command: str, ok: tuple[int, ...] = (0,), **environment: str) -> str:
        """What it printed, on both streams; an exit code that is not among `ok` fails the test."""
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            [*self._enter(), *command],
            env={**clean, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode in ok, f"{command} ended with {done.returncode}: {done.stdout}"
        return done.stdout

    def dpkg(self, *arguments: str) -> None:
        """Without triggers: the index of all manuals would take 3 s each time."""
        self.run("dpkg", "--no-triggers", "--force-unsafe-io", *arguments)

    def write(self, path: str, content: bytes, mode: str = "0644") -> None:
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        subprocess.run([*self._enter(), "sh", "-c", script, "sh", path, mode], input=content, check=True)

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def exists(self, path: str) -> bool:
        """Also a symbolic link that leads nowhere."""
        return self.run("sh", "-c", '[ -e "$1" ] || [ -L "$1" ] && echo yes || echo no', "sh", path) == "yes\n"

    def files(self, *paths: str) -> list[str]:
        """All files below these paths of which this root has another version than the machine, or that it alone has."""
        upper = f"/proc/{self._keeper.pid}/root{self._directory}/upper"
        found = (file for path in paths for file in Path(upper + path).rglob("*") if not file.is_dir())
        return sorted("/" + str(file.relative_to(upper)) for file in found)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "chroot", f"{self._directory}/root"]
