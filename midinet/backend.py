"""A backend for mido: programs that know mido's ports alone play over the network.

    mido.set_backend("midinet.backend")           or the environment variable MIDO_BACKEND=midinet.backend
    with mido.open_output("localhost:8080") as port:
        port.send(mido.Message("note_on", note=60))

- The name of a port is the address of a server: host:port, or midi://NAME of one that announces itself. Those
  are what `mido.get_output_names()` and its likes list; each call looks for them for `LOOK_S` seconds, or
  `timeout=`. Without the extra `discovery`, and without a network, the list is empty.
- `virtual=True` opens a port that others connect to: a server on that address, or for midi://NAME one that
  announces itself by that name, on every interface and a port number that the system chooses. What is sent
  goes to all its clients, and what any of them sends is received.
- A callback is called in a thread of the port's own. An error that it raises is logged, and the next message
  is handed to it all the same. It may be set, changed and taken away at any time; what nobody has received by
  then goes to it first. The last that it gets is what lets go of what the other side held, and when `close`
  has returned it is called no more, unless it took longer than a second.
- An output receives nothing: what the server sends is thrown away as it comes.
- All other keywords are those of `midinet.sync.connect`, or with `virtual=True` of `midinet.sync.PortServer`:
  `mido.open_output("studio:8080", token="3f6c", reconnect=True)`.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import Any

from mido import Message
from mido.ports import BaseInput, BaseIOPort, BaseOutput, BasePort

from .address import SCHEME, parse_address, service_name
from .errors import ConnectError, ConnectionLost, ListenError, MissingExtra, PortClosed
from .net.inbox import Inbox, Source
from .sync.discovery import discover
from .sync.ports import PortServer, SocketPort, look_like_mido

logger = logging.getLogger("midinet.backend")

Callback = Callable[[Message], object]

# Seconds. Who has just told another of itself answers after one at most (RFC 6762 section 6), and a person
# waits for a list of ports.
LOOK_S = 1.5

# Seconds that closing a port waits for its callback.
_PATIENCE_S = 1.0


def get_devices(api: str | None = None, timeout: float = LOOK_S, **options: Any) -> list[dict[str, Any]]:
    """Return what `mido.get_input_names()` and its likes ask for: the servers that announce themselves.

    Args:
        api: there is none to choose.
        timeout: how long to look for them, in seconds.
        options: what else `midinet.sync.discover` takes.

    Raises:
        ValueError: an API was named.
    """
    _refuse_api(api)
    try:
        services = discover(timeout, **options)
    except MissingExtra:
        services = []
    except ListenError as error:
        logger.warning("no servers are found: %s", error)
        services = []
    return [{"name": SCHEME + service.name, "is_input": True, "is_output": True} for service in services]


class _Port(BasePort):  # type: ignore[misc]  # mido carries no types
    """What inputs and outputs have in common: a port of midinet's that does the work.

    Args:
        name: the address.
        virtual: listen there, and do not connect to it.
        api: there is none to choose.
        client_name: what to call oneself towards the server, or with `virtual` by what name to announce
            oneself; None is neither.
        options: see the head of this module.

    Raises:
        ConnectError, ListenError (OSError): there is no such address, or the port could not be opened.
        ValueError: an API was named, or a limit is out of range.
        TypeError: there is no such option.
    """

    _device_type = "midinet"
    _kind: str

    def _open_port(
        self,
        name: str | None,
        virtual: bool,
        api: str | None,
        client_name: str | None,
        options: dict[str, Any],
    ) -> None:
        _refuse_api(api)
        look_like_mido(self)
        fault = ListenError if virtual else ConnectError
        if not name:
            raise fault(
                errno.EDESTADDRREQ,
                f"an address is missing, as in mido.open_{self._kind}('localhost:8080'); without one it is "
                f"the environment variable MIDO_DEFAULT_{self._kind.upper()}",
            )
        try:
            host, portno = parse_address(name)
        except ValueError as error:
            raise fault(errno.EINVAL, str(error)) from None
        self.name = name
        self._port: SocketPort | PortServer
        if not virtual:
            self._port = SocketPort(host, portno, name=client_name, **options)
            return
        if (service := service_name(host)) is not None:
            host, client_name = "", service
        if client_name is not None:
            options["announce"] = client_name
        self._port = PortServer(host, portno, **options)

    def close(self) -> None:
        """Let go of what was held, send what is left, for `close_timeout` at most, and close."""
        self._port.close()

    def __del__(self) -> None:
        pass  # What does the work closes itself when nobody has it any more.

    @property
    def closed(self) -> bool:
        """Whether the port is at its end: closed here, or gone with everything received that had arrived."""
        return self._port.closed


class _Hears(_Port):
    """What can be received from."""

    def _open_hearing(self, callback: Callback | None) -> None:
        self._caller = _Caller(self._port)
        self.callback = callback

    def receive(self, block: bool = True) -> Any:
        """Return the next message.

        Args:
            block: wait for one; if False, return None when there is none.

        Raises:
            ValueError: there is a callback.
            ValueError, OSError: the port is closed and everything has been received (with `block`).
        """
        self._check_callback()
        return self._port.receive(block)

    @property
    def callback(self) -> Callback | None:
        """What is called with each message; None is nothing."""
        return self._caller.callback

    @callback.setter
    def callback(self, callback: Callback | None) -> None:
        self._caller.set(callback)

    def close(self) -> None:
        """Let go of what was held, send what is left, for `close_timeout` at most, and close.

        It may be called by the callback.
        """
        super().close()
        self._caller.finish()

    def __del__(self) -> None:
        if hasattr(self, "_caller"):
            self._caller.stop()


class _Speaks(_Port):
    """What can be sent on."""

    autoreset: bool

    def send(self, message: Message) -> None:
        """Send a message. Changing it afterwards has no effect.

        Raises:
            ValueError: the port is closed.
            ConnectionLost (OSError): the link broke.
            TypeError: it is no mido.Message.
        """
        self._port.send(message)

    def close(self) -> None:
        """Let go of what was held, send what is left, for `close_timeout` at most, and close."""
        self._port.autoreset = self.autoreset
        super().close()


class Input(_Hears, BaseInput):  # type: ignore[misc]
    """A port to receive from."""

    _kind = "input"

    def __init__(
        self,
        name: str | None = None,
        *,
        virtual: bool = False,
        callback: Callback | None = None,
        api: str | None = None,
        client_name: str | None = None,
        **options: Any,
    ) -> None:
        self._open_port(name, virtual, api, client_name, options)
        self._open_hearing(callback)


class Output(_Speaks, BaseOutput):  # type: ignore[misc]
    """A port to send on."""

    _kind = "output"

    def __init__(
        self,
        name: str | None = None,
        *,
        virtual: bool = False,
        autoreset: bool = False,
        api: str | None = None,
        client_name: str | None = None,
        **options: Any,
    ) -> None:
        self.autoreset = autoreset
        self._open_port(name, virtual, api, client_name, options)
        self._port._portal.run(self._hear_nothing())

    async def _hear_nothing(self) -> None:
        # Left unread, the other side would wait for this one, and at last give it up.
        if isinstance(self._port, PortServer):
            self._port._server._fill(_Nobody())
            self._port._server._adopt_waiting()
        else:
            self._port._port._fill(_Nobody())


class IOPort(_Hears, _Speaks, BaseIOPort):  # type: ignore[misc]
    """A port to receive from and to send on."""

    _kind = "ioport"

    def __init__(
        self,
        name: str | None = None,
        *,
        virtual: bool = False,
        callback: Callback | None = None,
        autoreset: bool = False,
        api: str | None = None,
        client_name: str | None = None,
        **options: Any,
    ) -> None:
        self.autoreset = autoreset
        self._open_port(name, virtual, api, client_name, options)
        self._open_hearing(callback)


class _Nobody(Inbox):
    """An inbox for what is thrown away."""

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def awaited(self) -> bool:
        # By somebody who waits, so that a server takes in whoever comes.
        return True

    def put(self, source: Source, data: bytes) -> bool:
        return True

    def release(self, source: Source) -> None:
        pass


class _Caller:
    """Calls a callback with what arrives, in a thread that lives while there is one.

    Args:
        port: where it arrives. Whoever reads it as well gets what the thread has not taken.
    """

    def __init__(self, port: SocketPort | PortServer) -> None:
        self._port = port
        self.callback: Callback | None = None
        # Held to change the thread, and by the thread while it decides whether to end.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def set(self, callback: Callback | None) -> None:
        """Call something else from now on; None is nothing. A call that is under way is not waited for."""
        if callback is None:
            self.stop()
            return
        self._port._portal.check()
        with self._lock:
            self.callback = callback
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"midinet callback {self._port.name}", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Call nothing any more. Takes no lock: this may run in any thread, in the middle of anything."""
        self.callback = None
        self._port._inbox._waiters.wake()

    def finish(self) -> None:
        """The port is closed: have what it left called for, and end."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE_S)
        self.stop()

    def _run(self) -> None:
        inbox = self._port._inbox
        while True:
            inbox._waiters.wait_unless(self._is_due)
            with self._lock:
                callback = self.callback
                if callback is None or inbox.ended:
                    self._thread = None
                    break
                message = self._port.receive(block=False)
            if message is not None:
                try:
                    callback(message)
                except BaseException:
                    logger.exception("the callback of %s failed", self._port.name)
        if callback is not None:
            self._tell_why()

    def _tell_why(self) -> None:
        # Who receives would be told by an error.
        try:
            self._port.receive()
        except ConnectionLost as error:
            logger.warning("%s", error)
        except PortClosed:
            pass

    def _is_due(self) -> bool:
        if isinstance(self._port, PortServer):
            # From here on clients are taken in as they come.
            self._port._adopt()
        inbox = self._port._inbox
        return bool(inbox) or inbox.ended or self.callback is None


def _refuse_api(api: str | None) -> None:
    if api is not None:
        raise ValueError(f"midinet.backend has no APIs to choose from, and {api!r} is none: leave out /{api}")
