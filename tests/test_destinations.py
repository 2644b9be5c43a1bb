"""Which destinations there are, what a course may name, and which credentials go where."""

from __future__ import annotations

import json
import os
import pwd
from base64 import b64encode
from pathlib import Path

import pytest

from agent.config import SINK_KINDS, Config, Credential, Send, SinkConfig
from agent.core.course import Course
from agent.destinations import (
    KINDS,
    Planned,
    authorization_of,
    credential_for,
    destination_of,
    host_of,
    opened,
    planned,
    privacy_of,
)
from agent.sending import credentials_word
from tests.sinks.faults import FaultServer

TOKEN = "abcdef0123456789secret"
PUBLIC = "https://api.example.org/me/telemetry?asset_id=1"


def by_course(url: str, config: Config | None = None) -> Planned:
    (one,) = planned(config or Config(), Course("/course", "demo", batch=url))
    return one


def named(url: str) -> Planned:
    return Planned("lrs", SinkConfig("lrs", "otlp", url))


def authorization(one: Planned, config: Config, course: Course | None = None) -> str | None:
    return destination_of(one, config, course or Course("/course", "demo")).authorization


def test_every_kind_of_the_configuration_is_known() -> None:
    assert set(KINDS) == set(SINK_KINDS)


def test_learn_jsons_urls_are_sinks_behind_those_of_the_configuration() -> None:
    own = SinkConfig("files", "jsonl", directory="/srv", delay_seconds=3)
    course = Course("/course", "demo", streaming=PUBLIC, batch=PUBLIC)
    plans = planned(Config(sinks=(own,)), course)
    assert [(one.name, one.config.kind, one.by_course) for one in plans] == [
        ("files", "jsonl", False),
        ("course-streaming", "learnpack-streaming", True),
        ("course-batch", "learnpack-batch", True),
    ]
    assert [one.delay_ms for one in plans] == [3_000, 0, KINDS["learnpack-batch"].delay_ms]
    assert [one.place for one in plans] == ["/srv", "api.example.org", "api.example.org"]
    assert [one.refused for one in plans] == [None, None, None]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "unix:///run/docker.sock",
        "http+unix://%2Frun%2Fdocker.sock/x",
        "ftp://example.org/x",
        "gopher://example.org/x",
        "javascript:alert(1)",
        "//example.org/x",
        "/etc/passwd",
        "",
        "https://",
        "https:///x",
        "https://ada@example.org/",
        "https://ada:pw@example.org/",
        "https://api.example.org@evil.org/",
        "https://evil.org\\@api.example.org/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org:x/",
        "https://[::1/",
        "https://exa mple.org/",
        "https://example.org/\r\nX-Injected: 1",
        "https://example.org/\t",
        "https://example\x00.org/",
        "https://example\u3002org/a",
        "https://example.org\uff0fevil/",
    ],
)
def test_a_url_of_a_course_that_is_no_servers_is_refused_in_words_without_it(url: str) -> None:
    one = by_course(url)
    assert one.refused is not None
    assert one.refused.startswith("learn.json's URL can't be used: ")
    assert "passwd" not in one.refused and "evil" not in one.refused and "\n" not in one.refused
    assert "passwd" not in one.place and "pw" not in one.place


@pytest.mark.parametrize(
    ("patterns", "url", "is_taken"),
    [
        (("*",), PUBLIC, True),
        ((), PUBLIC, False),
        (("api.example.org",), PUBLIC, True),
        (("API.Example.ORG",), PUBLIC, True),
        (("api.example.org",), "https://API.EXAMPLE.ORG/", True),
        (("*.example.org",), PUBLIC, True),
        (("*.example.org",), "https://example.org/", False),
        (("*.example.org",), "https://example.org.evil.com/", False),
        (("*.example.org",), "https://evil.com/.example.org", False),
        (("*.example.org",), "https://evil.com#.example.org", False),
        (("*.example.org",), "https://evil.com?x=.example.org", False),
        (("*.example.org",), "https://evilexample.org/", False),
        (("api.example.org",), "https://apixexample.org/", False),
        (("a.org", "b.org"), "https://b.org:8443/", True),
        (("::1",), "http://[::1]:80/", True),
        (("127.0.0.1",), "http://2130706433/", False),
    ],
)
def test_a_course_may_name_the_hosts_that_the_configuration_lets_it(
    patterns: tuple[str, ...], url: str, is_taken: bool
) -> None:
    one = by_course(url, Config(send=Send(course_hosts=patterns)))
    assert (one.refused is None) == is_taken
    if not is_taken:
        assert one.refused is not None and "send.course_hosts" in one.refused


