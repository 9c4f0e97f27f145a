"""Who may connect to whom, in the words of the command line: TLS files, tokens, names, devices.

The options of a connection are written down once, in `_read_target`, and `connecting` gives them to every
verb that connects.

Rules:

- What reads as an address is a server: HOST:PORT, where no host has a space in it, or midi://NAME. For a verb
  that takes devices, everything else is a port of this machine, and so is whatever --api stands beside.

- A token is never printed, and never in an error. It may come from three places, of which the command line is
  the worst: whoever may list the processes of a machine can read their arguments there.
- What is given as an option goes before MIDINET_TOKEN.
- Nothing is open by being empty: a variable or a file without a token in it is a fault, and not "none".
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..address import parse_address, service_name
from ..errors import (
    CloseReason,
    ConnectError,
    ConnectionLost,
    DeviceError,
    MissingExtra,
    PortClosed,
    UsageError,
)
from ..net.access import check_token
from ..net.introduction import introduce
from ..net.port import PortState, SocketPort
from ..net.tls import tls_client_context, tls_server_context
from .common import Complaint, read_address, tell

if TYPE_CHECKING:
    from ..gateways.hardware import Bridge

TOKEN_VARIABLE = "MIDINET_TOKEN"

# Seconds. A server that expects TLS, or does not allow this address, closes without an answer, some round
# trips after the connection was made.
_AT_ONCE_S = 1.0

Command = Callable[..., None]


@dataclass(frozen=True)
class Target:
    """A server to connect to, and how.

    Attributes:
        host: a name or an address.
        portno: the port number.
        keywords: of `midinet.connect`.
        shows_certificate: a client certificate is among them.
    """

    host: str
    portno: int
    keywords: dict[str, Any] = field(default_factory=dict, repr=False)
    shows_certificate: bool = False

    @asynccontextmanager
    async def connect(self, *, listens: bool = False, **more: Any) -> AsyncIterator[SocketPort]:
        """Connect, and close the port at the end of the block.

        Args:
            listens: the block ends without an error when the server closes.
            more: keywords of `midinet.connect`.

        The server is told HELLO. What is sent in the block goes out at once; at its end the answer is waited
        for, 0.3 s from the connection at most. Where the block only listens, it begins with the answer, or
        with the first message.

        Raises:
            Complaint: the token cannot be sent, or the server refused the connection or closed it at once.
            ConnectError: there is no connection.
            PortClosed, ConnectionLost: the connection ended later, while the block used it.
        """
        try:
            introduction = introduce(self.host, self.portno, **self.keywords, **more)
            port = await introduction
        except (UsageError, ValueError) as error:
            raise Complaint(in_options(str(error))) from None
        clock = asyncio.get_running_loop().time
        begin = clock()
        async with port:
            try:
                if listens:
                    await introduction.wait_for_answer(port, or_message=True)
                    if port.state is PortState.CLOSED and not port.stats.messages_received:
                        # There is nothing to begin with: this raises why.
                        await port.wait_connected()
                yield port
                await introduction.wait_for_answer(port)
                is_over = port.state is PortState.CLOSED
            except (PortClosed, ConnectionLost) as error:
                if (complaint := _refusal(port, error, clock() - begin)) is not None:
                    raise complaint from None
                # The system of a peer that closes without having read HELLO resets the connection.
                is_reset = isinstance(error, ConnectionLost) and error.reason is CloseReason.LOST
                if not (listens and is_reset and not introduction.is_answered):
                    raise
                return
            if is_over:
                try:
                    await port.wait_connected()
                except (PortClosed, ConnectionLost) as error:
                    if (complaint := _refusal(port, error, clock() - begin)) is not None:
                        raise complaint from None
                    # Whoever listens has been told already, and in order it ended after all was sent.
                    if isinstance(error, ConnectionLost) and not listens:
                        raise


def _refusal(port: SocketPort, error: Exception, seconds: float) -> Complaint | None:
    """Return what to say where a server did not let a command in; None where it did.

    Args:
        port: that is at its end.
        error: why.
        seconds: how long it was open.
    """
    if isinstance(error.__cause__, ConnectError):
        return Complaint(str(error.__cause__.strerror))
    stats = port.stats
    if seconds >= _AT_ONCE_S or stats.messages_received or stats.asides:
        return None
    return Complaint(
        f"{port.name} closed the connection at once: it may expect TLS (--tls) or a certificate, not allow "
        "this address, be full, or be no MIDI server"
    )


@dataclass(frozen=True)
class DeviceTarget:
    """A hardware or virtual MIDI port of this machine.

    Attributes:
        name: of the port, or a part that only one has.
        api: the MIDI system; None is the first that is there.
    """

    name: str
    api: str | None = None

    @asynccontextmanager
    async def connect(
        self, *, listens: bool = False, tell: Callable[[str], object] = tell, **more: Any
    ) -> AsyncIterator[SocketPort]:
        """Open the device, and close it at the end of the block.

        A device that is unplugged is waited for, and what it held is let go; both are told.

        Args:
            listens: open its input, and not its output.
            tell: what to tell it with.
            more: keywords of `midinet.gateways.hardware.open_port`.

        Raises:
            Complaint: there is no such device, or it cannot be opened; and what an address looks like.
            DeviceError: the same, where --api left no doubt that a device was meant.
        """
        from ..gateways.hardware import open_port

        was_up = True

        def tell_change(bridge: Bridge) -> None:
            nonlocal was_up
            is_up = any(device.is_up for device in bridge.devices)
            if is_up != was_up:
                tell(f"{self.name} is back" if is_up else f"{self.name} is gone; it is waited for")
            was_up = is_up

        async with AsyncExitStack() as stack:
            way = {"input": listens, "output": not listens}
            device = open_port(self.name, api=self.api, on_change=tell_change, **way, **more)
            try:
                port = await stack.enter_async_context(device)
            except (DeviceError, MissingExtra) as error:
                if self.api is not None:
                    raise
                raise Complaint(
                    f"{error} (a server would be HOST:PORT, with a port from 1 to 65535, or midi://NAME)"
                ) from None
            port.name = self.name
            yield port


def connecting(
    address_help: str, *, devices: Literal["input", "output"] | None = None
) -> Callable[[Command], Command]:
    """Give a verb the argument HOST:PORT and the options of a connection, in place of its first parameter.

    Args:
        address_help: what is at that address, for the verb's help.
        devices: it takes ports of this machine of this kind too. The argument is then called TARGET, and the
            parameter is a `DeviceTarget` where it names one. None is servers alone.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        reader = _read_target if devices is None else _read_target_or_device
        address, *shared = inspect.signature(_read_target, eval_str=True).parameters.values()
        shown = typer.Argument(metavar="HOST:PORT", help=address_help)
        if devices is not None:
            shared.append(inspect.signature(_read_target_or_device, eval_str=True).parameters["api"])
            shown = typer.Argument(metavar="TARGET", help=address_help, autocompletion=_completion(devices))

        @wraps(command)
        def with_target(**given: Any) -> None:
            of_target = {one.name: given.pop(one.name) for one in (address, *shared)}
            command(reader(**of_target), **given)

        # typer reads this, and not the parameters that the function really has.
        parameters = (address.replace(annotation=Annotated[str, shown]), *own, *shared)
        with_target.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        with_target.__annotations__ = {}
        return with_target

    return decorate


