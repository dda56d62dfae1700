import base64
import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from shoal_protocol.canonical import sha256_digest
from shoal_protocol.errors import (
    CallerError,
    ContentError,
    DeniedError,
    ExpiredError,
    RollbackError,
    UnsignedError,
)
from shoal_protocol.trust.assignment import (
    Assignment,
    SlotTarget,
    check_succession,
    sign_assignment,
    verify_assignment,
)
from shoal_protocol.trust.enrolment import enrol_proof_message
from shoal_protocol.trust.join_token import JoinToken, parse_join_token
from shoal_protocol.trust.targets import release_target, set_restrictions, signed_list

SIGNER = CryptoSigner.generate_ecdsa()
KEYS = [SIGNER.public_key]
DIGEST = sha256_digest(b"manifest")


def assignment(**changes: object) -> Assignment:
    fields = {
        "device": "cam-1",
        "generation": 4,
        "slots": {"quality": SlotTarget(digest=DIGEST)},
        "issued": 1000,
        "expires": 9000,
    }
    return Assignment(**(fields | changes))  # type: ignore[arg-type]


def test_a_signed_assignment_verifies() -> None:
    assert verify_assignment(sign_assignment(assignment(), SIGNER), KEYS, device="cam-1", now_ms=8999) == assignment()


@pytest.mark.parametrize(
    ("device", "now_ms", "error"),
    [("cam-2", 2000, UnsignedError), ("cam-1", 9000, ExpiredError)],
    ids=["other device", "expired"],
)
def test_an_assignment_for_another_or_of_the_past_is_refused(device: str, now_ms: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        verify_assignment(sign_assignment(assignment(), SIGNER), KEYS, device=device, now_ms=now_ms)


def test_another_key_and_a_changed_payload_are_refused() -> None:
    forged = json.loads(sign_assignment(assignment(), CryptoSigner.generate_ecdsa()))
    genuine = json.loads(sign_assignment(assignment(), SIGNER))
    changed = base64.b64encode(
        base64.b64decode(genuine["payload"]).replace(b'"generation":4', b'"generation":5')
    ).decode()
    # the forger names the trusted key but signs with its own
    renamed = {**forged, "signatures": [{**forged["signatures"][0], "keyid": SIGNER.public_key.keyid}]}
    for envelope in (forged, renamed, {**genuine, "payload": changed}, {**genuine, "signatures": []}):
        with pytest.raises(UnsignedError):
            verify_assignment(json.dumps(envelope).encode(), KEYS, device="cam-1", now_ms=2000)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"null", b'{"payload":"%","payloadType":"x","signatures":[]}', b" " * 70_000]
)
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(ContentError):
        verify_assignment(raw, KEYS, device="cam-1", now_ms=2000)


def test_a_signed_but_senseless_digest_is_refused() -> None:
    raw = sign_assignment(assignment(slots={"q": SlotTarget(digest="latest")}), SIGNER)
    with pytest.raises(ContentError, match="digest"):
        verify_assignment(raw, KEYS, device="cam-1", now_ms=2000)


@pytest.mark.parametrize("dates", [(9000, 9000), (-1, 9000), (1000, 2**60), (2**62, 2**63)])
def test_signed_but_senseless_dates_are_refused_before_they_become_a_floor(dates: tuple[int, int]) -> None:
    raw = _signed_anyhow({"issued": dates[0], "expires": dates[1]})
    with pytest.raises(ContentError, match="issued at"):
        verify_assignment(raw, KEYS, device="cam-1", now_ms=0)


def _signed_anyhow(changes: dict[str, int]) -> bytes:
    """Sign what `sign_assignment` would not: numbers without canonical form."""
    payload = json.dumps({"device": "cam-1", "generation": 4, "slots": {}, **changes}).encode()
    kind = b"application/vnd.shoal.assignment.v1+json"
    signature = SIGNER.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind.decode(),
        "signatures": [{"keyid": signature.keyid, "sig": signature.signature}],
    }
    return json.dumps(envelope).encode()


def test_generations_only_grow() -> None:
    seen = (4, assignment().content_digest)
    check_succession(None, assignment())
    check_succession(seen, assignment(issued=5000, expires=20_000))  # signed again, nothing else
    check_succession(seen, assignment(generation=5, slots={}))
    with pytest.raises(RollbackError, match="already seen 4"):
        check_succession(seen, assignment(generation=3))
    with pytest.raises(RollbackError, match="second, different"):
        check_succession(seen, assignment(slots={}))


def releases(**restrictions: object) -> Targets:
    targets = Targets(version=7)
    for version, counter in (("1.0", 1), ("1.1", 2)):
        target = release_target("quality", version, version.encode(), counter=counter)
        targets.targets[target.path] = target
    set_restrictions(targets, **restrictions)  # type: ignore[arg-type]
    wire = Metadata(targets)
    wire.sign(SIGNER)
    return Metadata[Targets].from_bytes(wire.to_bytes()).signed


def test_the_signed_list_names_what_may_be_installed() -> None:
    listed = signed_list(releases())
    entry = listed.check(sha256_digest(b"1.1"))
    assert (entry.model, entry.version, entry.counter, entry.path) == ("quality", "1.1", 2, "quality/1.1")
    with pytest.raises(UnsignedError, match="no signed release"):
        listed.check(sha256_digest(b"1.2"))


def test_denied_and_outdated_releases_are_refused() -> None:
    with pytest.raises(DeniedError):
        signed_list(releases(deny=[sha256_digest(b"1.1")])).check(sha256_digest(b"1.1"))
    with pytest.raises(RollbackError, match="minimum is 2"):
        signed_list(releases(minimum={"quality": 2})).check(sha256_digest(b"1.0"))


@pytest.mark.parametrize("field", [{"custom": {}}, {"custom": {"counter": "1"}}, {"custom": 3}])
def test_a_malformed_release_is_refused_even_when_signed(field: dict[str, object]) -> None:
    targets = releases()
    targets.targets["quality/1.0"].unrecognized_fields.update(field)
    with pytest.raises(ContentError, match="no release of Shoal"):
        signed_list(targets)


@pytest.mark.parametrize("path", ["../x/1", "quality", "quality/a/b"])
def test_a_target_path_is_hostile(path: str) -> None:
    targets = releases()
    targets.targets[path] = targets.targets["quality/1.0"]
    with pytest.raises(ContentError, match="the signed list's entry"):
        signed_list(targets)


def test_a_join_token_is_one_word_that_pins_the_root() -> None:
    token = JoinToken(id="t1", secret="s" * 43, root_digest=DIGEST, targets_version=3)
    assert parse_join_token(f"  {token}\n") == token
    assert str(token).isascii()
    assert " " not in str(token)


@pytest.mark.parametrize("text", ["", "sjt_", "sjt_abc", "abc", str(JoinToken(id="t", secret="s", root_digest="x"))])
def test_a_damaged_join_token_says_what_to_do(text: str) -> None:
    with pytest.raises(CallerError, match="join token") as caught:
        parse_join_token(text)
    assert "token create" in caught.value.hint


def test_the_proof_binds_token_name_and_key() -> None:
    messages = {
        enrol_proof_message(*words)
        for words in [
            ("c", "t", "n", "k"),
            ("d", "t", "n", "k"),
            ("c", "u", "n", "k"),
            ("c", "t", None, "k"),
            ("c", "t", "n", "l"),
        ]
    }
    assert len(messages) == 5
