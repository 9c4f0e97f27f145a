from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields
from typing import Any
from urllib.parse import quote

import mido
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midinet import Parser
from midinet.wire.aside import (
    ANSWER,
    HELLO,
    MAX_ASIDE_BYTES,
    MAX_ID_LENGTH,
    PHRASES,
    PING,
    PONG,
    Aside,
    AsideReader,
    AsideStats,
    answer,
    hello,
    ping,
    pong,
)
from tests.harness.messages import any_message
from tests.harness.models import SlowParser

NOTE = b"\x90\x3c\x40"
TOKEN = "3f6c-SECRET"

CONTROLS = {*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
# Some 300 bytes of UTF-8 fit, three characters of an aside each.
name_text = st.text(max_size=70).filter(lambda name: not CONTROLS & set(map(ord, name)))
token_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)


def read(data: bytes) -> list[Aside]:
    parser = Parser(asides=True)
    assert parser.frames(data) == []
    return [aside for _, aside in parser.take_asides()]


def read_text(*lines: str) -> list[Aside]:
    return read(text(*lines))


def text(*lines: str) -> bytes:
    return b"\xf7" + "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def stats_of(data: bytes) -> dict[str, int]:
    """The counts that are not 0 after a stream and its end."""
    parser = Parser(asides=True)
    parser.frames(data)
    parser.end()
    return {
        name: count
        for name, count in asdict(parser.stats).items()
        if count and name not in ("bytes", "messages")
    }


# What is written.


def test_what_is_written_is_what_the_design_shows() -> None:
    assert hello("stage-left", "3f6c") == (
        b"\xf7MIDINET/1 HELLO\r\nName: stage-left\r\nAuthorization: Bearer 3f6c\r\n\r\n"
    )
    assert hello() == b"\xf7MIDINET/1 HELLO\r\n\r\n"
    assert answer(200, {"Name": "studio"}) == b"\xf7MIDINET/1 200 OK\r\nName: studio\r\n\r\n"
    assert answer(401) == b"\xf7MIDINET/1 401 Unauthorized\r\n\r\n"
    assert answer(403) == b"\xf7MIDINET/1 403 Forbidden\r\n\r\n"
    assert answer(503) == b"\xf7MIDINET/1 503 Busy\r\n\r\n"
    assert ping(17) == b"\xf7MIDINET/1 PING\r\nId: 17\r\n\r\n"
    assert pong("17") == b"\xf7MIDINET/1 PONG\r\nId: 17\r\n\r\n"
    assert ping() == b"\xf7MIDINET/1 PING\r\n\r\n"


@given(st.none() | name_text, st.none() | token_text)
@example("100%", None)
@example(" a  b ", None)
@example(" ", "a")
@example("%20", "%20")
@example("studio B \N{MUSICAL SYMBOL G CLEF} Zoë", None)
def test_a_hello_comes_back_as_it_was_said(name: str | None, token: str | None) -> None:
    data = hello(name, token)
    assert data[0] == 0xF7
    assert re.fullmatch(rb"[ -~\r\n]+", data[1:])
    (aside,) = read(data)
    assert (aside.word, aside.status, aside.name, aside.token) == (HELLO, None, name, token)


@given(st.sampled_from(sorted(PHRASES)), name_text, st.integers())
def test_an_answer_comes_back_as_it_was_said(status: int, name: str, id: int) -> None:
    (aside,) = read(answer(status, {"Name": name, "Id": str(id)}))
    assert (aside.word, aside.status, aside.name, aside.id) == (ANSWER, status, name, str(id))


