"""The device's own key: ECDSA on P-256, made here and never sent.

By it the device proves who it is when credentials are handed out.
"""

from __future__ import annotations

from typing import Any


def new_key() -> bytes:
    """Return a new private key, PEM."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 20 ms, only for credentials
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: bytes) -> str:
    """Return the public half, PEM.

    Args:
        key: Private, PEM.

    Raises:
        ValueError: It is no key.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _loaded(key).public_key().public_bytes(serialization.Encoding.PEM, form).decode()  # type: ignore[no-any-return]  # cryptography's union of key types


def signature(key: bytes, message: bytes) -> str:
    """Return the hexadecimal DER signature (SHA-256) of a message.

    Raises:
        ValueError: It is no key.
    """
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

    signed: bytes = _loaded(key).sign(message, ec.ECDSA(hashes.SHA256()))
    return signed.hex()


def _loaded(key: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - as above

    return load_pem_private_key(key, password=None)
