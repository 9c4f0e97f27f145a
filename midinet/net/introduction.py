"""Connections of programs that need to know whether a server lets them in, and do not wait to be told.

- HELLO goes out first, whatever the options are: a server that asks for a token, or is full, answers it.
- What is sent follows at once. A peer that knows nothing of HELLO gets the first note without a delay.
- A server that refuses ends the port with its reason. `wait_for_answer` returns when that is settled.
"""

from __future__ import annotations

import asyncio

from ..wire.aside import Aside, hello
from .client import Greeting, connect
from .port import PortState, SocketPort

# Seconds from the connection on. An answer from the other side of the earth takes as long, and a plain MIDI
# peer, which never answers, is not waited for any longer.
ANSWER_S = 0.3

# Seconds between two looks whether a first message has come.
_LOOK_S = 0.005


class introduce(connect):
    """Connect as `connect` does, and say HELLO in any case.

    With a token the answer is waited for, as `connect` does; without one, `wait_for_answer` does that.

    Args:
        host, portno, options: as for `connect`.

    Attributes:
        is_answered: whether the server answered HELLO; a plain MIDI peer does not.
    """

    def __init__(self, host: str, portno: int | str | None = None, **options: object) -> None:
        super().__init__(host, portno, **options)  # type: ignore[arg-type]
        self._hello = self._hello or hello()
        self.is_answered = self._has_token

    async def wait_for_answer(self, port: SocketPort, *, or_message: bool = False) -> None:
        """Wait until the server has answered or the connection has ended, 0.3 s after it was made at most.

        Cancelling is safe.

        Args:
            port: what this connection gave.
            or_message: a first message ends the waiting too, so that who reads it does so in time.
        """
        try:
            async with asyncio.timeout_at(port._link.made_at + ANSWER_S):
                while not self.is_answered and port.state is PortState.CONNECTED:
                    if or_message and port.stats.messages_received:
                        break
                    await _change_of(port, _LOOK_S if or_message else None)
        except TimeoutError:
            pass

    async def _wait_for_refusal(self, greeting: Greeting) -> None:
        """Go on at once: what is answered comes to the port."""

    def _port_told(self, port: SocketPort, aside: Aside) -> None:
        super()._port_told(port, aside)
        if aside.status is not None:
            self.is_answered = True
            port._state_waiters.wake()


async def _change_of(port: SocketPort, seconds: float | None) -> None:
    """Wait until a port's state changes, for so long at most; None is as long as it takes."""
    try:
        async with asyncio.timeout(seconds):
            await port._state_waiters.wait()
    except TimeoutError:
        pass