@pytest.mark.parametrize(("say", "word"), [(ping, PING), (pong, PONG)])
@pytest.mark.parametrize("id", [17, "17", "a b", "x" * MAX_ID_LENGTH, None])
def test_a_ping_and_its_pong_come_back_with_their_id(say: Any, word: str, id: str | int | None) -> None:
    (aside,) = read(say(id))
    assert (aside.word, aside.id) == (word, None if id is None else str(id))


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=100))
@example("x" * (MAX_ASIDE_BYTES - len(ping("")) + 1))
@example("x" * MAX_ID_LENGTH)
def test_every_id_that_is_read_can_be_said_back(id: str) -> None:
    for aside in read_text("MIDINET/1 PING", f"Id:{id}"):
        assert [back.id for back in read(pong(aside.id))] == [aside.id]


@pytest.mark.parametrize(
    "say",
    [
        lambda: hello(token=""),
        lambda: hello(token="with space"),
        lambda: hello(token="tab\t"),
        lambda: hello(token="zwölf"),
        lambda: hello(token="end\r\n"),
        lambda: hello(token="x" * MAX_ASIDE_BYTES),
        lambda: hello("x" * MAX_ASIDE_BYTES),
        lambda: hello("bell\x07"),
        lambda: hello("two\r\nlines"),
        lambda: hello("turned \u202e round"),
        lambda: hello("half a \ud834"),
        lambda: answer(404),
        lambda: answer(200, {"A name": "x"}),
        lambda: answer(200, {"": "x"}),
        lambda: answer(200, {"Id:": "x"}),
        lambda: answer(200, {"Reason": "zwölf"}),
        lambda: answer(200, {"Reason": "two\r\nlines"}),
        lambda: answer(200, {"Reason": " x"}),
        lambda: answer(200, {"Reason": "x "}),
        lambda: answer(200, {"name": "x", "Name": "y"}),
        lambda: ping("two\r\nlines"),
        lambda: ping(" 17"),
        lambda: pong("zwölf"),
        lambda: pong("x" * (MAX_ID_LENGTH + 1)),
    ],
)
def test_what_cannot_be_said_is_refused(say: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each has words of its own)
        say()


def test_an_aside_of_just_1_kib_passes_and_one_byte_more_does_not() -> None:
    room = MAX_ASIDE_BYTES - len(hello(""))
    (aside,) = read(hello("x" * room))
    assert aside.name == "x" * room
    with pytest.raises(ValueError, match=r"1025 bytes, 1024 is the most"):
        hello("x" * (room + 1))
    over = hello("x" * room).replace(b"Name: ", b"Name:  ")
    assert len(over) == MAX_ASIDE_BYTES + 1
    # The one byte too many belongs to no aside.
    assert stats_of(over + NOTE) == {
        "asides_too_long": 1,
        "aside_bytes": MAX_ASIDE_BYTES,
        "stray_data": 1,
    }


def test_the_documented_limits() -> None:
    assert (MAX_ASIDE_BYTES, MAX_ID_LENGTH) == (1024, 64)
    assert PHRASES == {200: "OK", 401: "Unauthorized", 403: "Forbidden", 503: "Busy"}


# What is read.


def test_header_names_are_read_in_any_case_and_values_without_the_spaces_around_them() -> None:
    (aside,) = read_text("MIDINET/1 HELLO", "nAmE:   stage left ", "AUTHORIZATION:bEARER  abc", "id:")
    assert (aside.name, aside.token, aside.id) == ("stage left", "abc", "")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("%C3%a9t%C3%A9", "été"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("%FF%C3", "\ufffd\ufffd"),
        ("a%1B[31mb%0D%0A%00", "a\ufffd[31mb\ufffd\ufffd\ufffd"),
        ("%E2%80%AE", "\ufffd"),
        ("%C2%85", "\ufffd"),
        ("", ""),
    ],
)
def test_a_name_that_is_badly_said_is_still_a_name(value: str, name: str) -> None:
    (aside,) = read_text("MIDINET/1 HELLO", f"Name: {value}")
    assert aside.name == name


