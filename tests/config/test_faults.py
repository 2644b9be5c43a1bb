"""Everything that is wrong is said at once, each with its file and line."""

from __future__ import annotations

import pytest

from .machine import Machine

TOKEN = "abcdef0123456789secret"

#: A file, and every fault's line and words.
FILES: list[tuple[str, list[str]]] = [
    ("idle_minutes = 5\n", []),
    (
        'idel_minutes = 5\n\nlog_level = "loud"\n[send]\noutput = "no"\n',
        [
            "1: unknown key idel_minutes (did you mean idle_minutes?)",
            "3: log_level must be one of debug, info, warning, error",
            "5: send: output must be true or false",
        ],
    ),
    # Values of several lines, comments and empty lines before a key, Windows' line ends.
    (
        '# a\r\ndiscover_roots = [\r\n  "/home", # b\r\n  "srv",\r\n]\r\n\r\nconsent = 1\r\n',
        ["2: discover_roots must be absolute paths", "7: consent must be true or false"],
    ),
    (
        'log_level = """\nidle_minutes = 0\n"""\nidle_minutes = 0\n',
        ["1: log_level must be one of debug, info, warning, error", "4: idle_minutes must be at least 1"],
    ),
    # Dotted and quoted keys, and both.
    (
        "send.output = 1\n\"send\".proxy = 7\n'idel' = 1\n",
        [
            "1: send: output must be true or false",
            "2: send: proxy must be a text",
            "3: unknown key idel",
        ],
    ),
    # The second of three sinks; one that misses something has the line of its header.
    (
        '[[sink]]\nname = "a"\nkind = "jsonl"\ndirectory = "/srv"\n'
        '[[sink]]\nkind = "otlp"\nname = "b"\nurl = "ftp://x.org"\nfile_mode = "rw"\n'
        '\n[[sink]]\nkind = "xapi"\nurl = "http://x.org"\n',
        [
            "8: sink b: url: the URL does not begin with http:// or https://",
            '9: sink b: file_mode must be an octal number as a text, as in "0640"',
            "11: sink 3: it needs a name",
        ],
    ),
    (
        'sink = [\n  { name = "a", kind = "otlp" },\n]\nidle_minutes = 0\n',
        ["1: sink a: one of kind otlp needs url, and has no directory", "4: idle_minutes must be at least 1"],
    ),
    (
        '[[sink]]\nname = "a"\nkind = "jsonl"\ndirectory = "/srv"\n[[sink]]\nname = "a"\nkind = "jsonl"\n'
        'directory = "srv"\n',
        ["6: sink a: there are two of this name", "8: sink a: directory must be an absolute path"],
    ),
    (
        f'[credentials."x.org"]\ntoken = "{TOKEN}"\nscheme = "Basic"\n\n[credentials.lrs.y.org]\ntoken = "{TOKEN}"\n'
        '[credentials."a/b"]\ncredential = "x"\nlearnpack_session = true\n[credentials."y.org"]\n'
        '[credentials]\n"z" = 1\n',
        [
            '2: credentials."x.org": for the scheme Basic the token is user:password',
            '5: credentials."lrs": a host\'s name stands in quotes, as in [credentials."lrs.example.org"]',
            '7: credentials."a/b": it must be a host, with the port that the URL names: "lrs.school.org:8443"',
            '8: credentials."a/b": it needs one of token, credential and learnpack_session = true',
            '10: credentials."y.org": it needs one of token, credential and learnpack_session = true',
            '12: credentials."z" must be a table',
        ],
    ),
    # A key in the wrong table: what is written at the end of a file belongs to its last table.
    (
        "source_code = false\n[send]\nlog_level = 'debug'\n",
        [
            "1: unknown key source_code (did you mean it in [send]?)",
            "3: send: unknown key log_level (did you mean it above the first [table]?)",
        ],
    ),
    # Sections for courses.
    (
        '[course."/home/*/a"]\nidle_minutes = 0\nstate_dir = "/x"\ndiscover_roots = []\ncredentials = {}\n'
        'idel_minutes = 5\n[course."/home/*/a".send]\nca_file = "x"\n[[course."/home/*/a".sink]]\nname = "x"\n',
        [
            '2: course."/home/*/a": idle_minutes must be at least 1',
            '3: course."/home/*/a": state_dir can\'t be set for some courses only',
            '4: course."/home/*/a": discover_roots can\'t be set for some courses only',
            '5: course."/home/*/a": credentials can\'t be set for some courses only',
            '6: course."/home/*/a": unknown key idel_minutes (did you mean idle_minutes?)',
            '8: course."/home/*/a": send: ca_file must be an absolute path',
            '9: course."/home/*/a": sink can\'t be set for some courses only',
        ],
    ),
    (
        '[course.python]\n[course."~/x"]\n[course."/x/"]\n[course]\n"/y" = 3\n',
        [
            '1: course."python": it must be a pattern for absolute paths, without / at the end: "/home/*/python-*"',
            '2: course."~/x": it must be a pattern for absolute paths, without / at the end: "/home/*/python-*"',
            '3: course."/x/": it must be a pattern for absolute paths, without / at the end: "/home/*/python-*"',
            '5: course."/y" must be a table',
        ],
    ),
    ("course = 1\n[[send]]\n", ["1: course must be a table", "2: send must be a table"]),
    ('state_dir = "state"\n', ["1: state_dir must be an absolute path"]),
    ("discover_per_user = 0\n", ["1: discover_per_user must be at least 1"]),
    ("discover_per_user = 1001\n", ["1: discover_per_user must be at most 1000"]),
    ('discover_roots = "/home"\n', ["1: discover_roots must be a list of texts"]),
    # What is no TOML: no other fault of this file can be known.
    ("idel = 1\nidle_minutes 5\n", ["2: Expected '=' after a key in a key/value pair (column 14)"]),
    ("a = 1\na = 2\n", ["2: Cannot overwrite a value (column 6)"]),
    (f'idle_minutes = 1\n\ntoken = "{TOKEN}\n', [f"3: Illegal character '\\n' (column {10 + len(TOKEN)})"]),
    (
        "idle_minutes = 1\n# a\ndiscover_roots = [\n'/x',\n'/y',\n",
        ["3: what begins here never ends: Invalid value (at end of document)"],
    ),
    (
        'idle_minutes = 1\nlog_level = """\na = 1\nb = 2\n',
        ["2: what begins here never ends: Unterminated string (at end of document)"],
    ),
    ("a = " + "9" * 5000, [" it holds a number that is too long"]),
    (
        "\ufeffidle_minutes = 5\n",
        ["1: it begins with a byte order mark, which TOML does not have: save it as UTF-8 without one"],
    ),
]


