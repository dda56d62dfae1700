"""Signed receipts: for one device, by the timestamp role's key, and nothing else passes for one."""

from __future__ import annotations

import pytest
from securesystemslib.signer import CryptoSigner

from shoal_protocol.errors import ContentError, UnsignedError
from shoal_protocol.mqtt.messages import Ack
from shoal_protocol.trust.assignment import Assignment, sign_assignment, verify_assignment
from shoal_protocol.trust.envelope import sealed
from shoal_protocol.trust.receipt import PAYLOAD_TYPE, sign_receipt, verify_receipt

SIGNER, OTHER = CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ecdsa()
ACK = Ack(epoch="0" * 16, through=7, ranges=((9, 12),))
RAW = sign_receipt("cam-1", ACK, SIGNER)


def test_a_receipt_tells_its_device_what_has_come() -> None:
    assert verify_receipt(RAW, [OTHER.public_key, SIGNER.public_key], device="cam-1") == ACK


def test_another_devices_and_another_keys_are_refused() -> None:
    with pytest.raises(UnsignedError, match="for the device 'cam-1', not for 'cam-2'"):
        verify_receipt(RAW, [SIGNER.public_key], device="cam-2")
    with pytest.raises(UnsignedError, match="no key of the timestamp role signed this receipt"):
        verify_receipt(RAW, [OTHER.public_key], device="cam-1")


def test_nothing_signed_for_another_purpose_passes_for_a_receipt_nor_the_other_way_round() -> None:
    assignment = sign_assignment(Assignment(device="cam-1", generation=1, slots={}, issued=1, expires=2), SIGNER)
    with pytest.raises(ContentError, match="payload type"):
        verify_receipt(assignment, [SIGNER.public_key], device="cam-1")
    with pytest.raises(ContentError, match="payload type"):
        verify_assignment(RAW, [SIGNER.public_key], device="cam-1", now_ms=1)


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"device": "cam-1"}', b'{"device": "cam-1", "ack": {"epoch": 3}}'])
def test_signed_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(ContentError):
        verify_receipt(sealed(payload, PAYLOAD_TYPE, SIGNER), [SIGNER.public_key], device="cam-1")
