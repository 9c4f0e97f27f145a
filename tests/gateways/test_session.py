"""Hubs of one session, on a network that loses what it is told to, in a time that passes as it is told."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from midinet.gateways.packets import FRAMES, STATE, pack, unpack
from midinet.gateways.session import _MAX_DATES, ALIVE_S, GONE_S, Session
from midinet.hub.hub import Hub
from midinet.hub.outbox import Outbox
from midinet.hub.performance import MAX_PARAMETERS
from midinet.wire.parser import split_messages
from tests.harness.histories import control, note_off, note_on
from tests.harness.synth import VirtualSynth

# Seconds that a packet takes, and between two looks at what is due.
LATENCY_S = 0.001
STEP_S = 0.01


class Network:
    """Hubs that hear each other's packets, unless they are cut off."""

    def __init__(self, count: int = 2) -> None:
        self.now = 100.0
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Site, Site, bytes]] = []
        self.sites: list[Site] = []
        # Pairs of sites that do not hear each other, and a number of packets that shall get lost.
        self.cut: set[frozenset[Site]] = set()
        self.lose = 0
        self.delay_s = 0.0
        for _ in range(count):
            self.open()

    def open(self) -> Site:
        site = Site(self, len(self.sites) + 1)
        self.sites.append(site)
        site.session.connected(self.now)
        return site

    def send(self, sender: Site, packet: bytes) -> None:
        if self.lose and packet[3] == FRAMES:
            self.lose -= 1
            return
        for site in self.sites:
            if site is not sender:
                due = self.now + LATENCY_S + self.delay_s
                heapq.heappush(self._queue, (due, next(self._order), sender, site, packet))

    def run(self, seconds: float = 10 * LATENCY_S) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            for site in self.sites:
                site.flush()
            due = self._queue[0][0] if self._queue else end
            self.now = min(max(due, self.now), self.now + STEP_S, end)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, sender, site, packet = heapq.heappop(self._queue)
                if frozenset((sender, site)) not in self.cut and site in self.sites:
                    site.session.receive(packet, self.now)
                    site.flush()
            for site in self.sites:
                if self.now >= site.due:
                    site.due = site.session.tick(self.now)

    def part(self, *sites: Site) -> None:
        self.cut = {frozenset((site, other)) for site in sites for other in self.sites if other not in sites}

    def heal(self) -> None:
        self.cut = set()


class Site:
    """One hub, two clients that play and hear, and its session."""

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self.due = 0.0
        self.hub = Hub(lambda: None, lambda: network.now)
        self.outbox = Outbox(self._gather, lambda: None)
        self.gathered: list[bytes] = []
        self.packets: list[bytes] = []
        self.session = Session(
            bytes([number]) * 16,
            self._performance,
            self.outbox,
            lambda data, messages: self.hub.publish(data, messages, origin=self.outbox),
            self._send,
            network.now,
        )
        self.hub.join(self.outbox)
        self.clients = [Client(self), Client(self)]
        self.listener = Client(self)

    def _gather(self, data: bytes) -> None:
        self.gathered.append(data)

    def _send(self, packet: bytes) -> None:
        self.packets.append(packet)
        self.network.send(self, packet)

    def _performance(self) -> Any:
        performance = self.hub.present()
        self._publish()
        return performance

    def _publish(self) -> None:
        gathered, self.gathered = b"".join(self.gathered), []
        if gathered:
            self.session.publish(gathered, len(split_messages(gathered)), self.network.now)

    def flush(self) -> None:
        self.hub.flush()
        self._publish()

    def end(self) -> None:
        self.hub.dismiss_all()
        self.flush()
        self.session.end(self.network.now)
        self.network.sites.remove(self)

    def vanish(self) -> None:
        self.network.sites.remove(self)

    @property
    def stats(self) -> Any:
        return self.session.stats


