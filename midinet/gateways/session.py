"""Hubs that are one: what one hub knows of the others in its session, and what it tells them.

No network and no clock here: packets come in and go out (packets.py), and time is an argument.

- What a hub's own clients say goes to the others as FRAMES, each with the next number. What comes from the
  others is said to the own clients, and never goes out again.
- Who holds which note is kept by hub, as an inbox keeps it by source. So a hub that ends (BYE), or of which
  nothing was heard for `GONE_S`, has what only it held let go of.
- Each hub knows best what its own clients hold; of what is set, what was set last counts. So whoever joins,
  misses a number or hears of a hub again asks it for its STATE, and says to its own clients what leads there
  from what they have: the difference. What two set otherwise at about the same time only has to be the same
  in the end: the lesser value counts, and a bend's middle before all others.
- A note that comes more than `LATE_NOTE_S` late is not struck. How late is told by the clocks of both sides:
  what came fastest of all from a hub is taken to have been in time.
- Whatever is missed otherwise shows in ALIVE, which says what the last number was and has a digest of what is
  set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from ..hub.difference import difference
from ..hub.outbox import LATE_NOTE_S, NOTE_ON
from ..hub.performance import (
    BENDS_LSB,
    BENDS_MSB,
    CLOCKS_A_BEAT,
    MAX_PARAMETERS,
    UNSET,
    Origin,
    Performance,
    note_off,
    setting,
)
from ..hub.release import release
from ..wire.parser import Parser
from .packets import (
    ALIVE,
    ASK,
    BYE,
    EVERYBODY,
    FRAMES,
    STATE,
    Note,
    Packet,
    State,
    pack,
    pack_digest,
    pack_state,
    unpack,
    unpack_digest,
    unpack_state,
)

# Seconds between two ALIVEs, and while a hub is missed: it is found within a second of its coming back.
ALIVE_S = 2.0
SEEKING_S = 0.4

# Seconds without a word, after which a hub is taken for gone: two ALIVEs may be lost.
GONE_S = 5.0

# Other hubs: more than hear each other well, since each hears what all others say.
_MOST_HUBS = 256

# Seconds for which a hub that is gone is sought, and so many of them.
_SOUGHT_S = 600.0
_MOST_SOUGHT = 100

# Seconds. Whoever was asked for its state has answered by then, or does not.
_ANSWER_S = 0.25

# Packets that wait for a new hub's state, to be said after it.
_MOST_WAITING = 1000

# Seconds. Of what two hubs set with less time between nobody knows what was set first: it is looked for only
# so often.
_SAME_TIME_S = 0.5

# Seconds for which nothing was set, after which everybody should have heard of it: many times what a network
# takes that one would make music over.
_SETTLED_S = 0.25

# Seconds for which ALIVEs come as often as while a hub is missed, once something was said, or hubs had to put
# their states together: whether it was lost, and whether they are the same, then shows within the second.
# What is lost later than that is lost with so many ALIVEs that the hub is missed.
_ALERT_S = 3.0

# Two clocks run apart by so much at most: 1 in 5,000, twice what computers' crystals do.
_DRIFT = 0.0002

# Bytes of one system exclusive message. What may wait for a slow peer is no more than that.
_MAX_SYSEX = 1 << 20

_TRANSPORT = -1

# Dates of what was set: all settings of a performance, the transport, and twice the parameters that it keeps.
_MAX_DATES = len(Performance().values) + 1 + 2 * MAX_PARAMETERS


# What counts of two that were set at the same time: the lesser.
_Rank: TypeAlias = tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class SessionStats:
    """What went between the hubs of a session."""

    hubs: int = 0
    """Other hubs that are there now."""
    messages_sent: int = 0
    messages_received: int = 0
    packets_sent: int = 0
    packets_received: int = 0
    gaps: int = 0
    """Packets of messages that did not arrive."""
    duplicates: int = 0
    """Packets of messages that came twice, and were left out."""
    malformed: int = 0
    """Packets that are of no hub, or damaged."""
    late_notes: int = 0
    """Note-ons that came too late to be struck."""
    hubs_refused: int = 0
    """Packets of hubs beyond those that there may be."""
    hubs_gone: int = 0
    """Hubs that ended without a word."""


@dataclass(slots=True, eq=False)
class _Peer:
    """Another hub. It is the origin of what that hub's clients say."""

    identity: bytes
    number: int = 0
    heard_at: float = 0.0
    # When it was asked for its state; None while it is known.
    asked_at: float | None = None
    # It is new: what it says waits for its state.
    waiting: list[Packet] | None = field(default_factory=list)
    # The least that was between its clock when it said something and the one here when that came.
    offset: float | None = None
    offset_at: float = 0.0
    # The digests, here and there, of two states that were put together and still differ: to ask again would
    # change nothing.
    disputed: tuple[int, int] | None = None
    # Before that, it is asked once more, and then it does not count what was set later.
    by_rank: bool = False


