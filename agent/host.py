"""Holds the course's lock and has an agent for it while something may be recorded.

Nothing is recorded in a pause, before the student's consent where that is asked for, and while records are erased
(`forget`).  Then no sensor runs, nothing is sent, and the process waits for what is said next (`store/control.py`),
which SIGUSR1 announces.  Watching is `agent.service`'s.

    SIGTERM, SIGINT   the end: the session is over, too
    SIGUSR2           the end of this process, and another begins at once (`RestartKillSignal=`): the session goes on
    SIGHUP            read the configuration again; in a terminal: the end, because the terminal is gone
    SIGUSR1           look at what was said
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from .config import Config, ConfigError, course_state_dir
from .core.course import Course, one_line
from .forgetting import forget
from .hosting.notify import Watchdog, notify, notify_reloading
from .hosting.terminal import has_terminal
from .sensors.clock import now_ms
from .sensors.course import CourseError, read_course
from .sensors.processes.servers import agent_before
from .service import Agent
from .store.control import Control, read_control
from .store.lock import NAME as LOCK
from .store.lock import AlreadyRunning, Lock

log = logging.getLogger("learnpack-agent")

#: A pause may be longer than a queue can wait (292 years), and while a laptop sleeps its time goes by uncounted.
_LONGEST_S = 3600.0


def run(
    root: str, config: Config, reload: Callable[[], Config], *, record: str | None = None, is_only: bool = True
) -> None:
    """Watch the course in `root` until SIGTERM or SIGINT.  Blocks.  `reload` reads the configuration again; it may
    raise ConfigError.  `is_only`: not beside an agent of this course that has another state directory.

    Raises CourseError (no such course), AlreadyRunning, JournalError, OSError (state directory).
    """
    course = read_course(root)
    directory = course_state_dir(config, course.root)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    # Whoever sees the lock may send it, and until somebody listens it would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # also where whoever started us ignored it
    host = Host(course, config, directory, reload, record)
    if is_only and (pid := agent_before(os.path.join(directory, LOCK))) is not None:
        raise AlreadyRunning(pid)
    _hear(
        {
            signal.SIGTERM: host.stop,
            signal.SIGINT: host.stop,
            signal.SIGHUP: host.stop if has_terminal() else host.reload,
            signal.SIGUSR2: host.give_way,
            signal.SIGUSR1: host.look,
        }
    )
    host.run()


def _hear(handlers: Mapping[int, Callable[[], None]]) -> None:
    """From now on a thread waits for these signals, and all threads that begin later block them.

    A handler of Python's would wait for the main thread, which nobody may wake: systemd sends SIGTERM and SIGCONT at
    once, the kernel wakes another thread for the second, and that one takes the first (measured: a stop of 6 s).
    """
    heard = {number for number in handlers if signal.getsignal(number) is not signal.SIG_IGN}  # nohup
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)

    def wait() -> None:
        while True:
            handlers[signal.sigwait(heard)]()

    threading.Thread(target=wait, name="signals", daemon=True).start()


class Host:
    """`stop`, `give_way`, `reload` and `look` may be called from any thread."""

    def __init__(
        self, course: Course, config: Config, directory: str, reload: Callable[[], Config], record: str | None
    ) -> None:
        self._course = course
        self._config = config
        self._directory = directory
        self._read_config = reload
        self._record = record
        self._lock = Lock.acquire(directory)
        self._watchdog = Watchdog(os.environ, os.getpid())
        self._agent: Agent | None = None
        self._away: str | None = None  # why there was no agent just now
        self._calls: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._is_stopping = self._is_end = self._is_reloading = False
        self._handled = Control()
        self._said: str | None = None  # why nothing is recorded

    def stop(self) -> None:
        self._is_end = True
        self.give_way()

    def give_way(self) -> None:
        """As `stop`, but the session goes on: another agent begins at once."""
        self._is_stopping = True
        self._calls.put(None)
        if (agent := self._agent) is not None:
            agent.stop(is_end=self._is_end)

    def reload(self) -> None:
        """The configuration is to be read again."""
        self._is_reloading = True
        self.look()

    def look(self) -> None:
        """Something was said to the agent (`control.json`)."""
        self._calls.put(None)
        if (agent := self._agent) is not None:
            agent.look()

    def run(self) -> None:
        try:
            self._handled = self._control()
            while not self._is_stopping:
                self._reload()
                control = self._control()
                if control.forget_at > self._handled.forget_at:
                    self._forget(control.forget_at)
                self._handled = control
                why = control.why_silent(now_ms(), needs_consent=self._config.consent)
                if why is None:
                    self._watch(control)
                else:
                    self._wait(control, why)
        finally:
            self._lock.release()

    def _forget(self, asked_at: int) -> None:
        try:
            forget(self._course, self._directory, asked_at)
        except OSError as error:  # whoever asked for it misses the receipt
            log.error("not everything was forgotten: %s", error)

    def _watch(self, control: Control) -> None:
        """Until the agent is stopped, or something was said that ends its work."""
        self._said = None
        self._agent = Agent(
            self._course,
            self._config,
            self._directory,
            self._record,
            self._lock,
            self._watchdog,
            self._away,
            control.silence,
        )
        self._record = self._away = None  # one file holds one life of the agent
        try:
            if not self._is_stopping:
                self._agent.look()  # what was said while it was made
                self._agent.run(self._is_over)
        finally:
            self._lock, self._agent = self._agent.lock, None
        with contextlib.suppress(CourseError):  # the next agent sees it come back
            self._course = read_course(self._course.root)

    def _is_over(self, agent: Agent) -> bool:
        """Asked by the agent when something was said: whether its work is at an end."""
        is_over = self._reload() and not agent.set_config(self._config)
        if is_over:
            self._away = "the agent began anew with another configuration"
        control = self._control()
        if control.send_at > self._handled.send_at:
            agent.send_now(to_all=control.send_to_all)
        is_over = is_over or control.forget_at > self._handled.forget_at
        self._handled = replace(control, forget_at=self._handled.forget_at)
        return is_over or control.why_silent(now_ms(), needs_consent=self._config.consent) is not None

    def _wait(self, control: Control, why: str) -> None:
        if why != self._said:
            log.info("nothing is recorded: %s", why)
            notify(READY="1", STATUS=f"nothing is recorded: {why}")
        self._said = why
        left_ms = (control.silent_until or 0) - now_ms()
        # A pause that is over, or has no end, ends nothing: somebody has to say something.
        timeout = min(left_ms / 1000, _LONGEST_S) if left_ms > 0 else None
        with contextlib.suppress(queue.Empty):
            self._calls.get(timeout=self._watchdog.timeout(timeout))
        self._watchdog.beat()

    def _reload(self) -> bool:
        """Read the configuration again where that was asked for.  Returns whether it is another now; with a fault in it
        the one that is used stays."""
        if not self._is_reloading:
            return False
        self._is_reloading = False
        notify_reloading()
        told = self._agent.status_line if self._agent is not None else f"nothing is recorded: {self._said}"
        try:
            config = self._read_config()
        except ConfigError as error:
            for fault in error.faults:
                log.error("%s", fault)
            log.error("the configuration stays as it was")
            told = one_line(f"the configuration stays as it was: {error.faults[0]}")
            config = self._config
        if config.state_dir != self._config.state_dir:
            log.warning("state_dir is another now; that holds from the next start on")
            config = replace(config, state_dir=self._config.state_dir)
        is_new = config != self._config
        self._config = config
        log.setLevel(config.log_level.upper())
        log.info("the configuration was read again%s", "" if is_new else ": nothing is different")
        notify(READY="1", STATUS=told)
        return is_new

    def _control(self) -> Control:
        try:
            return read_control(self._directory)
        except (OSError, ValueError) as error:
            log.error("what was said to the agent can't be read: %s", error)
            return replace(self._handled, consent=False)  # it may have been "no"
