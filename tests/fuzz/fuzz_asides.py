"""Asides, fuzzed: none is heard that is not well formed, none disturbs a message, none holds above 1 KiB.

What is right is said by a reader that goes by the byte (tests/wire/test_aside.py), by the balance of every
byte, and by what each aside that is heard has to be.
"""

from __future__ import annotations

import re
from dataclasses import asdict

from midinet.wire.aside import (
    ANSWER,
    HELLO,
    MAX_ASIDE_BYTES,
    MAX_ID_LENGTH,
    PING,
    PONG,
    Aside,
    AsideReader,
    answer,
    hello,
    ping,
    pong,
)
from midinet.wire.parser import Parser
from tests.fuzz import chunks, controls, fuzz
from tests.fuzz.fuzz_parser import check_balance, check_memory
from tests.wire.test_aside import SlowAsideParser

_NOTE = b"\x90\x3c\x40"

SEEDS = [
    hello("stage-left", "3f6c") + _NOTE,
    answer(200, {"Name": "studio"}) + _NOTE + answer(401) + answer(503),
    b"\x90\x3c" + ping(17) + b"\x40" + pong(17) + _NOTE,
    ping(1)[:9] + b"\xf8" + ping(1)[9:14] + b"\xf6" + ping(1)[14:],
    b"\xf7MIDINET/2 PING\r\n\r\n\xf7MIDINET/1 SING\r\n\r\n\xf7MIDINET/1 PING\r\nId\r\n\r\n",
    b"\xf7MIDINET/1 PING\r\nid: 1\r\nId: 2\r\n\r\n",
    b"\xf7MIDINET/1 HELLO\r\nAuthorization: Basic eA==\r\nX: y\r\n\r\n",
    b"\xf7MIDINET/1 PING\r\nId: " + b"x" * MAX_ASIDE_BYTES + b"\r\n\r\n" + _NOTE,
    b"\xf7MIDINET/1 HELLO\r\nName: %E2%80%AE%00%ff\r\n\r\n\xf0\x01\xf7\xf7MIDI",
]


class StrictAsideParser(SlowAsideParser):
    """Knows what counts in any aside, and not only in those that are likely."""

    def understand(self, said: str) -> None:
        self.counts[self.kind_of(said.split("\r\n")[:-2])] += 1

    def kind_of(self, lines: list[str]) -> str:
        """The count that an aside belongs to. If it is understood, it is heard."""
        version, _, word = lines[0].removeprefix("MIDINET/").partition(" ")
        if any(not " " <= letter <= "~" for line in lines for letter in line):
            return "asides_malformed"
        if not version or set(version) - set("0123456789.") or not word:
            return "asides_malformed"
        kind, space, _ = word.partition(" ")
        is_answer = len(kind) == 3 and kind.isdigit() and kind[0] in "12345"
        if version != "1" or not (is_answer or (kind in ("HELLO", "PING", "PONG") and not space)):
            return "asides_unknown"
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not name or name in headers:
                return "asides_malformed"
            if not all(letter.isalnum() or letter in "!#$%&'*+-.^_`|~" for letter in name):
                return "asides_malformed"
            headers[name] = value.strip(" ")
        if len(headers.get("id", "")) > MAX_ID_LENGTH:
            return "asides_malformed"
        scheme, _, token = headers.pop("authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer" and token.strip(" ") != "" and " " not in token.strip(" ")
        known = len(headers.keys() & {"name", "id"}) + bearer
        self.counts["aside_headers_unknown"] += len(lines) - 1 - known
        self.heard.append((len(self.out), kind))
        return "asides"


def check(data: bytes) -> None:
    """Fail unless a parser that reads asides makes of these bytes what it should."""
    stream, limit, sizes = controls(data)
    slow, parser = StrictAsideParser(limit), Parser(max_sysex=limit, asides=True)
    expected = slow.feed(stream)
    slow.drop()
    frames: list[bytes] = []
    heard: list[tuple[int, str]] = []
    for chunk in chunks(stream, sizes):
        before = len(frames)
        frames += parser.frames(chunk)
        for position, aside in parser.take_asides():
            check_aside(aside)
            heard.append((before + position, str(aside.status or aside.word)))
        check_memory(parser)
        assert parser._aside_reader is not None
        check_reader(parser._aside_reader)
    parser.end()
    assert frames == expected, f"{frames} of {stream.hex(' ')}"
    assert heard == slow.heard, f"{heard} of {stream!r}"
    counts = asdict(parser.stats)
    assert (counts.pop("bytes"), counts.pop("messages")) == (len(stream), len(expected))
    assert counts == slow.counts
    check_balance(stream, frames, parser.stats)
    # To who does not ask for them they are nothing.
    assert Parser(max_sysex=limit).frames(stream) == frames


def check_aside(aside: Aside) -> None:
    """Fail unless this may be heard."""
    assert aside.word in (HELLO, PING, PONG, ANSWER)
    assert (aside.status is not None) == (aside.word == ANSWER)
    assert aside.status is None or 100 <= aside.status <= 599
    said = len(aside.word) + len(aside.token or "")
    for name, value in aside.headers.items():
        assert re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9a-z]+", name)
        assert name != "authorization"
        assert re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", value)
        said += len(name) + len(value)
    assert said < MAX_ASIDE_BYTES
    assert aside.token is None or re.fullmatch(r"[!-~]+", aside.token)
    assert not re.search("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", aside.name or "")
    repr(aside)
    # It can be answered.
    assert len(aside.id or "") <= MAX_ID_LENGTH
    assert len(pong(aside.id)) <= MAX_ASIDE_BYTES


def check_reader(reader: AsideReader) -> None:
    """Fail when a reader holds more than an aside may have."""
    assert len(reader._text or b"") < MAX_ASIDE_BYTES


if __name__ == "__main__":
    fuzz(check, SEEDS)
