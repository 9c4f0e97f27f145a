"""MIDI over TCP for Python, asyncio-native.

    async with PortServer("localhost", 8080) as server:
        async for message in server:
            print(message)

    async with connect("localhost", 8080) as port:
        await port.send(mido.Message("note_on", note=60))

Messages are mido's. `midinet.sync` has the blocking twins of all this for plain scripts.
"""

from .address import format_address, parse_address
from .errors import (
    CloseReason,
    ConnectError,
    ConnectionLost,
    ConnectRefused,
    DeviceError,
    ListenError,
    MidinetError,
    MissingExtra,
    NotAuthorized,
    PortClosed,
    ServerBusy,
    UsageError,
)
from .gateways.broker import BrokerStats
from .gateways.discovery import Service, ServiceChange, discover
from .net.client import connect
from .net.options import LinkOptions
from .net.port import PortState, SocketPort
from .net.server import PortServer
from .net.stats import ClosedConnection, PortStats, ServerStats
from .net.tls import tls_client_context, tls_server_context
from .wire.parser import Parser, ParserStats

__version__ = "0.1.0"

__all__ = [
    "BrokerStats",
    "CloseReason",
    "ClosedConnection",
    "ConnectError",
    "ConnectRefused",
    "ConnectionLost",
    "DeviceError",
    "LinkOptions",
    "ListenError",
    "MidinetError",
    "MissingExtra",
    "NotAuthorized",
    "Parser",
    "ParserStats",
    "PortClosed",
    "PortServer",
    "PortState",
    "PortStats",
    "ServerBusy",
    "ServerStats",
    "Service",
    "ServiceChange",
    "SocketPort",
    "UsageError",
    "connect",
    "discover",
    "format_address",
    "parse_address",
    "tls_client_context",
    "tls_server_context",
]
