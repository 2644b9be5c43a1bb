"""Who may import whom: the rules of the house, read from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

AGENT = Path(__file__).parent.parent / "agent"
MODULES = sorted(path.relative_to(AGENT) for path in AGENT.rglob("*.py"))

#: What the pure core may use of the standard library: nothing that reads a clock, a file, or chance.
PURE = {
    "__future__",
    "base64",
    "collections",
    "dataclasses",
    "enum",
    "fnmatch",
    "functools",
    "itertools",
    "posixpath",
    "re",
    "shlex",
    "types",
    "typing",
    "urllib.parse",
}
#: Cost 19 MB and 100 ms (requests), or are wanted in a fallback only: imported where they are needed.
HEAVY = {"requests", "psutil", "daemon", "subprocess", "asyncio", "tomllib", "tempfile", "uuid", "inspect"}
MAY_IMPORT = {
    "core": {"core"},
    "sensors": {"core", "sensors"},
    "store": {"core", "store"},
    "sinks": {"core", "sinks", ""},  # "": the version
    "hosting": {"core", "hosting"},
    "config": {"config", "core"},
}


def imports(module: Path, *, top_level: bool = False) -> Iterator[str]:
    """The imported names of a module; relative ones as `.package.module` from the root of `agent`."""
    tree = ast.parse((AGENT / module).read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.module or ""
            else:
                base = module.parent.parts[: len(module.parent.parts) - node.level + 1]
                yield "." + ".".join([*base, *(node.module or "").split(".")]).rstrip(".")


def package_of(name: str) -> str:
    return name.lstrip(".").split(".")[0]


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] == "core"], ids=str)
def test_the_core_imports_nothing_that_touches_the_world(module: Path) -> None:
    foreign = [
        name
        for name in imports(module)
        if not name.startswith(".") and name not in PURE and name.split(".")[0] not in PURE - {"urllib.parse"}
    ]
    assert foreign == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] in MAY_IMPORT], ids=str)
def test_packages_import_only_what_lies_below_them(module: Path) -> None:
    inside = [name for name in imports(module) if name.startswith(".")]
    assert [name for name in inside if package_of(name) not in MAY_IMPORT[module.parts[0]]] == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nobody_imports_the_command_line_or_the_service(module: Path) -> None:
    if module.name in ("__main__.py", "cli.py", "host.py"):
        return
    assert [name for name in imports(module) if name in (".cli", ".service")] == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_inside_the_package_imports_are_relative(module: Path) -> None:
    assert [name for name in imports(module) if name.split(".")[0] == "agent"] == []


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_packages_are_imported_only_where_they_are_needed(module: Path) -> None:
    if module.name == "demo.py" or module.parts[0] == "sinks":
        return  # a command that ends, loaded by nothing else; and what is loaded when there is something to send
    assert [name for name in imports(module, top_level=True) if name.split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[0] != "sinks"], ids=str)
def test_sinks_are_imported_only_when_there_is_something_to_send(module: Path) -> None:
    assert [name for name in imports(module, top_level=True) if name.startswith(".sinks")] == []


def test_no_module_of_ours_hides_python_daemon() -> None:
    assert [path for path in MODULES if path.stem == "daemon"] == []


def test_the_top_level_holds_what_the_house_has_and_nothing_else() -> None:
    allowed = {"setup.cfg", "setup.py", "README.md", "LICENSE", "CHANGELOG.md", "agent", "systemd", "launchd", "tests"}
    allowed |= {"build", "dist", "learnpack_agent.egg-info"}  # what installing leaves, ignored by git
    assert {path.name for path in AGENT.parent.iterdir() if not path.name.startswith(".")} <= allowed
