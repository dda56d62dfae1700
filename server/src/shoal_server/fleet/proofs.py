"""The proof that a device holds a key that it made itself: an ECDSA signature on the curve P-256."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from shoal_protocol.errors import CallerError
from shoal_server.errors import UnauthorizedError

MAX_PUBLIC_KEY_CHARACTERS = 2048


class EnrolmentError(UnauthorizedError):
    """A join token is unknown, expired or used up, or a proof does not fit."""

    code = "enrolment"


def check_signature(public_key: str, message: bytes, signature: str) -> None:
    """Check that the private half of a key has signed a message.

    Args:
        public_key: PEM.
        message: What was to be signed.
        signature: Hexadecimal DER (ECDSA, SHA-256).

    Raises:
        EnrolmentError: It has not.
        CallerError: It is no ECDSA P-256 key in PEM form.
    """
    try:
        key = load_pem_public_key(public_key[:MAX_PUBLIC_KEY_CHARACTERS].encode())
    except ValueError as error:
        raise CallerError("the public key is no PEM document") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CallerError("the public key must be of the curve P-256")
    try:
        key.verify(bytes.fromhex(signature), message, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise EnrolmentError("the request is not signed by the key that it brings, or that is known") from error
