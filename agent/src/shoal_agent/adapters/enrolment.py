"""Joining a server: from the pasted token to an identity of the device's own.

The order is one of trust: the token pins the certificate authority and the trust root; both are fetched and checked
before anything else is believed or told. The key is made here and never leaves; the identity is stored last, so that a
cut before it leaves a folder that can simply join again. An identity that is given up stays until the new one is whole
(see `shoal_agent.adapters.succession`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shoal_agent.adapters.challenge import fetch_challenge, refusal
from shoal_agent.adapters.device_key import new_key, public_pem, signature
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.identity import FolderLock, Identity, IdentityFolder
from shoal_agent.adapters.succession import finish_succession, heir_folders, succeed
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.domain.reference_time import believed_clock
from shoal_agent.errors import NotEnrolledError, StateFolderError, TransportError
from shoal_agent.ports import Clock
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import CallerError, DigestMismatchError
from shoal_protocol.trust.enrolment import ENROL_PATH, EnrolReply, EnrolRequest, enrol_proof_message
from shoal_protocol.trust.join_token import JoinToken, parse_join_token

ROOT_PATH = "/trust/{version}.root.json"
CA_PATH = "/trust/ca.pem"


@dataclass(frozen=True)
class Joined:
    """What came of joining."""

    identity: Identity
    state: str
    """``accepted``, or ``pending`` until an operator accepts the device."""


def join(
    url: str, token: str, state: Path, *, name: str | None, labels: Mapping[str, str], facts: Mapping[str, str],
    clock: Clock, again: bool = False,
) -> Joined:  # fmt: skip
    """Enrol this device.

    Args:
        url: Of the server.
        token: As ``shoalctl token create`` printed it.
        state: The state folder; made when it is missing.
        name: Device id to ask for; none: the server makes one.
        labels: Told at every connect.
        facts: Told at once, so that cohorts can choose the device before its first connect.
        clock: Seconds UTC.
        again: Give up the identity that the folder has, once the new one is whole; its models stay.

    Raises:
        CallerError: The token is no token, or the folder belongs to a device already.
        StateFolderError: The folder can't be made or written.
        DigestMismatchError: The server is not the one that the token was made for.
        PeerError: The server can't be reached or refuses.
    """
    parsed = parse_join_token(token)
    _make(state)
    lock = FolderLock(state)
    lock.acquire()
    try:
        finish_succession(state)
        place, trust_folder = state / "identity", state / "trust"
        if again:
            pinned_ca = parsed.ca_digest is not None
            place, trust_folder = heir_folders(state, root_digest=parsed.root_digest, ca_pinned=pinned_ca)
        folder = IdentityFolder(place)
        if not again:
            _refuse_second_join(folder, state)
        if parsed.ca_digest is not None:
            folder.save_ca(_fetched_ca(url, parsed.ca_digest))
        pinned = folder.ca_file is not None  # then dates don't count: no signed time is known yet
        certificate_time = (lambda: None) if pinned else (lambda: believed_clock(clock()))
        with closing(HttpClient(url, ca_file=folder.ca_file, certificate_time=certificate_time)) as http:
            trust = TrustStore(trust_folder, http=http, root_digest=parsed.root_digest, clock=clock)
            trust.pin_root(_fetched(http, ROOT_PATH.format(version=parsed.root_version)))
            trust.raise_floors(targets_version=parsed.targets_version)
            reply = _enrol(http, parsed, folder, name=name, facts=facts)
        identity = Identity(
            device=reply.device,
            secret=reply.secret,
            credential=reply.credential,
            url=http.url,
            root_digest=parsed.root_digest,
            mqtt_url=reply.mqtt_url,
            poll_s=reply.poll_s,
            labels=dict(labels),
        )
        folder.save(identity)
        if again:
            succeed(state)
    finally:
        lock.release()
    return Joined(identity, reply.state)


def _make(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateFolderError(
            f"the state folder {state} can't be made: {error.strerror}", hint="give a folder of your own by --state"
        ) from error


def _refuse_second_join(folder: IdentityFolder, state: Path) -> None:
    try:
        device = folder.load().device
    except NotEnrolledError:
        return
    raise CallerError(
        f"{state} belongs to the device {device!r} already",
        hint="give another --state; or, to give up that identity and keep the models, say --again",
    )


def _fetched(http: HttpClient, path: str) -> bytes:
    status, _, body = http.exchange("GET", path)
    if status != 200:
        raise TransportError(f"GET {http.url}{path}: the server answered {status}", hint="is this a Shoal server?")
    return body


def _fetched_ca(url: str, digest: str) -> bytes:
    """Fetch the certificate authority over a connection that is not trusted yet; the token's digest makes it so."""
    import ssl  # noqa: PLC0415 - only here
    import warnings  # noqa: PLC0415 - as above

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # urllib3's about the missing check, which is made below
        with closing(HttpClient(url, verify=False)) as http:
            pem = _fetched(http, CA_PATH)
    try:
        found = sha256_digest(ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip()))
    except (ValueError, UnicodeDecodeError) as error:
        raise DigestMismatchError(f"the server sent no certificate: {error}") from error
    if found != digest:
        raise DigestMismatchError(
            f"the server's certificate authority has {found}, the join token named {digest}",
            hint="this is another server than the token was made for, or someone is in between",
        )
    return pem


def _enrol(
    http: HttpClient, token: JoinToken, folder: IdentityFolder, *, name: str | None, facts: Mapping[str, str]
) -> EnrolReply:
    key = folder.key()
    if key is None:
        key = new_key()
        folder.save_key(key)
    public, challenge = public_pem(key), fetch_challenge(http, token.id)
    request = EnrolRequest(
        token_id=token.id,
        token_secret=token.secret,
        name=name,
        public_key=public,
        challenge=challenge,
        proof=signature(key, enrol_proof_message(challenge, token.id, name, public)),
        capabilities=dict(facts),
    )
    status, _, body = http.exchange(
        "POST", ENROL_PATH, headers={"Content-Type": "application/json"}, body=msgspec.json.encode(request)
    )
    if status not in {200, 201, 202}:
        raise refusal(status, body, hint="make a new token")
    try:
        return msgspec.json.decode(body, type=EnrolReply)
    except msgspec.DecodeError as error:
        raise TransportError(f"POST {ENROL_PATH}: the answer does not parse: {error}") from error