@pytest.mark.parametrize(
    "value", ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "Bearerabc", "bearer: abc", ""]
)
def test_another_authorization_is_no_token_and_an_unknown_header(value: str) -> None:
    data = text("MIDINET/1 HELLO", f"Authorization: {value}")
    (aside,) = read(data)
    assert aside.token is None
    assert dict(aside.headers) == {}
    assert stats_of(data) == {"asides": 1, "aside_bytes": len(data), "aside_headers_unknown": 1}


def test_unknown_headers_are_counted_and_can_be_read() -> None:
    data = text("MIDINET/1 200 OK", "Name: studio", "Retry-After: 3", "Id: 1", "X!: y")
    (aside,) = read(data)
    assert aside.headers == {"name": "studio", "retry-after": "3", "id": "1", "x!": "y"}
    assert stats_of(data) == {"asides": 1, "aside_bytes": len(data), "aside_headers_unknown": 2}


@pytest.mark.parametrize("first", ["200", "200 Fine by me", "429 Too Many", "599 ", "101 x"])
def test_any_status_is_an_answer_whatever_its_phrase(first: str) -> None:
    (aside,) = read_text(f"MIDINET/1 {first}")
    assert (aside.word, aside.status) == (ANSWER, int(first[:3]))


@pytest.mark.parametrize(
    "first",
    [
        "MIDINET/2 HELLO",
        "MIDINET/1.1 HELLO",
        "MIDINET/01 HELLO",
        "MIDINET/10 200 OK",
        "MIDINET/1 hello",
        "MIDINET/1 HELLO there",
        "MIDINET/1 GOODBYE",
        "MIDINET/1 ANSWER",
        "MIDINET/1 099 x",
        "MIDINET/1 600 x",
        "MIDINET/1 2000 x",
    ],
)
def test_other_versions_and_words_are_unknown(first: str) -> None:
    # Nobody knows what their headers look like.
    for data in (text(first), text(first, "no header at all")):
        assert read(data) == []
        assert stats_of(data) == {"asides_unknown": 1, "aside_bytes": len(data)}


@pytest.mark.parametrize(
    "data",
    [
        text("MIDINET/"),
        text("MIDINET/1"),
        text("MIDINET/1 "),
        text("MIDINET/ HELLO"),
        text("MIDINET/x HELLO"),
        text("MIDINET/1\tHELLO"),
        text("MIDINET/1 HELLO", "no header"),
        text("MIDINET/1 HELLO", ": x"),
        text("MIDINET/1 HELLO", " Name: x"),
        text("MIDINET/1 HELLO", "Name : x"),
        text("MIDINET/1 HELLO", "Name: x\ty"),
        text("MIDINET/1 HELLO", "Name: x\x00"),
        text("MIDINET/1 HELLO", "Name: x\x7f"),
        text("MIDINET/1 HELLO", "Name: x\ny"),
        text("MIDINET/1 HELLO", "Name: x\ry"),
        text("MIDINET/1 HELLO", "Name: x", "name: x"),
        text("MIDINET/1 HELLO", "Authorization: Bearer a", "Authorization: Bearer b"),
        text("MIDINET/1 HELLO", "X: 1", "X: 1"),
        text("MIDINET/1 PING", "Id: " + "x" * (MAX_ID_LENGTH + 1)),
    ],
)
def test_what_is_malformed_is_counted(data: bytes) -> None:
    assert read(data) == []
    assert stats_of(data + ping(1)) == {
        "asides_malformed": 1,
        "asides": 1,
        "aside_bytes": len(data) + len(ping(1)),
    }


