"""The directories on PATH of the stand-in and of the student, made in a temporary directory.

`learnpack/` looks like an installed LearnPack: `bin/learnpack` beside a `node` that is really Python, and the two
launchers under `node_modules`.  `student/` is a small virtual environment that sees the pytest of the test
environment.  `tools/` has linters that are not runs.  `pyenv/` has shims that reach Python through seven `exec`s.
Real node and jest are looked for, never installed.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .texts import REPORTER

REPOSITORY = Path(__file__).resolve().parents[2]

_STANDIN = """\
#!/usr/bin/env node
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {repository!r})
from tests.standin.{module} import {function}
{function}()
"""

_CONSOLE_SCRIPT = """\
#!{python}
import sys
from {module} import {function}
sys.exit({function}())
"""

_LINTERS = '''\
"""Reads the files that it is given; `black` also writes them again, with one space less at the ends of lines."""
import pathlib
import sys


def lint(rewrite):
    for name in sys.argv[1:]:
        if not name.startswith("-"):
            path = pathlib.Path(name)
            text = path.read_text(encoding="utf-8")
            compile(text, name, "exec")
            if rewrite:
                path.write_text("\\n".join(line.rstrip() for line in text.split("\\n")), encoding="utf-8")
    return 0


def black():
    return lint(True)


def pylint():
    return lint(False)
'''

_SHIM = """\
#!/usr/bin/env bash
export PYENV_ROOT={root}
exec "$PYENV_ROOT/libexec/pyenv" exec "${{0##*/}}" "$@"
"""

_PYENV = """\
#!/usr/bin/env bash
here=$(dirname "$(readlink -f "$0")")
for hook in 1 2 3; do base=$(basename "$here"); where=$(readlink -f "$PWD"); done
command=$1; shift
exec "$here/pyenv-$command" "$@"
"""

_PYENV_EXEC = """\
#!/usr/bin/env bash
here=$(dirname "$(readlink -f "$0")")
version=$("$here/pyenv-version-name")
for hook in 1 2 3; do base=$(basename "$here"); where=$(readlink -f "$PWD"); done
program=$1; shift
exec "$PYENV_ROOT/versions/$version/bin/$program" "$@"
"""

_PYENV_VERSION_NAME = """\
#!/usr/bin/env bash
for file in "$PWD"/.python-version "$PYENV_ROOT/version"; do
  [ -e "$(readlink -f "$file")" ] && basename "$(cat "$file")" && exit
done
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def base_python() -> str:
    """The interpreter behind a virtual environment: it finds its library under any name."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def make_python(directory: Path) -> Path:
    """A virtual environment that sees the packages of the test environment; returns its `bin`."""
    base = base_python()
    packages = directory / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (directory / "pyvenv.cfg").write_text(f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n")
    (packages / "test-environment.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")
    (packages / "lint_stand_in.py").write_text(_LINTERS)
    for name in ("black", "pylint"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text("")
        (packages / name / "__main__.py").write_text(f"import lint_stand_in\nlint_stand_in.{name}()\n")
    bin_directory = directory / "bin"
    bin_directory.mkdir()
    for name in ("python", "python3"):
        (bin_directory / name).symlink_to(base)
    python = str(bin_directory / "python")
    script = _CONSOLE_SCRIPT.format(python=python, module="pytest", function="main")
    write_program(bin_directory / "pytest", script)
    return bin_directory


def find_node() -> str | None:
    return shutil.which("node")


def find_jest() -> Path | None:
    """The `node_modules` that has jest: in $LEARNPACK_TEST_JEST, or around the `jest` on PATH."""
    named = os.environ.get("LEARNPACK_TEST_JEST")
    on_path = shutil.which("jest")
    places = [Path(named), Path(named) / "node_modules"] if named else []
    if on_path:
        places += [parent for parent in Path(os.path.realpath(on_path)).parents if parent.name == "node_modules"]
    return next((place for place in places if (place / ".bin" / "jest").exists()), None)


needs_node = pytest.mark.skipif(find_node() is None, reason="no node on PATH")
needs_java = pytest.mark.skipif(
    shutil.which("java") is None or shutil.which("javac") is None, reason="no java and javac on PATH"
)
needs_jest = pytest.mark.skipif(
    find_node() is None or find_jest() is None,
    reason="no jest: neither on PATH nor in the directory that LEARNPACK_TEST_JEST names",
)


@dataclass(frozen=True)
class Toolbox:
    """Where everything is.  `path` is the student's PATH, `shims` what to put before it for pyenv."""

    root: Path
    learnpack_bin: Path
    student_bin: Path
    tools_bin: Path
    shims: Path
    home: Path
    temporary: Path

    def path(self, pyenv: bool = False) -> str:
        places = [self.shims] if pyenv else []
        places += [self.student_bin, self.tools_bin]
        jest = find_jest()
        if jest:
            places.append(jest / ".bin")
        places += [Path(found).parent for found in map(shutil.which, ("node", "java")) if found]
        return os.pathsep.join([*map(str, places), "/usr/local/bin", "/usr/bin", "/bin"])

    def environment(self, pyenv: bool = False, **more: str) -> dict[str, str]:
        """A clean environment: nothing of the machine's own Python, node or pytest settings gets in."""
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PATH": self.path(pyenv),
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "TERM": "xterm",
            "USER": os.environ.get("USER", "student"),
            # The plugins of the test environment are not the student's, and take 0.4 s of each run.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "npm_config_offline": "true",
            "npm_config_update_notifier": "false",
            **more,
        }


def make_toolbox(root: Path) -> Toolbox:
    learnpack = root / "learnpack"
    names = {
        "bin/learnpack": ("commands", "main"),
        "node_modules/compile-run/dist/lib/box": ("launchers", "box"),
        "node_modules/shelljs/src/exec-child.js": ("launchers", "exec_child"),
    }
    for path, (module, function) in names.items():
        text = _STANDIN.format(repository=str(REPOSITORY), module=module, function=function)
        write_program(learnpack / path, text)
    (learnpack / "node_modules" / "standin-report.js").write_text(REPORTER)
    (learnpack / "bin" / "node").symlink_to(base_python())
    student_bin = make_python(root / "student")
    for name in ("black", "pylint"):
        python = str(student_bin / "python")
        script = _CONSOLE_SCRIPT.format(python=python, module="lint_stand_in", function=name)
        write_program(root / "tools" / "bin" / name, script)
    pyenv = root / "pyenv"
    make_python(pyenv / "versions" / "3.99.0")
    (pyenv / "version").write_text("3.99.0\n")
    for name in ("python", "python3", "pytest"):
        write_program(pyenv / "shims" / name, _SHIM.format(root=pyenv))
    programs = {"pyenv": _PYENV, "pyenv-exec": _PYENV_EXEC, "pyenv-version-name": _PYENV_VERSION_NAME}
    for name, text in programs.items():
        write_program(pyenv / "libexec" / name, text)
    for name in ("home", "tmp"):
        (root / name).mkdir()
    return Toolbox(
        root, learnpack / "bin", student_bin, root / "tools" / "bin", pyenv / "shims", root / "home", root / "tmp"
    )