class Session:
    """What one hub has to do with the others.

    Args:
        identity: of this hub: 16 bytes that no other one has.
        performance: returns what was said by this hub's clients and to them. It may be kept.
        outbox: how that performance knows what came from the other hubs: their origin in it.
        say: is called with whole messages, and how many, to be said to this hub's clients.
        send: is called with a packet for the others.
        now: the present, in seconds of a clock that never goes back; so it is everywhere here.
    """

    def __init__(
        self,
        identity: bytes,
        performance: Callable[[], Performance],
        outbox: Origin,
        say: Callable[[bytes, int], None],
        send: Callable[[bytes], None],
        now: float,
    ) -> None:
        self.identity = identity
        self.stats = SessionStats()
        self._performance = performance
        self._outbox = outbox
        self._say = say
        self._send = send
        self._number = 0
        self._peers: dict[bytes, _Peer] = {}
        self._sought: dict[bytes, float] = {}
        # What the others hold, by hub.
        self._remote = Performance()
        self._parser = Parser(max_sysex=_MAX_SYSEX)
        self._alive_at = now
        self._alert_until = 0.0
        # What was set when it was looked last, and when what of it was set.
        self._known = Performance()
        self._set_at: dict[object, float] = {}
        self._digest: tuple[Performance, int] | None = None

    # What this hub's clients say.

    def publish(self, data: bytes, messages: int, now: float) -> None:
        """Tell the others what this hub's clients said: whole messages, joined."""
        self._number += 1
        self._alert_until = now + _ALERT_S
        self.stats.messages_sent += messages
        self._tell(FRAMES, now, data)

    def _tell(self, kind: int, now: float, body: bytes = b"") -> None:
        self.stats.packets_sent += 1
        self._send(pack(kind, self.identity, self._number, now, body))

    def connected(self, now: float) -> None:
        """There is a way to the others, for the first time or again: ask who is there."""
        for peer in self._peers.values():
            peer.asked_at = now
        self._tell(ASK, now, EVERYBODY)
        self._tell_alive(now)

    def end(self, now: float) -> None:
        """Tell the others that this hub ends."""
        self._tell(BYE, now)

    def tick(self, now: float) -> float:
        """Do what is due. To be called when the time has come that this returns, or before."""
        self._look(now)
        for hub, peer in list(self._peers.items()):
            if now - peer.heard_at >= GONE_S:
                self.stats.hubs_gone += 1
                self._lose(hub)
                self._seek(hub, now)
            elif peer.asked_at is not None and now - peer.asked_at >= _ANSWER_S:
                self._go_on_without_state(peer, now)
        self._sought = {hub: since for hub, since in self._sought.items() if now - since < _SOUGHT_S}
        if now - self._alive_at >= self._pause:
            self._tell_alive(now)
        asked = any(peer.asked_at is not None for peer in self._peers.values())
        return min(self._alive_at + self._pause, now + (_ANSWER_S if asked else SEEKING_S))

    @property
    def _pause(self) -> float:
        missed = any(self._alive_at - peer.heard_at > ALIVE_S for peer in self._peers.values())
        alert = self._alive_at < self._alert_until
        return SEEKING_S if missed or alert or self._sought else ALIVE_S

    def _tell_alive(self, now: float) -> None:
        self._alive_at = now
        self._tell(ALIVE, now, pack_digest(self._digest_of(self._performance())))

    # What the others say.

    def receive(self, data: bytes, now: float) -> None:
        """Take in a packet, whoever it is from."""
        packet = unpack(data)
        if packet is None:
            self.stats.malformed += 1
            return
        if packet.hub == self.identity:
            return
        self.stats.packets_received += 1
        if packet.kind == BYE:
            self._sought.pop(packet.hub, None)
            if packet.hub in self._peers:
                self._lose(packet.hub)
            return
        if packet.hub not in self._peers and len(self._peers) >= _MOST_HUBS:
            self.stats.hubs_refused += 1
            return
        peer = self._peer(packet.hub, now)
        peer.heard_at = now
        if packet.kind == FRAMES:
            self._hear(packet, peer, now)
        elif packet.kind == ALIVE:
            self._hear_alive(packet, peer, now)
        elif packet.kind == ASK:
            if packet.body in (EVERYBODY, self.identity):
                self._alert_until = now + _ALERT_S
                self._tell_state(now)
        elif (state := unpack_state(packet.body)) is not None:
            self._take_state(packet, state, peer, now)
        else:
            self.stats.malformed += 1

    def _peer(self, hub: bytes, now: float) -> _Peer:
        peer = self._peers.get(hub)
        if peer is None:
            peer = self._peers[hub] = _Peer(hub)
            self.stats.hubs = len(self._peers)
            self._sought.pop(hub, None)
            self._ask(peer, now)
        return peer

    def _ask(self, peer: _Peer, now: float) -> None:
        if peer.asked_at is None:
            peer.asked_at = now
            self._alert_until = now + _ALERT_S
            self._tell(ASK, now, peer.identity)

    def _hear(self, packet: Packet, peer: _Peer, now: float) -> None:
        if peer.waiting is not None:
            peer.waiting.append(packet)
            if len(peer.waiting) >= _MOST_WAITING:
                self._go_on_without_state(peer, now)
            return
        if packet.number <= peer.number:
            self.stats.duplicates += 1
            return
        missed = packet.number - peer.number - 1
        peer.number = packet.number
        self._play(packet, peer, now)
        if missed:
            self.stats.gaps += missed
            self._ask(peer, now)

    def _play(self, packet: Packet, peer: _Peer, now: float) -> None:
        data, messages = self._parser.joined(packet.body)
        self._parser.end()
        self.stats.messages_received += messages
        if self._lateness(packet, peer, now) > LATE_NOTE_S:
            timely = NOTE_ON.sub(b"", data)
            late = (len(data) - len(timely)) // 3
            self.stats.late_notes += late
            data, messages = timely, messages - late
        if messages:
            self._say_for(peer, data, messages, now)

    def _say_for(self, peer: _Peer, data: bytes, messages: int, now: float) -> None:
        if not self._remote.owes:
            # There is nothing to be said beside it, so it is on its way before it is noted.
            self._say(data, messages)
            self._remote.observe(data, peer, now)
            return
        owed = self._remote.observe(data, peer, now)
        self._remote.tell_holders()
        self._say(data + b"".join(owed), messages + len(owed))

    def _lateness(self, packet: Packet, peer: _Peer, now: float) -> float:
        offset = now - packet.said_at
        if peer.offset is not None:
            # The clocks may have run apart since.
            least = peer.offset + (now - peer.offset_at) * _DRIFT
            if offset >= least:
                return offset - least
        peer.offset, peer.offset_at = offset, now
        return 0.0

    def _hear_alive(self, packet: Packet, peer: _Peer, now: float) -> None:
        self._lateness(packet, peer, now)
        if peer.waiting is not None:
            return
        if packet.number > peer.number:
            self.stats.gaps += packet.number - peer.number
            peer.number = packet.number
            self._ask(peer, now)
            return
        self._look(now)
        settled = not self._set_at or now - max(self._set_at.values()) > _SETTLED_S
        digests = self._digest_of(self._known), unpack_digest(packet.body)
        if settled and digests[0] != digests[1] and not (digests == peer.disputed and peer.by_rank):
            peer.by_rank = digests == peer.disputed
            peer.disputed = digests
            self._ask(peer, now)

    def _lose(self, hub: bytes) -> None:
        peer = self._peers.pop(hub)
        self.stats.hubs = len(self._peers)
        self._say_all(release(self._remote, (peer,))[0])

    def lose_all(self) -> None:
        """Release what the clients of all other hubs held: nothing more will come from these."""
        for hub in list(self._peers):
            self._lose(hub)

    def _seek(self, hub: bytes, now: float) -> None:
        self._sought[hub] = now
        if len(self._sought) > _MOST_SOUGHT:
            del self._sought[next(iter(self._sought))]

    def _say_all(self, frames: Iterable[bytes]) -> None:
        frames = list(frames)
        if frames:
            self._say(b"".join(frames), len(frames))

    # States.

    def _look(self, now: float) -> None:
        """Take note of what was set since the last look."""
        present, known = self._performance(), self._known
        if present is known:
            return
        if present.values != known.values:
            for place, (value, before) in enumerate(zip(present.values, known.values, strict=True)):
                if value != before:
                    self._set_at[place] = now
        if present.parameters != known.parameters:
            for parameter, pair in present.parameters.items():
                if pair != known.parameters.get(parameter):
                    self._set_at[parameter] = now
            self._forget_dates(present)
        if present.running != known.running:
            self._set_at[_TRANSPORT] = now
        self._known = present

    def _forget_dates(self, present: Performance) -> None:
        """Bound the dates of parameters that are not set any more.

        They tell that what another hub has of these is older than the reset here.
        """
        if len(self._set_at) > _MAX_DATES:
            unset = [
                what for what in self._set_at if isinstance(what, tuple) and what not in present.parameters
            ]
            for what in unset[: len(self._set_at) - _MAX_DATES]:
                del self._set_at[what]

    def _age(self, what: object, now: float) -> float:
        return now - self._set_at.get(what, 0.0)

    def _tell_state(self, now: float) -> None:
        self._look(now)
        present = self._known
        own_notes = []
        for key in present.held_notes:
            view = present.total(key, self._outbox)
            if view is not None and view.sounding:
                own_notes.append(Note(key, view.velocity, view.outstanding, now - view.since))
        own = {place for place, setter in present.off_neutral().items() if setter is not self._outbox}
        settings = {
            place: (value, self._age(place, now), place in own)
            for place, value in enumerate(present.values)
            if value != UNSET or place in self._set_at
        }
        parameters = {
            parameter: (msb, lsb, self._age(parameter, now))
            for parameter, (msb, lsb) in present.parameters.items()
        }
        transport_age = self._age(_TRANSPORT, now)
        state = State(present.running, present.clock, transport_age, own_notes, settings, parameters)
        self._tell(STATE, now, pack_state(state))

    def _take_state(self, packet: Packet, state: State, peer: _Peer, now: float) -> None:
        self._lateness(packet, peer, now)
        if packet.number > peer.number and peer.waiting is None:
            self.stats.gaps += packet.number - peer.number
        waiting, peer.waiting, peer.asked_at = peer.waiting or [], None, None
        peer.number = max(packet.number, peer.number)
        self._say_all(self._notes_to(peer, state, now))
        self._look(now)
        present, target = self._known, self._known.copy()
        self._merge(state, target, peer.by_rank, now)
        if frames := difference(present, target):
            self._say_for(peer, b"".join(frames), len(frames), now)
            self._look(now)
            self._date(state, present, now)
        self._attribute(peer, state)
        for late in waiting:
            if late.number > packet.number:
                self._hear(late, peer, now)

    def _go_on_without_state(self, peer: _Peer, now: float) -> None:
        """Whoever was asked does not answer: what it said is all that there is."""
        waiting, peer.waiting, peer.asked_at = peer.waiting or [], None, None
        for packet in waiting:
            peer.number = max(peer.number, packet.number - 1)
            self._hear(packet, peer, now)

    def _notes_to(self, peer: _Peer, state: State, now: float) -> list[bytes]:
        """Bring what a hub is known to hold to what it holds; returns the frames that do so."""
        frames: list[bytes] = []
        holds = {note.key: note for note in state.notes}
        for key in self._remote.held_by({peer}).get(peer, []):
            held = self._remote.holders(key)[peer]
            wanted = holds[key].outstanding if key in holds else 0
            frames += [note_off(key)] * max(held.outstanding + held.doubtful - wanted, 0)
        owed = self._remote.observe(b"".join(frames), peer, now)
        held_now = set(self._remote.held_by({peer}).get(peer, []))
        strike = [
            bytes((0x90 | note.key >> 7, note.key & 127, note.velocity))
            for note in state.notes
            if note.key not in held_now and note.velocity and note.age <= LATE_NOTE_S
        ]
        self._remote.observe(b"".join(strike), peer, now)
        self._remote.tell_holders()
        return [*frames, *owed, *strike]

    def _merge(self, state: State, target: Performance, by_rank: bool, now: float) -> None:
        """Take over what was set later than here."""
        for place, (value, age, _) in state.settings.items():
            ranks: tuple[_Rank, _Rank] = (_rank(place, target.values[place]), _rank(place, value))
            if value != target.values[place] and self._wins(place, age, ranks, by_rank, now):
                target.values[place] = value
        for parameter, (msb, lsb, age) in state.parameters.items():
            before = target.parameters.get(parameter, (UNSET, UNSET))
            if (msb, lsb) != before and self._wins(parameter, age, (before, (msb, lsb)), by_rank, now):
                target.parameters[parameter] = (msb, lsb)
        ranks = (target.running,), (state.running,)
        if target.running != state.running and self._wins(
            _TRANSPORT, state.transport_age, ranks, by_rank, now
        ):
            target.running, target.clock = state.running, state.clock
        elif target.running and state.running and state.clock > target.clock + CLOCKS_A_BEAT:
            # Clocks were missed. Fewer may only be on their way.
            target.clock = state.clock

    def _wins(self, what: object, age: float, ranks: tuple[_Rank, _Rank], by_rank: bool, now: float) -> bool:
        """Whether what was set elsewhere takes the place of what was set here."""
        if what not in self._set_at:
            return True
        own_age = self._age(what, now)
        if by_rank or abs(own_age - age) <= _SAME_TIME_S:
            return ranks[1] < ranks[0]
        return age < own_age

    def _date(self, state: State, before: Performance, now: float) -> None:
        """What was taken over from a state is as old as it is there."""
        known = self._known
        for place, (value, age, _) in state.settings.items():
            if before.values[place] != value == known.values[place]:
                self._set_at[place] = now - age
        for parameter, (msb, lsb, age) in state.parameters.items():
            if before.parameters.get(parameter) != (msb, lsb) == known.parameters.get(parameter):
                self._set_at[parameter] = now - age
        if before.running != state.running == known.running:
            self._set_at[_TRANSPORT] = now - state.transport_age

    def _attribute(self, peer: _Peer, state: State) -> None:
        """Have pedals, bends and pressures be put back when that hub is gone which its clients hold, whoever
        it was that told of them first."""
        setters = self._remote.setters
        for place, (value, _, own) in state.settings.items():
            if own and value == self._known.values[place] and peer not in setters.get(place, {}):
                least = self._known.values[place + BENDS_LSB - BENDS_MSB] if place >= BENDS_MSB else 0
                self._remote.observe(setting(place, value, least), peer, 0.0)
        self._remote.tell_holders()

    def _digest_of(self, performance: Performance) -> int:
        """Return what tells whether the same is set elsewhere, apart from what clients hold just now."""
        if self._digest is None or self._digest[0] is not performance:
            others = repr((performance.running, sorted(performance.parameters.items()))).encode()
            hashed = blake2b(bytes(performance.values) + others, digest_size=8)
            self._digest = performance, int.from_bytes(hashed.digest())
        return self._digest[1]


def _rank(place: int, value: int) -> _Rank:
    return (-1,) if value == 64 and BENDS_MSB <= place < BENDS_LSB else (value,)
