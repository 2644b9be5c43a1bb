"""Keys, tokens and passwords leave no letter behind, and programs and their outputs stay as they are."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sinks.secrets import MASK, _found_in, _secrets_in, mask
from tests.standin import courses, formatting, learnpack, programs, student, texts

A36 = "A1b2C3d4E5" * 3 + "F6g7H8"
JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"
    ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
)

#: What must not be left, not even in part.
SECRETS: dict[str, str] = {
    "GitHub": f"ghp_{A36}",
    "GitHub, longer": f"gho_{A36}x9Y8z7",
    "GitHub, fine-grained": f"github_pat_11ABCDEFG0abcdefghijkl_{A36}{A36[:23]}",
    "GitLab": "glpat-A1b2C3d4E5F6g7H8I9j0",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "Slack": "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
    "Slack's hook": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "JSON web token": JWT,
    "Stripe": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "Stripe, longer": "rk_live_4eC39HqLyjWDarjtT1zdp7dc4eC39HqLyjWDarj",
    "OpenAI": "sk-proj-A1b2C3d4E5A1b2C3d4E5T3BlbkFJA1b2C3d4E5A1b2C3d4E5",
    "SendGrid": "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",
    "Telegram": "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1",
    "PyPI": "pypi-AgEIcHlwaS5vcmc" + "A1b2C3d4E5" * 8,
    "Google": "AIzaSyA1b2C3d4E5F6g7H8I9j0A1b2C3d4E5F6g",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key {} here", "'{}'", '{{"a": "{}"}}', "x=({})", "\t{}\n", "[{}]", "`{}`"])
def test_a_secret_is_masked_whole_and_nothing_else(kind: str, around: str) -> None:
    assert mask(around.format(SECRETS[kind])) == around.format(MASK)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("API_KEY=abcd1234efgh", "API_KEY=[secret]"),
        ("export DB_PASSWORD=s3cr3t-pw!", "export DB_PASSWORD=[secret]"),
        ("{'PASSWORD': 'hunter2hunter2', 'n': 3}", "{'PASSWORD': '[secret]', 'n': 3}"),
        ('{"client_secret": "x", "n": 3}', '{"client_secret": "[secret]", "n": 3}'),
        ("password = 'correct horse'", "password = '[secret]'"),
        ("if 'hunter2' == password:", "if '[secret]' == password:"),
        ('aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"', "[secret]"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AWS_SECRET_ACCESS_KEY=[secret]"),
        ("export GITLAB_TOKEN=abcd1234efgh5678", "export GITLAB_TOKEN=[secret]"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer [secret]"),
        ("{'Authorization': 'Token 0123abcd0123abcd'}", "{'Authorization': 'Token [secret]'}"),
        ("https://ada:s3cr3t@db.example.org/x", "https://ada:[secret]@db.example.org/x"),
        ("postgres://ada:s3cr3t@db/x and redis://u:pw@h", "postgres://ada:[secret]@db/x and redis://u:[secret]@h"),
        (f"{JWT} {JWT}", "[secret] [secret]"),
    ],
)
def test_what_is_around_a_secret_stays(text: str, left: str) -> None:
    assert mask(text) == left


KEY = "MIIEpAIBAAKCAQEAx9\nAbCdEf0123456789+/=\nqqqq"


@pytest.mark.parametrize(
    ("block", "left"),
    [
        (f"a\n-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----\nb", "a\n[secret]\nb"),
        (f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----", "[secret]"),
        (f"-----BEGIN OPENSSH PRIVATE KEY-----\r\n{KEY}\r\n-----END OPENSSH PRIVATE KEY-----", "[secret]"),
        (f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{KEY}\n-----END PGP PRIVATE KEY BLOCK-----", "[secret]"),
        (f"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{KEY}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----", "[secret]"),
        (f"PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 2\n{KEY}\nPrivate-MAC: 1f2e\nb", "[secret]\nb"),
        (f"-----BEGIN EC PRIVATE KEY-----\n{KEY}", "[secret]"),
        ("k = '-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----\\n'", "k = '[secret]\\n'"),
        (
            "-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\nb\n"
            "-----BEGIN PRIVATE KEY-----\nC\n-----END PRIVATE KEY-----",
            "[secret]\nb\n[secret]",
        ),
    ],
)
def test_a_private_key_is_masked_with_its_block(block: str, left: str) -> None:
    assert mask(block) == left


PUBLIC_KEY = f"-----BEGIN PUBLIC KEY-----\n{KEY}\n-----END PUBLIC KEY-----"

ORDINARY = [
    "password = input('Your password: ')\nif password == '':\n    print('no')\n",
    "def check_password(password):\n    return len(password) >= 8 and any(c.isdigit() for c in password)\n",
    "for key, value in sorted(counts.items(), key=lambda pair: pair[1]):\n    print(f'{key}: {value}')\n",
    "const key = Object.keys(user)[0];\nlet token = tokens2[i];\n",
    "tokens = text.split()\nnext_token = lexer.get_next_token2(tokens)\n",
    "secret_number = random.randint(1, 100)\nguess = int(input('guess the secret number: '))\n",
    "pwd: /srv/course\nkeyboard: qwerty\n",
    "Traceback (most recent call last):\n  File \"app.py\", line 3, in <module>\nKeyError: 'password'\n",
    "https://docs.python.org/3/library/stdtypes.html#dict.keys?token=\nhttp://localhost:3000/users/12\n",
    "fetch('https://api.example.org/users', { headers: { 'Content-Type': 'application/json' } })\n",
    "APARTAMENTO APELLIDOS APARTMENTS AKCELERATION ACCESSIBILITY\n",
    "0123456789abcdef0123456789abcdef\n3.14159265358979323846264338327950288\n",
    "550e8400-e29b-41d4-a716-446655440000\n2024-05-17T10:20:30.123Z\n",
    "============================= test session starts =============================\ncollected 3 items\n",
    "tests/test_01-hello_world.py::test_prints_hello_world_with_capital PASSED  [100%]\n",
    "background: url(data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk)",
    "public static void main(String[] args) throws InterruptedException {\n",
    '<input type="password" name="password" placeholder="********" id="password-field-1">\n',
    "I passed! password123? No key, no pass, no secret.\n",
    "diccionario = {'nombre': 'Ana', 'contraseña': ''}\n",
    PUBLIC_KEY,
    "",
    "\n\n\n",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_what_students_write_and_see_stays_as_it_is(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize("module", [programs, courses, formatting, learnpack, student, texts])
def test_the_texts_of_a_whole_course_stay_as_they_are(module: object) -> None:
    text = inspect.getsource(module)  # type: ignore[arg-type]
    assert mask(text) == text


def test_the_standard_library_stays_nearly_as_it_is() -> None:
    """Thousands of lines that hold no secret; a handful has the look of one (the defaults of passwords, for one)."""
    directory = Path(inspect.getfile(inspect)).parent
    lines = [
        line
        for name in ("argparse.py", "json/decoder.py", "csv.py", "random.py", "statistics.py", "textwrap.py")
        for line in (directory / name).read_text(encoding="utf-8").splitlines()
    ]
    changed = [line for line in lines if mask(line) != line]
    assert len(lines) > 4_000
    assert changed == []


# --- long lines ---


@pytest.mark.parametrize("at", [*range(700, 1_100, 29), 1_790, 5_000])
@pytest.mark.parametrize("kind", ["GitHub", "JSON web token", "Stripe"])
def test_a_secret_is_found_wherever_it_stands_in_a_long_line(at: int, kind: str) -> None:
    line = f"{'. ' * (at // 2)}{SECRETS[kind]}{' .' * 3_000}"
    assert mask(line) == line.replace(SECRETS[kind], MASK)


@pytest.mark.parametrize(
    "unit",
    ["pwd", "password", "secret_", "password='", "'", "''=='", "key=", "://a:", "eyJ.", "a", "aws", "token:", "\\"],
)
def test_a_line_that_is_made_to_be_slow_is_not(unit: str) -> None:
    """Without windows and one start per word, `pwd` took 3.9 s for each kilobyte."""
    _secrets_in.cache_clear()
    line = "".join(f"{unit}{unit}{unit}{number}" for number in range(6_000))[:40_000]
    began = time.process_time()
    mask(line)
    assert time.process_time() - began < 5
    assert _secrets_in.cache_info().misses <= 40_000 // 768 + 2


def test_a_line_that_comes_again_is_not_looked_at_again() -> None:
    _secrets_in.cache_clear()
    for _ in range(50):
        mask("export API_KEY=abcd1234efgh\n" * 20)
    assert _secrets_in.cache_info().misses == 2  # the line, and what is left of it


def test_a_million_lines_of_output_are_not_looked_at_where_there_is_nothing_to_find() -> None:
    assert list(_secrets_in("hello world, this is line 7 of many")) == []
    began = time.process_time()
    mask("\n".join(f"hello world, this is line {number} of many" for number in range(50_000)))
    assert time.process_time() - began < 5
    assert list(_found_in("AKIAIOSFODNN7EXAMPLE")) != []


# --- anything ---

_WORDS = "password = ' \" : :// @ [secret] token 1a2b3c4d5e6f ----- key == ; ñ \0 AP ( \ud800".split(" ")
_PIECES = st.sampled_from([*SECRETS.values(), *_WORDS, " ", "\n", "BEGIN PRIVATE KEY", "Authorization: Bearer "])


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=3)), max_size=20).map("".join)))
def test_whatever_the_text_is_masking_never_raises_and_leaves_nothing_more_to_mask(text: str) -> None:
    masked = mask(text)
    assert mask(masked) == masked
    for kind in ("GitHub", "AWS", "Stripe", "SendGrid"):
        assert SECRETS[kind] not in masked
