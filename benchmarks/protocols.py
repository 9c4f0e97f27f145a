"""How servers are spoken to: MIDI as it is, and as much of three other protocols as one topic needs.

The topic is `m`. What carries a message is kept as short as the protocol allows, so that a server is measured
at its best: no acknowledgement, no quality of service, no compression. Sources: docs.nats.io, "Client
Protocol"; MQTT 3.1.1, sections 3.1 (CONNECT), 3.3 (PUBLISH) and 3.8 (SUBSCRIBE); RFC 6455, sections 4.1 and
5.2.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass


def _as_it_is(frame: bytes) -> bytes:
    return frame


@dataclass(frozen=True)
class Protocol:
    """What clients say, and what they hear.

    Args:
        publication: makes of a message what publishes it.
        delivery: makes of a message what delivers it, of one length for all messages of one length.
        subscribe: what a subscriber says first.
        subscribed: the end of the answer to that; empty where there is none.
        publish: what a publisher says first.
        publishing: the end of the answer to that; empty where there is none.
        aside: what a server says now and then that is no delivery, and that nobody has to answer while a
            benchmark lasts. It is shorter than half a delivery.
    """

    publication: Callable[[bytes], bytes] = _as_it_is
    delivery: Callable[[bytes], bytes] = _as_it_is
    subscribe: bytes = b""
    subscribed: bytes = b""
    publish: bytes = b""
    publishing: bytes = b""
    aside: bytes = b""


MIDI = Protocol()

# A server asks back once, some seconds after a client has come, and again after two minutes.
NATS = Protocol(
    lambda frame: b"PUB m %d\r\n%b\r\n" % (len(frame), frame),
    lambda frame: b"MSG m 1 %d\r\n%b\r\n" % (len(frame), frame),
    subscribe=b'CONNECT {"verbose":false}\r\nSUB m 1\r\nPING\r\n',
    subscribed=b"PONG\r\n",
    publish=b'CONNECT {"verbose":false}\r\nPING\r\n',
    publishing=b"PONG\r\n",
    aside=b"PING\r\n",
)

# Protocol level 4, a clean session, no keep-alive, and an identifier that the server chooses.
_MQTT_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"


def _mqtt_publish(frame: bytes) -> bytes:
    return b"\x30%c\x00\x01m%b" % (3 + len(frame), frame)


MQTT = Protocol(
    _mqtt_publish,
    _mqtt_publish,
    subscribe=_MQTT_CONNECT + b"\x82\x06\x00\x01\x00\x01m\x00",
    subscribed=b"\x90\x03\x00\x01\x00",
    publish=_MQTT_CONNECT,
    publishing=b"\x20\x02\x00\x00",
)

_WEBSOCKET_HELLO = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % base64.b64encode(bytes(range(16)))
)

# Binary frames. A client masks what it sends: by zeros, which change nothing and cost a server the same.
WEBSOCKET = Protocol(
    lambda frame: b"\x82%c\x00\x00\x00\x00%b" % (0x80 | len(frame), frame),
    lambda frame: b"\x82%c%b" % (len(frame), frame),
    subscribe=_WEBSOCKET_HELLO,
    subscribed=b"\r\n\r\n",
    publish=_WEBSOCKET_HELLO,
    publishing=b"\r\n\r\n",
)
