"""Asides: text between messages that every MIDI parser ignores and midinet's ports read.

    F7 MIDINET/1 HELLO            F7 MIDINET/1 200 OK       F7 MIDINET/1 PING      F7 MIDINET/1 PONG
       Name: stage-left              Name: studio              Id: 17                 Id: 17
       Authorization: Bearer ...                                                      Clients: 3

The rules:

- A lone F7, outside a system exclusive message, is ignored and clears running status, and data bytes with no
  status in force are ignored (MIDI 1.0 Detailed Specification 4.2.1, pages 5 and A-1 to A-3). So F7 and then
  text is nothing to whoever does not know of it, wherever in a stream it stands.
- The text is printable 7-bit ASCII in lines that end in CR LF; an empty line ends it. The first line is the
  version and a word, or a status and its phrase; `Name: value` lines follow. Statuses and headers mean what
  they mean in HTTP (RFC 9110: section 15 statuses, 5.1 header names in any case, 5.5 spaces around a value).
- Like any message it may hold real-time bytes, which come out at once; every other status byte aborts it.
- A token goes as `Authorization: Bearer ...` (RFC 6750 section 2.1), a `Name` in UTF-8 with percent-encoding
  (RFC 3986 section 2.1) for what is not printable ASCII.
- Other versions, words and headers may come to be: they are ignored and counted. So is everything else that
  cannot be understood, and nothing that a peer sends raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from urllib.parse import unquote

from .spec import END_OF_SYSEX

# Bytes of one aside from its F7 to its empty line. Room for a name, a token (a signed one of today's making
# has some 700 bytes) and a few short headers, and no burden to hold for every peer.
MAX_ASIDE_BYTES = 1024

# Characters of an Id. Room for a UUID, a time or a count, and a PONG never outgrows what an aside may have,
# however tightly its PING was packed.
MAX_ID_LENGTH = 64

HELLO = "HELLO"
PING = "PING"
PONG = "PONG"
# The word of an aside that has a status in place of a word. It never stands on the wire.
ANSWER = "ANSWER"

# The answers there are, with the phrases that RFC 9110 section 15 gives the first three. Servers of HTTP say
# 503 too when they have as many clients as they want.
PHRASES = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 503: "Busy"}

# Whatever the version, an aside begins so. Up to here it may still be stray data.
_BEGINNING = b"MIDINET/"
_VERSION = "1"
_EMPTY_LINE = b"\r\n\r\n"

_TEXT = re.compile(rb"(?:[ -~]++\r\n)++\r\n")
_FIRST_LINE = re.compile(r"MIDINET/([0-9.]+) (.+)")
# A status not listed above is understood by its first digit (RFC 9110 section 15), so it is passed on.
_STATUS = re.compile(r"([1-5][0-9][0-9])(?: .*)?")
# RFC 9110 sections 5.1 and 5.6.2: what a header's name is made of.
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER = re.compile(rf"({_HEADER_NAME.pattern}):(.*)")
_KNOWN_HEADERS = frozenset({"name", "id", "clients"})
_COUNT = re.compile(r"[0-9]{1,9}")
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)

_TOKEN = re.compile(r"[!-~]+")
# A space at either end of a value would be lost.
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_TO_ENCODE = re.compile(rb"[^ -$&-~]|\A | \Z")
# Names end up in logs and on terminals: no control characters (C0, C1), no line and paragraph separators, and
# nothing that turns the direction of what follows.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True, repr=False)
class Aside:
    """What was said in one aside.

    Its repr shows neither the token nor any header but name and id.
    """

    word: str
    """HELLO, PING, PONG, or ANSWER where `status` says more."""
    _: KW_ONLY
    status: int | None = None
    """The status of an answer, 100 to 599; None for any other word."""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values as on the wire by header name in lower case, unknown ones too. Never the authorization."""
    token: str | None = None
    """The bearer token, None where there was none. To be compared in constant time only."""

    @property
    def name(self) -> str | None:
        """What the sender calls itself, None where it did not say. Control characters are replaced."""
        value = self.headers.get("name")
        return None if value is None else _CONTROL.sub("\ufffd", unquote(value, errors="replace"))

    @property
    def id(self) -> str | None:
        """What a PONG repeats from its PING, None where there was none."""
        return self.headers.get("id")

    @property
    def clients(self) -> int | None:
        """How many clients a server has, None where it did not say, or nothing that could be."""
        count = self.headers.get("clients", "")
        return int(count) if _COUNT.fullmatch(count) else None

    def __repr__(self) -> str:
        known = {"status": self.status, "name": self.name, "id": self.id}
        shown = "".join(f", {key}={value!r}" for key, value in known.items() if value is not None)
        return f"Aside({self.word!r}{shown})"


