"""TLS contexts for both sides, made from files.

    server: PortServer(..., ssl=tls_server_context("server.pem", "server.key"))
    client: connect(..., ssl=tls_client_context("ca.pem"))

Both speak TLS 1.2 or newer (RFC 8996 retires what is older), and everything else is as
`ssl.create_default_context` has it. A client checks that the certificate is for the host it connects to.
Files are PEM text (RFC 7468). A key is not encrypted: nobody sits at a server to be asked for the password.

Under TLS 1.3 a client learns that its certificate was missing or refused only when it reads: its own
handshake is over by then.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from typing import TypeAlias

Path: TypeAlias = str | os.PathLike[str]

# OpenSSL reads certificates under each of these three names.
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")


def tls_server_context(cert: Path, key: Path, *, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a context for a server.

    Args:
        cert: the file of the server's certificate, followed by those between it and the CA, if any.
        key: the file of its private key. It may be the same file.
        client_ca: the file of the CAs that client certificates are from. Every client then has to show
            one. None asks for no client certificate.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file does not hold what it should, or the key is not the certificate's.
    """
    context = _make_context(ssl.Purpose.CLIENT_AUTH, client_ca)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load_certificate(context, cert, key)
    return context


def tls_client_context(
    ca: Path | None = None, *, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return a context for a client.

    Args:
        ca: the file of the CAs that the server's certificate may be from. None means the system's.
        cert: the file of the client's own certificate. None shows none.
        key: the file of its private key. None means that it is in the same file.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file does not hold what it should, the key is not the certificate's, or there is a
            key without a certificate.
    """
    if key is not None and cert is None:
        raise ValueError("key was given without cert: a key is of no use without its certificate")
    context = _make_context(ssl.Purpose.SERVER_AUTH, ca)
    if cert is not None:
        _load_certificate(context, cert, key if key is not None else cert)
    return context


def has_client_certificate(connection: asyncio.BaseTransport | ssl.SSLObject | ssl.SSLSocket) -> bool:
    """Return whether the peer is a client that showed a certificate, and it was verified.

    Args:
        connection: a server's end of a connection: its transport or its ssl object. Anything else (no TLS,
            the client's end, a handshake under way) has no client certificate.
    """
    tls: ssl.SSLObject | ssl.SSLSocket | None
    if isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
        tls = connection
    else:
        tls = connection.get_extra_info("ssl_object")
    if tls is None or not tls.server_side:
        return False
    try:
        # None if there was none, and empty if nobody verified it.
        return bool(tls.getpeercert())
    except ValueError:
        return False  # The handshake is not over.


def _make_context(purpose: ssl.Purpose, ca: Path | None) -> ssl.SSLContext:
    if ca is not None:
        _check_certificates(ca)
    context = ssl.create_default_context(purpose, cafile=ca)
    # The system's settings may allow less, or ask for more.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    return context


def _load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _check_certificates(cert)
    _check_text(key, _KEY, "private key")
    try:
        context.load_cert_chain(cert, key, password=_refuse_password(key))
    except ssl.SSLError as error:
        names = f"{os.fspath(key)} and {os.fspath(cert)}"
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{names} do not fit: the key is not that of the certificate") from error
        # Where OpenSSL gives no reason, the key is what has not been read before.
        why = (error.reason or "the key is damaged").lower().replace("_", " ")
        raise ValueError(f"{names} cannot be used: {why}") from error


def _refuse_password(key: Path) -> Callable[[], str]:
    # Without this OpenSSL asks at the terminal, and waits.
    def refuse() -> str:
        raise ValueError(
            f"the key in {os.fspath(key)} is encrypted, write it to another file without a password: "
            "openssl pkey -in FILE -out FILE"
        )

    return refuse


# OpenSSL says neither which file is missing nor what is wrong with it, so each is looked at first.


def _check_certificates(path: Path) -> None:
    _check_text(path, _CERTIFICATE, "certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ValueError(f"{os.fspath(path)} holds a damaged certificate") from error


def _check_text(path: Path, wanted: re.Pattern[bytes], what: str) -> None:
    # What open() raises names the file.
    with open(path, "rb") as file:
        if not wanted.search(file.read()):
            raise ValueError(f"{os.fspath(path)} holds no {what}: PEM text with -----BEGIN ... is expected")
