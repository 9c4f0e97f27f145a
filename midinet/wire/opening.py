"""Other protocols, known by the first bytes of a stream.

Some programs connect to a port that they take for another: a client that expects TLS, a browser. A web page
may have the browser send `POST / HTTP/1.1` with a body of its own to any port, also on this machine. An HTTP
header is stray data to a MIDI parser, which would then play the body.

- TLS: 16 03 0x, a handshake record (RFC 8446 section 5.1).
- HTTP: a method, a space, and what a request target begins with: `/`, `*` or `http` (RFC 9112 section 3.2).
  CONNECT names a host in that place, so its space is enough. PRI begins HTTP/2 (RFC 9113 section 3.4).
- Everything else is MIDI, also a stream that begins with data bytes: it may begin inside a message.

A status byte is in neither, so a stream that begins with one is decided by its first byte.
"""

from __future__ import annotations

import enum

_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE", b"PRI")


class Opening(enum.Enum):
    """What the first bytes of a stream show."""

    MIDI = "MIDI, or nothing that is known"
    TLS = "a TLS handshake"
    HTTP = "an HTTP request"
    UNDECIDED = "the beginning of what may be either"


_OPENINGS = {bytes((0x16, 0x03, minor)): Opening.TLS for minor in range(16)}
_OPENINGS |= {method + b" " + target: Opening.HTTP for method in _METHODS for target in (b"/", b"*", b"http")}
_OPENINGS[b"CONNECT "] = Opening.HTTP
_BEGINNINGS = frozenset(opening[:size] for opening in _OPENINGS for size in range(len(opening)))
_LONGEST = max(map(len, _OPENINGS))


def recognize(first: bytes) -> Opening:
    """Return which protocol a stream speaks that begins with these bytes.

    Args:
        first: what has arrived so far, any number of bytes. Once the answer is not UNDECIDED, more bytes do
            not change it.
    """
    for size in range(1, min(len(first), _LONGEST) + 1):
        beginning = first[:size]
        if (opening := _OPENINGS.get(beginning)) is not None:
            return opening
        if beginning not in _BEGINNINGS:
            return Opening.MIDI
    return Opening.UNDECIDED