@pytest.mark.parametrize(
    ("data", "ends", "strays"),
    [
        (b"\xf7", 1, 0),
        (b"\xf7\xf7\xf7", 3, 0),
        (b"\xf7MIDI", 1, 4),
        (b"\xf7MIDINET", 1, 7),
        (b"\xf7MIDINET\xf7\xf6", 2, 7),
        (b"\xf7MIDINET 1 HELLO\r\n\r\n", 1, 19),
        (b"\xf7midinet/1 HELLO\r\n\r\n", 1, 19),
        (b"\xf7 MIDINET/1 HELLO\r\n\r\n", 1, 20),
        (b"MIDINET/1 HELLO\r\n\r\n", 0, 19),
        (b"\xf0\xf7MIDINET/1 HELLO\r\n\r\n", 0, 19),
    ],
)
def test_what_is_no_aside_is_stray(data: bytes, ends: int, strays: int) -> None:
    expected = {"stray_ends": ends, "stray_data": strays}
    assert stats_of(data) == {name: count for name, count in expected.items() if count}


@pytest.mark.parametrize("status", [0x90, 0xC0, 0xF0, 0xF1, 0xF4, 0xF5, 0xF6, 0xF7])
@pytest.mark.parametrize("cut", [9, 16, 17, 18, 24])
def test_a_status_aborts_an_unfinished_aside(status: int, cut: int) -> None:
    whole = hello("x")
    stats = stats_of(whole[:cut] + bytes([status]) + b"\xf0\xf7" + whole[cut:])
    assert stats["asides_aborted"] == 1
    assert stats["aside_bytes"] == cut
    assert stats["stray_data"] == len(whole) - cut


@pytest.mark.parametrize("message", [NOTE, b"\xc0\x01", b"\xf0\x01\xf7", b"\xf6", b"\xf2\x01\x02"])
@pytest.mark.parametrize("method", ["frames", "feed"])
def test_a_whole_message_aborts_an_unfinished_aside(message: bytes, method: str) -> None:
    # It comes as a chunk of its own, as the parser likes it best.
    parser = Parser(asides=True)
    take = getattr(parser, method)
    whole = hello("x")
    assert take(whole[:12]) == []
    assert len(take(message)) == 1
    assert parser.stats.asides_aborted == 1
    assert len(take(b"\xf6" + whole[12:])) == 1
    assert parser.take_asides() == []
    assert take(whole) == []
    assert [position for position, _ in parser.take_asides()] == [0]


def test_the_end_of_a_stream_aborts_an_unfinished_aside() -> None:
    assert stats_of(b"\xf7MIDINET/1 HEL") == {"asides_aborted": 1, "aside_bytes": 14}
    parser = Parser(asides=True)
    parser.frames(hello()[:-1])
    parser.end()
    parser.frames(hello()[-1:])
    assert parser.take_asides() == []


def test_an_aside_clears_running_status_and_ends_an_unfinished_message() -> None:
    parser = Parser(asides=True)
    assert parser.frames(NOTE + b"\x3e" + hello() + b"\x40\x41") == [NOTE]
    assert (parser.stats.unfinished, parser.stats.stray_data, parser.stats.asides) == (1, 2, 1)


def test_real_time_inside_an_aside_comes_at_once_and_disturbs_nothing() -> None:
    parser = Parser(asides=True)
    clocks = 0
    for byte in hello("x", TOKEN):
        assert parser.frames(bytes([byte])) == []
        if not parser.take_asides():
            assert parser.frames(b"\xf8\xf9\xfe") == [b"\xf8", b"\xfe"]
            clocks += 1
    assert clocks == len(hello("x", TOKEN)) - 1
    assert (parser.stats.asides, parser.stats.undefined, parser.stats.stray_data) == (1, clocks, 0)


def test_asides_come_with_how_many_frames_were_before_them() -> None:
    parser = Parser(asides=True)
    data = ping(1) + NOTE + b"\xf8" + ping(2) + ping(3)[:5] + b"\xf8" + ping(3)[5:] + NOTE + NOTE
    for take in (parser.frames, parser.feed):
        assert len(take(data)) == 5
        assert [(position, aside.id) for position, aside in parser.take_asides()] == [
            (0, "1"),
            (2, "2"),
            (3, "3"),
        ]
        assert parser.take_asides() == []


