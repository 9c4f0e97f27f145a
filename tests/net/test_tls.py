from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from midinet.net.tls import has_client_certificate, tls_client_context, tls_server_context
from tests.harness.certificates import Certificates, certificates
from tests.harness.waiting import PATIENCE_S

REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


@pytest.fixture(scope="session")
def files() -> Certificates:
    return certificates()


class Listener:
    """What a server saw of each client whose handshake it was content with."""

    def __init__(self, portno: int) -> None:
        self.portno = portno
        self.seen: list[tuple[bool, bool]] = []


@asynccontextmanager
async def listening(context: ssl.SSLContext | None, host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    """A server that answers each client's byte with the same byte."""
    tasks: list[asyncio.Task[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        tls = writer.get_extra_info("ssl_object")
        listener.seen.append(
            (has_client_certificate(writer.transport), tls is not None and has_client_certificate(tls))
        )
        try:
            writer.write(await reader.read(1))
            await writer.drain()
        finally:
            await end(writer)

    server = await asyncio.start_server(answer, host, 0, ssl=context)
    listener = Listener(server.sockets[0].getsockname()[1])
    try:
        yield listener
    finally:
        server.close()
        async with asyncio.timeout(PATIENCE_S):
            await server.wait_closed()
            await asyncio.gather(*tasks)


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except (ssl.SSLError, ConnectionError):
        pass


async def greet(
    listener: Listener,
    context: ssl.SSLContext,
    *,
    host: str = "127.0.0.1",
    server_hostname: str | None = None,
) -> dict[str, Any]:
    """Connect, and go as far as an answer: a handshake under TLS 1.3 proves nothing to a client.

    Returns what the client's end knew of the connection.
    """
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(
            host, listener.portno, ssl=context, server_hostname=server_hostname or host
        )
        try:
            writer.write(b"\xfe")
            assert await reader.readexactly(1) == b"\xfe"
            tls = writer.get_extra_info("ssl_object")
            return {"version": tls.version(), "client": has_client_certificate(writer.transport)}
        finally:
            await end(writer)


@pytest.mark.parametrize(
    ("host", "server_hostname"), [("127.0.0.1", None), ("127.0.0.1", "localhost"), ("::1", None)]
)
async def test_the_two_contexts_fit(files: Certificates, host: str, server_hostname: str | None) -> None:
    async with listening(tls_server_context(files.server_cert, files.server_key), host) as listener:
        found = await greet(
            listener, tls_client_context(files.ca), host=host, server_hostname=server_hostname
        )
    # The server's certificate is no client's.
    assert found == {"version": "TLSv1.3", "client": False}
    assert listener.seen == [(False, False)]


async def test_files_may_be_named_by_strings(files: Certificates) -> None:
    server = tls_server_context(str(files.server_cert), str(files.server_key), client_ca=str(files.ca))
    client = tls_client_context(str(files.ca), cert=str(files.client_cert), key=str(files.client_key))
    async with listening(server) as listener:
        await greet(listener, client)


async def test_a_server_of_a_wrong_ca_is_refused(files: Certificates) -> None:
    async with listening(tls_server_context(files.server_cert, files.server_key)) as listener:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            await greet(listener, tls_client_context(files.wrong_ca))
    assert listener.seen == []


async def test_without_a_ca_the_systems_count(files: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(tls_server_context(files.server_cert, files.server_key)) as listener:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            await greet(listener, tls_client_context())
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        await greet(listener, tls_client_context())


async def test_with_a_ca_the_systems_do_not_count(
    files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    async with listening(tls_server_context(files.server_cert, files.server_key)) as listener:
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(listener, tls_client_context(files.wrong_ca))


@pytest.mark.parametrize(
    ("name", "text"), [("studio.example", "Hostname mismatch"), ("192.0.2.1", "IP address mismatch")]
)
async def test_a_certificate_for_another_host_is_refused(files: Certificates, name: str, text: str) -> None:
    async with listening(tls_server_context(files.server_cert, files.server_key)) as listener:
        with pytest.raises(ssl.SSLCertVerificationError, match=text):
            await greet(listener, tls_client_context(files.ca), server_hostname=name)
    assert listener.seen == []


@pytest.mark.parametrize("side", ["server", "client"])
async def test_tls_1_1_is_refused(files: Certificates, side: str) -> None:
    contexts = {
        "server": tls_server_context(files.server_cert, files.server_key),
        "client": tls_client_context(files.ca),
    }
    ours = contexts[side]
    # OpenSSL by itself has TLS 1.1 only at the lowest security level, so only the version is in question.
    for context in contexts.values():
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    (old,) = [context for context in contexts.values() if context is not ours]
    allow_tls_1_1(old, only=True)
    async with listening(contexts["server"]) as listener:
        with pytest.raises(REFUSED):
            await greet(listener, contexts["client"])
        assert listener.seen == []
        # It was the version, and nothing else.
        allow_tls_1_1(ours)
        try:
            found = await greet(listener, contexts["client"])
        except ssl.SSLError:
            pytest.skip("this OpenSSL has no TLS 1.1 at all")
        assert found["version"] == "TLSv1.1"


def allow_tls_1_1(context: ssl.SSLContext, *, only: bool = False) -> None:
    with warnings.catch_warnings():
        # Python calls it deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        if only:
            context.maximum_version = ssl.TLSVersion.TLSv1_1


async def test_tls_1_2_is_enough(files: Certificates) -> None:
    client = tls_client_context(files.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(tls_server_context(files.server_cert, files.server_key)) as listener:
        assert (await greet(listener, client))["version"] == "TLSv1.2"


# TLS 1.2 tells a client in the handshake that its certificate is missing or wrong, TLS 1.3 after it.
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_required_where_there_is_a_ca_for_them(
    files: Certificates, version: ssl.TLSVersion
) -> None:
    server = tls_server_context(files.server_cert, files.server_key, client_ca=files.ca)
    server.maximum_version = version
    async with listening(server) as listener:
        with pytest.raises(REFUSED):
            await greet(listener, tls_client_context(files.ca))
        wrong = tls_client_context(files.ca, cert=files.wrong_client_cert, key=files.wrong_client_key)
        with pytest.raises(REFUSED):
            await greet(listener, wrong)
        assert listener.seen == []
        await greet(listener, tls_client_context(files.ca, cert=files.client_cert, key=files.client_key))
        assert listener.seen == [(True, True)]


def test_a_client_certificate_is_known_again_when_a_session_is_resumed(files: Certificates) -> None:
    server = tls_server_context(files.server_cert, files.server_key, client_ca=files.ca)
    client = tls_client_context(files.ca, cert=files.client_cert, key=files.client_key)
    # Under TLS 1.2 the ticket comes with the handshake.
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    first, _ = handshake(server, client)
    assert not first.session_reused
    again, answer = handshake(server, client, first.session)
    assert again.session_reused
    assert has_client_certificate(answer)


def test_a_certificate_that_nobody_asked_for_is_none(files: Certificates) -> None:
    client = tls_client_context(files.ca, cert=files.client_cert, key=files.client_key)
    _, answer = handshake(tls_server_context(files.server_cert, files.server_key), client)
    assert not has_client_certificate(answer)


def test_a_certificate_that_nobody_verified_does_not_count(files: Certificates) -> None:
    server = tls_server_context(files.server_cert, files.server_key, client_ca=files.ca)
    client = tls_client_context(files.ca, cert=files.client_cert, key=files.client_key)
    _, answer = handshake(server, client)
    assert has_client_certificate(answer)
    # Python asks the context whether there was a check; it still has the certificate.
    server.verify_mode = ssl.CERT_NONE
    assert answer.getpeercert(binary_form=True)
    assert not has_client_certificate(answer)


def test_a_handshake_under_way_has_no_certificate(files: Certificates) -> None:
    server = tls_server_context(files.server_cert, files.server_key, client_ca=files.ca)
    assert not has_client_certificate(server.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True))


async def test_a_plain_connection_has_no_client_certificate() -> None:
    async with listening(None) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.portno)
        writer.write(b"\xfe")
        assert await reader.readexactly(1) == b"\xfe"
        assert not has_client_certificate(writer.transport)
        await end(writer)
    assert listener.seen == [(False, False)]


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory. Returns the client's end and the server's."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_hostname="localhost", session=session),
        server.wrap_bio(up, down, server_side=True),
    )
    for _ in range(5):
        for one in ends:
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ends


# What is wrong with the files.

SOME_TEXT = "no PEM\n"
DAMAGED_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
DAMAGED_KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("missing", ["cert", "key", "client_ca"])
def test_a_missing_file_of_a_server_is_named(files: Certificates, missing: str, tmp_path: Path) -> None:
    given = {"cert": files.server_cert, "key": files.server_key, "client_ca": files.ca}
    given[missing] = tmp_path / "gone.pem"
    with pytest.raises(FileNotFoundError, match=r"gone\.pem"):
        tls_server_context(**given)


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_a_missing_file_of_a_client_is_named(files: Certificates, missing: str, tmp_path: Path) -> None:
    given = {"ca": files.ca, "cert": files.client_cert, "key": files.client_key}
    given[missing] = tmp_path / "gone.pem"
    with pytest.raises(FileNotFoundError, match=r"gone\.pem"):
        tls_client_context(**given)


def test_a_directory_is_named(files: Certificates, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=tmp_path.name):
        tls_client_context(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "content", "text"),
    [
        ("cert", SOME_TEXT, r"wrong\.pem holds no certificate"),
        ("cert", DAMAGED_KEY, r"wrong\.pem holds no certificate"),
        ("key", SOME_TEXT, r"wrong\.pem holds no private key"),
        ("key", DAMAGED_CERTIFICATE, r"wrong\.pem holds no private key"),
        ("client_ca", "", r"wrong\.pem holds no certificate"),
        ("cert", DAMAGED_CERTIFICATE, r"wrong\.pem holds a damaged certificate"),
        ("key", DAMAGED_KEY, r"wrong\.pem and .*server\.pem cannot be used: \w"),
        ("client_ca", DAMAGED_CERTIFICATE, r"wrong\.pem holds a damaged certificate"),
    ],
)
def test_a_file_of_something_else_is_named(
    files: Certificates, wrong: str, content: str, text: str, tmp_path: Path
) -> None:
    given = {"cert": files.server_cert, "key": files.server_key, "client_ca": files.ca}
    given[wrong] = tmp_path / "wrong.pem"
    given[wrong].write_text(content)
    with pytest.raises(ValueError, match=text) as caught:
        tls_server_context(**given)
    assert not isinstance(caught.value, OSError)
    assert "_ssl.c" not in str(caught.value)


def test_the_key_of_another_certificate_is_said_so(files: Certificates) -> None:
    with pytest.raises(ValueError, match=r"client\.key and .*server\.pem do not fit: the key is not that"):
        tls_server_context(files.server_cert, files.client_key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(files: Certificates, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(files.server_key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(ValueError, match=r"locked\.key is encrypted, .* openssl pkey"):
        tls_server_context(files.server_cert, locked)


async def test_a_client_may_have_key_and_certificate_in_one_file(files: Certificates) -> None:
    server = tls_server_context(files.server_cert, files.server_key, client_ca=files.ca)
    async with listening(server) as listener:
        await greet(listener, tls_client_context(files.ca, cert=files.client_pem))
    with pytest.raises(ValueError, match=r"client\.pem holds no private key"):
        tls_client_context(files.ca, cert=files.client_cert)


def test_a_key_without_a_certificate_is_refused(files: Certificates) -> None:
    with pytest.raises(ValueError, match="key was given without cert"):
        tls_client_context(files.ca, key=files.client_key)


def test_a_system_that_asks_for_more_than_tls_1_2_gets_it(
    files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ssl.create_default_context

    def strict(*args: Any, **keywords: Any) -> ssl.SSLContext:
        context = real(*args, **keywords)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    assert tls_client_context(files.ca).minimum_version == ssl.TLSVersion.TLSv1_2
    monkeypatch.setattr(ssl, "create_default_context", strict)
    assert tls_client_context(files.ca).minimum_version == ssl.TLSVersion.TLSv1_3
