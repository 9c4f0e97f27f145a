"""A certificate for 127.0.0.1, made by trustme or by the openssl program, whichever is there."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds. A key takes well below one.
_MAX_S = 20.0


@contextmanager
def certificate() -> Iterator[tuple[str, str] | None]:
    """Give the files of a certificate, which is its own CA for who trusts it, and of its key.

    None where neither program can make them. They are gone after the block.
    """
    with tempfile.TemporaryDirectory() as directory:
        cert, key = Path(directory) / "cert.pem", Path(directory) / "key.pem"
        try:
            import trustme
        except ModuleNotFoundError:
            if shutil.which("openssl") is None:
                yield None
                return
            subject = ["-subj", "/CN=midinet benchmark", "-addext", "subjectAltName=IP:127.0.0.1"]
            made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key, "-out", cert]
            words = ["openssl", "req", "-x509", "-nodes", "-days", "2", *subject, *made]
            subprocess.run(words, check=True, capture_output=True, timeout=_MAX_S)
        else:
            authority = trustme.CA()
            issued = authority.issue_cert("127.0.0.1")
            issued.private_key_pem.write_to_path(key)
            for pem in (*issued.cert_chain_pems, authority.cert_pem):
                pem.write_to_path(cert, append=True)
        yield str(cert), str(key)
