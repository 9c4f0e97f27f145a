"""A verb's options in a TOML file, by the names that they have on the command line.

    address = ":8080"
    announce = "stage"
    allow = ["192.168.1.0/24", "10.0.0.5"]
    max-clients = 32

- What is on the command line goes before what is in the file.
- A name may have "_" for "-". An option that can be given several times takes an array, or one value.
- File names are relative to the file.
- Whatever is wrong is a Complaint with the file and the line, also where that comes out later (`blaming`).

Which options there are and what they take is read from the verb itself.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import ParameterInfo

from .common import Complaint

# What tomllib says at the end of an error.
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_AT_END = " (at end of document)"

_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number"}
_FOUND_NAMES = {int: "a number", float: "a number", str: "a string", list: "an array"}


@dataclass(frozen=True)
class _Option:
    """What may be in the file.

    Attributes:
        parameter: the name that it has as a parameter of the verb.
        kind: the type of its value, or of each.
        many: it takes several.
        least, most: of a number; None is no limit.
    """

    parameter: str
    kind: type
    many: bool = False
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """What it takes, in words."""
        if issubclass(self.kind, StrEnum):
            *others, last = [str(value) for value in self.kind]
            return f"{', '.join(others)} or {last}"
        words = _TYPE_NAMES.get(self.kind, "a string")
        if self.least is not None and self.most is not None:
            words += f" from {self.least:g} to {self.most:g}"
        elif self.least is not None:
            words += f" of {self.least:g} or more"
        return f"{words}, or an array of such" if self.many else words

    def takes(self, value: object) -> bool:
        """Whether a value, or one of several, can be its own."""
        if issubclass(self.kind, StrEnum):
            return value in list(self.kind)
        if self.kind in (int, float):
            # To Python, true is a number.
            if not isinstance(value, int | self.kind) or isinstance(value, bool):
                return False
            return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return isinstance(value, bool if self.kind is bool else str)

    def shown(self, value: object) -> str:
        """Return a wrong value in words. What should be a string may be a token, and is not repeated."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float | str) and self.kind not in (str, Path):
            return repr(value)
        return _FOUND_NAMES.get(type(value), "a table or a date")


@dataclass
class Config:
    """A file that was read, or none.

    Attributes:
        path: None is none.
        values: those that count, by parameter of the verb.
        lines: where they stand.
    """

    path: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def blaming(self, *parameters: str) -> Iterator[None]:
        """Have a Complaint say where in the file its cause stands, if that is one of these parameters.

        Args:
            parameters: of the verb. Of several in the file, it is the one that the Complaint names, or whose
                value it does; otherwise the first.
        """
        try:
            yield
        except Complaint as error:
            in_file = [parameter for parameter in parameters if parameter in self.lines]
            if not in_file:
                raise
            named = [one for one in in_file if self._is_named(one, str(error))]
            line = self.lines[(named or in_file)[0]]
            raise Complaint(f"{self.path}, line {line}: {error}", error.status) from None

    def _is_named(self, parameter: str, text: str) -> bool:
        words = text.replace(",", " ").replace(":", " ").split()
        return f"--{parameter.replace('_', '-')}" in words or str(self.values[parameter]) in text


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Have the options of a file be the defaults of the verb, as a callback of its `--config`.

    The verb has the Config as `context.obj`.

    Raises:
        Complaint: the file cannot be read, or something in it is wrong.
    """
    context.obj = Config(path)
    if path is not None and not context.resilient_parsing:
        values, context.obj.lines = _read(context, path)
        context.default_map = context.obj.values = values
    return path


def counted(context: typer.Context) -> Config:
    """Return the Config of a verb, without what the command line went before."""
    config: Config = context.obj
    for parameter in list(config.lines):
        source = context.get_parameter_source(parameter)
        if source is None or source.name != "DEFAULT_MAP":
            del config.lines[parameter]
    return config


def _read(context: typer.Context, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the values in a file and their lines, by parameter."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise Complaint(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Complaint(f"{path}, line {line}: this is no text in UTF-8") from None
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Complaint(f"{path}, {_place_of(error, text)}") from None
    options = _options_of(context)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    # A key can stand before or in its table.
    for key, value in sorted(entries.items(), key=lambda entry: _line_of(entry[0], text)):
        line = _line_of(key, text)
        name = key.replace("_", "-")
        if name not in options:
            close = get_close_matches(name, options, n=1)
            advice = f"; did you mean {close[0]}?" if close else ""
            raise Complaint(f"{path}, line {line}: {key!r} is no option of {context.info_name}{advice}")
        option = options[name]
        if option.parameter in values:
            raise Complaint(f"{path}, line {line}: {name} is given twice")
        given = value if option.many and isinstance(value, list) else [value]
        if wrong := [one for one in given if not option.takes(one)]:
            raise Complaint(
                f"{path}, line {line}: {name} must be {option.wanted}, not {option.shown(wrong[0])}"
            )
        if option.kind is Path:
            given = [str(path.parent / one) for one in given]
        values[option.parameter] = given if option.many else given[0]
        lines[option.parameter] = line
    return values, lines


def _options_of(context: typer.Context) -> dict[str, _Option]:
    """Return the options of a verb by the names that they have in a file."""
    callback = context.command.callback
    assert callback is not None
    annotations = {
        one.name: one.annotation for one in inspect.signature(callback, eval_str=True).parameters.values()
    }
    options = {}
    for parameter in context.command.params:
        annotation = annotations.get(parameter.name or "")
        # Not --help, which is none of the verb's own, and not this file.
        if get_origin(annotation) is Annotated and not parameter.is_eager:
            name = max(parameter.opts, key=len).lstrip("-").replace("_", "-")
            options[name] = _option(str(parameter.name), annotation)
    return options


def _option(parameter: str, annotation: Any) -> _Option:
    kind, *notes = get_args(annotation)
    info = next(note for note in notes if isinstance(note, ParameterInfo))
    if type(None) in get_args(kind):
        kind = next(one for one in get_args(kind) if one is not type(None))
    many = get_origin(kind) is list
    return _Option(parameter, get_args(kind)[0] if many else kind, many, info.min, info.max)


def _line_of(key: str, text: str) -> int:
    """Return the line in which a key, or the table of that name, stands in TOML without errors; 1 is the
    first."""
    name = re.escape(key)
    stands_there = re.compile(rf"""\s*(?:\[\s*)*(?:{name}|"{name}"|'{name}')\s*[=.\]]""")
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if stands_there.match(line) and _is_whole("".join(lines[:number])):
            return number + 1
    return 1


def _is_whole(text: str) -> bool:
    """Whether text is TOML by itself, and so no string or array goes on behind it."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _place_of(error: tomllib.TOMLDecodeError, text: str) -> str:
    """Return "line 3: what is wrong" of a syntax error."""
    message = str(error)
    if found := _AT_LINE.search(message):
        return f"line {found[1]}: {message[: found.start()]}"
    return f"line {max(1, len(text.splitlines()))}: {message.removesuffix(_AT_END)}"
