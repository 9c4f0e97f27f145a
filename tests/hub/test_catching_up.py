"""A hub whose members stall and read on at random, beside one where all keep up.

Both hubs get the same calls at the same times. The members of the one are bounded, stalled and drained as
links do it. The members of the other never stall: what their instruments play is what should be heard.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from midinet.hub.hub import Hub
from midinet.hub.outbox import LATE_NOTE_S, Outbox, OutboxLimits
from tests.harness.histories import (
    Frames,
    Sense,
    control,
    history,
    modes,
    note_off,
    note_on,
    notes,
    settings,
    system_reset,
    transport,
)
from tests.harness.models import SlowParser
from tests.harness.synth import Key, VirtualSynth

CLOCK, STOP, SENSING = b"\xf8", b"\xfc", b"\xfe"
CLOCKS_A_BEAT = 6
# What a backlog keeps whole and in order: system exclusive, song select, tune request.
KEPT = (0xF0, 0xF3, 0xF6)
MODE_MESSAGES = (120, 123, 124, 125, 126, 127)
INSTRUMENTS: dict[str, dict[str, bool]] = {
    "plain": {},
    "ignoring modes": {"ignores_mode_messages": True},
    "in Omni": {"omni": True},
}


class Receiver:
    """What is at the other end of an outbox: instruments of several kinds, which get the same bytes."""

    def __init__(self, limits: OutboxLimits | None = None) -> None:
        self.given_up = False
        self.outbox = Outbox(self._write, self._give_up, limits=limits or OutboxLimits())
        self.instruments = {name: VirtualSynth(**options) for name, options in INSTRUMENTS.items()}
        self.plain = self.instruments["plain"]
        self.frames: Frames = []
        self._parser = SlowParser(1 << 24)

    def _write(self, data: bytes) -> None:
        self.frames += self._parser.feed(data)
        for instrument in self.instruments.values():
            instrument.feed(data)

    def _give_up(self) -> None:
        self.given_up = True

    def sounds(self) -> dict[str, str]:
        """What sounds, is held or is bent, by instrument."""
        words = {name: instrument.describe() for name, instrument in self.instruments.items()}
        return {name: said for name, said in words.items() if said != "silent"}

    def state(self) -> dict[tuple[Any, ...], Any]:
        """How the plain instrument is set; the transport is one item, and the song is left out: outboxes
        keep song select in order with system exclusive."""
        state = self.plain.state()
        for key in ("song", "running", "song position"):
            state.pop((key,), None)
        running, clock = self.plain.running, self.plain.song_position
        # While it stands, a song can be put on a beat only.
        state["transport",] = (running, clock if running else clock // CLOCKS_A_BEAT)
        return state


def publish(hub: Hub, frames: Frames, **whom: Outbox | None) -> None:
    hub.publish(b"".join(frames), len(frames), **whom)


class Held:
    """Who holds what, as one listener hears it: the plainest model of that."""

    def __init__(self) -> None:
        self.outstanding: Counter[tuple[object, Key]] = Counter()
        self.sounding: set[tuple[object, Key]] = set()
        # Who struck what, in order.
        self.strokes: dict[Key, list[object]] = {}

    def copy(self) -> Held:
        copy = Held()
        copy.outstanding, copy.sounding = self.outstanding.copy(), self.sounding.copy()
        return copy

    def hear(self, origin: object, frames: Iterable[bytes]) -> None:
        for frame in frames:
            kind, channel = frame[0] & 0xF0, frame[0] & 15
            if kind in (0x80, 0x90):
                held = (origin, (channel, frame[1]))
                if kind == 0x90 and frame[2]:
                    self.outstanding[held] += 1
                    self.sounding.add(held)
                    self.strokes.setdefault(held[1], []).append(origin)
                else:
                    self.sounding.discard(held)
                    self.outstanding[held] = max(self.outstanding[held] - 1, 0)
            elif frame == b"\xff":
                self._end(lambda _: True)
            elif kind == 0xB0 and frame[1] in MODE_MESSAGES:
                self._end(lambda held, channel=channel: held[1][0] == channel)  # type: ignore[misc]

    def forget(self, origin: object) -> None:
        self._end(lambda held: held[0] is origin)

    def _end(self, ends: Callable[[tuple[object, Key]], bool]) -> None:
        for held in list(self.outstanding):
            if ends(held):
                del self.outstanding[held]
                self.sounding.discard(held)

    def voices_for(self, listener: object) -> set[Key]:
        return {key for (origin, key), count in self.outstanding.items() if count and origin is not listener}

    def sounds_for(self, listener: object) -> set[Key]:
        return {key for origin, key in self.sounding if origin is not listener}

    def is_held_as_struck(self, key: Key, listener: object) -> bool:
        """Whether who struck it last, for a listener, still holds it. What another one holds since before
        may have been ended by a note-off of somebody who does not."""
        by_others = [origin for origin in self.strokes.get(key, []) if origin is not listener]
        return bool(by_others) and (by_others[-1], key) in self.sounding


class Member:
    """A member of both hubs."""

    def __init__(self, limits: OutboxLimits, held: Held, *, in_tune: bool) -> None:
        self.limits = limits
        self.stressed, self.calm = Receiver(limits), Receiver()
        self.held = held
        # It was told what was set before it came.
        self.in_tune = in_tune
        # Where it set something itself. It does not hear that, so how it is set there is its own affair.
        self.own_settings: set[object] = set()
        # Channels whose notes it ended itself, for the others.
        self.own_ends: set[int] = set()
        # When notes were struck, and which of them may be silent because it read them too late.
        self.struck: dict[Key, float] = {}
        self.late: set[Key] = set()

    @property
    def outbox(self) -> Outbox:
        return self.stressed.outbox

    def note_own(self, frames: Frames) -> None:
        for frame in frames:
            if frame == b"\xff":
                self.own_settings |= {*range(16), "transport"}
                self.own_ends |= {*range(16)}
            elif frame[0] >= 0xF0:
                self.own_settings.add("transport")
            elif frame[0] >= 0xA0:
                self.own_settings.add(frame[0] & 15)
                if frame[0] & 0xF0 == 0xB0 and frame[1] in MODE_MESSAGES:
                    self.own_ends.add(frame[0] & 15)

    # What has to be true of it.

    def check_memory(self) -> None:
        limits = self.limits
        # One piece always finds room where the peer would be given up otherwise.
        if limits.slow == "thin":
            assert self.outbox.backlog_bytes <= limits.max_bytes

    def check_counts(self) -> None:
        """Every message that was meant for it was sent, or is in exactly one of the counts."""
        stats = self.outbox.stats
        assert stats.messages == self.calm.outbox.stats.messages
        sent = len(self.stressed.frames) - stats.caught_up
        not_sent = stats.dropped + stats.thinned + stats.late_notes + stats.late_clocks + stats.sysex_refused
        assert stats.messages == sent + not_sent
        mine, all_kept = ([f for f in r.frames if f[0] in KEPT] for r in (self.stressed, self.calm))
        rest = iter(all_kept)
        assert all(frame in rest for frame in mine), "what is kept came in another order"
        if self.limits.slow == "thin" and self.outbox.open:
            assert len(all_kept) - len(mine) == stats.dropped

    def check_notes(self) -> None:
        """It sounds what it should, but for what it read too late, and nothing that nobody holds."""
        for instrument in (self.stressed.plain, self.calm.plain):
            assert self._elsewhere(instrument.voices) <= self.held.voices_for(self)
            assert self._elsewhere(instrument.sounding) <= self.held.sounds_for(self)
        missing = self._elsewhere(self.calm.plain.sounding - self.stressed.plain.sounding - self.late)
        assert not {key for key in missing if self.held.is_held_as_struck(key, self)}

    def _elsewhere(self, keys: Iterable[Key]) -> set[Key]:
        return {key for key in keys if key[0] not in self.own_ends}

    def check_settings(self, everything: Receiver) -> None:
        """It is set like the one beside it that kept up, or like one that heard everything, if it missed
        the beginning and was brought up to date."""
        mine, beside, all_of_it = (receiver.state() for receiver in (self.stressed, self.calm, everything))
        stats = self.outbox.stats
        for key in mine.keys() | beside.keys() | all_of_it.keys():
            place = key[1] if len(key) > 1 else "transport"
            if place not in self.own_settings:
                updated = stats.episodes or (place == "transport" and stats.late_clocks)
                allowed = [beside.get(key)]
                if updated and not self.in_tune:
                    allowed.append(all_of_it.get(key))
                assert mine.get(key) in allowed, key


# A run says some of these, so that what belongs together meets more often.
KINDS: dict[str, st.SearchStrategy[Frames]] = {
    "one note": st.sampled_from([[note_on(60)], [note_on(60)], [note_off(60)]]),
    "notes": notes(),
    "a pedal": st.sampled_from([[control(0, 64, value)] for value in (0, 64, 127)]),
    "volume": st.sampled_from([[control(0, 7, value)] for value in (0, 1, 2)]),
    "settings": settings(),
    "modes": modes(120, 121, 123, 124, 126, 127),
    "the transport": transport(),
    "clocks": st.sampled_from([[CLOCK], [CLOCK] * CLOCKS_A_BEAT, [SENSING]]),
    "resets": system_reset(),
    "what is kept": st.sampled_from([[b"\xf3\x01"], [b"\xf3\x02"], [b"\xf6"], [b"\xf1\x05"]]),
    "system exclusive": st.sampled_from([0, 0, 20, 600]).map(lambda size: [b"\xf0" + bytes(size) + b"\xf7"]),
}
SECONDS = st.sampled_from([0.0, 0.0, 0.05, 0.15, 0.3, 2.0])
WHICH = st.integers(0, 4)


MEMBERS = st.tuples(
    st.sampled_from([False, True, "notes"]),
    st.builds(
        OutboxLimits,
        slow=st.sampled_from(["thin", "thin", "thin", "disconnect"]),
        max_bytes=st.sampled_from([1024, 2000, 1 << 20]),
        soft_bytes=st.sampled_from([60, 1024, 1 << 18]),
        soft_messages=st.sampled_from([8, 1 << 17]),
        soft_age=st.sampled_from([0.1, 1.0]),
    ),
)


class Hubs(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.stressed = Hub(lambda: None, lambda: self.now)
        self.calm = Hub(lambda: None, lambda: self.now)
        self.everything = Receiver()
        self.calm.join(self.everything.outbox)
        self.members: list[Member] = []
        self.held = Held()
        self.sense = Sense()
        self.said_anything = False
        self.dismissed = False
        self.owed: Counter[tuple[object, int, int]] = Counter()
        self.sysexes = 0
        # Pieces of some messages, so that a backlog is many of them.
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(patch("midinet.hub.outbox._PIECE", 40))

    # Members come, go, and stop reading.

    @initialize(
        members=st.lists(MEMBERS, min_size=2, max_size=4),
        kinds=st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=4),
        dismissed=st.booleans(),
    )
    def begin(
        self, members: list[tuple[bool | str, OutboxLimits]], kinds: list[str], dismissed: bool
    ) -> None:
        # How it ends: all are sent away, or all let go.
        self.dismissed = dismissed
        anything = history(*(KINDS[kind] for kind in kinds), min_size=1, max_size=12)
        said = st.tuples(st.integers(-1, 4), anything, st.sampled_from([None, None, None, 0, 1]))
        self.turns = st.lists(said, min_size=1, max_size=3)
        for snapshot, limits in members:
            self.join((snapshot, limits))

    @precondition(lambda self: len(self.members) < 5)
    @rule(member=MEMBERS)
    def join(self, member: tuple[bool | str, OutboxLimits]) -> None:
        snapshot, limits = member
        in_tune = bool(snapshot) or not self.said_anything
        joined = Member(limits, self.held.copy(), in_tune=in_tune)
        since = -inf if snapshot == "notes" else inf
        self.stressed.join(joined.outbox, snapshot=bool(snapshot), struck_since=since)
        self.calm.join(joined.calm.outbox, snapshot=bool(snapshot), struck_since=since)
        if snapshot:
            assert joined.calm.state() == self.everything.state()
        if snapshot == "notes":
            assert joined.calm.plain.sounding == self.held.sounds_for(joined)
        self.members.append(joined)

    def _pick(self, number: int) -> Member:
        return self.members[number % len(self.members)]

    some_member = precondition(lambda self: self.members)

    @some_member
    @rule(leaving=st.lists(st.tuples(WHICH, st.booleans()), min_size=1, max_size=3))
    def leave(self, leaving: list[tuple[int, bool]]) -> None:
        for which, hears in leaving:
            if self.members:
                self._leave(self._pick(which), hears=hears)
        self._lose_who_was_given_up()

    def _leave(self, member: Member, *, hears: bool) -> None:
        self.now += 1e-4
        self.members.remove(member)
        self.stressed.leave(member.outbox, hears=hears)
        self.calm.leave(member.calm.outbox, hears=hears)
        self._forget(member)
        if hears and not member.stressed.given_up:
            # A closing link takes nothing more, and empties what it has.
            member.outbox.open = False
            self._read_on(member)
            assert not member.stressed.sounds()
            assert not member.calm.sounds()
        member.outbox.close()
        member.check_counts()

    def _lose_who_was_given_up(self) -> None:
        while True:
            # What lets go of one may be too much for another.
            self.stressed.flush()
            self.calm.flush()
            lost = [member for member in self.members if member.stressed.given_up]
            if not lost:
                return
            for member in lost:
                self._leave(member, hears=False)

    def _forget(self, origin: Member | None) -> None:
        for held in (self.held, *(member.held for member in self.members)):
            held.forget(origin)

    @rule(which=st.integers(-1, 4))
    def release(self, which: int) -> None:
        self.now += 1e-4
        origin = self._pick(which) if which >= 0 and self.members else None
        self.stressed.release(None if origin is None else origin.outbox)
        self.calm.release(None if origin is None else origin.calm.outbox)
        self._forget(origin)
        self._lose_who_was_given_up()

    @some_member
    @rule(which=WHICH, pieces=st.integers(1, 4), pushes_back=st.booleans(), seconds=SECONDS)
    def take_some_pieces(self, which: int, pieces: int, pushes_back: bool, seconds: float) -> None:
        member = self._pick(which)
        for _ in range(pieces):
            if member.outbox.stalled and not self._drain(member) and not pushes_back:
                member.outbox.flow()
            self.now += seconds

    @some_member
    @rule(which=WHICH)
    def read_on(self, which: int) -> None:
        self._read_on(self._pick(which))

    def _read_on(self, member: Member) -> None:
        if member.outbox.stalled:
            while self._drain(member):
                pass
            member.outbox.flow()

    def _drain(self, member: Member) -> bool:
        start = len(member.stressed.frames)
        more = member.outbox.drain(self.now)
        if member.limits.slow == "thin":
            member.late |= {key for key, at in member.struck.items() if self.now - at > LATE_NOTE_S}
            frames = member.stressed.frames[start:]
            assert SENSING not in frames
            # Those that a song is behind by, or from a beat on; never a backlog of them.
            assert frames.count(CLOCK) <= CLOCKS_A_BEAT
            for frame in frames:
                if frame[0] & 0xF0 == 0x90 and frame[2]:
                    assert self.now - member.struck[frame[0] & 15, frame[1]] <= LATE_NOTE_S
        return more

    # What is said.

    @rule(data=st.data(), stalling=st.sets(WHICH, max_size=3), seconds=SECONDS)
    def say(self, data: st.DataObject, stalling: set[int], seconds: float) -> None:
        turn = data.draw(self.turns)
        for which in stalling:
            if self.members:
                self._pick(which).outbox.stall()
        self.now += seconds
        # No two turns of a loop are at the same time.
        self.now += 1e-4
        self.said_anything = True
        for speaker, items, alone in turn:
            if alone is not None and self.members:
                self._say_alone(self._pick(alone), items)
            else:
                origin = self._pick(speaker) if speaker >= 0 and self.members else None
                self._say(origin, items)
            self._note_strokes()
        self.stressed.flush()
        self.calm.flush()
        self._note_strokes()
        self._lose_who_was_given_up()

    def _say(self, origin: Member | None, items: list[Frames]) -> None:
        frames = self._with_serials(self._halting_on_beats(self.sense.of(items)))
        frames = [frame for frame in frames if self._can_be_owed((origin, None), frame)]
        if not frames:
            return
        self.held.hear(origin, frames)
        for member in self.members:
            member.held.hear(origin, frames)
        if origin is None:
            publish(self.stressed, frames)
            publish(self.calm, frames)
        else:
            origin.note_own(frames)
            publish(self.stressed, frames, origin=origin.outbox)
            publish(self.calm, frames, origin=origin.calm.outbox)
        # Where it stands is needed to halt the song on a beat.
        self.calm.flush()

    def _can_be_owed(self, by_to: tuple[Member | None, Member | None], frame: bytes) -> bool:
        """Whether this is no note-on, or one of those whose note-offs an origin is remembered for."""
        if frame[0] & 0xE0 == 0x80:
            place = (by_to, frame[0] & 15, frame[1])
            if frame[0] & 0xF0 == 0x90 and frame[2]:
                # The owner says as much to all as to one alone.
                if self.owed[place] == 8:
                    return False
                self.owed[place] += 1
            else:
                self.owed[place] = max(self.owed[place] - 1, 0)
        return True

    def _say_alone(self, member: Member, items: list[Frames]) -> None:
        # Nothing that hangs together with what all hear.
        frames = [
            frame
            for item in items
            for frame in item
            if (frame[0] & 0xF0 in (0x80, 0x90, 0xE0) or (frame[0] & 0xF0 == 0xB0 and frame[1] in (64, 91)))
            and self._can_be_owed((None, member), frame)
        ]
        if frames:
            member.held.hear(None, frames)
            publish(self.stressed, frames, only=member.outbox)
            publish(self.calm, frames, only=member.calm.outbox)

    def _halting_on_beats(self, frames: Frames) -> Frames:
        """Put in clocks before each Stop, up to a beat: nothing else brings a halted song between beats."""
        running, clock = self.everything.plain.running, self.everything.plain.song_position
        said: Frames = []
        for frame in frames:
            if frame == STOP and running:
                said += [CLOCK] * (-clock % CLOCKS_A_BEAT)
                running = False
            elif frame == CLOCK and running:
                clock += 1
            elif frame[0] == 0xF2:
                clock = 0
            elif frame == b"\xfb" or (frame == b"\xfa" and not running):
                clock = clock if frame == b"\xfb" else 0
                running = True
            elif frame == b"\xff":
                running, clock = False, 0
            said.append(frame)
        return said

    def _with_serials(self, frames: Frames) -> Frames:
        """Number the system exclusive messages, so that their order can be seen."""
        said: Frames = []
        for frame in frames:
            if frame[0] == 0xF0:
                self.sysexes += 1
                frame = bytes((0xF0, 0x7D, self.sysexes >> 7, self.sysexes & 127)) + frame[1:]
            said.append(frame)
        return said

    def _note_strokes(self) -> None:
        for member in self.members:
            seen = len(member.calm.frames)
            for frame in member.calm.frames[getattr(member, "seen", 0) :]:
                if frame[0] & 0xF0 == 0x90 and frame[2]:
                    key = (frame[0] & 15, frame[1])
                    member.struck[key] = self.now
                    member.late.discard(key)
            member.seen = seen  # type: ignore[attr-defined]

    # What has to be true at any time.

    @invariant()
    def every_member_is_in_tune_or_on_its_way(self) -> None:
        for member in self.members:
            member.check_memory()
            if not member.outbox.stalled:
                member.check_counts()
                member.check_notes()
                member.check_settings(self.everything)

    def teardown(self) -> None:
        try:
            if self.dismissed:
                self.stressed.dismiss_all()
                self.calm.dismiss_all()
            else:
                for member in self.members:
                    self.stressed.release(member.outbox)
                    self.calm.release(member.calm.outbox)
                self.stressed.release(None)
                self.calm.release(None)
            for member in [member for member in self.members if not member.stressed.given_up]:
                self._read_on(member)
                assert not member.stressed.sounds()
                assert not member.calm.sounds()
            assert not self.everything.sounds()
        finally:
            self.patches.close()


class ManyHubs(Hubs):
    """The same, by the thousand."""


TestHubs = Hubs.TestCase
TestHubs.settings = hypothesis_settings(max_examples=60, stateful_step_count=20, deadline=None)
TestManyHubs = pytest.mark.full(ManyHubs.TestCase)
TestManyHubs.settings = hypothesis_settings(max_examples=500, stateful_step_count=20, deadline=None)


# What is too rare to be met at random often enough, one by one.


class Scene:
    """A hub with members by name, of whom one or the other does not read."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.hub = Hub(lambda: None, lambda: self.now)
        self.receivers: dict[str, Receiver] = {}
        for name in names:
            self.join(name)

    def join(self, name: str, **options: Any) -> None:
        self.receivers[name] = Receiver(OutboxLimits(soft_bytes=2, max_bytes=1024))
        self.hub.join(self.receivers[name].outbox, **options)

    def say(self, *said: tuple[str | None, bytes]) -> None:
        """Say these in one turn; None is the owner."""
        self.now += 1.0
        for name, frame in said:
            publish(self.hub, [frame], origin=None if name is None else self.receivers[name].outbox)
        self.hub.flush()

    def tell(self, name: str, frame: bytes) -> None:
        publish(self.hub, [frame], only=self.receivers[name].outbox)
        self.hub.flush()

    def leave(self, name: str) -> None:
        self.hub.leave(self.receivers.pop(name).outbox)
        self.hub.flush()

    def release(self, name: str | None) -> None:
        self.hub.release(None if name is None else self.receivers[name].outbox)

    def stall(self, name: str) -> None:
        self.receivers[name].outbox.stall()

    def read_on(self, name: str) -> None:
        outbox = self.receivers[name].outbox
        while outbox.drain(self.now):
            pass
        outbox.flow()

    def heard(self, name: str) -> Frames:
        """What it has heard since this was asked before."""
        frames = self.receivers[name].frames
        heard = frames[:]
        frames.clear()
        return heard


