"""A self-signed certificate for 127.0.0.1, and TLS settings that pick AES-128-GCM as burstwire does."""

from __future__ import annotations

import ipaddress
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

__all__ = ["make_certificate", "use_aes_128"]


def make_certificate() -> tuple[str, str]:
    """Writes a fresh certificate (P-256) and its key into a new directory; returns both paths."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), loopback]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    folder = Path(tempfile.mkdtemp(prefix="bench-certificate-"))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "certificate.pem"), str(folder / "key.pem")


OPENSSL_CONF = """\
openssl_conf = top
[top]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
Ciphersuites = TLS_AES_128_GCM_SHA256
"""


def use_aes_128() -> Path:
    """An OpenSSL configuration that leaves TLS 1.3 only AES-128-GCM; Python's `ssl` has no setting for it before 3.15.

    It takes effect through the environment variable OPENSSL_CONF of a process that is started afterwards.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-openssl-"))
    path = folder / "openssl.cnf"
    path.write_text(OPENSSL_CONF)
    return path
