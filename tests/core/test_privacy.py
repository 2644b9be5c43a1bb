"""Nothing that names the student or the machine leaves, in whatever text it stands; and nothing else is changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.events import EVENT_TYPES, Event
from agent.core.events import TestResult as Result
from agent.core.export import public
from agent.core.learnpack_forms import decoded
from agent.core.privacy import Privacy, names_of
from tests.making import (
    a_compile,
    a_test,
    asked,
    b64,
    completed,
    gap,
    opened,
    reset,
    session_end,
    session_start,
    visit,
)


def stars(text: str) -> str:
    """A stand-in for the rules of secrets."""
    return text.replace("hunter2", "[secret]")


ANA = Privacy(names=names_of("ana", "Ana García", "lab-pc-07.school.edu", "/home/ana"), mask=stars)
#: Whose login is a word of programs.
MAX = Privacy(names=names_of("max", "Max Mustermann", "lab-pc-07", "/srv/students/max"))
NOBODY = Privacy()

#: Text → what leaves.  Each was seen in the output of such a program, or stands for a kind.
MASKED: list[tuple[str, str]] = [
    # e-mails
    ("write to ana.garcia+course@mail.school.edu, please", "write to [e-mail], please"),
    ("<ana@school.edu>", "<[e-mail]>"),
    ("mailto:ana@school.edu.", "mailto:[e-mail]."),
    ("josé@españa.es", "[e-mail]"),
    ("ana%40school.edu", "[e-mail]"),
    ("ana@school.edu_backup ana@school.edu.2 ana@a.org_bob@b.org", "[e-mail]_backup [e-mail].2 [e-mail]"),
    ("a" * 100 + "@school.edu", "[e-mail]"),
    # home paths
    ('  File "/home/ana/course/x.py", line 3, in <module>', '  File "~/course/x.py", line 3, in <module>'),
    ("rootdir: /home/ana/course/.learn", "rootdir: ~/course/.learn"),
    ("rootdir:/home/bob/course", "rootdir:~/course"),
    ("PATH=/usr/bin:/home/ana/bin:/home/bob.smith/bin", "PATH=/usr/bin:~/bin:~/bin"),
    ("    at Object.<anonymous> (/home/bob/course/app.js:3:9)", "    at Object.<anonymous> (~/course/app.js:3:9)"),
    ("(/home/bob)", "(~)"),
    ("at file:///home/bob/course/app.mjs:1:7", "at file://~/course/app.mjs:1:7"),
    ("/Users/bob/course", "~/course"),
    ("/System/Volumes/Data/Users/bob/course", "~/course"),
    ("/mnt/c/Users/bob/course", "~/course"),
    ("/c/Users/bob/course", "~/course"),
    ("/var/home/bob/course", "~/course"),
    ("/export/home/bob/x", "~/x"),
    ("//home/bob/x", "~/x"),
    (r"C:\Users\bob\course\app.py", r"~\course\app.py"),
    (r"'C:\\Users\\bob\\course\\app.py'", r"'~\\course\\app.py'"),
    ("c:/Users/bob/course", "~/course"),
    (r"C:\Users\Bob Smith\course", r"~\course"),
    (r"cd C:\Users\bob", "cd ~"),
    (r"out\n/home/bob/x", r"out\n~/x"),
    ("\x1b[2m/home/bob/course/\x1b[22mapp.test.js", "\x1b[2m~/course/\x1b[22mapp.test.js"),
    ("/home/ana-maria/x", "~/x"),
    ("/home/ana.b/x", "~/x"),
    # the machine and its user
    ("ana@lab-pc-07:~/course$ python app.py", "[user]@[host]:~/course$ python app.py"),
    (
        "\x1b]0;ana@lab-pc-07: ~\x07\x1b[01;32mana@lab-pc-07\x1b[00m:\x1b[01;34m~\x1b[00m$ ",
        "\x1b]0;[user]@[host]: ~\x07\x1b[01;32m[user]@[host]\x1b[00m:\x1b[01;34m~\x1b[00m$ ",
    ),
    ("\x1b[32mana\x1b[0m", "\x1b[32m[user]\x1b[0m"),
    ("lab-pc-07.school.edu LAB-PC-07 lab-pc-07.local", "[host] [host] [host].local"),
    ("-rw-r--r-- 1 ana ana 120 app.py", "-rw-r--r-- 1 [user] [user] 120 app.py"),
    ("/tmp/pytest-of-ana/pytest-0/test_x0", "/tmp/pytest-of-[user]/pytest-0/test_x0"),
    ("Hello Ana García!", "Hello [name]!"),
    ("ANA GARCÍA, GARCÍA", "[name], [name]"),
    (r'print("Hola\nAna\tGarcía")', r'print("Hola\n[name]\t[name]")'),
    ("[ana] says", "[[user]] says"),
    ("Ana's", "[name]'s"),
    ("%2Fhome%2Fana%2Fx", "%2Fhome%2F[user]%2Fx"),
    # secrets
    ("password = 'hunter2'", "password = '[secret]'"),
    ("postgres://ana:opensesame@localhost/db", "postgres://[secret]@localhost/db"),
    ("https://someone:opensesame@example.com/x", "https://[secret]@example.com/x"),
    # odd Unicode
    ("\ud83d ana \udc80", "\ud83d [user] \udc80"),
    ("\x00ana\x00", "\x00[user]\x00"),
    ("日本 ana 日本 ana@school.edu", "日本 [user] 日本 [e-mail]"),
]


@pytest.mark.parametrize(("text", "leaves"), MASKED, ids=[repr(text)[:50] for text, _ in MASKED])
def test_what_names_somebody_is_replaced_by_a_word(text: str, leaves: str) -> None:
    assert ANA.text(text) == leaves
    assert ANA.text(leaves) == leaves


#: What programs, courses and their pages are made of.
HARMLESS = [
    "@app.route('/users/<int:id>')\n@property\n@pytest.mark.parametrize('a', [1])",
    "c = a @ b.T\nd = x@y.transpose(0, 1) + x@self.weights.dot(y)",
    "npm i react@18.2.0 @testing-library/react@^14",
    "git clone git@github.com:4GeeksAcademy/python-beginner.git",
    "https://example.com/home/page and http://home/about?x=/y",
    "import x from './home/Home.jsx'; fetch(`${url}/Users/5`)",
    "exercises/01-hello/app.py:3: in <module>\n    assert 1 == 2\nE   assert 1 == 2",
    "C:\\Windows\\System32 D:/games",
    "for maximum in range(max(1, 2)): print(hash(maximum))",
    "analysis banana Anaconda ana_2 lab-pc-077 /homework/ana1",
    "a = [name for name in names]; [user] ~ [secret] [e-mail]",
    "café 日本 \x1b[31mred\x1b[0m \ud800 \x00",
    "http://localhost:3000/ 127.0.0.1",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_names_nobody_stays_as_it_is(text: str) -> None:
    assert ANA.text(text) == text
    assert NOBODY.text(text) == text


@pytest.mark.parametrize(
    "login", ["max", "print", "len", "test", "python", "app", "for", "this", "will", "root", "user"]
)
def test_a_login_that_is_a_word_of_programs_is_left_alone_in_programs(login: str) -> None:
    privacy = Privacy(names=names_of(login, "", "lab-pc-07", f"/home/{login}"))
    text = f"print(len({login}(1, 2)))  # this will test for root, user and max in app.py of python"

    assert privacy.text(text) == text


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("/srv/students/max/course/app.py", "~/course/app.py"),
        ('File "/srv/students/max"', 'File "~"'),
        ("/home/max/x", "~/x"),
        ("max@lab-pc-07:~$ ", "[user]@[host]:~$ "),
        ("max@school.edu", "[e-mail]"),
        ("/tmp/pytest-of-max/pytest-0", "/tmp/pytest-of-[user]/pytest-0"),
        ("Hello Max Mustermann, Max, Mustermann", "Hello [name], [name], [name]"),
        ("MAX = max(1, 2)", "MAX = max(1, 2)"),
        ("/srv/students/max2/x", "/srv/students/max2/x"),  # somebody else's, by no rule that is known
    ],
)
def test_in_a_path_a_prompt_or_an_address_it_is_masked_all_the_same(text: str, leaves: str) -> None:
    assert MAX.text(text) == leaves


@pytest.mark.parametrize(
    ("login", "full_name", "host", "home", "text", "leaves"),
    [
        ("", "", "", "", "nobody is here", "nobody is here"),
        ("root", "root", "localhost", "/root", "root@localhost:/root/x root", "root@localhost:~/x root"),
        ("al", "Al", "pc", "/", "al on pc / and Al", "al on pc / and Al"),
        ("s1", "María de los Ángeles", "", "", "los de aquí: María y Ángeles", "los de aquí: [name] y [name]"),
        ("SCHOOL\\eva", "", "", "/home/SCHOOL/eva", "eva in /home/SCHOOL/eva/x", "[user] in ~/x"),
        ("eva@school.edu", "", "", "", "user eva", "user [user]"),
        ("eva", "", "Evas-MacBook-Pro.local", "/Users/eva/", "Evas-MacBook-Pro:~ eva$", "[host]:~ [user]$"),
        ("a.b+c", "", "x[1]y", "", "a.b+c on x[1]y, aXb+c", "[user] on [host], aXb+c"),
    ],
)
def test_the_names_of_a_machine(login: str, full_name: str, host: str, home: str, text: str, leaves: str) -> None:
    privacy = Privacy(names=names_of(login, full_name, host, home))

    assert privacy.text(text) == leaves


# --- records ---

PRIVATE_TEXT = "ana@lab-pc-07 /home/ana/x Ana García ana@school.edu hunter2\n"
MARKS = ("ana", "Ana", "García", "lab-pc", "school", "hunter2")

EVENTS: list[Event] = [
    session_start(1),
    session_end(1, visit("01-ana", 0, 1, 5)),
    opened("01-ana", 1),
    completed("01-ana", 1, True),
    reset("01-ana", 1),
    a_compile("01-ana", 1, 2, source_code=PRIVATE_TEXT, stdout=PRIVATE_TEXT, stderr=PRIVATE_TEXT),
    a_test(
        "01-ana",
        1,
        2,
        1,
        source_code=PRIVATE_TEXT,
        stdout=PRIVATE_TEXT,
        stderr=PRIVATE_TEXT,
        message=PRIVATE_TEXT,
        results=(Result(f"test.py::test_x[{PRIVATE_TEXT}]", "passed"),),
        command=("/home/ana/venv/bin/python", "-c", PRIVATE_TEXT, "--token", "opensesame"),
    ),
    asked("01-ana", 1, 2, PRIVATE_TEXT, PRIVATE_TEXT),
    gap(1, 2),
]


def test_each_kind_of_event_is_tried_here() -> None:
    assert {event.name for event in EVENTS} == set(EVENT_TYPES)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_no_record_takes_a_name_along_but_its_slug_and_ids_stay(event: Event) -> None:
    line = public(7, "ana-7", event)

    sent = ANA.line(line)

    assert "evidence" not in sent
    assert sent.keys() == line.keys() - {"evidence"}
    for key in ("number", "id", "event", "at", "step_slug", "step_position", "started_at", "exit_code", "origin"):
        assert sent.get(key) == line.get(key)
    rest = {key: value for key, value in sent.items() if key not in ("id", "step_slug")}
    if rest.get("left"):
        assert rest["left"] == line["left"]
        rest["left"] = None
    assert [mark for mark in (*MARKS, "opensesame") if mark in json.dumps(rest, ensure_ascii=False)] == []


@pytest.mark.parametrize(
    "login", ["demo", "hello", "compile", "passed", "full", "learnpack", "open_step", "none", "SUCCESS"]
)
def test_a_login_that_is_a_word_of_a_record_does_not_change_the_record(login: str) -> None:
    privacy = Privacy(names={login: "[user]"})
    line = public(1, f"{login}-1", a_test("01-hello", 1, 2, results=(Result("t", "passed"),)))
    attempt = {"event_id": login, "origin": login, "output": login, "quiz_hash": login, "status": login}

    sent = privacy.line(line)

    assert sent == {key: value for key, value in line.items() if key != "evidence"}
    assert privacy.attempt(attempt) == attempt
    assert privacy.plain({"slug": f"01 {login}", "telemetry_id": login}) == {
        "slug": f"01 {login}",
        "telemetry_id": login,
    }


@pytest.mark.parametrize("key", ["output", "status", "kind", "id", "slug", "user_id", "telemetry_id", "number"])
def test_a_key_that_is_usually_harmless_hides_nothing(key: str) -> None:
    value: Any
    for value in ("ana@school.edu", "see /home/ana/x", [PRIVATE_TEXT], {"email": "x", "deep": PRIVATE_TEXT}):
        sent = json.dumps(ANA.plain({key: value}), ensure_ascii=False)
        assert [mark for mark in MARKS if mark in sent] == []
    assert "email" not in ANA.plain({key: {"email": "x"}})[key]


def test_prose_under_a_key_of_few_words_is_masked() -> None:
    assert ANA.plain({"output": "ana printed it", "kind": "of Ana García"}) == {
        "output": "[user] printed it",
        "kind": "of [name]",
    }


@pytest.mark.parametrize(
    "key", ["fullname", "email", "token", "fullName", "Email", "access_token", "Authorization", "password", "api-key"]
)
def test_personal_keys_are_nowhere(key: str) -> None:
    document = {key: "x", "steps": [{key: {"a": 1}, "tests": [{"kept": 1, key: None}]}], "left": {key: []}}

    assert ANA.plain(document) == {"steps": [{"tests": [{"kept": 1}]}], "left": {}}
    assert ANA.line({key: "x", "id": "1"}) == {"id": "1"}
    assert ANA.attempt({key: "x", "id": "1"}) == {"id": "1"}


COMMANDS: list[tuple[list[str], list[str]]] = [
    (["python", "app.py"], ["python", "app.py"]),
    (["/home/ana/.venv/bin/python", "/home/ana/course/app.py"], ["~/.venv/bin/python", "~/course/app.py"]),
    (["python", "app.py", "--password", "opensesame"], ["python", "app.py", "--password", "[secret]"]),
    (["node", "app.js", "--db-token=opensesame", "-v"], ["node", "app.js", "--db-token=[secret]", "-v"]),
    (["env", "API_KEY=opensesame", "node"], ["env", "API_KEY=[secret]", "node"]),
    (["env", "SECRET_KEY=a b\nc"], ["env", "SECRET_KEY=a b\nc"]),  # not at the end of its name
    (["x", "--password", "--verbose"], ["x", "--password", "--verbose"]),
    (["curl", "-u", "ana:opensesame", "http://x"], ["curl", "-u", "[secret]", "http://x"]),
    (["curl", "-u", "http"], ["curl", "-u", "http"]),
    (["python", "hi.py", "Ana"], ["python", "hi.py", "[name]"]),
    (["python", "-c", "print(1)"], ["python", "-c", "print(1)"]),
    (["x", "--token"], ["x", "--token"]),
]


@pytest.mark.parametrize(("command", "leaves"), COMMANDS)
def test_a_command_goes_without_the_secrets_and_names_in_it(command: list[str], leaves: list[str]) -> None:
    sent = ANA.line({"command": command})

    assert sent == {"command": leaves}
    assert ANA.line(sent) == sent


@pytest.mark.parametrize("option", ["-c", "-e", "-p", "--eval"])
def test_a_program_in_the_command_is_a_source_too(option: str) -> None:
    sent = Privacy(source_code=False).line({"command": ["node", option, "const x = 1", "x"]})

    assert sent == {"command": ["node", option, "[source code]", "x"]}


# --- attempts ---


def percent(text: str) -> str:
    """LearnPack's v5: base64 of the percent-encoded text, as encodeURIComponent makes it."""
    return b64(quote(text, safe="!'()*-._~"))


