"""Certificates for tests of TLS: made once a run, in a directory that is gone after it."""

from __future__ import annotations

import atexit
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files in PEM."""

    ca: Path
    """The CA of everything here but `wrong_ca` and `wrong_client_*`."""
    server_cert: Path
    """For localhost, 127.0.0.1 and ::1."""
    server_key: Path
    client_cert: Path
    client_key: Path
    client_pem: Path
    """The client's key and certificate in one file."""
    wrong_ca: Path
    wrong_client_cert: Path
    wrong_client_key: Path


@functools.cache
def certificates() -> Certificates:
    """Return the certificates of this run, making them at the first call."""
    # It removes itself at exit too, with a ResourceWarning.
    directory = tempfile.TemporaryDirectory(prefix="midinet-certificates-")
    atexit.register(directory.cleanup)
    folder = Path(directory.name)
    ca, wrong_ca = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    wrong_ca.cert_pem.write_to_path(folder / "wrong_ca.pem")
    made = {
        "server": ca.issue_cert("localhost", "127.0.0.1", "::1"),
        "client": ca.issue_cert("stage-left@studio.example"),
        "wrong_client": wrong_ca.issue_cert("stage-left@studio.example"),
    }
    for name, leaf in made.items():
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
        for pem in leaf.cert_chain_pems:
            pem.write_to_path(folder / f"{name}.pem", append=True)
    made["client"].private_key_and_cert_chain_pem.write_to_path(folder / "client_both.pem")
    return Certificates(
        ca=folder / "ca.pem",
        server_cert=folder / "server.pem",
        server_key=folder / "server.key",
        client_cert=folder / "client.pem",
        client_key=folder / "client.key",
        client_pem=folder / "client_both.pem",
        wrong_ca=folder / "wrong_ca.pem",
        wrong_client_cert=folder / "wrong_client.pem",
        wrong_client_key=folder / "wrong_client.key",
    )
