"""What a command line means in a course: the purpose of a process, judged from its words alone.

`purpose_of` reads a command as a person would: the program, its options, the first operand, and where that
operand lies.  A step's own file makes it a run; `-c`, `-e`, `--version` and tools from outside the course do not
(measured on the real commands: linters, formatters, language servers, REPLs).  Nothing here knows about parents
and children: that several processes are one run is decided in `agent.core.processes`.  The tables of languages
and tools are in `agent.core.runners`.

Known to be weak: `cat app.py | python -` names no file and can't be decided; configuration that changes what a
test tool collects is known for pytest and jest only as far as `Course` says, and what a tool takes from its
environment (`PYTEST_ADDOPTS`, `NODE_OPTIONS`) or from a `conftest.py` not at all.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .course import ENTRIES, Course, Step, is_source_file, is_test_file
from .runners import (
    COMPILERS,
    CONFIGURED_NARROW,
    EXEC_WRAPPERS,
    FORMATTERS,
    GIT_OPTIONS,
    GIT_WRITERS,
    HOST_MODULE_OPTION,
    HOSTS,
    INTERPRETERS,
    JEST,
    JEST_FILES,
    NODE,
    NODE_TEST,
    PYTEST,
    PYTHON,
    SHELL,
    TEST_TOOLS,
    UNITTEST,
    Interpreter,
    Kind,
    Parsed,
    TestTool,
    cluster,
    parse,
    words,
)

_VENDORED = words("node_modules site-packages __pycache__ venv env virtualenv dist-packages")
_SCRIPT_ENDING = re.compile(r"\.(py|pyw|js|cjs|mjs|exe|rb|php|phar)$")
_COPY = re.compile(r"/\.compile-run2?/tmp/")
_SHELLJS_CHILD = "/shelljs/src/exec-child.js"
_SHELLJS_FILE = re.compile(r"/(?:.*/)?shelljs_[0-9a-f]{20}")
_LONGEST_PATTERN = 500
#: A repeated group, or more than three repetitions: `(.+)+Z` takes four times as long for each two characters of the
#: path more (1.4 s for 22).
_SLOW_PATTERN = re.compile(r"\)[*+{]|(?:[*+{].*){4}")
_SELF_TESTING = re.compile(r"unittest\.main\(|pytest\.main\(|node:test|doctest\.testmod\(")
#: A test file whose exit code tells.  `doctest.testmod()` and a bare `pytest.main()` end with 0 whatever failed.
_SELF_TELLING = re.compile(
    r"unittest\.main\((?![^)]*\bexit\s*=\s*False)|(?:exit|SystemExit)\(\s*(?:int\()?\s*pytest\.main\(|node:test"
)
#: Settings of pytest by which `-o` can leave tests out.
_NARROWING_SETTING = re.compile(r"python_(files|classes|functions)=|addopts=.*\S")


@dataclass(frozen=True, slots=True)
class Purpose:
    """A command that runs or tests files of the course.

    `targets` are paths relative to the course's root.  `whole`: nothing narrows a test to a part of a step's
    test file, and exit code 0 means that it passed.  `alternatives`: the targets are equally good guesses for
    one file (compile-run's copies of identical files); with no target at all it is the current step's.  `broad`:
    the command names no step, its targets are all that it covers (`pytest` in the course's root).  `provisional`:
    the process is a wrapper that will become the command (`env`, a pyenv shim) unless it fails to.
    `silent_codes`: exit codes that say "nothing was tested".  Not `exit_tells`: the exit code says nothing at all.
    """

    kind: Kind
    tool: str
    targets: tuple[str, ...]
    whole: bool = False
    alternatives: bool = False
    broad: bool = False
    provisional: bool = False
    exit_tells: bool = True
    silent_codes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class NotARun:
    """A command that starts no step's file, and why, in words."""

    words: str


def program_of(argv: Sequence[str]) -> str:
    """The bare name of a command's program: "/usr/bin/python3.11" → "python3.11", "-bash" → "bash"."""
    return posixpath.basename(argv[0]).lstrip("-") if argv else ""


def tool_name(path: str) -> str:
    """The name of a script that is a tool: ".../bin/jest.js" → "jest"."""
    return _SCRIPT_ENDING.sub("", posixpath.basename(path))


def becomes(argv: Sequence[str]) -> list[str] | None:
    """The command that this process will become by `exec`, where it is a wrapper that does nothing else; else None.

    A version manager's shim is a shell script called `…/shims/python` that becomes `pyenv exec python`, and that
    the real program (measured: seven programs in one process).
    """
    program, rest = program_of(argv), list(argv[1:])
    if program in EXEC_WRAPPERS:
        while rest and (rest[0].startswith("-") or "=" in rest[0]):
            rest = rest[2 if rest[0] in EXEC_WRAPPERS[program] else 1 :]
        return rest or None
    if rest and SHELL.fullmatch(program):
        if posixpath.basename(posixpath.dirname(rest[0])) == "shims":
            return [posixpath.basename(rest[0]), *rest[1:]]
        if posixpath.basename(rest[0]) in ("pyenv-exec", "rbenv-exec", "nodenv-exec"):
            return rest[1:] or None
        if posixpath.basename(rest[0]) in ("pyenv", "rbenv", "nodenv", "asdf") and rest[1:2] == ["exec"]:
            return rest[2:] or None
    return None


def purpose_of(
    course: Course,
    argv: Sequence[str],
    cwd: str | None,
    stdin: str | None = None,
    copy_of: Sequence[str] = (),
    text_of: Mapping[str, str] | None = None,
) -> Purpose | NotARun:
    """What this command line is for, in this course.

    `text_of` (path → text) is what was found in the files when the command started; None: nobody looked yet.  It
    decides the cases that only the file can: whether it is there at all, whether a test file that is run directly
    tests itself, and whether `unittest` finds a test in it.
    """
    if not argv:
        return NotARun("a kernel thread")
    if (command := becomes(argv)) is not None:
        purpose = purpose_of(course, command, cwd, stdin, copy_of, text_of)
        return replace(purpose, provisional=True) if isinstance(purpose, Purpose) else purpose
    reader = _Reader(course, cwd, stdin, text_of or {}, looked=text_of is not None)
    if copy_of or compile_run_copy(argv) is not None:
        kind = Kind.COMPILER if COMPILERS.fullmatch(program_of(argv)) else Kind.COMPILE
        return Purpose(kind, program_of(argv), tuple(copy_of), alternatives=True)
    return reader.command(argv)


@dataclass(frozen=True, slots=True)
class _Reader:
    """One command in one directory of one course."""

    course: Course
    cwd: str | None
    stdin: str | None
    text_of: Mapping[str, str]
    looked: bool

    def command(self, argv: Sequence[str]) -> Purpose | NotARun:
        program, rest = program_of(argv), list(argv[1:])
        if COMPILERS.fullmatch(program):
            return self._compiler(program, rest)
        for tool in TEST_TOOLS:
            if re.fullmatch(tool.programs, tool_name(program)) and self._has_subcommand(tool, rest):
                return self.test(tool, rest)
        for interpreter in INTERPRETERS:
            if re.fullmatch(interpreter.programs, program):
                if rest and self._is_installed_beside(argv[0], rest[0]):
                    return self._tool(tool_name(rest[0]), rest[1:], interpreter)
                return self._interpreter(interpreter, rest)
        if program in HOSTS:
            return self._host(program, rest, PYTHON)
        if "/" in argv[0] and (path := self._own(argv[0])) is not None:
            return Purpose(Kind.COMPILE, "program", (path,))
        return NotARun(f"{program} runs no step's file")

    def _is_installed_beside(self, program: str, script: str) -> bool:
        """`myenv/bin/python myenv/bin/pip`: a script beside its interpreter was installed, wherever that is."""
        places = [posixpath.dirname(self.course.resolve(path, self.cwd) or path) for path in (program, script)]
        return "/" in program and "/" in script and places[0] == places[1]

    @staticmethod
    def _has_subcommand(tool: TestTool, rest: Sequence[str]) -> bool:
        return not tool.needs_subcommand or bool(rest and rest[0] in tool.subcommands)

    # runs

    def _interpreter(self, row: Interpreter, rest: list[str]) -> Purpose | NotARun:
        if row.subcommand:
            if not rest or rest[0] not in row.subcommand:
                return NotARun(f"{row.name} without {' or '.join(sorted(row.subcommand))}")
            rest = rest[1:]
        parsed = parse(rest, row.options, stop_at_operand=True)
        if row is NODE and parsed.has(frozenset({"--test"})):
            return self.test(NODE_TEST, [word for word in rest if word != "--test"])
        if row is PYTHON:
            # `-m` ends the options as a script does: what follows belongs to the module.
            module, arguments, before = _python_module(rest)
            if module is not None:
                return self._module(module, arguments) if not before.has(row.options.never) else NotARun("no module")
        if parsed.has(row.options.never):
            return NotARun(f"{row.name} {next(name for name, _ in parsed.options if name in row.options.never)}")
        if not parsed.operands or parsed.operands[0] == "-":
            return self._standard_input(row)
        script = parsed.operands[0]
        if row.name == "java" and not script.endswith(".java"):
            script = self._java_class(script, parsed)
        if self._own(script) is None:
            return self._tool(tool_name(script), list(parsed.operands[1:]), row)
        if row is NODE and parsed.has(frozenset({"--watch"})):
            return NotARun("node --watch starts the program again and again in a child")
        paths = self._there(self._candidates(script, row))
        if not paths:
            return NotARun(f"{row.name} finds no {script}")
        if row.only_own_language and not _is_shell_step(self.course.step_of(paths[0])):
            return NotARun("a shell script that starts other programs")
        if is_test_file(posixpath.basename(paths[0])):
            return self._test_file_itself(row, paths[0], parsed)
        return Purpose(Kind.COMPILE, row.name, paths)

    def _java_class(self, name: str, parsed: Parsed) -> str:
        """`java -cp build pkg.App`: the source of that class, where the course has it."""
        places = [
            place for value in parsed.values_of("-cp", "-classpath", "--class-path") for place in value.split(":")
        ]
        for place in (*places, "."):
            source = posixpath.join(place, name.replace(".", "/") + ".java")
            found = self.course.resolve(source, self.cwd)
            if found is not None and self._is_known_file(found):
                return source
        return name

    def _standard_input(self, row: Interpreter) -> Purpose | NotARun:
        path = self._own(self.stdin) if self.stdin else None
        if path is None or row.only_own_language:
            return NotARun(f"{row.name} without a file")
        return Purpose(Kind.COMPILE, row.name, (path,))

    def _test_file_itself(self, row: Interpreter, path: str, parsed: Parsed) -> Purpose:
        """`python test.py`: a test only if the file runs its own tests, else exit code 0 says nothing."""
        text = self.text_of.get(path, "")
        if _SELF_TESTING.search(text) is None:
            return Purpose(Kind.COMPILE, row.name, (path,))
        whole = _SELF_TELLING.search(text) is not None
        if row is PYTHON:  # `python test.py TestAdd.test_zero`, `-k zero`, `--help`: unittest's own words
            given = parse(parsed.operands[1:], UNITTEST.options)
            whole = whole and not given.operands and not given.has(UNITTEST.options.narrow | UNITTEST.options.never)
        elif row is NODE:
            whole = whole and not parsed.has(NODE_TEST.options.narrow)
        return Purpose(Kind.TEST, row.name, (path,), whole=whole)

    def _module(self, module: str, arguments: list[str]) -> Purpose | NotARun:
        tool = self._tool(module, arguments, PYTHON)
        if isinstance(tool, Purpose):
            return tool
        base = module.replace(".", "/")
        paths = self._there([path for end in (".py", "/__main__.py") if (path := self._own(base + end)) is not None])
        return Purpose(Kind.COMPILE, "python", paths) if paths else tool

    def _tool(self, name: str, arguments: list[str], row: Interpreter) -> Purpose | NotARun:
        """A script or module from outside the course: a test tool, a host of the student's file, or no run."""
        for tool in TEST_TOOLS:
            if re.fullmatch(tool.programs, name) and self._has_subcommand(tool, arguments):
                return self.test(tool, arguments)
        if name in HOSTS:
            return self._host(name, arguments, row)
        nested = next(
            (other for other in INTERPRETERS if other.name in ("ts-node", "tsx") and name == other.name), None
        )
        if nested is not None:
            return self._interpreter(nested, arguments)
        return NotARun(f"{name} is a tool")

    def _host(self, name: str, arguments: list[str], row: Interpreter) -> Purpose | NotARun:
        if HOSTS[name] and not (arguments and arguments[0] in HOSTS[name]):
            return NotARun(f"{name} is a tool")
        for index, word in enumerate(arguments):
            if word in HOST_MODULE_OPTION and index + 1 < len(arguments):
                return self._module(arguments[index + 1], arguments[index + 2 :])
            if not word.startswith("-") and word.endswith(row.endings or ("",)):
                paths = self._there(self._candidates(word, row))
                if paths:
                    return Purpose(Kind.COMPILE, name, paths)
        return NotARun(f"{name} without a step's file")

    def _compiler(self, program: str, rest: list[str]) -> Purpose | NotARun:
        targets = [path for word in rest if not word.startswith("-") and (path := self._own(word)) is not None]
        if not targets:
            return NotARun(f"{program} without a step's file")
        return Purpose(Kind.COMPILER, program, (targets[0],))

    # tests

    def test(self, tool: TestTool, line: list[str]) -> Purpose | NotARun:
        if line and line[0] in tool.others:
            return NotARun(f"{tool.name} {line[0]}")
        if line and line[0] in tool.subcommands:
            line = line[1:]
        parsed = parse(line, tool.options)
        if parsed.has(tool.options.never):
            return NotARun(f"{tool.name} {next(name for name, _ in parsed.options if name in tool.options.never)}")
        operands = [*parsed.operands, *parsed.values_of(*tool.operand_options)]
        if tool.operands == "names":
            targets, whole = self._name_targets(tool, parsed)
        elif tool.operands == "patterns":
            targets, whole = self._pattern_targets(tool, parsed)
        else:
            targets, whole = self._file_targets(tool, operands)
        if not targets:
            return NotARun(f"{tool.name} outside the course's steps")
        whole = whole and tool.decisive and not parsed.has(tool.options.narrow)
        whole = whole and not (tool.options is PYTEST.options and self._is_pytest_narrowed(parsed))
        broad = len({step for path in targets if (step := self.course.step_of(path))}) > max(1, len(parsed.operands))
        return Purpose(
            Kind.TEST,
            tool.name,
            tuple(targets),
            whole=whole,
            broad=broad,
            exit_tells=tool.exit_tells,
            silent_codes=tool.silent_codes,
        )

    def _file_targets(self, tool: TestTool, operands: Sequence[str]) -> tuple[list[str], bool]:
        targets: list[str] = []
        whole = True
        for operand in operands or (tool.default,):
            file, part, _ = operand.partition("::")
            path = self.course.resolve(file, self.cwd)
            if path is None:
                continue
            if self._is_directory(path):
                found = list(self._collected(tool, path))
                step = self._step_of(path)
                if found:
                    targets.extend(found)
                elif step is not None:
                    # Nothing of the step's own tests is collected from here: a test of something else.
                    targets.append(step.path)
                    whole = False
            elif self._step_of(path) is not None:
                targets.append(path)
                whole = whole and not part and _is_whole_test_file(path)
            elif self._own(operand) is not None:
                # Incremental grading: LearnPack "tests" conftest.py in the root where it finds no test of the step.
                targets.append(path)
                whole = False
        return targets, whole

    def _name_targets(self, tool: TestTool, parsed: Parsed) -> tuple[list[str], bool]:
        """unittest and nose2: operands are dotted names, and none (or `discover`) means what a directory holds."""
        operands = list(parsed.operands)
        if not operands or operands[0] == "discover":
            directories = parsed.values_of("-s", "--start-directory", "--start-dir") or operands[1:2] or ["."]
            patterns = parsed.values_of("-p", "--pattern") or operands[2:3]
            collecting = replace(tool, collects=tuple(patterns[-1:])) if patterns else tool
            targets, whole = self._file_targets(collecting, directories)
        else:
            targets, whole = [], True
            for operand in operands:
                path, is_whole = self._dotted(operand)
                if path is not None:
                    targets.append(path)
                    whole = whole and is_whole and _is_whole_test_file(path)
        # Before Python 3.12 "Ran 0 tests" exits with 0: a file without a TestCase proves nothing.
        return targets, whole and all("TestCase" in self.text_of.get(path, "") for path in targets)

    def _dotted(self, name: str) -> tuple[str | None, bool]:
        """`test`, `test.TestX.test_y`, `exercises.01.test` or a path → the file, and whether all of it is meant."""
        if "/" in name or name.endswith(".py"):
            path = self.course.resolve(name, self.cwd)
            return (path, True) if path is not None and self._step_of(path) is not None else (None, False)
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            path = self.course.resolve("/".join(parts[:length]) + ".py", self.cwd)
            if path is not None and self._is_known_file(path):
                return path, length == len(parts)
        return None, False

    def _is_pytest_narrowed(self, parsed: Parsed) -> bool:
        """Whether pytest takes only a part by its configuration, or by a file of arguments, which nobody reads here."""
        settings = parsed.values_of("-o", "--override-ini")
        if any(_NARROWING_SETTING.match(setting) for setting in settings):
            return True
        if any(operand.startswith("@") for operand in parsed.operands):
            return True
        is_overridden = any(one.startswith("addopts=") for one in settings)
        return not is_overridden and _is_configured_narrow(self.course)

    def _pattern_targets(self, tool: TestTool, parsed: Parsed) -> tuple[list[str], bool]:
        """jest and its kin: operands are patterns over absolute paths, and none means everything."""
        patterns = [*parsed.operands, *parsed.values_of("--testPathPattern", "--testPathPatterns")]
        regex = parsed.values_of("--testRegex")
        for config in parsed.values_of("-c", "--config"):
            regex += filter(None, (_json_text(config, "testRegex"),))
        globs = parsed.values_of("--testMatch")
        if not patterns and not regex and not globs:
            return self._file_targets(tool, (".",))
        base = self.course.root
        targets = [
            path
            for _, path in self.course.test_files()
            if all(any(_matches(p, posixpath.join(base, path)) for p in ps) for ps in (patterns, regex) if ps)
            and (not globs or any(fnmatch.fnmatchcase("/" + path, "*" + glob.lstrip("*")) for glob in globs))
        ]
        if not targets:
            # A file or directory that is no test file of ours: still work on that step.
            steps = [
                step for p in patterns if (path := self.course.resolve(p, self.cwd)) and (step := self._step_of(path))
            ]
            return [step.path for step in steps], False
        return targets, True

    def _collected(self, tool: TestTool, directory: str) -> Iterator[str]:
        """The steps' test files that the tool takes from this directory by itself."""
        if tool is PYTEST:
            patterns: tuple[str, ...] = self.course.pytest_files
        elif tool is JEST:
            patterns = ("*",) if self.course.jest_configured else JEST_FILES
        else:
            patterns = tool.collects or ()
        inside = "" if directory == "." else directory
        prefix = f"{inside}/" if inside else ""
        for _, path in self.course.test_files():
            if not tool.recursive and posixpath.dirname(path) != inside:
                continue
            if path.startswith(prefix) and any(fnmatch.fnmatchcase(posixpath.basename(path), p) for p in patterns):
                yield path

    # paths

    def _candidates(self, operand: str, row: Interpreter) -> list[str]:
        """The files that an interpreter may mean by its operand: `app` → app, app.js, …, app/index.js."""
        path = self._own(operand)
        if path is None:
            return []
        if path.endswith(row.endings or ("",)):
            return [path]
        inside = [posixpath.join(path, row.directory_file)] if row.directory_file else []
        completed = () if row is PYTHON else row.endings  # python runs no app.py for `python app`
        return [path, *(path + ending for ending in completed), *inside]

    def _there(self, candidates: Sequence[str]) -> tuple[str, ...]:
        """The one that is there; before anybody looked: a known one, else all, so that somebody looks."""
        for path in candidates:
            if path in self.text_of or self._is_known_file(path):
                return (path,)
        return () if self.looked else tuple(candidates)

    def _own(self, operand: str | None) -> str | None:
        """The operand as a path of the student's own code (in a step, or in the root of an incremental course)."""
        path = self.course.resolve(operand, self.cwd) if operand else None
        if path is None:
            return None
        step = self._step_of(path)
        if step is None:
            # Incremental grading: what lies outside the steps and LearnPack's own directory is the student's code.
            hidden = path.split("/")[0] in (self.course.base, self.course.exercises.split("/")[0])
            return path if self.course.at_root and not hidden and not _is_vendored(path) else None
        return path

    def _step_of(self, path: str) -> Step | None:
        """The step of a path, unless it lies in a directory of somebody else's code."""
        step = self.course.step_of(path)
        if step is None:
            return None
        inside = path if step.path == "." else path[len(step.path) :]
        return None if _is_vendored(inside) else step

    def _is_known_file(self, path: str) -> bool:
        step = self.course.step_of(path)
        return step is not None and any(file.path == path for file in step.files)

    def _is_directory(self, path: str) -> bool:
        """Known directories: the root, the steps', and those above them; a name without an ending in a step too."""
        if path == "." or any(step.path == path or step.path.startswith(path + "/") for step in self.course.steps):
            return True
        return "." not in posixpath.basename(path)


def _is_whole_test_file(path: str) -> bool:
    """Whether a path names a test file, and nothing in it: not "test.py:TestAdd" (nose), "test.js:4" (ava)."""
    name = posixpath.basename(path)
    return is_test_file(name) and not any(mark in name for mark in ":[#")


def _python_module(rest: Sequence[str]) -> tuple[str | None, list[str], Parsed]:
    """Python's `-m`: the module, its arguments, and the options before it."""
    for index, word in enumerate(rest):
        if word == "-" or not word.startswith("-"):
            previous = rest[index - 1] if index else ""
            if previous in ("-W", "-X", "--check-hash-based-pycs"):
                continue
            break
        if word.startswith("--"):
            continue
        letters = list(cluster(word, PYTHON.options))
        name, value = letters[-1]
        if name == "-m":
            before = Parsed((), tuple(letters[:-1]))
            if value is not None:
                return value, list(rest[index + 1 :]), before
            if index + 1 < len(rest):
                return rest[index + 1], list(rest[index + 2 :]), before
        if any(letter in PYTHON.options.never for letter, _ in letters):
            break
    return None, [], Parsed((), ())


def learnpack_tests_a_part(course: Course, step: Step) -> bool:
    """Whether LearnPack's button, which runs the whole test file, leaves tests out, as pytest is configured."""
    return any(path.endswith(".py") for path in step.tests) and _is_configured_narrow(course)


def _is_configured_narrow(course: Course) -> bool:
    return parse(course.pytest_options, PYTEST.options).has(CONFIGURED_NARROW)


def _is_vendored(path: str) -> bool:
    """Whether a path leads through hidden directories or installed packages."""
    parts = [part for part in path.split("/")[:-1] if part not in ("", ".", "..")]
    if parts and parts[0] in (".learn", ".breathecode"):
        parts = parts[1:]
    return any(part.startswith(".") or part in _VENDORED for part in parts)


def _is_shell_step(step: Step | None) -> bool:
    """Whether a step teaches the shell: it has no program text of another language."""
    return step is not None and all(
        file.name.endswith((".sh", ".bash", ".zsh")) for file in step.files if is_source_file(file.name)
    )


def _matches(pattern: str, path: str) -> bool:
    """As jest does: a regular expression, not anchored, case ignored; a broken or slow one is taken literally."""
    pattern = pattern.removeprefix("./")[:_LONGEST_PATTERN]
    try:
        if not _SLOW_PATTERN.search(pattern):
            return re.search(pattern, path, re.IGNORECASE) is not None
    except (re.error, OverflowError, RecursionError):  # it is what somebody typed
        pass
    return pattern.lower() in path.lower()


def _json_text(json: str, key: str) -> str | None:
    """The text of `"key": "…"` (or the first of a list) in a JSON command-line argument."""
    found = re.search(rf'"{key}"\s*:\s*\[?\s*"((?:[^"\\]|\\.)*)"', json)
    return re.sub(r"\\(.)", r"\1", found.group(1)) if found else None


# --- what the sensors ask --------------------------------------------------------------------------------------


def is_relevant(course: Course, argv: Sequence[str], cwd: str | None, stdin: str | None) -> bool:
    """Whether a process may matter: it works in the course, or its command line or standard input names it."""
    if cwd is not None and course.relative(cwd) is not None:
        return True
    if stdin is not None and course.relative(stdin) is not None:
        return True
    roots = (course.root, *course.aliases)
    above = cwd is not None and any(root.startswith(cwd.rstrip("/") + "/") for root in roots)
    for word in argv[:32]:
        if any(root + "/" in word or word.endswith(root) for root in roots):
            return True
        if above and not word.startswith(("-", "/")) and course.resolve(word, cwd) is not None:
            return True
    return False


def maybe_elsewhere(course: Course, argv: Sequence[str]) -> Iterator[str]:
    """Absolute paths in a command that may lead into the course under another name (a symbolic link).

    They name a file in a directory that is called like a step's: rare enough to ask the file system about.
    """
    for word in argv[1:6]:
        if not word.startswith("/") or course.relative(word) is not None:
            continue
        if course.has_directory_named(posixpath.basename(posixpath.dirname(word))):
            yield word


def unknown_step(course: Course, argv: Sequence[str], cwd: str | None) -> str | None:
    """The directory (relative to the root) of a step that is not in the course's picture yet, if this command works
    in one: the student, or `git pull`, made it a moment ago."""
    for operand in (".", *argv[1:6]):
        path = course.resolve(operand, cwd) if not operand.startswith("-") else None
        if path is None or course.exercises in (".", "") or not path.startswith(course.exercises + "/"):
            continue
        name = path[len(course.exercises) + 1 :].split("/")[0]
        if not name.startswith((".", "_")) and course.step_of(f"{course.exercises}/{name}") is None:
            return f"{course.exercises}/{name}"
    return None


def entry_of(course: Course, step: Step) -> str | None:
    """The file that LearnPack would record as the step's source: in the step, or in the root (incremental).  Where
    LearnPack knows none (a language without an engine), the step's only source file."""
    if step.entry is not None:
        return step.entry
    if course.at_root:
        return ENTRIES.get(step.language or "")
    sources = [file.path for file in step.files if is_source_file(file.name)]
    return sources[0] if len(sources) == 1 else None


def files_to_read(course: Course, argv: Sequence[str], cwd: str | None, stdin: str | None) -> tuple[str, ...]:
    """The files whose text matters if this command starts now: what is run, and for a test also its test file."""
    purpose = purpose_of(course, argv, cwd, stdin)
    if isinstance(purpose, NotARun):
        return ()
    paths: dict[str, None] = {}
    for target in purpose.targets[:8]:
        step = course.step_of(target)
        if step is not None and (purpose.kind is Kind.TEST or not is_source_file(posixpath.basename(target))):
            paths.update(dict.fromkeys(filter(None, (entry_of(course, step), *step.tests))))
        if step is None or target != step.path:
            paths[target] = None
    return tuple(paths)


def compile_run_copy(argv: Sequence[str]) -> str | None:
    """The temporary copy that compile-run made of the student's file, if this command runs one.

    Footprints of compile-run 2.3.2: `~/.compile-run2/tmp/<language>/source-<32 hex>-<ms>.<ending>`, for Java a
    directory of that name that `java` gets as class path.
    """
    for index, word in enumerate(argv[1:], start=1):
        if _COPY.search(word):
            if argv[index - 1] in ("-cp", "-classpath") and index + 1 < len(argv):
                return f"{word}/{argv[index + 1]}.java"
            return word
    return None


def is_shelljs_file(path: str) -> bool:
    """Whether an absolute path is that of a temporary file of shelljs (0.8.4 and 0.8.5: 20 hex digits)."""
    return _SHELLJS_FILE.fullmatch(path) is not None


def parameter_file(argv: Sequence[str]) -> str | None:
    """The absolute path of the parameter file that shelljs's launcher works from, if this command is one:
    `node …/shelljs/src/exec-child.js /tmp/shelljs_<20 hex>`.  LearnPack starts one for each test."""
    for index, word in enumerate(argv[1:8], start=2):
        if word.endswith(_SHELLJS_CHILD):
            return argv[index] if index < len(argv) and is_shelljs_file(argv[index]) else None
    return None


def is_build_launcher(argv: Sequence[str]) -> bool:
    """Whether this is compile-run's `box`: LearnPack starts one for each build (footprints of 2.3.2)."""
    return len(argv) > 1 and argv[1].endswith("/compile-run/dist/lib/box")


def rewrites_files(argv: Sequence[str]) -> bool:
    """Whether a command rewrites files that nobody edits while it runs: a formatter, a checkout."""
    names = [program_of(argv), *(tool_name(word) for word in argv[1:3])]
    if len(argv) > 2 and argv[1] == "-m":
        names.append(argv[2])
    if any(name in FORMATTERS for name in names):
        return True
    operands = parse(argv[1:], GIT_OPTIONS).operands if names[0] == "git" else ()
    return bool(operands) and operands[0] in GIT_WRITERS


def is_server(course: Course, argv: Sequence[str], cwd: str | None) -> bool:
    """Whether this is `learnpack start` of this course: `node …/bin/learnpack start …`, working in its root."""
    if cwd is None or course.relative(cwd) != "." or program_of(argv) not in ("node", "nodejs"):
        return False
    operands = [word for word in argv[1:] if not word.startswith("-")]
    if len(operands) < 2 or operands[1] != "start":
        return False
    return tool_name(operands[0]) == "learnpack" or (tool_name(operands[0]) == "run" and "learnpack" in operands[0])