class Client:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.heard = b""
        self.synth = VirtualSynth()
        self.outbox = Outbox(self._hear, lambda: None)
        site.hub.join(self.outbox, snapshot=True)

    def _hear(self, data: bytes) -> None:
        self.heard += data
        self.synth.feed(data)

    def says(self, *frames: bytes) -> None:
        data = b"".join(frames)
        self.site.hub.publish(data, len(frames), origin=self.outbox)

    def leave(self) -> None:
        self.site.hub.leave(self.outbox)


def test_what_one_hub_s_client_says_all_others_hear_once() -> None:
    network = Network(3)
    network.run(1.0)
    one, two, three = network.sites
    one.clients[0].says(note_on(60), control(0, 7, 90))
    network.run()
    expected = note_on(60) + control(0, 7, 90)
    assert one.clients[0].heard == b""
    hearers = [one.clients[1], *two.clients, *three.clients]
    assert [client.heard for client in hearers] == [expected] * 5
    assert [site.stats.hubs for site in network.sites] == [2, 2, 2]
    assert [site.stats.messages_received for site in network.sites] == [0, 2, 2]


def test_a_hub_that_joins_gets_what_is_set_and_only_notes_that_are_young() -> None:
    network = Network(2)
    one = network.sites[0]
    one.clients[0].says(b"\xc0\x05", control(0, 64, 127), note_on(60))
    network.run(3.0)
    one.clients[0].says(note_on(62))
    network.run(0.05)
    new = network.open()
    network.run(0.1)
    expected = [b"\xc0\x05", control(0, 64, 127), note_on(62)]
    assert sorted(split_messages(new.clients[0].heard)) == sorted(expected)
    assert new.hub.present().values == one.hub.present().values


def test_what_a_new_hub_hears_before_it_knows_the_state_waits_for_it() -> None:
    network = Network(1)
    (one,) = network.sites
    one.clients[0].says(control(0, 7, 10))
    network.run(1.0)
    new = network.open()
    # It is asked, and before it answers it says something.
    network.run(LATENCY_S * 1.5)
    one.clients[0].says(control(0, 7, 20))
    network.run(1.0)
    assert new.clients[0].heard in (control(0, 7, 10) + control(0, 7, 20), control(0, 7, 20))
    assert new.clients[0].synth.controllers == {(0, 7): 20}


def test_a_hub_that_ends_is_let_go_of_at_once() -> None:
    network = Network(2)
    one, two = network.sites
    network.run(1.0)
    one.clients[0].says(note_on(60), control(0, 64, 127))
    network.run()
    one.end()
    network.run()
    assert two.clients[0].synth.is_silent()
    assert two.stats.hubs == 0
    assert two.stats.hubs_gone == 0


def test_a_hub_of_which_nothing_is_heard_is_let_go_of_after_five_seconds() -> None:
    network = Network(2)
    one, two = network.sites
    network.run(1.0)
    one.clients[0].says(note_on(60), control(0, 64, 127))
    network.run()
    one.vanish()
    network.run(GONE_S - ALIVE_S - 0.1)
    assert not two.clients[0].synth.is_silent()
    network.run(ALIVE_S + 0.6)
    assert two.clients[0].synth.is_silent()
    assert two.stats.hubs_gone == 1


def test_a_note_that_two_hubs_hold_sounds_until_both_let_go() -> None:
    network = Network(3)
    one, two, three = network.sites
    network.run(1.0)
    one.clients[0].says(note_on(60))
    network.run()
    two.clients[0].says(note_on(60))
    network.run()
    one.vanish()
    network.run(GONE_S + 1)
    synth = three.clients[0].synth
    assert (0, 60) in synth.sounding
    two.clients[0].says(note_off(60))
    network.run()
    assert synth.is_silent()
    assert not synth.voices