ON, OFF = note_on(60), note_off(60)


def test_a_note_that_two_hold_lives_until_both_let_go() -> None:
    scene = Scene("a", "b", "listener")
    scene.say(("a", ON), ("a", ON), ("b", ON))
    assert [scene.heard(name) for name in ("a", "b", "listener")] == [[ON], [ON, ON], [ON, ON, ON]]
    scene.leave("a")
    # b holds it, and heard a alone.
    assert scene.heard("listener") == []
    assert scene.heard("b") == [OFF, OFF]
    scene.say(("b", OFF))
    # Its own, and as many as an instrument needs that gave each note-on a voice.
    assert scene.heard("listener") == [OFF, OFF, OFF]
    assert scene.heard("b")[:1] in ([], [OFF])
    assert not any(receiver.sounds() for receiver in scene.receivers.values())


def test_of_three_who_hold_a_note_the_last_hears_at_once_that_the_others_are_gone() -> None:
    scene = Scene("a", "b", "c")
    scene.say(("a", ON), ("b", ON), ("c", ON))
    scene.leave("a")
    assert (scene.heard("b"), scene.heard("c")) == ([ON, ON], [ON, ON])
    scene.say(("b", OFF))
    assert scene.heard("c") == [OFF, OFF]
    assert scene.heard("b") == []
    scene.release("c")
    assert scene.heard("b")[:2] == [OFF, OFF]
    assert not any(receiver.sounds() for receiver in scene.receivers.values())


