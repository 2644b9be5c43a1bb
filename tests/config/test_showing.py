"""What holds, as TOML; where it is from; and the file that an admin begins with."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Config, ConfigError, Credential, Send, SinkConfig, load_config
from agent.config.checking import AT_LEAST, AT_MOST, keys_of
from agent.config.loading import Loaded
from agent.config.showing import default_file, shown, toml
from agent.config.words import WORDS

from .machine import Machine

TOKEN = "abcdef0123456789secret"
COURSE = "/home/ada/python-1"


def reloaded(machine: Machine, text: str) -> Config:
    """This text as the only source."""
    path = machine.etc.parent / "again.toml"
    path.write_text(text, encoding="utf-8")
    environment = {"XDG_CONFIG_HOME": "/nonexistent"}
    return load_config(file=str(path), environment=environment, arguments={})


# --- what holds ---

text = st.text(st.characters(codec="utf-8"), max_size=6)
names = text.filter(bool).filter(lambda name: not name.startswith("course-"))


def number(key: str) -> st.SearchStrategy[int]:
    return st.integers(AT_LEAST.get(key, 1), AT_MOST[key])


sends = st.builds(
    Send,
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from(["*", "*.school.org", "ünï", "[::1]"])).map(tuple),
    st.booleans(),
    st.sampled_from(["", '/a "b"/\\c\n', "/ü\u202e\U0001f600"]),
    st.sampled_from(["", "none", "http://proxy:3128"]),
    number("final_milliseconds"),
    number("start_spread_seconds"),
)
files = st.builds(
    SinkConfig,
    name=names,
    kind=st.just("jsonl"),
    directory=text.map(lambda name: f"/{name}"),
    delay_seconds=st.none() | number("delay_seconds"),
    file_mode=st.sampled_from(["0640", "600"]),
)
servers = st.builds(
    SinkConfig,
    name=names,
    kind=st.sampled_from(["otlp", "xapi"]),
    url=st.sampled_from(["http://x.org", "https://x.org:8443/", "https://[::1]"]),
    version=st.sampled_from(["1.0.3", "2.0.0"]),
)
credentials = st.builds(
    Credential,
    credential=text.filter(lambda name: name not in ("", ".", "..") and not set(name) & {"/", "\0"}),
    scheme=st.sampled_from(["Token", "Bearer", "Basic"]),
    plain_http=st.booleans(),
    for_courses=st.booleans(),
) | st.just(Credential(learnpack_session=True))
configs = st.builds(
    Config,
    state_dir=text.map(lambda name: f"/srv/{name.replace('/', '').replace('.', '')}x"),
    log_level=st.sampled_from(["debug", "error"]),
    session_silence_minutes=number("session_silence_minutes"),
    journal_max_mb=number("journal_max_mb"),
    consent=st.booleans(),
    discover_roots=st.lists(text.map(lambda name: f"/{name}"), max_size=3).map(tuple),
    discover_per_user=number("discover_per_user"),
    send=sends,
    sinks=st.lists(files | servers, max_size=3, unique_by=lambda sink: sink.name).map(tuple),
    credentials=st.dictionaries(st.sampled_from(["x.org", "x.org:8443", "[::1]:9", "ünï"]), credentials, max_size=3),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs, st.booleans())
def test_what_is_shown_loads_back_to_the_same_configuration(machine: Machine, config: Config, origin: bool) -> None:
    assert reloaded(machine, shown(Loaded(config, (), (), ()), origin=origin)) == config


SECRETS = f"""
[send]
proxy = "http://me:{TOKEN}@proxy:1"
[[sink]]
name = "lrs"
kind = "xapi"
url = "https://x.org/{TOKEN}?key={TOKEN}"
headers = {{ "X-Key" = "{TOKEN}" }}
[[sink]]
name = "other"
kind = "otlp"
url = "https://x.org?key={TOKEN}"
[credentials."X.org"]
token = "{TOKEN}"
"""


def test_secrets_are_told_to_be_set_and_nothing_of_them_can_be_loaded(machine: Machine) -> None:
    machine.write("config.toml", SECRETS)
    for origin in (False, True):
        written = shown(machine.loaded(), origin=origin)
        assert TOKEN not in written
        hidden = [line for line in written.splitlines() if "[set" in line]
        assert [line.split()[1] for line in hidden] == ["proxy", "url", "headers", "url", "token"]
        tomllib.loads(written)
        for line in hidden:
            with pytest.raises(tomllib.TOMLDecodeError):
                tomllib.loads(line.removeprefix("# "))
        with pytest.raises(ConfigError) as caught:
            reloaded(machine, written)
        words = "\n".join(fault.words for fault in caught.value.faults)
        assert "needs url" in words and "one of token" in words


# --- where it is from ---


def origins(machine: Machine, course: str | None = None, **arguments: object) -> dict[str, str]:
    """Key (a table's with its header) → what stands behind it."""
    found, header = {}, ""
    for line in shown(machine.loaded(course, **arguments), origin=True).splitlines():
        if line.startswith("["):
            header = f"{line} "
        elif line:
            setting, _, origin = line.rpartition("  # ")
            key = setting.removeprefix("# ").split(" = ")[0]
            found[header + key] = origin.replace(f"{machine.etc.parent}/", "")
    return found


def test_each_value_has_its_origin(machine: Machine) -> None:
    machine.write("config.toml", 'log_level = "debug"\nidle_minutes = 7\noutput_max_kb = 9\n' + SECRETS)
    machine.write("config.d/10-lab.toml", "# x\nidle_minutes = 8\ndocument_max_mb = 9\n")
    machine.write(
        "user",
        '[[sink]]\nname = "files"\nkind = "jsonl"\ndirectory = "/srv"\n\n[[sink]]\nkind = "otlp"\nname = "lrs"\n'
        'url = "http://x.org"\n[course."/home/*"]\noutput_max_kb = 10\n[course."/home/*".send]\noutput = false\n',
    )
    machine.environment |= {"LEARNPACK_AGENT_JOURNAL_MAX_MB": "7", "STATE_DIRECTORY": "/systemd"}
    machine.write("named", 'credentials."x.ORG".learnpack_session = true\n')
    found = origins(machine, COURSE, log_level="error")
    users = "home/.config/learnpack-agent/config.toml"
    assert found == {
        **dict.fromkeys(keys_of(Config), "default"),
        **{f"[send] {key}": "default" for key in keys_of(Send)},
        "state_dir": "$STATE_DIRECTORY",
        "log_level": "the command line",
        "idle_minutes": "etc/config.d/10-lab.toml:2",
        "output_max_kb": f"{users}:11",
        "document_max_mb": "etc/config.d/10-lab.toml:3",
        "journal_max_mb": "$LEARNPACK_AGENT_JOURNAL_MAX_MB",
        "[send] proxy": "etc/config.toml:6",
        "[send] output": f"{users}:13",
        "[[sink]] directory": f"{users}:4",
        "[[sink]] version": "default",
        "[[sink]] file_mode": "default",
        '[credentials."x.org"] learnpack_session': "named.toml:1",
        '[credentials."x.org"] scheme': "default",
    } | {key: found[key] for key in ("[[sink]] name", "[[sink]] kind", "[[sink]] url")}  # of three sinks
    lines = shown(machine.loaded(COURSE), origin=True).splitlines()
    assert f'name = "lrs"  # {machine.users}:8' in lines
    assert f"url = [set: https://x.org/...]  # {machine.etc}/config.toml:15" in [line[2:] for line in lines]
    assert f'name = "files"  # {machine.users}:2' in lines
    assert origins(machine)["output_max_kb"] == "etc/config.toml:3"


# --- the file that an admin begins with ---

DEFAULT = default_file()
UNCOMMENTED = re.sub(r"^#(?! )", "", DEFAULT, flags=re.MULTILINE)


def test_the_default_file_says_nothing_until_something_is_uncommented(machine: Machine) -> None:
    assert all(line.startswith("#") for line in DEFAULT.splitlines() if line)
    assert max(map(len, DEFAULT.splitlines())) <= 120
    nothing = reloaded(machine, "")
    assert reloaded(machine, DEFAULT) == nothing


def test_uncommented_the_default_file_has_every_key_with_its_default(machine: Machine, tmp_path: Path) -> None:
    config, nothing = reloaded(machine, UNCOMMENTED), reloaded(machine, "")
    for key in (*keys_of(Config), "send"):
        assert getattr(config, key) == getattr(nothing, key)
    found = tomllib.loads(UNCOMMENTED)
    assert found.keys() - {"send", "sink", "credentials", "course"} == keys_of(Config).keys()
    assert found["send"].keys() == keys_of(Send).keys()
    assert {key for sink in found["sink"] for key in sink} == keys_of(SinkConfig).keys()
    assert {key for one in found["credentials"].values() for key in one} == keys_of(Credential).keys()
    (section,) = found["course"].values()
    assert set(section) == {"idle_minutes", "send"}


def test_the_default_file_tells_what_every_key_means() -> None:
    flat = re.sub(r"\n# ", " ", DEFAULT)
    for words in WORDS.values():
        for one in words.values():
            assert f"{one[0].upper()}{one[1:]}." in flat


def test_there_are_words_for_every_key_in_its_order_and_for_no_other() -> None:
    kinds = {"": Config, "send": Send, "sink": SinkConfig, "credentials": Credential}
    assert {table: list(words) for table, words in WORDS.items()} == {
        table: list(keys_of(kind)) for table, kind in kinds.items()
    }
    tables = {"send", "sinks", "credentials"}
    assert set(keys_of(Config)) == {field.name for field in fields(Config)} - tables


VALUES = ['a "b" \\ \n\t\r\x00\x7f\u2028\U0001f600ü', True, False, -3, ("a", '"'), {"a b": "c", "": "ü"}, {}, ()]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_written_as_toml_in_one_line(value: object) -> None:
    written = toml(value)
    assert len(written.splitlines()) == 1
    found = tomllib.loads(f"it = {written}")["it"]
    assert (tuple(found) if isinstance(found, list) else found) == value
