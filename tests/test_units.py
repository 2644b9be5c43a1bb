"""The unit and the plist: what a service manager would read of them."""

import configparser
import os
import plistlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.hosting.notify import notify

TOP = Path(__file__).parent.parent
UNIT = TOP / "systemd" / "learnpack-agent@.service"
PLIST = TOP / "launchd" / "learnpack-agent.plist"


def test_the_unit_runs_the_agent_in_the_foreground_and_waits_for_ready() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["ExecStart"] == "learnpack-agent run %f"
    assert unit["Service"]["RestartPreventExitStatus"].split() == ["75", "77", "78"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "learnpack-agent"
    program.symlink_to(sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("ExecStart=learnpack-agent", f"ExecStart={program}"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_plist_runs_the_agent_in_the_foreground() -> None:
    plist = plistlib.loads(PLIST.read_bytes())
    assert plist["ProgramArguments"][1] == "run"
    assert plist["RunAtLoad"] is True
    assert plist["KeepAlive"] == {"SuccessfulExit": False}


def test_ready_is_told_through_the_socket_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify(READY="1", STATUS="watching")
        assert manager.recv(100) == b"READY=1\nSTATUS=watching"


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY="1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify(READY="1")


def test_a_real_agent_tells_ready_when_it_watches_and_stopping_when_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "course" / "exercises" / "01-a").mkdir(parents=True)
    (tmp_path / "course" / "learn.json").write_text("{}")
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(30)
        command = [sys.executable, "-m", "agent", "run", str(tmp_path / "course"), "--state-dir", str(tmp_path / "s")]
        environment = {**os.environ, "NOTIFY_SOCKET": address, "PYTHONPATH": str(TOP)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as agent:
            try:
                assert manager.recv(1000).startswith(b"READY=1\nSTATUS=watching 1 steps")
                agent.terminate()
                assert manager.recv(1000) == b"STOPPING=1"
                assert agent.wait(timeout=10) == 0
            finally:
                agent.kill()
