"""Which hubs `serve` is one with, in the words of the command line: a broker, a session, and what the broker
asks for.

What is wrong with a file is found out before anything is connected. A password in a URL is never shown.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..gateways.broker import check_session, read_servers
from ..net.tls import tls_client_context
from .access import complaining
from .common import Complaint

BROKER_VARIABLE = "MIDINET_BROKER"


def read_broker(
    urls: Sequence[str] | None,
    session: str | None,
    *,
    credentials: Path | None,
    nkey: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> dict[str, Any]:
    """Return the keywords of PortServer that options of a broker mean.

    Args:
        urls: as options; none is those of the environment, if there are any.
        session: None is the default.
        credentials: a file of NATS credentials.
        nkey: a file with the seed of an NKEY.
        ca, cert, key: the CAs to trust, the client certificate and its key, for TLS.

    Raises:
        Complaint: something is missing, or cannot be.
    """
    given = list(urls or [])
    if not given and (variable := os.environ.get(BROKER_VARIABLE)) is not None:
        given = [variable]
    if not given:
        files = (("credentials", credentials), ("nkey", nkey), ("ca", ca), ("cert", cert), ("key", key))
        named = [f"--broker-{word}" for word, file in files if file is not None]
        if session is not None:
            named.insert(0, "--session")
        if named:
            raise Complaint(f"{named[0]} is of no use without --broker")
        return {}
    options: dict[str, Any] = {}
    with complaining():
        servers = [server for one in given for server in read_servers(one)]
        for option, file in (("user_credentials", credentials), ("nkeys_seed", nkey)):
            if file is not None:
                file.read_bytes()
                options[option] = str(file)
        if (context := _context(ca, cert, key)) is not None:
            options["tls"] = context
        named_session = {} if session is None else {"session": check_session(session)}
    return {"broker": servers, "broker_options": options, **named_session}


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if key is not None and cert is None:
        raise Complaint("--broker-key is of no use without --broker-cert")
    return None if ca is None and cert is None else tls_client_context(ca, cert=cert, key=key)