def test_a_private_address_is_only_reached_by_the_admins_word() -> None:
    course = Course("/course", "demo")
    closed, opened_ = Config(), Config(send=Send(private_addresses=True))
    url = "http://127.0.0.1:1/"
    assert not destination_of(by_course(url), closed, course).private
    assert destination_of(by_course(url), opened_, course).private
    assert destination_of(named(url), closed, course).private


def test_a_courses_url_reaches_no_server_of_this_machine() -> None:
    with FaultServer() as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost"), f"http://2130706433:{server.port}"):
            one = by_course(f"{url}/secret/path?key={TOKEN}")
            sink = opened(one, Config(), Course("/course", "demo"))
            from agent.core.bodies import Body

            sent = sink.send(Body(b"{}"), 10)
            assert sent.outcome.value != "delivered"
            assert "private address" in sent.words
            assert TOKEN not in sent.words and "path" not in sent.words
        assert server.received == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.org/x", "a.org"),
        ("https://A.org:443/x", "a.org:443"),
        ("http://[::1]:8/x", "[::1]:8"),
        ("https://a.org:99999/", "?"),
        ("https://[x/", "?"),
        ("", "?"),
    ],
)
def test_a_place_is_the_host_with_the_port_that_the_url_names(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "is_meant"),
    [
        ("https://lrs.example.org/x", True),
        ("https://LRS.example.org/x", True),
        ("https://lrs.example.org:8443/x", False),
        ("https://lrs.example.org.evil.com/", False),
        ("https://sub.lrs.example.org/", False),
        ("https://example.org/", False),
        ("https://evil.com/?lrs.example.org", False),
        ("https://evil.com/#@lrs.example.org", False),
    ],
)
def test_a_token_goes_to_the_host_it_is_named_for_and_to_no_other(url: str, is_meant: bool) -> None:
    config = Config(credentials={"lrs.example.org": Credential(TOKEN, for_courses=True)})
    for one in (by_course(url, config), named(url)):
        assert authorization(one, config) == (f"Token {TOKEN}" if is_meant else None)
        assert authorization_of(one, config, Course("/course", "demo")) == (f"Token {TOKEN}" if is_meant else None)


@pytest.mark.parametrize("what", [{"token": TOKEN}, {"credential": "lrs"}])
def test_a_course_can_not_aim_what_the_admin_named_for_his_own_sink(what: dict[str, str]) -> None:
    """It could name any path at that host, and the server would trust it."""
    url = "https://lrs.example.org/any/path"
    config = Config(credentials={"lrs.example.org": Credential(**what)})  # type: ignore[arg-type]
    assert credential_for(named(url), config) is not None
    assert credential_for(by_course(url, config), config) is None
    allowed = Config(credentials={"lrs.example.org": Credential(**what, for_courses=True)})  # type: ignore[arg-type]
    assert credential_for(by_course(url, allowed), allowed) is not None


def test_a_url_that_the_configuration_has_too_gets_nothing_twice() -> None:
    config = Config(sinks=(SinkConfig("own", "learnpack-batch", PUBLIC),))
    course = Course("/course", "demo", batch=PUBLIC, streaming=PUBLIC)
    assert [one.name for one in planned(config, course)] == ["own", "course-streaming"]


def test_a_port_can_have_a_token_of_its_own() -> None:
    config = Config(credentials={"a.org:8443": Credential("eight"), "a.org": Credential("one")})
    assert authorization(named("https://a.org:8443/"), config) == "Token eight"
    assert authorization(named("https://a.org/"), config) == "Token one"
    assert authorization(named("https://a.org:443/"), config) is None


