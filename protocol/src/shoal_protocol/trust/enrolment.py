"""How a device gets credentials of its own, and later gets others in their place.

A join token, or the credentials held so far, lets the device ask; a signature by a key that it made itself proves who
asks. What is signed holds a challenge of the server's, bound to the token or device, short-lived and answered once: who
only recorded a request can't repeat it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shoal_protocol.canonical import sha256_digest

CHALLENGE_PATH = "/api/v1/device/challenge"
ENROL_PATH = "/api/v1/device/enrol"
CREDENTIAL_PATH = "/api/v1/device/credential"
CONFIRMATION_PATH = "/api/v1/device/credential/confirmation"


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /api/v1/device/challenge?subject=…``; the subject is a join token's id, or a device's.

    Attributes:
        challenge: To be signed as it is; ASCII, at most 200 characters.
        lasts_s: How long it may be answered.
    """

    challenge: str
    lasts_s: float = 120.0


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /api/v1/device/enrol``.

    Attributes:
        token_id: Of the join token.
        token_secret: Of the join token.
        name: Device id that is asked for; none: the server makes one.
        public_key: PEM (SubjectPublicKeyInfo, ECDSA P-256).
        challenge: The server's, for this token.
        proof: Hexadecimal DER signature (ECDSA, SHA-256) over `enrol_proof_message`.
        capabilities: The birth message's facts, for cohorts before the first connect.
    """

    token_id: str
    token_secret: str
    public_key: str
    challenge: str
    proof: str
    name: str | None = None
    capabilities: dict[str, str] = msgspec.field(default_factory=dict)


class EnrolReply(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer.

    Attributes:
        device: The device's id from now on, its user name for HTTP and MQTT.
        state: Whether an operator still has to accept it.
        secret: Its password for HTTP and MQTT; told this once.
        credential: Number of these credentials; it grows with every rotation.
        mqtt_url: Where the broker is; none: use HTTP only.
        poll_s: How often to ask over HTTP while MQTT is down.
    """

    device: str
    state: Literal["accepted", "pending"]
    secret: str
    credential: int = 1
    mqtt_url: str | None = None
    poll_s: float = 60.0


class RotationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /api/v1/device/credential``, with the credentials held so far.

    Attributes:
        public_key: The new one, PEM as in `EnrolRequest`.
        challenge: The server's, for this device.
        proof: Signature over `rotation_proof_message` by the key held so far, as in `EnrolRequest`.
        new_proof: The same by the new key.
    """

    public_key: str
    challenge: str
    proof: str
    new_proof: str


class RotationReply(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer. Nothing is void until the new secret was shown to ``…/credential/confirmation``.

    Attributes:
        secret: The new password; told this once.
        credential: Number of the new credentials.
    """

    secret: str
    credential: int


def enrol_proof_message(challenge: str, token_id: str, name: str | None, public_key: str) -> bytes:
    """Return what the device signs to prove that it holds the private key."""
    fingerprint = sha256_digest(public_key.encode())
    return f"shoal-enrol-v1\n{challenge}\n{token_id}\n{name or ''}\n{fingerprint}\n".encode()


def rotation_proof_message(challenge: str, device: str, public_key: str) -> bytes:
    """Return what the device signs, by the key that it holds and by the one that it will hold."""
    return f"shoal-rotate-v1\n{challenge}\n{device}\n{sha256_digest(public_key.encode())}\n".encode()
