"""How a device gets credentials of its own: a join token, and proof that it holds a key that it made itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from shoal_protocol.canonical import sha256_digest


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /api/v1/device/enrol``.

    Attributes:
        token_id: Of the join token.
        token_secret: Of the join token.
        name: Device id that is asked for; none: the server makes one.
        public_key: PEM (SubjectPublicKeyInfo, ECDSA P-256).
        proof: Hexadecimal DER signature (ECDSA, SHA-256) over `enrol_proof_message`.
        capabilities: The birth message's facts, for cohorts before the first connect.
    """

    token_id: str
    token_secret: str
    public_key: str
    proof: str
    name: str | None = None
    capabilities: dict[str, str] = msgspec.field(default_factory=dict)


class EnrolReply(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer.

    Attributes:
        device: The device's id from now on, its user name for HTTP and MQTT.
        state: Whether an operator still has to accept it.
        secret: Its password for HTTP and MQTT; told this once.
        mqtt_url: Where the broker is; none: use HTTP only.
        poll_s: How often to ask over HTTP while MQTT is down.
    """

    device: str
    state: Literal["accepted", "pending"]
    secret: str
    mqtt_url: str | None = None
    poll_s: float = 60.0


def enrol_proof_message(token_id: str, name: str | None, public_key: str) -> bytes:
    """Return what the device signs to prove that it holds the private key."""
    fingerprint = sha256_digest(public_key.encode())
    return f"shoal-enrol-v1\n{token_id}\n{name or ''}\n{fingerprint}\n".encode()
