"""What is taken out before anything leaves the machine.

Names, e-mail addresses, home paths and host names are replaced by words in brackets, secrets (keys, tokens, passwords)
by `[secret]`, and fields that the admin switched off are left out.  It is done to each text of a record, last of all
and before it is encoded: `learnpack-agent send --preview` shows what a server would get.

How secrets are recognised is not here: `mask` comes from `agent.sinks.secrets`, which has a library's rules.  Only what
it can't see is: a command's secrets stand in another text of the list than the option that names them.  The local
journal and telemetry.json are the student's own and are not touched.

Known to be weak: a name that stands in the student's program as an ordinary text is only known when it is the login,
the full name or the host's name of this machine, and written as they are (`Ana_2` is not Ana, nor is an accent that is
a character of its own).  A page's route that begins with `/home/` is taken for a home directory.  IP addresses stay.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .codec import valid_text
from .learnpack_forms import OUTPUTS, PRIVATE, decoded, encoded

#: Shorter ones are words like any other ("al", "pi"); these are the logins and hosts of nobody.
_SHORTEST_NAME = 3
_NOBODYS = frozenset(
    "root student user ubuntu debian fedora linux node vscode codespace gitpod admin guest vagrant docker"
    " host name e-mail mail secret server desktop laptop home mac macbook penguin raspberrypi localhost"
    " localhost.localdomain".split()
)

#: A login that is one of these is a word of programs or of sentences first; in a path or a prompt it is still masked.
#: The name that a person writes with a capital ("Max") is masked when the full name of the machine's user has it.
_WORDS_OF_PROGRAMS = frozenset(
    "all any bin chr dir hash hex iter len map max min next ord pow print range round set sorted str sum type vars zip"
    " and assert async await break class continue def del elif else except finally for from global if import lambda"
    " not pass raise return true try while with yield const enum function let new null this throw typeof var void none"
    " app code index main test tests python learn course default file line error false self data list dict will may"
    " mark bill art grant".split()
)
#: Parts of full names that are words of sentences.
_PARTICLES = frozenset("das de del den der des dos ibn las los san the und van von".split())

#: A local part begins where no other letter stands before it: that keeps the search linear.  What follows the domain
#: tells an address from a program's `a@b.dot(c)`.  `git@` is everybody.  Addresses that hang together are one.
_ADDRESS = r"[\w.%+-]+(?:@|%40)(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![^\W_]|[\w.]{0,64}\()"
_EMAIL = re.compile(rf"(?<![\w.%+-])(?!git@)(?:{_ADDRESS})+")
#: `://login:password@`.
_IN_URL = re.compile(r"(?<=://)[^\s/@:\"'<>]+:[^\s/@\"'<>]+(?=@)")

#: Not inside a path or a page's address, nor behind a word that was put there; `\n` in a program's text is no letter.
_PATH_BEGINS = (
    r"(?:(?<=://)|(?<=\\[nrt])"
    r"|(?<![\w./~}-])(?<!\[(?:user|name|host)\])(?<!\[secret\])(?<!\[e-mail\])(?!(?<=:)//))"
)
#: A home directory of Linux and macOS; under the places where WSL, Git Bash and network disks have them, too.  It
#: begins a path: an address of a page (`https://example.com/home/x`) or a folder of a project is none.
_HOME = re.compile(
    rf"{_PATH_BEGINS}(?:/+(?:mnt/[a-z]|cygdrive/[a-z]|[a-z]|var|usr|export|private|data|nfs|srv|net/[\w.-]+|host|run/host"
    r"|System/Volumes/Data))?"
    r"(?:/+home|/+Users)/+(?!~)[^/\\\s:;,\"'`<>|(){}\[\]]+"
)
_WINDOWS_HOME = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))[A-Za-z]:(?P<slash>\\\\|\\|/)(?:Users|Documents and Settings)(?P=slash)"
    r"(?!~)[^\\/\s:*?;,\"'`<>|(){}\[\]]+(?:(?: [^\\/\s:*?\"'<>|]+){1,3}(?=(?P=slash)))?",
    re.IGNORECASE,
)
#: pytest's `tmp_path` names the login, also one that is a word.
_PYTEST_OF = re.compile(r"(?<=pytest-of-)[\w.-]+")

#: Colours and the like: their last letter is not a part of the word behind them.
_CONTROL = re.compile(r"(\x1b\[[0-9;:?]*[@-~])")

#: Texts that others find records by: they are no prose, and a login that is a word of them must not change them.
_IDS = frozenset(("id", "event_id", "step_slug", "slug", "telemetry_id", "user_id", "quiz_hash"))
#: Texts of which there are a few.
_KINDS = frozenset(("event", "origin", "output", "status", "kind"))
_KIND = re.compile(r"[A-Za-z_]{1,20}")

#: Keys that are never sent, as letters only; beside `PRIVATE` nobody writes them today.
_NEVER = PRIVATE | frozenset(
    "firstname lastname username password accesstoken refreshtoken authorization apikey".split()
)
#: Deeper nesting is nothing that anybody writes, and more than JSON's writers take.
_DEEPEST = 64

#: The fields of a record in which the student's program and its output lie.  The tutor's talk is about the program, and
#: quotes it.
SOURCE = frozenset(("source_code", "student_message", "ai_response"))
OUTPUT = frozenset(("stdout", "stderr", "message", "results"))

_SECRET_WORD = r"[\w-]*(?:password|passwd|pwd|passphrase|token|secret|(?:api|access|private)[_-]?key|credential)s?"
_SECRET_OPTION = re.compile(rf"--?{_SECRET_WORD}", re.IGNORECASE)
_SECRET_IS = re.compile(rf"((?:--?)?{_SECRET_WORD}=).+", re.IGNORECASE | re.DOTALL)
_LOGIN_OPTIONS = frozenset(("-u", "--user"))
_CODE_IS = ("--eval=", "--print=")
_CODE_OPTIONS = frozenset(("-c", "-e", "-p", "-pe", "--eval", "--print"))


@dataclass(frozen=True, slots=True)
class Privacy:
    """What may leave: `source_code` and `output` say whether these fields are sent at all; `names` are texts that name
    the student or the machine, with the word that takes their place; `mask` replaces secrets."""

    source_code: bool = True
    output: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
    mask: Callable[[str], str] = str

    def text(self, text: str) -> str:
        """One text as it may leave."""
        text = self.mask(text)
        if "\x1b[" in text:
            return "".join(
                piece if _CONTROL.fullmatch(piece) else self._unnamed(piece) for piece in _CONTROL.split(text)
            )
        return self._unnamed(text)

    def _unnamed(self, text: str) -> str:
        # Most texts hold none of them: of a megabyte that is known in 0.01 s, the expression takes 0.4 s.
        present = tuple(name for name in self.names if name in text)
        paths, words = _patterns(present, frozenset(self.names.values()))
        # The own home first, wherever it lies; then everybody's; then addresses; then what names are left.
        if paths is not None:
            text = paths.sub(self._instead, text)
        if "/" in text or "\\" in text:
            text = _HOME.sub("~", _WINDOWS_HOME.sub("~", text))
        if "pytest-of-" in text:
            text = _PYTEST_OF.sub("[user]", text)
        if "@" in text or "%40" in text:
            text = _EMAIL.sub("[e-mail]", _IN_URL.sub("[secret]", text))
        return text if words is None else words.sub(self._instead, text)

    def _instead(self, match: re.Match[str]) -> str:
        return self.names.get(match[0], match[0])

    def plain(self, value: Any, _depth: int = 0) -> Any:
        """The same for every text in a JSON-able value; its keys stay, but for those that are never sent."""
        if isinstance(value, str):
            return self.text(value).replace("\0", "\ufffd")  # which a database may refuse, and the whole body with it
        if isinstance(value, (list, dict)) and _depth >= _DEEPEST:
            return None
        if isinstance(value, list):
            return [self.plain(one, _depth + 1) for one in value]
        if isinstance(value, dict):
            return {
                key: one if _is_identifier(key, one) else self.plain(one, _depth + 1)
                for key, one in value.items()
                if _letters(key) not in _NEVER
            }
        return value

    def line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """A record as `core.export.public` gives it.  The evidence stays at home: it is command lines and paths."""
        dropped = self._dropped() | {"evidence"}
        kept = {key: value for key, value in line.items() if key not in dropped}
        if isinstance(kept.get("command"), list):
            kept["command"] = list(self._command(kept["command"]))
        sent: dict[str, Any] = self.plain(kept)
        return sent

    def _command(self, words: Sequence[Any]) -> Iterator[Any]:
        """The argv without the secrets that an option names, and without program text where that is not sent."""
        before: Any = None
        for word in words:
            shown = word
            if isinstance(word, str) and isinstance(before, str):
                is_secret = _SECRET_OPTION.fullmatch(before) and not word.startswith("-")
                if is_secret or (before in _LOGIN_OPTIONS and ":" in word):
                    shown = "[secret]"
                elif before in _CODE_OPTIONS and not self.source_code:
                    shown = "[source code]"
            if isinstance(word, str) and word.startswith(_CODE_IS) and not self.source_code:
                shown = f"{word.partition('=')[0]}=[source code]"
            if isinstance(shown, str):
                shown = _SECRET_IS.sub(r"\1[secret]", shown) if _SECRET_IS.fullmatch(shown) else shown
            yield shown
            before = word

    def attempt(self, attempt: Mapping[str, Any]) -> dict[str, Any]:
        """An element of a step's list in LearnPack's document: its texts are base64 there and back.

        A field that is switched off is "": LearnPack and the receiver know it.
        """
        ours, dropped = "event_id" in attempt, self._dropped()
        names = {key: key.removeprefix("learnpack_") for key in attempt}
        encoded = {key for key, name in names.items() if name in OUTPUTS and isinstance(attempt[key], str)}
        plain = self.plain({key: value for key, value in attempt.items() if key not in encoded})
        sent: dict[str, Any] = {}
        for key, value in attempt.items():
            if names[key] in dropped:
                if key != "results":  # a list
                    sent[key] = ""
            elif key in encoded:
                sent[key] = self._base64(value, ours)
            elif key in plain:
                sent[key] = plain[key]
        return sent

    def _base64(self, value: str, ours: bool) -> str:
        """The value itself where nothing in it is private."""
        plain = decoded(value, ours=ours)
        if plain != value:
            masked = self.text(plain)
            return value if masked == plain else encoded(valid_text(masked))
        try:
            data = b64decode(value, validate=True)
        except ValueError:  # no base64
            return encoded(valid_text(masked)) if (masked := self.text(value)) != value else value
        # Bytes that are no UTF-8: what stands between them is looked at all the same.
        plain = data.decode("utf-8", "surrogateescape")
        masked = self.text(plain)
        return value if masked == plain else b64encode(masked.encode("utf-8", "surrogateescape")).decode("ascii")

    def _dropped(self) -> frozenset[str]:
        return (frozenset() if self.source_code else SOURCE) | (frozenset() if self.output else OUTPUT)


def _letters(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _is_identifier(key: str, value: object) -> bool:
    """Whether this is a text that stays, whatever it is: a slug is a folder's name, so it has no slash."""
    if not isinstance(value, str):
        return False
    if key in _IDS:
        return not any(sign in value for sign in "/\\@")
    return key in _KINDS and _KIND.fullmatch(value) is not None