def test_a_packet_that_is_lost_is_counted_and_what_was_in_it_made_good() -> None:
    network = Network(2)
    one, two = network.sites
    network.run(1.0)
    one.clients[0].says(note_on(60), b"\xc0\x01")
    network.run(1.0)
    network.lose = 1
    one.clients[0].says(note_off(60), b"\xc0\x02")
    one.clients[0].says(control(0, 7, 3))
    network.run(0.05)
    assert two.clients[0].synth.is_silent()
    assert two.clients[0].synth.state() == one.clients[1].synth.state()
    assert two.stats.gaps == 1


def test_the_last_packet_that_is_lost_shows_when_the_hub_is_heard_next() -> None:
    network = Network(2)
    one, two = network.sites
    one.clients[0].says(note_on(60))
    network.run(1.0)
    network.lose = 1
    one.clients[0].says(note_off(60))
    network.run(ALIVE_S + 0.6)
    assert two.clients[0].synth.is_silent()
    assert two.stats.gaps == 1


def test_after_a_partition_the_states_agree_within_a_second() -> None:
    network = Network(3)
    one, two, three = network.sites
    one.clients[0].says(control(0, 7, 1), control(0, 10, 1), note_on(60), note_on(61))
    two.clients[0].says(note_on(70))
    network.run(2.0)
    network.part(one)
    network.run(1.0)
    # What only one side set wins; of what both did, the last.
    one.clients[0].says(control(0, 7, 20), control(0, 11, 5), note_off(60))
    network.run(2.0)
    two.clients[0].says(control(0, 7, 30), control(1, 7, 9), note_on(71))
    network.run(10.0)
    assert two.stats.hubs == 1
    assert one.clients[0].synth.is_silent()
    network.heal()
    network.run(1.0)
    assert [site.stats.hubs for site in network.sites] == [2, 2, 2]
    values = one.hub.present().values
    assert values == two.hub.present().values == three.hub.present().values
    assert values[7] == 30
    assert values[11] == 5
    # No note is struck late.
    assert note_on(71) not in one.clients[0].heard
    assert two.clients[0].heard.count(note_on(61)) == 1
    for site in network.sites:
        for client in site.clients:
            client.leave()
    network.run(1.0)
    assert all(site.listener.synth.is_silent() for site in network.sites)


def test_a_short_partition_lets_go_of_nothing_but_what_ended_meanwhile() -> None:
    network = Network(2)
    one, two = network.sites
    one.clients[0].says(note_on(60), note_on(61))
    network.run(2.0)
    network.part(one)
    one.clients[0].says(note_off(60))
    network.run(2.0)
    assert set(two.clients[0].synth.sounding) == {(0, 60), (0, 61)}
    network.heal()
    network.run(1.0)
    assert set(two.clients[0].synth.sounding) == {(0, 61)}
    assert two.stats.hubs_gone == 0


def test_a_note_that_comes_late_is_not_struck_and_all_else_is_said() -> None:
    network = Network(2)
    one, two = network.sites
    network.run(1.0)
    network.delay_s = 0.5
    one.clients[0].says(note_on(60), control(0, 7, 3), note_off(60))
    network.run(1.0)
    assert two.clients[0].heard == control(0, 7, 3) + note_off(60)
    assert two.stats.late_notes == 1


def test_what_comes_twice_is_said_once() -> None:
    network = Network(2)
    one, two = network.sites
    network.run(1.0)
    one.clients[0].says(note_on(60))
    network.run()
    last = [packet for packet in one.packets if packet[3] == FRAMES][-1]
    two.session.receive(last, network.now)
    network.run()
    assert two.clients[0].heard == note_on(60)
    assert two.stats.duplicates == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"hello",
        pack(9, b"x" * 16, 0, 0.0),
        pack(FRAMES, b"x" * 16, 1, 0.0),
        pack(FRAMES, bytes(16), 1, 0.0, b"\x90\x3c\x40"),
        pack(STATE, b"x" * 16, 1, 0.0, b"\0"),
        b"MN\2" + pack(FRAMES, b"x" * 16, 1, 0.0, b"\x90\x3c\x40")[3:],
    ],
)
def test_what_is_no_packet_is_counted_and_ignored(packet: bytes) -> None:
    network = Network(1)
    (one,) = network.sites
    one.session.receive(packet, network.now)
    network.run(1.0)
    assert one.stats.malformed == 1
    assert one.clients[0].heard == b""


