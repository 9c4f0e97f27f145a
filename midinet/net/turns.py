"""When a link takes what arrives: in shares, and not at all while there is a reason to wait.

What one read of a socket brought is taken a share at a time, and what is beyond it after everybody else has
had a turn. Until then, and for as long as there is any other reason, the socket is not read, so that TCP
tells the peer to wait. Nothing is dropped.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .options import LinkOptions

# Bytes that one peer may have handled in one turn of the loop: what is read beyond waits for the next, behind
# everybody else. It is some 700 messages, or half a millisecond, that a flood may delay the others. Less
# would cost speed: a turn of the loop has a price of its own.
_SHARE = 2048

# Bytes of nearly every message.
_MESSAGE_BYTES = 3


class Hold(enum.Enum):
    """Why a link does not read its socket for now."""

    FULL = "its inbox is full"
    RATE = "the peer sends faster than max_rate"
    SHARE = "others have their turn"


_NO_HOLDS: frozenset[Hold] = frozenset()


class Reader(Protocol):
    """Whose turns they are."""

    transport: asyncio.Transport

    def _take(self, data: bytes) -> None: ...
    def _reads_again(self) -> None: ...


class Turns:
    """What has arrived on one link and was not taken yet.

    Args:
        loop: the running loop.
        options: the link's settings: `max_rate`, and what may come at once.
        reader: the link. It is referred to until `stop`.
    """

    __slots__ = (
        "_allowance",
        "_allowed_at",
        "_gone",
        "_holds",
        "_loop",
        "_next",
        "_options",
        "_rate_timer",
        "_reader",
        "_rest",
        "_share",
        "_then",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, options: LinkOptions, reader: Reader) -> None:
        self._loop = loop
        self._options = options
        # None once nothing more is taken.
        self._reader: Reader | None = reader
        # Why the socket is not read. Never changed in place, since nearly all share the empty one.
        self._holds = _NO_HOLDS
        # What of one read is for later turns.
        self._rest = b""
        # What to do when that has been taken, once nothing more will come.
        self._then: Callable[[], object] | None = None
        # The peer is gone, so it cannot be told to wait.
        self._gone = False
        # Under max_rate: what may come at once, and as of when.
        self._allowance = options.burst
        self._allowed_at = loop.time()
        self._rate_timer: asyncio.TimerHandle | None = None
        # The next share, where it is due already: there is one in a turn of the loop, whatever asks for it.
        self._next: asyncio.Handle | None = None
        self._share = _SHARE
        if options.max_rate is not None:
            self._share = min(_SHARE, max(int(options.burst) * _MESSAGE_BYTES, _MESSAGE_BYTES))

    @property
    def held(self) -> bool:
        """Whether the socket is not read for now."""
        return bool(self._holds)

    @property
    def rest(self) -> bytes:
        """What has arrived and not been taken yet."""
        return self._rest

    @property
    def finishing(self) -> bool:
        """Whether nothing more will arrive, and the rest has not been taken yet."""
        return self._then is not None

    def feed(self, data: bytes) -> None:
        """Take this peer's share of what has just been read, unless it had its turn."""
        if not (self._holds or self._rest) and len(data) <= self._share and self._reader is not None:
            self._reader._take(data)
            return
        self._rest += data
        if self._next is None:
            self._go_on()

    def take_rest(self) -> None:
        """Take all that is left, at once."""
        rest, self._rest = self._rest, b""
        if rest and self._reader is not None:
            self._reader._take(rest)

    def finish(self, then: Callable[[], object], *, last: bytes = b"", gone: bool = False) -> None:
        """Nothing more will arrive but what is given here: when all of it has had its turns, call `then`.

        Args:
            gone: there is no connection any more, so nothing but the turns of others is waited for.
        """
        self._rest += last
        self._then = then
        if gone:
            self._gone = True
            self._go_on_soon()

    def stop(self) -> None:
        """Take nothing more."""
        self._reader = self._then = None
        self._rest = b""
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def hold(self, why: Hold) -> None:
        """Read no more, until `release` is called for the same reason."""
        if self._reader is not None and self._then is None and not self._holds:
            self._reader.transport.pause_reading()
        self._holds |= {why}

    def release(self, why: Hold) -> None:
        """Read on, unless there is another reason not to."""
        if why in self._holds:
            self._holds = self._holds - {why} or _NO_HOLDS
            if self._reader is not None and self._then is None and not self._holds:
                self._reader.transport.resume_reading()
                self._reader._reads_again()
            # Also what uvloop or TLS still delivered after they were told to pause.
            if self._rest and self._holds <= {Hold.SHARE}:
                self._go_on_soon()

    def spend(self, rate: float, messages: int) -> None:
        """Count messages against `max_rate`, and wait when there were too many."""
        now = self._loop.time()
        saved = self._allowance + (now - self._allowed_at) * rate
        self._allowance = min(saved, self._options.burst) - messages
        self._allowed_at = now
        if self._allowance < 0 and Hold.RATE not in self._holds:
            self.hold(Hold.RATE)
            self._rate_timer = self._loop.call_later(
                -self._allowance / rate, partial(self.release, Hold.RATE)
            )

    def _go_on_soon(self) -> None:
        if self._next is None:
            self._next = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next = None
        if self._reader is None:
            return
        if self._holds - ({Hold.SHARE, Hold.FULL} if self._gone else {Hold.SHARE}):
            return  # `release` has it called again.
        data, self._rest = self._rest[: self._share], self._rest[self._share :]
        if self._rest:
            self.hold(Hold.SHARE)
            self._go_on_soon()
        else:
            self.release(Hold.SHARE)
        if data:
            self._reader._take(data)
        # Taking it may have been the end.
        if self._then is not None and not self._rest:
            self._then()