def hello(name: str | None = None, token: str | None = None) -> bytes:
    """Return the aside that a client begins with.

    Args:
        name: what it calls itself; None says nothing.
        token: the bearer token, printable ASCII without spaces; None says nothing.

    Raises:
        ValueError: the name has control characters or lone surrogates, the token has other characters than
            it may, or the aside would be longer than 1 KiB. The error does not repeat the token.
    """
    headers = {}
    if name is not None:
        headers["Name"] = name
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise ValueError("a token is printable ASCII without spaces, one character at least")
        headers["Authorization"] = f"Bearer {token}"
    return _encode(HELLO, headers)


def answer(status: int, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the aside that answers a HELLO.

    Args:
        status: 200, 401, 403 or 503.
        headers: header names and values. The `Name` may be any text, other values printable ASCII without
            spaces at either end. None for no headers.

    Raises:
        ValueError: there is no such status, a header cannot be said so, or the aside would be longer
            than 1 KiB.
    """
    if status not in PHRASES:
        raise ValueError(f"an answer has one of the statuses {', '.join(map(str, PHRASES))}, not {status}")
    return _encode(f"{status} {PHRASES[status]}", headers or {})


def ping(id: str | int | None = None) -> bytes:
    """Return the aside that asks for a PONG.

    Args:
        id: what the PONG is to repeat, printable ASCII without spaces at either end and 64 characters at
            most; None for nothing.

    Raises:
        ValueError: the id has other characters, or more.
    """
    return _encode(PING, {} if id is None else {"Id": str(id)})


def pong(id: str | int | None = None, *, clients: int | None = None) -> bytes:
    """Return the aside that answers a PING.

    Args:
        id: that of the PING, as it is in the Aside.
        clients: of a server, how many clients it has; None says nothing.

    Raises:
        ValueError: as for `ping`; never for an id that was read from an aside.
    """
    headers = {} if id is None else {"Id": str(id)}
    if clients is not None:
        headers["Clients"] = str(clients)
    return _encode(PONG, headers)


def _encode(first: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"MIDINET/{_VERSION} {first}"]
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header stands in an aside once, whatever its case")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a header")
        if name.lower() == "name":
            value = _encode_name(value)
        elif not _VALUE.fullmatch(value):
            # The value is not shown, whatever it is.
            raise ValueError(f"{name} has to be printable ASCII without spaces at either end")
        elif name.lower() == "id" and len(value) > MAX_ID_LENGTH:
            raise ValueError(f"an Id has {MAX_ID_LENGTH} characters at most, not {len(value)}")
        lines.append(f"{name}: {value}")
    aside = bytes((END_OF_SYSEX,)) + "\r\n".join(lines).encode("ascii") + _EMPTY_LINE
    if len(aside) > MAX_ASIDE_BYTES:
        raise ValueError(f"the aside has {len(aside)} bytes, {MAX_ASIDE_BYTES} is the most: say less in it")
    return aside


def _encode_name(name: str) -> str:
    if _CONTROL.search(name):
        raise ValueError("a name has no control characters")
    return _TO_ENCODE.sub(lambda match: b"%%%02X" % match[0][0], name.encode()).decode("ascii")


@dataclass(slots=True, kw_only=True)
class AsideStats:
    """What was in a stream with no status in force: asides, and what was none."""

    stray_data: int = 0
    """Data bytes ignored because no status was in force and they were in no aside."""
    stray_ends: int = 0
    """F7 bytes that neither ended a system exclusive message nor began an aside."""
    asides: int = 0
    """Asides understood."""
    aside_bytes: int = 0
    """Bytes of all asides with their F7, understood or not."""
    asides_malformed: int = 0
    """Asides ignored because a line was not as lines are, a header came twice, or an Id was too long."""
    asides_too_long: int = 0
    """Asides ignored because they did not end within 1 KiB. What follows that is stray data."""
    asides_unknown: int = 0
    """Asides ignored because their version or word is not known here."""
    asides_aborted: int = 0
    """Asides dropped because a status byte or the end of the stream came too early."""
    aside_headers_unknown: int = 0
    """Headers ignored in asides that were understood, kinds of authorization other than Bearer among them."""


class AsideReader:
    """Reads what follows each lone F7 of one stream, and counts it.

    Args:
        stats: where to count; None for counts of its own.
    """

    __slots__ = ("_text", "stats")

    def __init__(self, stats: AsideStats | None = None) -> None:
        self.stats = AsideStats() if stats is None else stats
        # What came since the F7; None while no aside is under way.
        self._text: bytearray | None = None

    @property
    def active(self) -> bool:
        """Whether an aside is under way, or what may still become one."""
        return self._text is not None

    def begin(self) -> None:
        """Take note of a lone F7. It aborts an aside that is under way."""
        self.abort()
        self._text = bytearray()

    def feed(self, data: bytes) -> Aside | None:
        """Take in data bytes that have no status in force.

        What is left of them after an aside belongs to nothing, and is counted as that.

        Returns:
            The aside that they complete, which is one at most, or None.
        """
        text = self._text
        if text is None:
            self.stats.stray_data += len(data)
            return None
        # The empty line may be cut anywhere: its last byte is a new one.
        searched = max(0, len(text) - len(_EMPTY_LINE) + 1)
        # The F7 counts too.
        taken = data[: MAX_ASIDE_BYTES - 1 - len(text)]
        text += taken
        self.stats.stray_data += len(data) - len(taken)
        if not _begins_well(text):
            self._finish(len(text))
            return None
        if (end := text.find(_EMPTY_LINE, searched)) >= 0:
            return self._read(self._finish(end + len(_EMPTY_LINE)))
        if len(text) == MAX_ASIDE_BYTES - 1:
            self.stats.asides_too_long += 1
            self._finish(len(text))
        return None

    def abort(self) -> None:
        """Drop an unfinished aside, if there is one: a status byte came, or the stream ended."""
        if self._text is not None:
            text = self._finish(len(self._text))
            # Not even the beginning: it was no aside.
            if len(text) >= len(_BEGINNING):
                self.stats.asides_aborted += 1

    def _finish(self, size: int) -> bytes:
        """End what is under way after so many bytes of text, count all bytes of it, and return these."""
        assert self._text is not None
        text = bytes(self._text)
        self._text = None
        if text.startswith(_BEGINNING):
            self.stats.aside_bytes += 1 + size
            self.stats.stray_data += len(text) - size
        else:
            self.stats.stray_ends += 1
            self.stats.stray_data += len(text)
        return text[:size]

    def _read(self, text: bytes) -> Aside | None:
        if not _TEXT.fullmatch(text):
            self.stats.asides_malformed += 1
            return None
        first, *lines = text[: -len(_EMPTY_LINE)].decode("ascii").split("\r\n")
        match = _FIRST_LINE.fullmatch(first)
        if match is None:
            self.stats.asides_malformed += 1
            return None
        version, word = match.groups()
        status = None
        if match := _STATUS.fullmatch(word):
            word, status = ANSWER, int(match[1])
        elif word not in (HELLO, PING, PONG):
            word = ""
        # What the lines of another version or word look like cannot be known.
        if version != _VERSION or not word:
            self.stats.asides_unknown += 1
            return None
        headers = _read_headers(lines)
        if headers is None:
            self.stats.asides_malformed += 1
            return None
        self.stats.asides += 1
        # The token is kept apart, so that headers may be shown.
        bearer = _BEARER.fullmatch(headers.pop("authorization", ""))
        self.stats.aside_headers_unknown += len(lines) - len(headers.keys() & _KNOWN_HEADERS) - bool(bearer)
        return Aside(word, status=status, headers=headers, token=bearer[1] if bearer else None)


def _begins_well(text: bytearray) -> bool:
    """Whether an aside may begin with this, or go on from it."""
    return text[: len(_BEGINNING)] == _BEGINNING[: len(text)]


def _read_headers(lines: list[str]) -> dict[str, str] | None:
    """Return values by header name in lower case, or None where they are malformed.

    A header twice is not read as a list (RFC 9110 section 5.3), for then there could be two tokens.
    """
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None or (name := match[1].lower()) in headers:
            return None
        headers[name] = match[2].strip(" ")
    return headers if len(headers.get("id", "")) <= MAX_ID_LENGTH else None