@pytest.mark.parametrize("key", ["source_code", "stdout", "stderr", "learnpack_stdout", "learnpack_stderr"])
@pytest.mark.parametrize(("form", "ours"), [(b64, True), (b64, False), (percent, False)])
def test_the_texts_of_an_attempt_are_masked_inside_their_base64(
    key: str, form: Callable[[str], str], ours: bool
) -> None:
    attempt = {key: form(PRIVATE_TEXT), "exit_code": 1, **({"event_id": "e"} if ours else {})}

    sent = ANA.attempt(attempt)

    assert base64.b64decode(sent[key]).decode() == "[user]@[host] ~/x [name] [e-mail] [secret]\n"
    assert sent["exit_code"] == 1
    assert ANA.attempt(sent) == sent


@pytest.mark.parametrize("form", [b64, percent])
def test_what_has_nothing_private_stays_byte_for_byte(form: Callable[[str], str]) -> None:
    attempt = {"stdout": form("ñandú 100% \n"), "stderr": form("a%20b"), "source_code": "", "errorType": "x"}

    assert ANA.attempt(attempt) == attempt


def test_ours_are_never_taken_for_percent_encoded() -> None:
    sent = ANA.attempt({"event_id": "e", "stdout": b64("ana%20b")})

    assert decoded(sent["stdout"], ours=True) == "[user]%20b"