def test_what_is_struck_behind_the_note_offs_of_who_is_gone_sounds() -> None:
    scene = Scene("a", "b", "c", "listener")
    scene.say(("a", ON), ("b", ON))
    scene.leave("a")
    scene.heard("listener")
    scene.say(("b", OFF), ("c", ON))
    assert scene.heard("listener") == [OFF, OFF, ON]
    assert scene.receivers["listener"].plain.sounding == {(0, 60)}


def test_who_heard_a_pedal_and_moved_its_own_then_hears_it_come_up() -> None:
    down, up = control(0, 64, 127), control(0, 64, 0)
    scene = Scene("a", "b", "listener")
    scene.say(("a", down), ("b", down), ("b", up))
    scene.heard("b")
    scene.heard("listener")
    scene.leave("a")
    assert scene.heard("b") == [up]
    # It heard it already.
    assert scene.heard("listener") == []


def test_a_bend_that_may_not_have_been_reset_is_centred_for_who_bent_it_before() -> None:
    bent, reset = b"\xe0\x00\x00", control(0, 121, 0)
    scene = Scene("a", "b")
    scene.say(("b", bent), ("a", bent), ("a", reset))
    scene.release("a")
    assert scene.heard("b") == [bent, reset, b"\xe0\x00\x40"]


