"""Each floor of the package imports only from floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import midinet

PACKAGE = Path(midinet.__file__).parent

# From the ground up. What stands on one floor may import its neighbours on that floor. The gateways are no
# floor of their own: what looks names up is needed where connections are made, what joins hubs stands on
# them, and what bridges devices to ports of both kinds knows those.
FLOORS = {
    "errors": 0,
    "address": 0,
    "checks": 0,
    "net.tasks": 1,
    "net.affinity": 1,
    "wire": 1,
    "gateways": 2,
    "hub": 2,
    "files": 3,
    "gateways.packets": 3,
    "gateways.session": 4,
    "gateways.broker": 5,
    "gateways.devices": 5,
    "net": 6,
    "gateways.members": 7,
    "gateways.wishes": 8,
    "__init__": 8,
    "sync": 9,
    "gateways.hardware": 10,
    "backend": 10,
    "testing": 10,
    "cli": 11,
    "__main__": 12,
}

# What must not be known on a floor.
STRANGERS = {
    "wire": {"asyncio", "socket", "threading", "time"},
    "hub": {"asyncio", "socket", "threading", "time"},
    "files": {"asyncio", "socket", "threading", "time"},
    "net": {"threading", "time"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> str:
    """The floor of a module, by its name below midinet's: the longest beginning that has one."""
    parts = module.split(".")[1:] or ["__init__"]
    return next((floor for end in (2, 1) if (floor := ".".join(parts[:end])) in FLOORS), parts[0])


def name_of(path: Path) -> str:
    parts = ["midinet", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports(path: Path) -> set[str]:
    """The modules that a file imports, by their full names."""
    here = ["midinet", *path.relative_to(PACKAGE).with_suffix("").parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) + "." if node.level else ""
            name = (base + (node.module or "")).rstrip(".")
            for alias in node.names:
                module = PACKAGE.parent.joinpath(*name.split("."), alias.name)
                is_module = module.is_dir() or module.with_suffix(".py").is_file()
                found.add(f"{name}.{alias.name}" if is_module else name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_floors_only_look_down(path: Path) -> None:
    floor = floor_of(name_of(path))
    for module in imports(path):
        if module.split(".")[0] == "midinet":
            other = floor_of(module)
            assert FLOORS[other] < FLOORS[floor] or other == floor, f"{floor} imports {module}"
        else:
            assert module.split(".")[0] not in STRANGERS.get(floor, set()), f"{floor} imports {module}"


def test_every_floor_is_named() -> None:
    assert {floor_of(name_of(path)) for path in MODULES} == set(FLOORS)


# Tasks whose errors are awaited, so that they need no owner: the file, and how many it makes.
AWAITED_TASKS = {
    "cli/common.py": 3,
    "cli/monitor.py": 1,
    "cli/ping.py": 1,
    "gateways/announcement.py": 1,
}


def test_every_task_that_nobody_awaits_has_an_owner() -> None:
    made = {}
    for path in MODULES:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [getattr(call, "attr", getattr(call, "id", "")) for call in calls]
        if count := names.count("create_task") + names.count("ensure_future"):
            made[path.relative_to(PACKAGE).as_posix()] = count
    assert made == AWAITED_TASKS | {"net/tasks.py": 1}


# Modules of the harness whose functions no test defines anew.
SHARED = ("messages", "servers", "waiting")


def test_what_tests_share_is_defined_once() -> None:
    def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        tree = ast.parse(path.read_text())
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        # Of a fixture, a test asks for the name.
        return [node for node in found if not any("fixture" in ast.unparse(d) for d in node.decorator_list)]

    tests = Path(__file__).parent
    shared = {node.name for name in SHARED for node in functions(tests / "harness" / f"{name}.py")}
    again = [
        f"{path.relative_to(tests)}: {node.name}"
        for path in sorted(tests.rglob("*.py"))
        if path.parent.name != "harness"
        for node in functions(path)
        if node.name in shared
    ]
    assert again == [], "tests/README.md says where these are"