@lru_cache(32)
def _patterns(names: tuple[str, ...], words: frozenset[str]) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """Expressions for the names that are paths, and for the others: each once, the first name that fits.

    A word in brackets that stands there already is passed, so that nothing is masked twice.  `\\n` in a program's text
    is no letter of the next word.
    """
    paths = [re.escape(name) for name in names if "/" in name]
    others = [re.escape(name) for name in names if name and "/" not in name]
    placed = (words | {"[e-mail]", "[secret]"}) - {""}
    passed = "|".join(re.escape(word) for word in sorted(placed, key=len, reverse=True))
    start = r"(?:(?<!\w)|(?<=\\[nrt])|(?<=%2F))"
    return (
        re.compile(rf"{_PATH_BEGINS}(?:{'|'.join(paths)})(?![\w.-]*[\w-])") if paths else None,
        re.compile(rf"{passed}|{start}(?:{'|'.join(others)})(?!\w)") if others else None,
    )


def names_of(login: str, full_name: str, host: str, home: str) -> dict[str, str]:
    """What names the student and the machine → the word in its place, the longest first.  All may be empty, and
    `full_name` may be several names.

    A host's name and a whole full name are known in capitals, too, and the login with a capital letter.
    """
    parts = [part for part in re.split(r"[\s,]+", full_name) if part.lower() not in _PARTICLES]
    # A domain's: SCHOOL\ana, ana@school.org.
    logins = list(dict.fromkeys((login, login.partition("@")[0], re.split(r"[\\+]", login)[-1])))
    hosts = [one for name in (host, host.partition(".")[0]) for one in (name, name.lower(), name.upper())]

    words: dict[str, str] = {}
    for one in logins:
        if one.lower() not in _WORDS_OF_PROGRAMS:
            words |= dict.fromkeys((one.capitalize(), one.upper()), "[user]")
    words |= dict.fromkeys((full_name, full_name.upper(), full_name.lower()), "[name]")
    for part in parts:
        words |= dict.fromkeys((part, part.upper()) if part.lower() not in _WORDS_OF_PROGRAMS else (part,), "[name]")
    words |= dict.fromkeys(hosts, "[host]") | dict.fromkeys(logins, "[user]")
    known = {text: word for text, word in words.items() if _names_somebody(text)}
    # A prompt, also of one whose login is a word.
    known |= {f"{one}@{name}": "[user]@[host]" for one in logins if one for name in hosts if _names_somebody(name)}
    if home.strip("/"):
        known[home.rstrip("/")] = "~"
    return dict(sorted(known.items(), key=lambda item: -len(item[0])))


def _names_somebody(text: str) -> bool:
    return len(text) >= _SHORTEST_NAME and text.lower() not in _NOBODYS and text not in _WORDS_OF_PROGRAMS
