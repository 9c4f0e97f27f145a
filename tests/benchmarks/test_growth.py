"""The crowd of idle clients: each is in when it was told something, and hears a message once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import idle
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.crowd import connect
from benchmarks.growth import with_room
from benchmarks.idle import Idlers
from benchmarks.protocols import NATS
from tests.harness.relay import Pass, relay, to_others

CLIENTS = 20
GREETING = b"\xb0\x07\x64"
NOTE = b"\x90\x3c\x40"

# One of the clients: the sender was first.
SOMEBODY = 7


def test_all_come_and_each_message_reaches_all() -> None:
    with relay(greeting=GREETING) as portno, connect(portno) as sender, Idlers(portno, CLIENTS) as idlers:
        taken = [idlers.tell(sender, NOTE) for _ in range(3)]

    assert min(taken) > 0
    assert idlers.seconds > 0


def test_who_is_not_told_is_not_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "PATIENCE_S", 0.05)
    with (
        relay() as portno,
        connect(portno),
        pytest.raises(TimeoutError, match=r"20 of the clients are not let in"),
    ):
        Idlers(portno, CLIENTS).__enter__()


def changed(change: Callable[[bytes], bytes]) -> Pass:
    """A relay that passes something else on to one of them."""

    def passes(data: bytes, origin: int, listener: int) -> bytes:
        data = to_others(data, origin, listener)
        return change(data) if listener == SOMEBODY else data

    return passes


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda data: b"", TimeoutError, "^1 of the clients do not hear"),
        (lambda data: data[:2], TimeoutError, "^1 of the clients do not hear"),
        (lambda data: 2 * data, ConnectionError, "was sent"),
        (lambda data: b"\x80\x3c\x40", ConnectionError, "was sent"),
    ],
    ids=["lost", "cut", "doubled", "foreign"],
)
def test_one_who_does_not_hear_just_what_was_sent_is_found_out(
    change: Callable[[bytes], bytes], error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        relay(changed(change), greeting=GREETING) as portno,
        connect(portno) as sender,
        Idlers(portno, CLIENTS) as idlers,
    ):
        # Longer than the relay's thread is ever kept from its turn: the others do hear it.
        monkeypatch.setattr(idle, "PATIENCE_S", 1.0)
        with pytest.raises(error, match=words):
            idlers.tell(sender, NOTE)


@pytest.mark.parametrize("where", ["before", "behind"])
def test_what_a_broker_says_aside_is_no_message(where: str) -> None:
    def aside(data: bytes) -> bytes:
        return NATS.aside + data if where == "before" else data + NATS.aside

    def passes(data: bytes, origin: int, listener: int) -> bytes:
        if NATS.publication(NOTE) == data:
            return changed(aside)(NATS.delivery(NOTE), origin, listener)
        # A client that greets is answered.
        return NATS.subscribed if origin == listener else b""

    with (
        relay(passes, greeting=b"INFO {}\r\n") as portno,
        connect(portno) as sender,
        Idlers(portno, CLIENTS, NATS) as idlers,
    ):
        assert idlers.tell(sender, NOTE) > 0
        assert idlers.tell(sender, NOTE) > 0


def test_midinet_is_given_room_for_all_and_others_are_left_as_they_are() -> None:
    by_name = {contender.name: contender for contender in CONTENDERS}
    hub = Contender("midinet hub", {}, "midinet_hub")

    assert with_room(hub, 990).options == {"max_clients": 1000, "snapshot": True}
    assert with_room(by_name["nats-server"], 990) is by_name["nats-server"]
    uvloop = by_name["midinet serve --uvloop"]
    words = with_room(uvloop, 990).options["words"]
    assert words == [*uvloop.options["words"], "--max-clients", "1000"]  # type: ignore[misc]
