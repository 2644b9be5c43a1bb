"""`[send]`, `[[sink]]` and `[credentials]`: what they mean together, and what is said about a fault in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import Config, ConfigError, Credential, Send, SinkConfig, load_config

from .machine import Machine

TOKEN = "abcdef0123456789secret"

SINK = '[[sink]]\nname = "lrs"\nkind = "xapi"\nurl = "https://lrs.example.org/xapi"\n'
CREDENTIALS = f'[credentials."lrs.example.org"]\ntoken = "{TOKEN}"\n'


def load(directory: Path, text: str, environment: dict[str, str] | None = None) -> Config:
    file = directory / "config.toml"
    file.write_text(text)
    return load_config(
        file=str(file), environment={"XDG_CONFIG_HOME": str(directory / "none"), **(environment or {})}, arguments={}
    )


def test_what_is_left_out_has_the_defaults_that_the_documentation_names(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.send == Send(True, True, ("*",), False, "", "", 1500, 5)
    assert (config.sinks, config.credentials, config.consent) == ((), {}, False)


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        f"""
consent = true
session_silence_minutes = 7
[send]
source_code = false
output = false
course_hosts = ["*.school.org", "localhost"]
private_addresses = true
ca_file = "/etc/school.pem"
proxy = "http://proxy.school.org:3128"
final_milliseconds = 0
start_spread_seconds = 0
[[sink]]
name = "lrs"
kind = "xapi"
url = "https://lrs.example.org/xapi"
delay_seconds = 0
headers = {{ "X-Tenant" = "9b" }}
version = "2.0.0"
[[sink]]
name = "files"
kind = "jsonl"
directory = "/srv/records"
file_mode = "0640"
[credentials."lrs.example.org"]
token = "{TOKEN}"
scheme = "Bearer"
plain_http = true
[credentials."api.example.org:8443"]
learnpack_session = true
[credentials."[::1]:99"]
credential = "lrs-token"
""",
    )
    assert config.consent and config.session_silence_minutes == 7
    assert config.send == Send(
        False, False, ("*.school.org", "localhost"), True, "/etc/school.pem", "http://proxy.school.org:3128", 0, 0
    )
    assert config.sinks == (
        SinkConfig("lrs", "xapi", "https://lrs.example.org/xapi", "", 0, {"X-Tenant": "9b"}, "2.0.0"),
        SinkConfig("files", "jsonl", directory="/srv/records", file_mode="0640"),
    )
    assert config.credentials == {
        "lrs.example.org": Credential(TOKEN, scheme="Bearer", plain_http=True),
        "api.example.org:8443": Credential(learnpack_session=True),
        "[::1]:99": Credential(credential="lrs-token"),
    }


def table(**keys: str) -> str:
    """A [[sink]] with these keys instead of its own."""
    given = {"name": '"a"', "kind": '"otlp"', "url": '"http://x.org/"'} | keys
    return "[[sink]]\n" + "".join(f"{key} = {value}\n" for key, value in given.items() if value)


FAULTS: list[tuple[str, str]] = [
    ("[send]\nsource_kode = true", "send: unknown key source_kode (did you mean source_code?)"),
    ('[send]\noutput = "no"', "send: output must be true or false"),
    ('[send]\ncourse_hosts = "*"', "send: course_hosts must be a list of texts"),
    ("[send]\ncourse_hosts = [7]", "send: course_hosts must be a list of texts"),
    ('[send]\ncourse_hosts = ["https://x.org"]', "send: course_hosts are hosts, without scheme"),
    ('[send]\ncourse_hosts = ["x.org:8443"]', "send: course_hosts are hosts, without scheme"),
    ('[send]\nca_file = "school.pem"', "send: ca_file must be an absolute path"),
    ('[send]\nproxy = "socks5://me:hush@proxy"', "send: proxy must be a URL that begins with http://"),
    ("[send]\nfinal_milliseconds = -1", "send: final_milliseconds must be at least 0"),
    ("[send]\nfinal_milliseconds = 60001", "send: final_milliseconds must be at most 60000"),
    ("[send]\nstart_spread_seconds = 3601", "send: start_spread_seconds must be at most 3600"),
    ("[[send]]\noutput = true", "send must be a table"),
    ("send = 1", "send must be a table"),
    ('[sink]\nname = "a"', "sink must be a list of tables: [[sink]]"),
    ('[[sinks]]\nname = "a"', "unknown key sinks (did you mean sink?)"),
    ("sink = [1]", "sink 1 must be a table"),
    (table(name=""), "sink 1: it needs a name"),
    (table(kind=""), "sink a: it needs a kind: one of learnpack-streaming, learnpack-batch, otlp, xapi, jsonl"),
    (table(kind='"kafka"'), "sink 1: kind must be one of learnpack-streaming"),
    (table(name='"course-batch"'), "sink course-batch: names that begin with course- belong to learn.json"),
    (table() * 2, "sink a: there are two of this name"),
    (table(url=""), "sink a: one of kind otlp needs url, and has no directory"),
    (table(directory='"/srv"'), "sink a: one of kind otlp needs url, and has no directory"),
    (table(kind='"jsonl"'), "sink a: one of kind jsonl needs directory, and has no url"),
    (table(kind='"jsonl"', url="", directory='"records"'), "sink a: directory must be an absolute path"),
    (table(url='"ftp://x.org/"'), "sink a: url: the URL does not begin with http:// or https://"),
    (table(url=f'"https://me:{TOKEN}@x.org/"'), "sink a: url: the URL holds a user name or a password"),
    (table(url=f'"https:///{TOKEN}"'), "sink a: url: the URL names no host"),
    (table(delay_seconds="-1"), "sink 1: delay_seconds must be at least 0"),
    (table(delay_seconds="true"), "sink 1: delay_seconds must be a whole number"),
    (table(headers=f'["{TOKEN}"]'), "sink 1: headers must be a table of texts"),
    (table(headers=f'{{ a = "{TOKEN}", b = 1 }}'), "sink 1: headers must be a table of texts"),
    (table(versoin='"1.0.3"'), "sink 1: unknown key versoin (did you mean version?)"),
    (table(version='"3"'), "sink 1: version must be one of 1.0.3, 2.0.0"),
    *(
        (table(kind='"jsonl"', url="", directory='"/srv"', file_mode=mode), 'as in "0640"')
        for mode in ('"rw"', '"-600"', '"777777777777"', '"0999"', '""', '"07777"')
    ),
    (table(kind='"jsonl"', url="", directory='"/srv"', file_mode="0o640"), "sink 1: file_mode must be a text"),
    ("credentials = 5", "credentials must be a table"),
    (f'[credentials]\n"lrs.example.org" = "{TOKEN}"', 'credentials."lrs.example.org" must be a table'),
    (f'[credentials.lrs.example.org]\ntoken = "{TOKEN}"', "a host's name stands in quotes"),
    (f'[credentials."https://x.org/"]\ntoken = "{TOKEN}"', "it must be a host, with the port that the URL names"),
    (f'[credentials."x.org/a"]\ntoken = "{TOKEN}"', "it must be a host, with the port that the URL names"),
    ('[credentials."x.org"]\n', "it needs one of token, credential and learnpack_session = true"),
    (
        f'[credentials."x.org"]\ntoken = "{TOKEN}"\nlearnpack_session = true',
        "it needs one of token, credential and learnpack_session = true",
    ),
    (f'[credentials."x.org"]\ntokn = "{TOKEN}"', 'credentials."x.org": unknown key tokn (did you mean token?)'),
    ('[credentials."x.org"]\ntoken = 123456', 'credentials."x.org": token must be a text'),
    (f'[credentials."x.org"]\ntoken = ["{TOKEN}"]', 'credentials."x.org": token must be a text'),
    (f'[credentials."x.org"]\ntoken = "{TOKEN}\\n"', "token holds a character that can't be sent"),
    (f'[credentials."x.org"]\ntoken = "{TOKEN}ñ"', "token holds a character that can't be sent"),
    (f'[credentials."x.org"]\ntoken = "{TOKEN}"\nscheme = "basic"', "scheme must be one of Token, Bearer, Basic"),
    (f'[credentials."x.org"]\ntoken = "{TOKEN}"\nscheme = "Basic"', "for the scheme Basic the token is user:password"),
    ('[credentials."x.org"]\ncredential = "../shadow"', "credential is the name of a file in $CREDENTIALS_DIRECTORY"),
    ('[credentials."x.org"]\ncredential = ".."', "credential is the name of a file in $CREDENTIALS_DIRECTORY"),
    ('[credentials."x.org"]\ncredential = "a\\u0000b"', "credential is the name of a file in $CREDENTIALS_DIRECTORY"),
    ('[credentials."x.org"]\nlearnpack_session = true\nplain_http = "yes"', "plain_http must be true or false"),
    (f'[credentials."x.org"]\ntoken = "{TOKEN}', "config.toml"),
    (f'"a\\nb" = "{TOKEN}"', "unknown key a\\nb"),
    ("a = " + "[" * 50_000, "config.toml"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS)
def test_a_fault_is_one_line_with_file_and_key_and_never_a_value(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    (fault,) = caught.value.faults
    message = str(fault)
    assert str(caught.value) == message
    begin = re.escape(str(tmp_path / "config.toml"))
    # Only one that is nested too deeply for the reader has no line.
    assert re.match(begin + (":[0-9]+: " if "[[[" not in text else ": "), message)
    assert words in message
    assert "\n" not in message and len(message) < 300 + len(str(tmp_path))
    for secret in (TOKEN, "hush", "123456"):
        assert secret not in message.replace(str(tmp_path), "")


def test_nothing_secret_is_in_the_pictures_of_a_configuration(tmp_path: Path) -> None:
    sink = SINK.replace("/xapi", f"/{TOKEN}?key={TOKEN}") + f'headers = {{ "X-Key" = "{TOKEN}" }}\n'
    config = load(tmp_path, f'[send]\nproxy = "http://me:{TOKEN}@proxy:1"\n' + sink + CREDENTIALS)
    assert config.credentials["lrs.example.org"].token == TOKEN
    for shown in (repr(config), str(config), f"{config.sinks} {config.credentials} {config.send}"):
        assert TOKEN not in shown


def test_later_files_replace_keys_sinks_of_one_name_and_credentials_of_one_host(machine: Machine) -> None:
    machine.write(
        "config.toml",
        "[send]\nsource_code = false\noutput = false\n"
        + SINK
        + '[[sink]]\nname = "files"\nkind = "jsonl"\ndirectory = "/srv"\n'
        + CREDENTIALS
        + '[credentials."other.example.org"]\ntoken = "x"\n',
    )
    machine.write(
        "user",
        "[send]\noutput = true\n"
        + SINK.replace("/xapi", "/other")
        + '[credentials."LRS.Example.org"]\nlearnpack_session = true\n',
    )
    config = machine.load()
    assert (config.send.source_code, config.send.output) == (False, True)
    assert [(sink.name, sink.url) for sink in config.sinks] == [("lrs", "https://lrs.example.org/other"), ("files", "")]
    assert config.credentials == {
        "lrs.example.org": Credential(learnpack_session=True),
        "other.example.org": Credential("x"),
    }
    third = machine.etc.parent / "third.toml"
    third.write_text("[send]\nsource_code = true\n")
    machine.environment["LEARNPACK_AGENT_CONFIG"] = str(third)
    named = machine.load(log_level="debug")
    assert (named.send.source_code, named.send.output, named.log_level) == (True, True, "debug")
    assert named.sinks == config.sinks