def test_bytes_that_are_no_utf_8_hide_no_address() -> None:
    text = base64.b64encode("é ana@school.edu é".encode("latin-1")).decode()

    sent = ANA.attempt({"stdout": text})["stdout"]

    assert base64.b64decode(sent) == "é [e-mail] é".encode("latin-1")


def test_bytes_that_are_no_utf_8_stay_where_nothing_is_private() -> None:
    attempt = {"stdout": base64.b64encode(b"\xff\xfe\x00caf\xe9").decode()}

    assert ANA.attempt(attempt) == attempt


def test_a_text_that_is_no_base64_is_masked_as_it_is() -> None:
    sent = ANA.attempt({"stdout": "by ana \ud83d", "stderr": "just words"})

    assert base64.b64decode(sent["stdout"]).decode() == "by [user] \ufffd"
    assert sent["stderr"] == "just words"


def test_plain_texts_of_an_attempt_are_masked_too() -> None:
    sent = ANA.attempt({"student_message": "I am Ana", "extra": [{"deep": "ana@school.edu"}], "message": "/home/ana"})

    assert sent == {"student_message": "I am [name]", "extra": [{"deep": "[e-mail]"}], "message": "~"}


WHOLE: dict[str, Any] = {
    "event_id": "e",
    "source_code": b64("s"),
    "learnpack_source_code": b64("s"),
    "student_message": "s",
    "ai_response": "s",
    "stdout": b64("o"),
    "learnpack_stdout": b64("o"),
    "stderr": b64("o"),
    "message": "o",
    "exit_code": 1,
    "output": "full",
}
SOURCES = {"source_code", "learnpack_source_code", "student_message", "ai_response"}
OUTPUTS = {"stdout", "learnpack_stdout", "stderr", "message"}