def test_the_scheme_is_what_the_admin_says_and_basic_is_encoded() -> None:
    for scheme, token, header in (
        ("Bearer", TOKEN, f"Bearer {TOKEN}"),
        ("Basic", "ada:pä:ß", "Basic " + b64encode("ada:pä:ß".encode()).decode()),
    ):
        config = Config(credentials={"a.org": Credential(token, scheme=scheme)})
        assert authorization(named("https://a.org/"), config) == header


def test_a_systemd_credential_is_read_when_it_is_needed_and_without_its_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(credentials={"a.org": Credential(credential="lrs")})
    one = named("https://a.org/")
    course = Course("/course", "demo")

    def found() -> tuple[str | None, bool | None]:
        return authorization(one, config), authorization_of(one, config, course) is not None

    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert found() == (None, False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    assert found() == (None, False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "none"))
    assert found() == (None, False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert found() == (None, False)
    (tmp_path / "lrs").mkdir()
    assert found() == (None, False)
    (tmp_path / "lrs").rmdir()
    (tmp_path / "lrs").write_text(f"{TOKEN}\n")
    assert found() == (f"Token {TOKEN}", True)
    for content in (b"\n", b"two\nlines", b"\xff\xfe", "eñe".encode(), b"a\x00b"):
        (tmp_path / "lrs").write_bytes(content)
        assert found() == (None, False)


def test_the_students_session_is_sent_only_where_the_admin_says_so_by_the_hosts_name(tmp_path: Path) -> None:
    (tmp_path / ".learn" / ".session").mkdir(parents=True)
    session = {"key": "bc-payload", "value": {"token": "students-own", "email": "ada@example.org"}}
    course = Course(str(tmp_path), "demo", base=".learn")
    config = Config(credentials={"api.example.org": Credential(learnpack_session=True)})
    one = by_course(PUBLIC, config)
    assert authorization(one, config, course) is None  # nobody is logged in
    assert credential_for(one, config) is not None
    assert authorization_of(one, config, course) is None
    (tmp_path / ".learn" / ".session" / "x").write_text(json.dumps(session))
    assert authorization(one, config, course) == "Token students-own"
    assert authorization(one, Config(), course) is None
    assert authorization(by_course("https://evil.org/", config), config, course) is None
    token = Credential(TOKEN, for_courses=True)
    assert authorization(one, Config(credentials={"api.example.org": token}), course) == f"Token {TOKEN}"


def test_of_credentials_only_their_kind_is_told() -> None:
    words = {
        credentials_word(named("https://a.org/"), Config(credentials={"a.org": one}))
        for one in (Credential(TOKEN), Credential(credential="lrs"), Credential(learnpack_session=True))
    }
    assert words == {
        "Token, a token of the configuration",
        "Token, systemd credential lrs",
        "Token, the student's LearnPack session",
    }
    assert credentials_word(named("https://b.org/"), Config()) == "no credentials"


def test_a_course_of_another_user_is_sent_without_that_users_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class User:
        pw_dir = "/srv/students/adalove"
        pw_gecos = "Ada Lovelace,,,"

        def __init__(self, number: int) -> None:
            self.pw_name = "adalove" if number == os.stat(tmp_path).st_uid else "helpdesk"

    monkeypatch.setattr(pwd, "getpwuid", User)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    masked = privacy_of(Config(), Course(str(tmp_path), "demo")).text(
        "adalove: Ada Lovelace in /srv/students/adalove/x, and helpdesk"
    )
    assert masked == "[user]: [name] in ~/x, and [user]"


def test_a_user_without_an_account_has_no_name_and_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert privacy_of(Config(), Course(str(tmp_path / "gone"), "demo")).text("hi Ada") == "hi Ada"


def test_the_name_of_the_student_who_is_logged_in_is_taken_out_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    (tmp_path / ".learn" / ".session").mkdir(parents=True)
    value = {"token": "t", "first_name": "Grace", "last_name": "Hopper", "full_name": "Dr Grace B. Hopper"}
    (tmp_path / ".learn" / ".session" / "x").write_text(json.dumps({"key": "bc-payload", "value": value}))
    privacy = privacy_of(Config(), Course(str(tmp_path), "demo", base=".learn"))
    assert privacy.text("Dr Grace B. Hopper, Grace Hopper, Hopper!") == "[name], [name], [name]!"
