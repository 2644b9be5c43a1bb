"""Which URLs may be a destination at all; a question of their text only.

Where a name leads to, and whether an address is private, `agent.sinks.http` looks at when it connects.  Known to be
weak: addresses with a zone (`[fe80::1%eth0]`) are not understood, and nobody has asked for them.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

#: What a host's name or address may consist of; a name in another script is any of its letters (`\w`).
_HOST = re.compile(r"[\w.-]+")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")
#: urlsplit takes line ends and tabs out without a word, so this is asked first.
_UNWRITABLE = re.compile(r"[\x00-\x20\x7f-\xa0]|\s")


def problem_of(url: str) -> str | None:
    """Why records can't be sent to this URL, in words that hold nothing of it; None: nothing stands against it."""
    if _UNWRITABLE.search(url):
        return "the URL holds a space or a control character"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL's host can't be understood"
    if parts.scheme not in ("http", "https"):
        return "the URL does not begin with http:// or https://"
    if "@" in parts.netloc:
        return "the URL holds a user name or a password"
    if not parts.hostname:
        return "the URL names no host"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "the URL's port is no number from 1 to 65535"
    host = re.sub(r":[0-9]*\Z", "", parts.netloc)
    if not (_IPV6 if host.startswith("[") else _HOST).fullmatch(host):
        return "the URL's host can't be understood"
    return None
