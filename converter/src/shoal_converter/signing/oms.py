"""OpenSSF Model Signing (OMS) signatures over a bundle's files, version 1.0, with a key.

A Sigstore bundle (v0.3) around a DSSE envelope, over an in-toto statement that lists every file with its SHA-256; the
subject's digest is that of all those digests one after another, in the order of names
(https://github.com/ossf/model-signing-spec). The files are those that `unpack` writes, so that ``model_signing verify
key`` accepts an unpacked bundle, and a signature by that program over an unpacked bundle is accepted here. Devices do
not judge by it: they judge by the signed list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import Signer

from shoal_converter.bundle import OMS, SIGNATURE_MEDIA_TYPE, Bundle
from shoal_converter.errors import SignatureError
from shoal_protocol.canonical import canonical_bytes
from shoal_protocol.errors import CallerError, ContentError

PREDICATE = "https://model_signing/signature/v1.0"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_HASHES: Mapping[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


def sign_files(files: Mapping[str, bytes], *, name: str, signer: Signer) -> bytes:
    """Return the signature over files.

    Args:
        files: Path -> content, as they lie in the unpacked folder.
        name: Of the model, for people.
        signer: An ECDSA key.

    Raises:
        CallerError: The key is of another kind.
    """
    if not signer.public_key.to_dict()["scheme"].startswith("ecdsa"):
        raise CallerError("OMS signatures need an ECDSA key (P-256, P-384 or P-521)")
    public = _public_key(signer.public_key.to_dict()["keyval"]["public"].encode())
    payload = canonical_bytes(_statement(files, name))
    signature = bytes.fromhex(signer.sign(_pae(payload)).signature)
    return canonical_bytes(
        {
            "mediaType": SIGNATURE_MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": _hint(public)}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def attested(bundle: Bundle, signer: Signer) -> Bundle:
    """Return a bundle with a signature over its files among the statements beside it; its digest stays the same.

    Raises:
        CallerError: The key is of another kind.
    """
    signature = sign_files(bundle.unpacked(), name=bundle.info.name, signer=signer)
    return replace(bundle, statements={**bundle.statements, OMS: signature})


def check_files(raw: bytes, files: Mapping[str, bytes], *, public_pem: bytes) -> str:
    """Check a signature and the files under it; return what was found, for people.

    Args:
        raw: The signature.
        files: Path -> content.
        public_pem: The public key that must have signed.

    Raises:
        ContentError: It is no signature of this kind.
        SignatureError: Another key signed, or other files.
        CallerError: The public key can't be read.
    """
    public = _public_key(public_pem)
    try:
        document = json.loads(raw)
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind, hint = envelope["payloadType"], document["verificationMaterial"].get("publicKey", {}).get("hint", "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, binascii.Error) as error:
        raise ContentError(f"this is no OMS signature: {error}") from error
    if hint and hint != _hint(public):
        raise SignatureError(f"the OMS signature is by the key {hint[:12]}, not by {_hint(public)[:12]}")
    try:
        public.verify(signature, _pae(payload), ec.ECDSA(_HASHES[public.key_size]))
    except InvalidSignature as error:
        raise SignatureError("the OMS signature does not verify with this key") from error
    if kind != _PAYLOAD_TYPE:
        raise ContentError(f"the OMS signature has the payload type {kind!r:.80}, expected {_PAYLOAD_TYPE}")
    return _compared(payload, files, hint=_hint(public))


def _compared(payload: bytes, files: Mapping[str, bytes], *, hint: str) -> str:
    try:
        statement = json.loads(payload)
        resources = {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}
        algorithms = {entry["algorithm"] for entry in statement["predicate"]["resources"]}
        predicate = statement["predicateType"]
    except (ValueError, KeyError, TypeError) as error:
        raise ContentError(f"the OMS statement does not parse: {error}") from error
    if predicate != PREDICATE or algorithms - {"sha256"}:
        raise ContentError(
            f"the OMS statement is {predicate!r:.80} over {sorted(algorithms)}, expected {PREDICATE}, sha256"
        )
    found = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    wrong = sorted(path for path in {*resources, *found} if resources.get(path) != found.get(path))
    if wrong:
        raise SignatureError(f"the OMS signature covers other files: {', '.join(wrong[:5])}")
    return f"{len(found)} files, signed by the key {hint[:12]}"


def _statement(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    digests = {path: hashlib.sha256(content).digest() for path, content in sorted(files.items())}
    whole = hashlib.sha256(b"".join(digests.values())).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest.hex()} for path, digest in digests.items()
            ],
        },
    }


def _public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        public = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise CallerError(f"this is no public key in PEM: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.key_size not in _HASHES:
        raise CallerError("OMS signatures need an ECDSA key (P-256, P-384 or P-521)")
    return public


def _hint(public: ec.EllipticCurvePublicKey) -> str:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _pae(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