def test_positions_count_from_the_last_call() -> None:
    parser = Parser(asides=True)
    for take in (parser.frames, parser.feed):
        take(NOTE * 3 + ping(1)[:4])
        take(ping(1)[4:] + NOTE)
        assert [position for position, _ in parser.take_asides()] == [0]
        take(NOTE * 3 + ping(1))
        assert [position for position, _ in parser.take_asides()] == [3]


def test_asides_that_nobody_takes_are_forgotten() -> None:
    parser = Parser(asides=True)
    parser.frames(ping(1))
    parser.frames(NOTE)
    assert parser.take_asides() == []
    parser.frames(ping(2))
    parser.feed(b"\xf8")
    assert parser.take_asides() == []
    assert parser.stats.asides == 2


def test_a_hello_without_end_takes_bounded_memory() -> None:
    parser = Parser(asides=True)
    parser.frames(b"\xf7MIDINET/1 HELLO\r\nName: ")
    chunk = b"x" * 4096
    tracemalloc.start()
    try:
        for _ in range(2500):
            assert parser.frames(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 65536
    assert parser.stats.asides_too_long == 1
    assert parser.stats.aside_bytes == MAX_ASIDE_BYTES


# Against other parsers.

some_aside = st.one_of(
    st.builds(hello, st.none() | st.text("aé %", max_size=5), st.none() | st.just(TOKEN)),
    st.builds(answer, st.sampled_from(sorted(PHRASES))),
    st.builds(ping, st.integers(0, 9)),
    st.sampled_from(
        [
            text("MIDINET/2 HELLO"),
            text("MIDINET/1 WHAT", "Name: x"),
            text("MIDINET/1 PING", "Name: x", "X: y"),
            text("MIDINET/1 PING", "Name"),
            text("MIDINET/1 PING", "Name: " + "x" * 990),
            text("MIDINET/1 PING", "Name: " + "x" * 1010),
            text("MIDINET/"),
        ]
    ),
)


@st.composite
def pierced(draw: st.DrawFn) -> bytes:
    """An aside with something set into it, or cut short."""
    aside = draw(some_aside)
    at = draw(st.integers(0, min(len(aside), 30)))
    inside = draw(st.sampled_from([b"\xf8", b"\xf9", NOTE, b"\xf6", b"\xf7", b"\xf0", b"\x01", b"\r\n\r\n"]))
    return aside[:at] + (inside + aside[at:] if draw(st.booleans()) else b"")


mixture = st.lists(
    st.one_of(
        some_aside,
        pierced(),
        st.sampled_from(
            [NOTE, b"\xc1\x05", b"\xf8", b"\xf0\x01\xf7", b"\x3c\x40", b"\xf0", b"\xf7", b"\xf3"]
        ),
        st.binary(min_size=1, max_size=6),
    ),
    max_size=12,
).map(b"".join)


class SlowAsideParser(SlowParser):
    """Asides by the byte. What they hold is looked at in the plainest way."""

    def __init__(self, max_sysex: int) -> None:
        super().__init__(max_sysex)
        self.counts |= asdict(AsideStats())
        self.text: bytes | None = None
        self.heard: list[tuple[int, str]] = []

    def drop(self) -> None:
        super().drop()
        if self.text is not None and self.text.startswith(b"MIDINET/"):
            self.counts["asides_aborted"] += 1
        self.settle()

    def settle(self) -> None:
        if self.text is not None:
            if self.text.startswith(b"MIDINET/"):
                self.counts["aside_bytes"] += 1 + len(self.text)
            else:
                self.counts["stray_ends"] += 1
                self.counts["stray_data"] += len(self.text)
        self.text = None

    def on_status(self, byte: int) -> None:
        if byte == 0xF7 and self.sysex is None:
            self.drop()
            self.status = None
            self.text = b""
        else:
            super().on_status(byte)

    def on_data(self, byte: int) -> None:
        if self.text is None:
            super().on_data(byte)
            return
        self.text += bytes([byte])
        if not (b"MIDINET/".startswith(self.text) or self.text.startswith(b"MIDINET/")):
            self.settle()
        elif self.text.endswith(b"\r\n\r\n"):
            self.understand(self.text.decode())
            self.settle()
        elif len(self.text) == MAX_ASIDE_BYTES - 1:
            self.counts["asides_too_long"] += 1
            self.settle()

    def understand(self, said: str) -> None:
        lines = said.split("\r\n")[:-2]
        first = lines[0].split(" ", 1)
        names = [line.partition(":")[0].lower() for line in lines[1:]]
        version = first[0].removeprefix("MIDINET/")
        strange = not all(line.isprintable() for line in lines)
        if strange or not version or version.strip("0123456789.") or len(first) < 2 or not first[1]:
            self.counts["asides_malformed"] += 1
        elif version != "1" or not re.match(r"(HELLO|PING|PONG|[1-5]\d\d( .*)?)\Z", first[1]):
            self.counts["asides_unknown"] += 1
        elif len(set(names)) < len(names) or not all(
            re.match(r"[\w!#$%&'*+.^`|~-]+:", line, re.ASCII) for line in lines[1:]
        ):
            self.counts["asides_malformed"] += 1
        else:
            self.counts["asides"] += 1
            self.counts["aside_headers_unknown"] += len(set(names) - {"name", "id", "authorization"})
            self.heard.append((len(self.out), first[1].split(" ")[0]))


@given(mixture, st.lists(st.integers(1, 40), min_size=1), st.booleans())
@example(ping(1) + NOTE + ping(2), [1], True)
@example(ping(1)[:9] + NOTE + b"\xf6" + ping(1)[9:], [9, 3], True)
@example(text("MIDINET/1 PING", "Name: " + "x" * 1010), [1], False)
def test_any_bytes_in_any_chunks_give_what_the_rules_say(
    data: bytes, sizes: list[int], use_feed: bool
) -> None:
    slow, parser = SlowAsideParser(65536), Parser(asides=True)
    expected = slow.feed(data)
    slow.drop()
    read: list[bytes] = []
    heard: list[tuple[int, str]] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        before = len(read)
        chunk = data[at : at + size]
        if use_feed and turn % 2:
            read += [message.bin() for message in parser.feed(chunk)]
        else:
            read += parser.frames(chunk)
        heard += [(before + position, str(a.status or a.word)) for position, a in parser.take_asides()]
        at += size
        turn += 1
    parser.end()
    assert read == expected
    assert heard == slow.heard
    counts = asdict(parser.stats)
    assert (counts.pop("bytes"), counts.pop("messages")) == (len(data), len(expected))
    assert counts == slow.counts


@given(mixture)
def test_without_being_asked_a_parser_gives_the_same_frames_and_no_asides(data: bytes) -> None:
    asked, plain = Parser(asides=True), Parser()
    assert asked.frames(data) == plain.frames(data)
    assert plain.take_asides() == []
    asked.end()
    plain.end()
    # Every byte of an aside is one of the stray ones to who knows of no asides.
    ours, theirs = asked.stats, plain.stats
    assert (theirs.asides, theirs.aside_bytes) == (0, 0)
    assert ours.stray_data + ours.stray_ends + ours.aside_bytes == theirs.stray_data + theirs.stray_ends


@given(st.lists(st.tuples(any_message(), some_aside)))
def test_mido_and_a_plain_parser_get_exactly_the_messages(said: list[tuple[mido.Message, bytes]]) -> None:
    data = b"".join(aside + message.bin() + aside for message, aside in said)
    messages = [message for message, _ in said]
    theirs = mido.Parser()
    theirs.feed(data)
    assert list(theirs) == messages
    assert Parser().feed(data) == messages
    assert Parser(asides=True).feed(data) == messages


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_a_reader_by_itself_never_raises_and_counts_every_byte(chunks: list[bytes]) -> None:
    reader = AsideReader()
    begun = 0
    for chunk in chunks:
        if not chunk:
            reader.begin()
            begun += 1
        reader.feed(chunk)
    reader.abort()
    stats = reader.stats
    assert not reader.active
    assert stats.stray_data + stats.stray_ends + stats.aside_bytes == begun + sum(map(len, chunks))


def test_every_count_can_be_reached() -> None:
    stats = stats_of(
        b"stray\xf7"
        + ping(1)
        + text("MIDINET/1 PING", "X: y")
        + text("MIDINET/1 PING", "X")
        + text("MIDINET/2 PING")
        + text("MIDINET/1 PING", "x" * 1024)
        + b"\xf7MIDINET/1"
    )
    assert set(stats) == {count.name for count in fields(AsideStats)}


# Tokens.


def test_no_repr_shows_a_token() -> None:
    data = hello("x", TOKEN)
    parser = Parser(asides=True)
    parser.frames(data[:-1])
    unfinished = repr(parser), repr(vars(parser)), repr(parser._aside_reader)
    parser.frames(data[-1:])
    ((_, aside),) = parser.take_asides()
    assert aside.token == TOKEN
    stranger = Aside(HELLO, headers={"Authorization": f"Bearer {TOKEN}"}, token=TOKEN)
    shown = [*unfinished, repr(aside), str(aside), f"{[aside]}", repr(aside.headers), repr(stranger)]
    for said in shown:
        assert TOKEN not in said
        assert "earer" not in said
    assert repr(aside) == "Aside('HELLO', name='x')"
    assert repr(Aside(ANSWER, status=401)) == "Aside('ANSWER', status=401)"


@pytest.mark.parametrize("token", [f"{TOKEN} ", f"{TOKEN}é", TOKEN * 100])
def test_no_error_shows_a_token(token: str) -> None:
    with pytest.raises(ValueError, match=r"token|bytes") as caught:
        hello("x", token)
    assert TOKEN not in str(caught.value)


def test_a_token_is_found_nowhere_but_as_the_token() -> None:
    (aside,) = read(text("MIDINET/1 HELLO", f"aUTHORIZATION: Basic {TOKEN}"))
    assert aside.token is None
    assert TOKEN not in quote(str(asdict(aside)))


def test_an_aside_is_frozen_and_hashable() -> None:
    (aside,) = read(hello("x", TOKEN))
    (same,) = read(hello("x", TOKEN))
    assert aside == same
    assert len({aside, same}) == 1
    assert aside != read(hello("x", "other"))[0]
    with pytest.raises(FrozenInstanceError):
        aside.word = PING  # type: ignore[misc]


@pytest.mark.parametrize("rest", [hello()[9:], NOTE, b"\xf6", b"x" * MAX_ASIDE_BYTES])
def test_once_an_aside_is_over_messages_are_read_the_fast_way_again(
    rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = Parser(asides=True)
    parser.frames(hello()[:9] + rest)
    # What is left to the slow way is what the fast one could not read.
    monkeypatch.delattr(Parser, "_read_pieces")
    assert parser.frames(NOTE) == [NOTE]


@pytest.mark.parametrize(
    ("written", "clients"),
    [("3", 3), ("0", 0), ("999999999", 999999999), ("1000000000", None), ("-1", None), ("x", None)],
)
def test_a_pong_may_tell_how_many_clients_a_server_has(written: str, clients: int | None) -> None:
    assert Aside("PONG", headers={"clients": written}).clients == clients


def test_what_a_pong_tells_is_read_back() -> None:
    parser = Parser(asides=True)
    parser.joined(pong(17, clients=3))
    ((_, aside),) = parser.take_asides()
    assert (aside.word, aside.id, aside.clients) == ("PONG", "17", 3)
    assert parser.stats.aside_headers_unknown == 0
