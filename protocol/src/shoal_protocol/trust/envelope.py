"""What the server signs for single devices: DSSE envelopes by the key of TUF's timestamp role.

https://github.com/secure-systems-lab/dsse, PAE v1. The signature is checked over the payload's very bytes, before they
are parsed, and binds them to their type. Owns the envelope; leaves the payloads to whoever signs them. Cryptography is
imported where a signature is checked, since who only reads payloads has them opened elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shoal_protocol.canonical import canonical_bytes
from shoal_protocol.errors import ContentError, UnsignedError

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

MAX_ENVELOPE_BYTES = 64 * 1024


class _Signature(msgspec.Struct):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signature]


def sealed(payload: bytes, kind: str, signer: Signer) -> bytes:
    """Return the envelope of a payload.

    Args:
        payload: What is signed.
        kind: Its type, such as ``application/vnd.shoal.assignment.v1+json``.
        signer: Of the timestamp role.
    """
    signature = signer.sign(_pae(payload, kind))
    envelope: dict[str, Any] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": signature.keyid, "sig": signature.signature}],
    }
    return canonical_bytes(envelope)


def opened(raw: bytes, kind: str, keys: Sequence[Key], *, what: str) -> bytes:
    """Return the payload of an envelope whose signature holds.

    Args:
        raw: As received.
        kind: Which type it must have.
        keys: Of the timestamp role in the device's verified root.
        what: What it is called in errors.

    Raises:
        ContentError: It does not parse, or is of another type.
        UnsignedError: No key's signature covers it.
    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise ContentError(f"an {what} of {len(raw)} bytes is over the limit of {MAX_ENVELOPE_BYTES}")
    try:
        envelope = msgspec.json.decode(raw, type=_Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
    except (msgspec.DecodeError, RecursionError, binascii.Error) as error:
        raise ContentError(f"{what}: {error}") from error
    if envelope.payload_type != kind:
        raise ContentError(f"{what}: payload type {envelope.payload_type!r:.80}, expected {kind}")
    by_id = {key.keyid: key for key in keys}
    for signature in envelope.signatures[:16]:
        key = by_id.get(signature.keyid)
        if key is not None and _valid(key, signature, _pae(payload, kind)):
            return payload
    raise UnsignedError(f"no key of the timestamp role signed this {what}", keyids=sorted(by_id))


def _valid(key: Key, signature: _Signature, signed: bytes) -> bool:
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError  # noqa: PLC0415 - see above
    from securesystemslib.signer import Signature  # noqa: PLC0415 - likewise

    try:
        key.verify_signature(Signature(signature.keyid, signature.sig), signed)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


def _pae(payload: bytes, kind: str) -> bytes:
    """Return DSSE's pre-authentication encoding, which binds the payload to its type."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)