def _completion(kind: Literal["input", "output"]) -> Callable[[typer.Context, str], list[str]]:
    """What completes a word to the ports of this machine, which are looked for then only."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from .ports import complete_input, complete_output

        return (complete_input if kind == "input" else complete_output)(context, incomplete)

    return complete


def _read_target(
    address: str,
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS, and check that the server is who it should be.")
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The CAs to trust in place of the system's. Implies --tls."),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A client certificate to show. Implies --tls.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key, if that is not in the same file.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="The token that the server asks for. Other users of this machine can see it here: "
            "rather use --token-file or the environment's MIDINET_TOKEN.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the token from a file.")
    ] = None,
    insecure_token: Annotated[
        bool, typer.Option("--insecure-token", help="Send the token without TLS, to other machines too.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the server is to call this end.")
    ] = None,
) -> Target:
    """Make a Target of what was written, with a Complaint if it cannot be one."""
    host, portno = read_address(address)
    tokens = read_tokens([] if token is None else [token], token_file, insecure=insecure_token)
    if tokens is not None and len(tokens) > 1:
        raise Complaint(f"{len(tokens)} tokens are given, and one can be shown")
    keywords: dict[str, Any] = {"name": name, "ssl": _client_context(tls, ca, cert, key)}
    if tokens is not None:
        keywords |= {"token": tokens[0], "insecure_token": insecure_token}
    return Target(host, portno, keywords, shows_certificate=cert is not None)


def _read_target_or_device(
    address: str,
    api: Annotated[
        str | None,
        typer.Option(
            "--api",
            metavar="API",
            help="The MIDI system of this machine, by name: alsa, jack, coremidi or winmm. Without it, the "
            "first that is there; with it, TARGET is a port of this machine whatever it looks like.",
        ),
    ] = None,
    **of_server: Any,
) -> Target | DeviceTarget:
    """Make a Target or a DeviceTarget of what was written, with a Complaint if it can be neither."""
    if api is None and is_address(address):
        return _read_target(address, **of_server)
    for option, value in of_server.items():
        if value not in (None, False):
            raise Complaint(
                f"--{option.replace('_', '-')} is for servers, and {address!r} is taken for a port of this "
                "machine: a server is written as HOST:PORT or midi://NAME"
            )
    return DeviceTarget(address, api)


def is_address(target: str) -> bool:
    """Whether what may be a server's address or a device's name reads as an address.

    ALSA has names such as "Midi Through:Midi Through Port-0 14:0", and JACK such as "synth:out_1".
    """
    if service_name(target) is not None:
        return True
    try:
        host, _ = parse_address(target)
    except ValueError:
        return False
    return not any(letter.isspace() for letter in host)


def read_tokens(given: Sequence[str], file: Path | None, *, insecure: bool) -> list[str] | None:
    """Return the tokens of options, or those of the environment if there are none. None is no token at all.

    Args:
        given: as options.
        file: that holds one a line; empty lines and those that begin with # are skipped.
        insecure: they may be sent without TLS, so somebody means to have one.

    Raises:
        Complaint: a token cannot be sent, or there is none where one should be.
    """
    tokens = list(given)
    if file is not None:
        with complaining():
            lines = [line.strip() for line in file.read_text("utf-8", "replace").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise Complaint(f"{file} holds no token")
        tokens += found
    if not tokens and (variable := os.environ.get(TOKEN_VARIABLE)) is not None:
        tokens = variable.split()
        if not tokens:
            raise Complaint(f"{TOKEN_VARIABLE} is empty: unset it, or put a token into it")
    if not tokens:
        if insecure:
            raise Complaint("--insecure-token is given, and no token")
        return None
    for token in tokens:
        with complaining():
            check_token(token)
    return tokens


def server_context(cert: Path | None, key: Path | None, client_ca: Path | None) -> SSLContext | None:
    """Return the TLS context of a server's options; None if there are none.

    Raises:
        Complaint: an option is missing, or a file is, or it does not hold what it should.
    """
    if cert is None:
        for option, value in (("--key", key), ("--client-ca", client_ca)):
            if value is not None:
                raise Complaint(f"{option} is of no use without --cert")
        return None
    with complaining():
        return tls_server_context(cert, key or cert, client_ca=client_ca)


def _client_context(tls: bool, ca: Path | None, cert: Path | None, key: Path | None) -> SSLContext | None:
    if key is not None and cert is None:
        raise Complaint("--key is of no use without --cert")
    if not tls and ca is None and cert is None:
        return None
    with complaining():
        return tls_client_context(ca, cert=cert, key=key)


class complaining:
    """Makes Complaints of files that cannot be read and of what they should not hold."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.strerror:
            raise Complaint(f"cannot read {error.filename}: {error.strerror}") from None
        if isinstance(error, ValueError):
            raise Complaint(str(error)) from None


# What the library calls its keywords, by what they are here.
_SERVER_OPTIONS = {"ssl=...": "--cert", "allow=, ssl= and tokens=": "--allow, --cert and --token-file"}
_OPTIONS = {"ssl=...": "--tls", "insecure_token=True": "--insecure-token"}


def in_options(text: str, *, of_server: bool = False) -> str:
    """Return an advice of the library with the names of options in place of those of keywords."""
    names = _OPTIONS | _SERVER_OPTIONS if of_server else _OPTIONS
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)
