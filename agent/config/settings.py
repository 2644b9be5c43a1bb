"""The settings themselves: frozen, with their defaults.  The names are the keys of config.toml.

`checking` says what may stand in them, `words` what they mean for an admin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PROCESS_SENSORS = ("auto", "connector", "pidfd", "polling")
LOG_LEVELS = ("debug", "info", "warning", "error")
SINK_KINDS = ("learnpack-streaming", "learnpack-batch", "otlp", "xapi", "jsonl")
SCHEMES = ("Token", "Bearer", "Basic")
XAPI_VERSIONS = ("1.0.3", "2.0.0")


@dataclass(frozen=True, slots=True)
class Send:
    """The table `[send]`: what leaves, and how, whoever named the destination.

    `source_code`, `output`: whether programs and what they printed are sent.  `course_hosts` are patterns for the hosts
    that a learn.json may name ("*": any, none: its URLs are not used); `private_addresses`: whether such a URL may lead
    to an address that is not public.  `ca_file` holds certificates that are trusted besides the usual ones; `proxy` is
    a URL, "none", or "" for the environment's.  At the end a last try takes `final_milliseconds` at most; what waits at
    the start goes some time within `start_spread_seconds`, so that a room of machines does not begin in one moment.
    """

    source_code: bool = True
    output: bool = True
    course_hosts: tuple[str, ...] = ("*",)
    private_addresses: bool = False
    ca_file: str = ""
    proxy: str = field(default="", repr=False)
    final_milliseconds: int = 1500
    start_spread_seconds: int = 5


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """A `[[sink]]`: `url` of a server, or for "jsonl" the `directory` in which files appear.

    `delay_seconds`: so long after an event it is sent, with what came meanwhile; None: what fits the kind.  `headers`
    are added to each request.  `version` is that of xAPI.  `file_mode` is of the files.
    """

    name: str = ""
    kind: str = ""
    url: str = field(default="", repr=False)  # a path or a query may be as good as a token
    directory: str = ""
    delay_seconds: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    version: str = "1.0.3"
    file_mode: str = "0600"


@dataclass(frozen=True, slots=True)
class Credential:
    """A `[credentials."HOST"]`: what is sent to that host (with its port, where the URL names one) and to no other.

    One of `token`, `credential` (the name of a file in $CREDENTIALS_DIRECTORY, systemd's `LoadCredential=`) and
    `learnpack_session` (the token of the student who is logged in to LearnPack).  For the scheme Basic the token is
    `user:password`.  Without TLS it is only sent when `plain_http` says so.  A `token` or `credential` goes with the
    configuration's sinks only, unless `for_courses`: a learn.json may name any path at that host.
    """

    token: str = field(default="", repr=False)
    credential: str = ""
    learnpack_session: bool = False
    scheme: str = "Token"
    plain_http: bool = False
    for_courses: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, for one course.

    `state_dir` holds one directory per course.  `session_silence_minutes`: without a LearnPack server a session
    ends after so long without work.  `idle_minutes`: a longer time without a save, a run or an opening is not counted
    as work in a step.  `output_max_kb`: of more than that on a stream only the head and the tail are kept.
    `document_max_mb`: above this size telemetry.json leaves out the oldest outputs.  `journal_max_mb`: above this size
    the journal drops the oldest programs and outputs, sent or not (0: never).
    `process_sensor`: "auto" takes the best that works here.  `consent`: nothing is recorded until the student said yes.
    `discover` looks for courses below `discover_roots`, and takes `discover_per_user` of one owner at most.
    """

    state_dir: str = ""
    log_level: str = "info"
    session_silence_minutes: int = 30
    idle_minutes: int = 5
    output_max_kb: int = 256
    document_max_mb: int = 8
    journal_max_mb: int = 0
    process_sensor: str = "auto"
    consent: bool = False
    discover_roots: tuple[str, ...] = ("/home",)
    discover_per_user: int = 20
    send: Send = Send()
    sinks: tuple[SinkConfig, ...] = ()
    credentials: Mapping[str, Credential] = field(default_factory=dict)