def test_hubs_without_end_are_refused_and_counted() -> None:
    network = Network(1)
    (one,) = network.sites
    for number in range(1000):
        one.session.receive(pack(FRAMES, number.to_bytes(16), 1, 0.0, note_on(60)), network.now)
    # The first has no identity at all.
    assert (one.stats.hubs, one.stats.hubs_refused, one.stats.malformed) == (256, 999 - 256, 1)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200)), st.integers(0, 1 << 30))
def test_nothing_that_arrives_raises(damages: list[bytes], seed: int) -> None:
    network = Network(2)
    one, two = network.sites
    one.clients[0].says(note_on(60), b"\xc0\x05", control(0, 101, 0), control(0, 100, 0), control(0, 6, 12))
    network.run(1.0)
    for position, damage in enumerate(damages):
        two.session.receive(damage, network.now)
        packet = bytearray(one.packets[(seed + position) % len(one.packets)])
        at = (seed * 31 + position) % len(packet)
        packet[at : at + 1] = damage[:1]
        two.session.receive(bytes(packet), network.now)
    network.run(1.0)


ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 1),
        st.lists(
            st.sampled_from(
                [
                    *(note_on(note) for note in (60, 61)),
                    *(note_off(note) for note in (60, 61)),
                    *(control(0, number, value) for number in (7, 64) for value in (0, 90)),
                    control(0, 39, 5),
                    b"\xc0\x07",
                    b"\xe0\x00\x50",
                    b"\xe0\x00\x40",
                    b"\xd0\x30",
                ]
            ),
            min_size=1,
            max_size=4,
        ),
        st.sampled_from([0.0, 0.005, 0.3, 1.0, 6.0]),
        st.sampled_from(["", "", "", "lose", "part 0", "part 1", "heal"]),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(ACTIONS)
def test_whatever_happens_the_states_agree_in_the_end_and_nothing_hangs(actions: list[Any]) -> None:
    struck = Counter((site, client, frame) for site, client, frames, *_ in actions for frame in frames)
    # More voices of one note are not kept account of.
    assume(all(count <= 16 for (*_, frame), count in struck.items() if frame[0] == 0x90))
    network = Network(3)
    network.run(0.5)
    for site, client, frames, seconds, event in actions:
        if event == "lose":
            network.lose = 1
        elif event == "heal":
            network.heal()
        elif event:
            network.part(network.sites[int(event[-1])])
        network.sites[site].clients[client].says(*frames)
        network.run(seconds)
    network.lose = 0
    network.heal()
    network.run(1.2)
    one, two, three = (site.hub.present() for site in network.sites)
    assert one.values == two.values == three.values
    first, *others = (site.listener.synth for site in network.sites)
    assert [first.difference(other) for other in others] == [[], []]
    for site in network.sites:
        for client in site.clients:
            client.leave()
    network.run(1.0)
    for site in network.sites:
        assert site.listener.synth.is_silent(), site.listener.synth.describe()
    assert all(unpack(packet) is not None for site in network.sites for packet in site.packets)


def test_dates_of_parameters_are_bounded() -> None:
    network = Network(1)
    (site,) = network.sites
    for number in range(3 * MAX_PARAMETERS):
        select = bytes((0xB0, 99, number >> 7, 0xB0, 98, number & 127, 0xB0, 6, 1))
        site.hub.publish(select, 3)
        if number % 1000 == 0:
            site.session.tick(network.now)
    site.session.tick(network.now)
    assert len(site.hub.performance.parameters) == MAX_PARAMETERS
    assert len(site.session._set_at) <= _MAX_DATES
    site.hub.publish(b"\xff", 1)
    site.session.tick(network.now)
    assert len(site.session._set_at) <= _MAX_DATES
