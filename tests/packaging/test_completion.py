"""Shell completion: real shells complete with what `completion` prints."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agent import cli
from tests.packaging.package import missing

#: Calls the function that `complete` was told of, as bash does when Tab is pressed behind the last of the words.
_TAB = r"""
source "$1"; shift
function=$(complete -p learnpack-agent | sed -E 's/.* -F (\S+) .*/\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$function"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    shell: str = request.param
    if shutil.which(shell) is None:
        missing(f"no {shell} on this machine")
    assert cli.main(["completion", shell]) == 0
    path = tmp_path / f"completion.{shell}"
    path.write_text(capfd.readouterr().out)
    return path


def run(directory: Path, *command: str) -> list[str]:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(done.stdout.splitlines())


def bash(script: Path, *words: str) -> list[str]:
    return run(script.parent, "bash", "--norc", "-c", _TAB, "bash", str(script), "learnpack-agent", *words)


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_commands_options_and_choices(script: Path) -> None:
    assert bash(script, "sta") == ["start", "status"] or bash(script, "sta") == ["status"]
    assert bash(script, "status", "--js") == ["--json"]
    assert bash(script, "consent", "") == ["no", "yes"]
    assert bash(script, "run", "--log-level", "w") == ["warning"]
    assert bash(script, "completion", "") == ["bash", "fish", "zsh"]


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_a_course_with_directories_and_a_recording_with_files(script: Path) -> None:
    (script.parent / "course-one").mkdir()
    (script.parent / "course.jsonl").touch()
    assert bash(script, "run", "cour") == ["course-one"]
    assert bash(script, "status", "cour") == ["course-one"]
    assert bash(script, "run", "--state-dir", "cour") == ["course-one"]
    assert bash(script, "run", "--record", "cour") == ["course-one", "course.jsonl"]
    assert bash(script, "replay", "cour") == ["course-one", "course.jsonl"]


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes(script: Path) -> None:
    (script.parent / "course-one").mkdir()
    (script.parent / "course.jsonl").touch()

    def fish(line: str) -> list[str]:
        command = f"source {script}; complete -C '{line}'"
        return [one.split("\t")[0] for one in run(script.parent, "fish", "--no-config", "-c", command)]

    assert "status" in fish("learnpack-agent stat")
    assert fish("learnpack-agent status --js") == ["--json"]
    assert fish("learnpack-agent run cour") == ["course-one/"]


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_reads_its_script(script: Path) -> None:
    words = script.read_text()
    assert words.startswith("#compdef learnpack-agent\n")
    assert ":COURSE_DIR:_files -/" in words or "_files -/" in words
    assert run(script.parent, "zsh", "-f", "-n", str(script)) == []
