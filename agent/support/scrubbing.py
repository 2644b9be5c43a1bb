"""What a support bundle may say: no name, no home, no e-mail, no host, no token, of a URL only scheme and host.

`core.privacy` takes out what leaves with records, where a student's program must stay what it is.  Here nothing has to,
so names go wherever they stand (`anas_work`, `ANA`), and the course's own path and that of its records are words, too.

Known to be weak: a name that is neither in the account, in LearnPack's session, nor in the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..core.privacy import Privacy

#: `https://host/path?query#part` → `https://host`.
_URL = re.compile(
    r"(\bhttps?://)(?:[^\s/?#\"'<>@]*@)?(\[[0-9A-Fa-f:.]+\](?::\d+)?|[^\s/?#\"'<>\]]+)[^\s\"'<>\]]*", re.IGNORECASE
)
#: A unit's name holds the course's path.
_UNIT = re.compile(r"learnpack-agent@[^\s\"'`,]+?\.service")
#: Shorter names are parts of words.
_SHORTEST = 4


class Scrub:
    """`places` are absolute paths → the word for each; the longest is looked for first."""

    def __init__(self, privacy: Privacy, places: Mapping[str, str]) -> None:
        self._privacy = privacy
        self._places = sorted(
            ((path.rstrip("/"), word) for path, word in places.items() if path.strip("/")),
            key=lambda place: -len(place[0]),
        )
        names = [name for name in privacy.names if len(name) >= _SHORTEST and "/" not in name and "@" not in name]
        self._names = re.compile("|".join(map(re.escape, names)), re.IGNORECASE) if names else None
        self._words = {name.lower(): privacy.names[name] for name in names}

    def text(self, text: str) -> str:
        for path, word in self._places:
            text = re.sub(rf"{re.escape(path)}(?![\w-])", word, text)
        text = _UNIT.sub("learnpack-agent@[course].service", _URL.sub(r"\1\2", text))
        text = self._privacy.text(text)
        if self._names is not None:
            text = self._names.sub(lambda found: self._words[found[0].lower()], text)
        return text.encode("utf-8", "replace").decode()

    def plain(self, value: Any) -> Any:
        """The same for every text in a JSON-able value.  Its keys stay: they are ours, never somebody's."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple)):
            return [self.plain(one) for one in value]
        if isinstance(value, dict):
            return {key: self.plain(one) for key, one in value.items()}
        return value