@pytest.mark.parametrize(
    ("privacy", "off"),
    [
        (Privacy(), set()),
        (Privacy(source_code=False), SOURCES),
        (Privacy(output=False), OUTPUTS),
        (Privacy(source_code=False, output=False), SOURCES | OUTPUTS),
    ],
)
@pytest.mark.parametrize("value", ["c29tZXRoaW5n", None, ["x"]])
def test_a_field_that_is_switched_off_is_empty_in_an_attempt_and_absent_in_a_line(
    privacy: Privacy, off: set[str], value: Any
) -> None:
    whole = {key: value if key in SOURCES | OUTPUTS else kept for key, kept in WHOLE.items()}

    assert privacy.attempt(whole) == {key: "" if key in off else kept for key, kept in whole.items()}
    line = {key: kept for key, kept in whole.items() if not key.startswith("learnpack_")}
    assert privacy.line(line) == {key: kept for key, kept in line.items() if key not in off}


# --- whatever it is ---

PIECES = st.sampled_from(
    [
        *MARKS,
        *(text for text, _ in MASKED),
        *(
            "/home/",
            "/Users/",
            "C:\\Users\\",
            "://",
            "@",
            "%40",
            ".edu",
            "[user]",
            "~",
            "\x1b[1m",
            "\x1b[",
            "\\n",
            "pytest-of-",
        ),
        *(" ", "/", ".", ":", "_", "é", "\ud800", "\x00", "b2", "git@"),
    ]
)
TEXTS = st.lists(PIECES | st.text(st.characters(), max_size=5), max_size=8).map("".join)
KEYS = st.text(max_size=6) | st.sampled_from(["fullname", "stdout", "source_code", "event_id", "slug", "command", "id"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
PRIVACIES = st.sampled_from([ANA, MAX, NOBODY, Privacy(False, False, ANA.names)])


@given(PRIVACIES, TEXTS)
def test_masking_twice_is_masking_once(privacy: Privacy, text: str) -> None:
    once = privacy.text(text)

    assert privacy.text(once) == once


@given(st.text(st.characters(exclude_characters="@/\\%\x1b")))
def test_a_text_without_names_paths_and_addresses_is_never_changed(text: str) -> None:
    if not any(mark.lower() in text.lower() for mark in (*MARKS, "pytest-of-", "mustermann", "max")):
        assert ANA.text(text) == MAX.text(text) == text


@given(PRIVACIES, JSON)
def test_no_value_makes_it_fail_and_masking_twice_is_masking_once(privacy: Privacy, value: Any) -> None:
    once = privacy.plain(value)
    assert privacy.plain(once) == once
    if isinstance(value, dict):
        line = privacy.line(value)
        assert privacy.line(line) == line
        json.dumps(privacy.attempt(value))


@given(st.sampled_from([ANA, MAX]), st.text(alphabet=" \n\t.,;:()'\"!?", max_size=3), TEXTS)
def test_an_address_and_a_home_never_leave_between_whatever_texts(privacy: Privacy, between: str, text: str) -> None:
    sent = privacy.text(f"{text} carla@uni.org {between} /home/carla/x {text}")

    assert "carla" not in sent


def test_what_is_nested_deeper_than_anybody_writes_is_cut_off() -> None:
    deep: Any = "ana"
    for _ in range(900):
        deep = [deep]

    sent = ANA.plain({"x": deep})

    assert len(json.dumps(sent)) < 200


def test_a_megabyte_takes_no_time() -> None:
    for text in ("a" * 1_000_000, "/" * 1_000_000, "a." * 500_000, "/a" * 500_000, "@" * 1_000_000, "ana " * 250_000):
        ANA.text(text)


def test_long_lines_that_almost_hold_an_address_take_no_time() -> None:
    for text in ("a@" + "a." * 300_000, "://" + "a:" * 300_000, "C:\\Users\\" + "a" * 600_000, "\x1b[" * 300_000):
        ANA.text(text)


def test_names_are_found_the_longest_first() -> None:
    lengths = [len(name) for name in ANA.names]

    assert lengths == sorted(lengths, reverse=True)
