"""A throw-away Linux machine with a real systemd as PID 1: units, boots, logins and logouts as they really are.

It is the root file system of the machine that the tests run on, under systemd-nspawn, in a layer that is kept in memory
(overlayfs on tmpfs): what happens inside changes nothing outside, and /home is empty at first.  A keeper holds it, a
shell that ends everything when its standard input ends: also when the tests are killed.

Inside, processes are in a PID name space of their own, and to such the kernel tells no process events: agents work at
the level "pidfd" there, which needs runs that last some tenths of a second.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psutil

from tests.until import until

TOOLS = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "mknod", "dpkg", "dbus-daemon")
#: Of a machine that is up; "degraded": some unit of the host's does not work in it, which is no concern of ours.
UP = ("running", "degraded")
PATIENCE_S = 60.0

#: $1 a directory, $2 a name, then the cgroups in which a directory for the machine can be made.  Each line that it
#: reads is a boot, answered with the process id of systemd-nspawn.
_KEEPER = r"""
set -eu
layer=$1 name=$2 nspawn=; shift 2
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mknod "$layer/upper/home" c 0 0 # overlayfs's mark of what is deleted: the homes of this machine are not seen in it
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
mkdir "$layer/root/home"
: > "$layer/root/etc/machine-id"
rm -rf "$layer"/root/etc/systemd/system/*.wants # what somebody enabled here: databases, nightly jobs
# A cgroup of its own: two systemds in one would end each other's services.
for group; do mkdir "$group/$name"; done
while read -r _; do
  [ -z "$nspawn" ] || wait "$nspawn" || true
  sh -c 'root=$1 name=$2; shift 2
    for group; do echo $$ > "$group/$name/cgroup.procs"; done
    exec systemd-nspawn --quiet --register=no --keep-unit --directory="$root" --boot --console=pipe --machine="$name"
  ' sh "$layer/root" "$name" "$@" < /dev/null >&2 &
  nspawn=$!
  echo "$nspawn"
done
[ -z "$nspawn" ] || pkill -KILL --parent "$nspawn" || true # its PID 1, and with that one everything inside
wait
for group; do find "$group/$name" -depth -type d -exec rmdir {} \; ; done
"""

Started = subprocess.Popen[bytes]

_numbers = itertools.count(1)


class Broken(Exception):
    """A command in the machine failed."""


def why_there_is_none() -> str | None:
    """Why no such machine can be started here; None: it can."""
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"no {', '.join(lacking)} on this machine (systemd-container, dbus-user-session, libpam-systemd)"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "mounting needs root"
    return None


class Machine:
    """`with Machine(directory) as machine:` boots it; commands run inside as root, or as another user."""

    def __init__(self, directory: Path) -> None:
        self._layer = directory / "layer"
        self._console = directory / "console"
        self._name = f"learnpack-{os.getpid()}-{next(_numbers)}"
        self._leader = 0

    def __enter__(self) -> Machine:
        self._layer.mkdir()
        with self._console.open("wb") as console:
            self._keeper = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _KEEPER, "sh", self._layer, self._name, *_cgroups()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                text=True,
                start_new_session=True,  # Ctrl-C is for the tests, which then leave this block
            )
        try:
            self._boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """As if somebody pulled the plug."""
        self._keeper.communicate()
        assert self._keeper.returncode == 0, self._console.read_text(errors="replace")[-2000:]

    def reboot(self) -> None:
        """An orderly end of everything, and a boot from the same disk; returns when it is up."""
        self.tried("systemctl", "poweroff")
        self._boot()

    def _boot(self) -> None:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.write("boot\n")
        self._keeper.stdin.flush()
        line = self._keeper.stdout.readline()
        assert line, f"no machine: {self._console.read_text(errors='replace')}"
        nspawn = psutil.Process(int(line))

        def is_up() -> bool:
            for child in nspawn.children():
                if child.name() == "systemd":
                    self._leader = child.pid
                    return self.tried("systemctl", "is-system-running").stdout.decode().strip() in UP
            return False

        try:
            until(is_up, PATIENCE_S, every=0.05)
        except (AssertionError, psutil.NoSuchProcess):
            raise AssertionError(f"it did not boot: {self._console.read_text(errors='replace')[-3000:]}") from None

    # --- commands inside ---

    def argv(self, *command: str, user: str | None = None, cwd: str = "/", **environment: str) -> list[str]:
        """The command as it is to be started out here to run inside."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env") if user else ()
        return [
            *("nsenter", f"--target={self._leader}", "--mount", "--pid", "--uts", "--ipc", "--"),
            *("env", "--ignore-environment", path, "HOME=/root"),
            *become,
            *("env", f"--chdir={cwd}", "LC_ALL=C.UTF-8", *(f"{name}={value}" for name, value in environment.items())),
            *command,
        ]

    def tried(
        self, *command: str, user: str | None = None, cwd: str = "/", given: bytes | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """However it ends; after a minute it hangs, which is an error (TimeoutExpired)."""
        return subprocess.run(
            self.argv(*command, user=user, cwd=cwd, **environment),
            input=given or b"",
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def run(self, *command: str, user: str | None = None, cwd: str = "/", **environment: str) -> str:
        """What it printed.  Raises Broken where it fails."""
        done = self.tried(*command, user=user, cwd=cwd, given=None, **environment)
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace")
            raise Broken(f"{command} ended with {done.returncode}: {words}")
        return done.stdout.decode()

    def shell(self, script: str, *words: str, user: str | None = None, cwd: str = "/") -> str:
        """`words` are $1, $2, …"""
        return self.run("bash", "-euc", script, "bash", *words, user=user, cwd=cwd)

    @contextmanager
    def started(self, *command: str, user: str | None = None, cwd: str = "/", **environment: str) -> Iterator[Started]:
        """One that goes on while this block lasts; then its standard input is closed."""
        argv = self.argv(*command, user=user, cwd=cwd, **environment)
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
            try:
                yield process
                process.communicate(timeout=PATIENCE_S)
            except BaseException:
                process.kill()
                raise

    # --- files inside ---

    def changes(self) -> Iterator[tuple[str, os.stat_result]]:
        """All files that are not as they are outside: written, made, moved, deleted, or another's now."""
        upper = f"/proc/{self._keeper.pid}/root{self._layer}/upper"
        for directory, names, files in os.walk(upper):
            for name in (*names, *files):
                path = os.path.join(directory, name)
                yield path.removeprefix(upper), os.lstat(path)

    def write(self, path: str, content: bytes | str, *, user: str | None = None) -> None:
        given = content.encode() if isinstance(content, str) else content
        script = 'mkdir -p "$(dirname "$1")"; cat > "$1"'
        done = self.tried("sh", "-ec", script, "sh", path, user=user, given=given)
        assert done.returncode == 0, done.stderr

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def exists(self, path: str) -> bool:
        """Also a symbolic link that leads nowhere."""
        return self.tried("sh", "-c", '[ -e "$1" ] || [ -L "$1" ]', "sh", path).returncode == 0


def _cgroups() -> list[str]:
    """This process's, in each hierarchy that systemd manages: the unified one, and beside old ones its own."""
    mounts: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            mounts[""] = before.split()[4]
        elif kind == "cgroup" and "name=systemd" in options:
            mounts["name=systemd"] = before.split()[4]
    found = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return [mounts[names] + path.rstrip("/") for _, names, path in found if names in mounts]