@pytest.mark.parametrize(("text", "faults"), FILES)
def test_all_faults_of_a_file_are_found_each_with_its_line(machine: Machine, text: str, faults: list[str]) -> None:
    machine.write("config.toml", text)
    assert machine.faults() == [f"etc/config.toml:{fault}" for fault in faults]


def test_bytes_that_are_no_utf_8_have_a_line(machine: Machine) -> None:
    machine.write("config.toml", "").write_bytes(b'log_level = "info"\n# caf\xe9\n')
    assert machine.faults() == ["etc/config.toml:2: it is not UTF-8"]


def test_faults_of_all_sources_are_told_in_the_order_of_the_sources(machine: Machine) -> None:
    machine.write("config.toml", "idle_minutes = 0")
    machine.write("config.d/10.toml", "x = [")
    machine.write("config.d/20.toml", "\nconsent = 0")
    machine.write("user", "idle_minutes = 0")
    machine.write("named", "idle_minutes = 0")
    machine.environment |= {"LEARNPACK_AGENT_CONSENT": "yes", "LEARNPACK_AGENT_IDLE_MINUTE": "5"}
    assert machine.faults(log_level="loud", state_dir="") == [
        "etc/config.toml:1: idle_minutes must be at least 1",
        "etc/config.d/10.toml:1: what begins here never ends: Invalid value (at end of document)",
        "etc/config.d/20.toml:2: consent must be true or false",
        "home/.config/learnpack-agent/config.toml:1: idle_minutes must be at least 1",
        "named.toml:1: idle_minutes must be at least 1",
        "$LEARNPACK_AGENT_CONSENT: consent must be true or false",
        "$LEARNPACK_AGENT_IDLE_MINUTE: there is no such variable (did you mean $LEARNPACK_AGENT_IDLE_MINUTES?)",
        "the command line: state_dir is empty",
        "the command line: log_level must be one of debug, info, warning, error",
    ]


VARIABLES: list[tuple[str, str, str]] = [
    ("IDLE_MINUTES", "five", "idle_minutes must be a whole number"),
    ("IDLE_MINUTES", "5.0", "idle_minutes must be a whole number"),
    ("IDLE_MINUTES", "-1", "idle_minutes must be at least 1"),
    ("IDLE_MINUTES", "\u0665", "idle_minutes must be a whole number"),  # a digit to Python, and to no admin
    ("IDLE_MINUTES", "9" * 30, "idle_minutes must be a whole number"),
    ("CONSENT", "True", "consent must be true or false"),
    ("LOG_LEVEL", TOKEN, "log_level must be one of debug, info, warning, error"),
    ("DISCOVER_ROOTS", "/home", "there is no such variable"),
    ("SEND", "x", "there is no such variable"),
    ("log_level", "info", "there is no such variable (did you mean $LEARNPACK_AGENT_LOG_LEVEL?)"),
    ("CONFIGURATION", TOKEN, "there is no such variable (did you mean $LEARNPACK_AGENT_CONFIG?)"),
    ("LOGLEVEL", "", "there is no such variable (did you mean $LEARNPACK_AGENT_LOG_LEVEL?)"),
]


@pytest.mark.parametrize(("name", "value", "words"), VARIABLES)
def test_a_fault_in_a_variable_names_the_variable_and_shows_no_value(
    machine: Machine, name: str, value: str, words: str
) -> None:
    machine.environment[f"LEARNPACK_AGENT_{name}"] = value
    (fault,) = machine.faults()
    assert fault.startswith(f"$LEARNPACK_AGENT_{name}: {words}")
    assert not value or value not in fault.removeprefix(f"$LEARNPACK_AGENT_{name}: ") or len(value) < 6


def test_a_file_that_is_read_twice_is_at_fault_once(machine: Machine) -> None:
    path = machine.write("config.toml", "idle_minutes = 0")
    machine.environment["LEARNPACK_AGENT_CONFIG"] = str(path)
    assert len(machine.faults()) == 1
