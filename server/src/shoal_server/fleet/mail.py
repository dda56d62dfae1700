"""Mail from devices without a network: who wrote a letter is proven by the key that the device made when it joined."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlmodel import Session

from shoal_protocol.errors import UnsignedError
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.parcel import Letter, parse_letter, read_body, signed_bytes
from shoal_server.errors import ConflictError
from shoal_server.fleet import store
from shoal_server.fleet.devices import DeviceState


def open_letter(session: Session, device_id: str, line: bytes) -> list[tuple[Up, bytes]]:
    """Return the messages of a letter, once it is known to be the device's.

    Args:
        session: Of an open write transaction.
        device_id: Whose letter it is.
        line: As it came.

    Raises:
        NotFoundError: There is no such device.
        ConflictError: It is not accepted.
        ContentError: The letter does not parse, or is of another device.
        UnsignedError: It was not signed by this device's key, or was changed since. While credentials are replaced both
            keys are the device's; afterwards a letter that the former one signed is refused.
    """
    row = store.row_of(session, device_id)
    if row.state != DeviceState.ACCEPTED:
        raise ConflictError(f"the device {device_id} is {row.state}: nothing of it is taken")
    letter = parse_letter(line)
    if not any(_is_signed(letter, key) for key in (row.public_key, row.next_public_key) if key):
        raise UnsignedError(
            f"this letter was not signed by the key of {device_id}, or was changed since",
            hint="did the device join anew, or get other credentials, since it wrote it? Then have it write its mail "
            "anew: shoal-agent export",
        )
    return read_body(letter.body, device=device_id)


def _is_signed(letter: Letter, public_key: str) -> bool:
    key = load_pem_public_key(public_key.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)  # checked when the device showed it
    try:
        key.verify(bytes.fromhex(letter.signature), signed_bytes(letter.body), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