def test_what_one_is_told_alone_is_let_go_of_for_it_alone() -> None:
    scene = Scene("a", "b", "told")
    scene.say(("a", ON))
    scene.tell("told", ON)
    scene.leave("a")
    assert scene.heard("b") == [ON, OFF]
    assert scene.heard("told") == [ON, ON]
    scene.tell("told", OFF)
    assert scene.heard("told") == [OFF, OFF]


def test_who_came_without_a_snapshot_is_told_everything_when_its_backlog_gives_way() -> None:
    scene = Scene("a")
    scene.say(("a", control(0, 7, 100)), ("a", control(0, 10, 9)))
    scene.join("late")
    scene.say(("a", control(0, 91, 5)))
    scene.stall("late")
    # As it was before, but the listener never heard that.
    scene.say(("a", control(0, 7, 50)), ("a", control(0, 7, 100)))
    scene.read_on("late")
    expected = [control(0, 91, 5), control(0, 7, 100), control(0, 10, 9), control(0, 91, 5)]
    assert scene.heard("late") == expected
    # Once is enough.
    scene.stall("late")
    scene.say(("a", control(0, 7, 50)), ("a", control(0, 10, 9)))
    scene.read_on("late")
    assert scene.heard("late") == [control(0, 7, 50)]


def test_who_came_without_a_snapshot_plays_along_when_its_backlog_gives_way() -> None:
    scene = Scene("a")
    scene.say(("a", b"\xfa"))
    scene.join("late")
    scene.stall("late")
    # Ignored by who plays already.
    scene.say(("a", b"\xfa"), ("a", b"\xf8"), ("a", b"\xf3\x01"), ("a", b"\xf3\x02"))
    scene.read_on("late")
    assert scene.heard("late") == [b"\xf3\x01", b"\xf3\x02", b"\xfc", b"\xfa", b"\xf8"]


def test_who_has_left_does_not_hear_what_is_struck_later() -> None:
    scene = Scene("a", "gone")
    scene.say(("a", note_on(61)))
    scene.stall("gone")
    scene.say(("a", control(0, 7, 1)), ("a", control(0, 7, 2)))
    outbox, receiver = scene.receivers["gone"].outbox, scene.receivers["gone"]
    scene.leave("gone")
    scene.say(("a", ON))
    outbox.drain(scene.now)
    assert receiver.frames == [note_on(61), control(0, 7, 2)]


def test_who_stalls_before_it_is_told_anything_gets_all_of_it_in_the_end() -> None:
    hub = Hub(lambda: None, lambda: 0.0)
    publish(hub, [control(0, 7, 1), control(0, 10, 2)])
    receiver = Receiver(OutboxLimits(soft_bytes=2, max_bytes=1024))
    receiver.outbox.stall()
    hub.join(receiver.outbox, snapshot=True)
    receiver.outbox.drain(0.0)
    assert receiver.frames == [control(0, 7, 1), control(0, 10, 2)]
