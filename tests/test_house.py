"""Each floor of the package imports only from floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import midinet

PACKAGE = Path(midinet.__file__).parent

# From the ground up. What stands on one floor may import its neighbours on that floor.
FLOORS = {
    "errors": 0,
    "address": 0,
    "wire": 1,
    "hub": 2,
    "net": 3,
    "__init__": 4,
    "sync": 5,
    "cli": 6,
    "__main__": 7,
}

# What must not be known on a floor.
STRANGERS = {
    "wire": {"asyncio", "socket", "threading", "time"},
    "hub": {"asyncio", "socket", "threading", "time"},
    "net": {"threading", "time"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


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
            if name == "midinet":
                found |= {
                    f"midinet.{alias.name}" if (PACKAGE / alias.name).is_dir() else name
                    for alias in node.names
                }
            else:
                found.add(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_floors_only_look_down(path: Path) -> None:
    floor = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        if module.split(".")[0] == "midinet":
            other = floor_of(module)
            assert FLOORS[other] < FLOORS[floor] or other == floor, f"{floor} imports {module}"
        else:
            assert module.split(".")[0] not in STRANGERS.get(floor, set()), f"{floor} imports {module}"


def test_every_floor_is_named() -> None:
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} == set(FLOORS)
