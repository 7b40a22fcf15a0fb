"""TLS for https addresses, from PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

from bloomery.errors import ConfigurationError


def context(certificate_file: Path, private_key_file: Path) -> ssl.SSLContext:
    """What a server presents: TLS 1.2 and 1.3, Python's choice of ciphers. ConfigurationError names the bad file."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password of ours OpenSSL would ask on the terminal for that of an encrypted key.
        made.load_cert_chain(certificate_file, private_key_file, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"certificate_file={certificate_file} and private_key_file={private_key_file} cannot be used: "
            f"{error.strerror or error}; both must be PEM, belong together, and the key must have no passphrase"
        ) from error
    return made
