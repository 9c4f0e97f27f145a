"""Who has vanished, and who only reads nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.net.keepalive import DeadPeerRule, DeadPeerWatch, TcpInfo, tcp_info, user_timeout_ms
from tests.harness.clock import Clock
from tests.harness.raw import RawListener, RawPeer
from tests.harness.waiting import until

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what it knows of a peer")

TIMEOUT_S = 10.0
IDLE = TcpInfo(in_flight=0, unsent=0, probes=0, silent_s=0.0)


class Kernel:
    """A system that sends window probes, ever more seldom, but never later than its user timeout.

    Args:
        vanishes_at: when the peer answers no more, in seconds; None is never.
        began: when its window closed.
    """

    def __init__(self, *, began: float, vanishes_at: float | None) -> None:
        self._began = began
        self._vanishes_at = vanishes_at
        self._pause_s = 0.2
        self._heard_at = began
        self._probes = 0
        self.gave_up_at: float | None = None
        self.user_timeout_s = user_timeout_ms(TIMEOUT_S) / 1000
        self._probe_at = began + self._pause_s

    def run_to(self, now: float) -> None:
        while self.gave_up_at is None and self._probe_at <= now:
            at = self._probe_at
            if at - self._began >= self.user_timeout_s:
                self.gave_up_at = at
            elif self._vanishes_at is None or at < self._vanishes_at:
                self._heard_at, self._probes = at, 0
            else:
                self._probes += 1
            self._pause_s *= 2
            self._probe_at = at + min(self._pause_s, max(self.user_timeout_s - (at - self._began), 0.01))

    def info(self, now: float) -> TcpInfo:
        return TcpInfo(in_flight=0, unsent=1000, probes=self._probes, silent_s=now - self._heard_at)


def watch(*, began: float, vanishes_at: float | None, to_s: float, paced: bool = False) -> float | None:
    """Look at a peer whose window closes, to some time. Returns when it was given up, or None."""
    rule, now = DeadPeerRule(TIMEOUT_S, 0.0, paced=paced), 0.0
    kernel = Kernel(began=began, vanishes_at=vanishes_at)
    while now < to_s:
        info = IDLE
        if now >= began:
            kernel.run_to(now)
            if kernel.gave_up_at is not None:
                return kernel.gave_up_at
            info = kernel.info(now)
        verdict = rule.look(info, now)
        if verdict.is_dead:
            return now
        kernel.user_timeout_s = verdict.user_timeout_ms / 1000
        now += verdict.next_look_s
    return None


@pytest.mark.parametrize("began", [0.0, 0.1, 2.9, 3.0, 100.0])
def test_a_peer_that_only_reads_nothing_is_never_given_up(began: float) -> None:
    assert watch(began=began, vanishes_at=None, to_s=began + 3600) is None


@given(st.floats(0, 20), st.floats(0, 200))
def test_a_peer_that_vanishes_while_it_reads_nothing_is_found_in_time(began: float, after_s: float) -> None:
    vanishes_at = began + after_s
    found_at = watch(began=began, vanishes_at=vanishes_at, to_s=vanishes_at + 60)
    assert found_at is not None
    # It answered the probe before that.
    assert vanishes_at < found_at <= vanishes_at + TIMEOUT_S


def test_a_question_that_was_just_asked_is_no_evidence() -> None:
    rule = DeadPeerRule(TIMEOUT_S, 0.0)
    asked = TcpInfo(in_flight=0, unsent=1, probes=1, silent_s=9.0)
    assert not rule.look(asked, 9.0).is_dead
    assert not rule.look(asked._replace(silent_s=0.1), 9.5).is_dead
    assert not rule.look(asked, 19.0).is_dead
    assert rule.look(asked._replace(silent_s=9.5), 19.5).is_dead


def test_who_was_not_asked_need_not_answer() -> None:
    rule = DeadPeerRule(TIMEOUT_S, 0.0)
    for now in range(100):
        assert not rule.look(TcpInfo(in_flight=0, unsent=1, probes=0, silent_s=60.0), now).is_dead


def test_when_nothing_waits_any_more_the_user_timeout_is_as_before() -> None:
    rule = DeadPeerRule(TIMEOUT_S, 0.0)
    waiting = TcpInfo(in_flight=1, unsent=1, probes=0, silent_s=0.1)
    assert rule.look(IDLE, 1.0).user_timeout_ms == 9000
    assert rule.look(waiting, 20.0).user_timeout_ms == 22_000
    assert rule.look(IDLE, 21.0).user_timeout_ms == 9000
    assert rule.look(waiting, 22.0).user_timeout_ms == 4000


def test_where_pauses_are_bounded_the_user_timeout_is_far_ahead() -> None:
    rule = DeadPeerRule(TIMEOUT_S, 0.0, paced=True)
    assert rule.look(TcpInfo(in_flight=0, unsent=1, probes=0, silent_s=0.1), 20.0).user_timeout_ms == 30_000


@pytest.mark.parametrize(("timeout", "milliseconds"), [(2, 1400), (5, 4000), (10, 9000)])
def test_the_user_timeout_is_below_the_whole(timeout: float, milliseconds: int) -> None:
    assert user_timeout_ms(timeout) == milliseconds


# On a socket.


def user_timeout_of(sock: Any) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@linux_only
async def test_the_user_timeout_moves_on_while_a_peer_reads_nothing() -> None:
    clock = Clock()
    async with (
        RawListener(receive_buffer=32768) as listener,
        RawPeer(listener.portno) as sender,
        await listener.accept() as reader,
    ):
        vanished: list[bool] = []
        loop = asyncio.get_running_loop()
        watch = DeadPeerWatch(loop, sender.sock, TIMEOUT_S, lambda: vanished.append(True))
        with contextlib.ExitStack() as stack:
            stack.callback(watch.stop)
            assert user_timeout_of(sender.sock) == 9000
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sock.send(bytes(100_000))
            await clock.skip(60.0, step_s=0.5)
            assert user_timeout_of(sender.sock) > 60_000
            assert not vanished

            def read_on() -> bool:
                reader.read_nowait(1 << 20)
                info = tcp_info(sender.sock)
                return info is not None and not info.unsent

            await until(read_on)
            await clock.skip(TIMEOUT_S, step_s=0.5)
            assert user_timeout_of(sender.sock) == 9000


@linux_only
async def test_nothing_is_known_of_a_closed_socket() -> None:
    async with RawListener() as listener, RawPeer(listener.portno) as peer:
        info = tcp_info(peer.sock)
        assert info is not None
        assert (info.in_flight, info.unsent, info.probes) == (0, 0, 0)
        watch = DeadPeerWatch(asyncio.get_running_loop(), peer.sock, 2.0, pytest.fail)
    assert tcp_info(peer.sock) is None
    watch._look()
    watch.stop()
