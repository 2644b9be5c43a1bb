"""What each key means for an admin: the one place.  README's tables and the default file are made of it.

Table → key → words; "" is the top level.  A test compares README and the keys of `settings` with it.
"""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, Mapping[str, str]] = {
    "": {
        "state_dir": 'where journals are kept; `""`: `$STATE_DIRECTORY`, `/var/lib/learnpack-agent/UID` if that is'
        " there and the user's own, or `~/.local/state/learnpack-agent`",
        "log_level": "`debug`, `info`, `warning` or `error`, on stderr",
        "session_silence_minutes": "without LearnPack a session ends after so long without work",
        "idle_minutes": "a longer time without a save, a run or an opening is not counted as work in a step",
        "output_max_kb": "of what a test printed on a stream, only the head and the tail are kept above this size",
        "document_max_mb": "above this size `telemetry.json` leaves out the oldest outputs, never an attempt",
        "journal_max_mb": "above this size the journal drops the oldest programs and outputs, sent or not, which is a"
        " `gap`; 0: nothing is ever dropped",
        "process_sensor": "the first level to try: `connector`, `pidfd` or `polling`",
        "consent": "nothing is recorded or sent until the student said `consent yes`",
        "discover_roots": "below these directories `discover` looks for courses",
        "discover_per_user": "so many courses of one owner at most are taken by `discover`",
    },
    "send": {
        "source_code": "whether programs are sent, and what was said to LearnPack's AI tutor about them",
        "output": "whether what they printed is sent",
        "course_hosts": "patterns of the hosts that a `learn.json` may name; `[]`: its URLs are not used",
        "private_addresses": "whether a `learn.json` may name an address that is not public",
        "ca_file": "certificates that are trusted besides the usual ones: a school's own CA",
        "proxy": 'a URL, `"none"`, or the environment\'s (`https_proxy`, `no_proxy`)',
        "final_milliseconds": "so long a last try may take at the end",
        "start_spread_seconds": "what waits at the start is sent some time within this, so that a room of machines does"
        " not begin in one moment",
    },
    "sink": {
        "name": "what it is called; one of the same name in a later file replaces it",
        "kind": "`learnpack-streaming`, `learnpack-batch`, `otlp`, `xapi` or `jsonl`",
        "url": "of the server, for every kind but `jsonl`",
        "directory": "for `jsonl`: where its files appear",
        "delay_seconds": "so long after an event it is sent, with what came meanwhile; without it, what fits the kind",
        "headers": "added to each request",
        "version": "of xAPI: `1.0.3` or `2.0.0`",
        "file_mode": "of the files of `jsonl`",
    },
    "credentials": {
        "token": "what is sent to this host; for the scheme Basic `user:password`",
        "credential": "or the name of a file in $CREDENTIALS_DIRECTORY that holds it (systemd's `LoadCredential=`)",
        "learnpack_session": "or the token of the student who is logged in to LearnPack",
        "scheme": "`Token`, `Bearer` or `Basic`",
        "plain_http": "whether it is sent without TLS, too",
        "for_courses": "whether a `learn.json`'s URLs get it, too, which may be any path at that host",
    },
}
