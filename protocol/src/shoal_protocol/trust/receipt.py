"""The signed receipt for mail: which of a device's messages the server has committed.

Over the network acknowledgements need no signature, because the connection is the server's; in a parcel they do. An old
receipt is still true, so it needs no order and no date.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from shoal_protocol.canonical import canonical_bytes
from shoal_protocol.errors import ContentError, UnsignedError
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.trust.envelope import opened, sealed

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

PAYLOAD_TYPE = "application/vnd.shoal.receipt.v1+json"


class _Receipt(msgspec.Struct, frozen=True, kw_only=True):
    device: str
    ack: Ack


def sign_receipt(device: str, ack: Ack, signer: Signer) -> bytes:
    """Return the envelope that tells a device what is committed."""
    return sealed(canonical_bytes(msgspec.to_builtins(_Receipt(device=device, ack=ack))), PAYLOAD_TYPE, signer)


def verify_receipt(raw: bytes, keys: Sequence[Key], *, device: str) -> Ack:
    """Verify and parse a receipt.

    Raises:
        ContentError: It does not parse.
        UnsignedError: No key's signature covers it, or it is for another device.
    """
    return parse_receipt(opened(raw, PAYLOAD_TYPE, keys, what="receipt"), device=device)


def parse_receipt(payload: bytes, *, device: str) -> Ack:
    """Parse what an envelope held whose signature was verified.

    Raises:
        ContentError: It does not parse.
        UnsignedError: It is for another device.
    """
    try:
        receipt = msgspec.json.decode(payload, type=_Receipt)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ContentError(f"receipt: {error}") from error
    if receipt.device != device:
        raise UnsignedError(f"this receipt is for the device {receipt.device!r:.80}, not for {device!r}")
    return receipt.ack
