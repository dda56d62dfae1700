"""How credentials are replaced, step by step: what holds between the steps, and who is refused."""

from dataclasses import dataclass, field

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlmodel import Session

from shoal_protocol.errors import UnsignedError
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.parcel import Letter, letter_body, signed_bytes
from shoal_protocol.trust.enrolment import RotationRequest, rotation_proof_message
from shoal_server.alerts.store import open_alert
from shoal_server.device_notices import on_clone
from shoal_server.errors import ConflictError
from shoal_server.fleet import assignments, credentials, store
from shoal_server.fleet.challenges import ChallengeError, make_challenge, make_key
from shoal_server.fleet.mail import open_letter
from shoal_server.fleet.proofs import EnrolmentError
from shoal_server.fleet.tables import DeviceRow
from shoal_server.link.verifiers import verifier_line
from shoal_server.storage.database import Database
from shoal_server.testing.program import FakeClock
from shoal_server.testing.simulated_devices import fleet_of
from shoal_server.testing.stored_fleet import StoredFleet

OLD, SALT = "o" * 43, b"0" * 12


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass
class Fleet:
    """Devices cam-0 and cam-1, whose keys we hold."""

    database: Database
    clock: FakeClock = field(default_factory=FakeClock)
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    secrets: int = 0

    def __post_init__(self) -> None:
        StoredFleet(self.database, fleet_of(2, active=None), clock=self.clock)
        with self.database.write() as session:
            for name in ("cam-0", "cam-1"):
                row = store.row_of(session, name)
                row.public_key, row.verifier = public(self.key), verifier_line(OLD, salt=SALT)
                row.credential_at = self.clock()
                session.add(row)

    def challenge(self, subject: str = "cam-0") -> str:
        self.clock.advance(0.01)
        with self.database.write() as session:
            return make_challenge(make_key(session), subject, now=self.clock(), nonce=SALT)

    def request(self, challenge: str, *, old: ec.EllipticCurvePrivateKey | None = None) -> RotationRequest:
        return self.request_and_key(challenge, old=old)[0]

    def request_and_key(
        self, challenge: str, *, old: ec.EllipticCurvePrivateKey | None = None
    ) -> tuple[RotationRequest, ec.EllipticCurvePrivateKey]:
        new = new_key()
        message = rotation_proof_message(challenge, "cam-0", public(new))
        proofs = [key.sign(message, ec.ECDSA(hashes.SHA256())).hex() for key in (old or self.key, new)]
        request = RotationRequest(public_key=public(new), challenge=challenge, proof=proofs[0], new_proof=proofs[1])
        return request, new

    def open_mail(self, key: ec.EllipticCurvePrivateKey) -> list[tuple[Up, bytes]]:
        """Open a letter of cam-0's that this key signed."""
        body = letter_body("cam-0", [(Up.EVENT, b"{}")], made_at=0)
        signature = key.sign(signed_bytes(body), ec.ECDSA(hashes.SHA256())).hex()
        line = msgspec.json.encode(Letter(body, signature))
        with self.database.write() as session:
            return open_letter(session, "cam-0", line)

    def takes_mail(self, key: ec.EllipticCurvePrivateKey) -> bool:
        try:
            return self.open_mail(key) == [(Up.EVENT, b"{}")]
        except UnsignedError:
            return False

    def hand_out(self, request: RotationRequest, device: str = "cam-0") -> credentials.HandedOut:
        self.secrets += 1
        with self.database.write() as session:
            return credentials.hand_out(
                session,
                device,
                request,
                now=self.clock(),
                new_secret=lambda: f"{self.secrets}" * 43,
                new_salt=lambda: SALT,
            )

    def confirm(self, secret: str) -> bool:
        with self.database.write() as session:
            return credentials.confirm(session, "cam-0", secret, now=self.clock())

    def holds(self, secret: str) -> tuple[bool, bool]:
        """Whether HTTP takes it, and the broker."""
        with self.database.read() as session:
            lines = dict(store.credentials(session))
            row = session.get(DeviceRow, "cam-0")
            assert row is not None
            return store.verify_secret(session, "cam-0", secret), lines["cam-0"] == verifier_line(secret, salt=SALT)


@pytest.fixture
def fleet(database: Database) -> Fleet:
    return Fleet(database)


def test_both_hold_until_the_new_ones_were_used_once_and_the_broker_changes_last(fleet: Fleet) -> None:
    made = fleet.hand_out(fleet.request(fleet.challenge()))
    assert made.number == 2
    assert (fleet.holds(OLD), fleet.holds(made.secret)) == ((True, True), (True, False))
    assert fleet.confirm(OLD) is False, "what holds already is confirmed without effect"
    assert fleet.confirm(made.secret) is True
    assert (fleet.holds(OLD), fleet.holds(made.secret)) == ((False, False), (True, True))
    assert fleet.confirm(made.secret) is False, "an answer that was lost can be asked for again"


def test_mail_is_the_devices_by_either_key_while_they_are_replaced_then_by_the_new_one(fleet: Fleet) -> None:
    request, new = fleet.request_and_key(fleet.challenge())
    assert fleet.takes_mail(fleet.key)
    assert not fleet.takes_mail(new)
    made = fleet.hand_out(request)
    assert fleet.takes_mail(fleet.key)
    assert fleet.takes_mail(new), "the server may have been set back since it took it"
    fleet.confirm(made.secret)
    assert fleet.takes_mail(new)
    with pytest.raises(UnsignedError, match="was not signed by the key of cam-0") as caught:
        fleet.open_mail(fleet.key)
    assert "get other credentials" in caught.value.hint
    assert "shoal-agent export" in caught.value.hint


def test_what_was_handed_out_and_lost_is_void_with_the_next(fleet: Fleet) -> None:
    lost = fleet.hand_out(fleet.request(fleet.challenge()))
    made = fleet.hand_out(fleet.request(fleet.challenge()))
    assert made.number == lost.number == 2
    assert fleet.holds(lost.secret) == (False, False)
    assert not fleet.confirm(lost.secret)
    assert fleet.confirm(made.secret)


def test_the_next_rotation_is_proven_by_the_new_key(fleet: Fleet) -> None:
    new = new_key()
    challenge = fleet.challenge()
    message = rotation_proof_message(challenge, "cam-0", public(new))
    proofs = [key.sign(message, ec.ECDSA(hashes.SHA256())).hex() for key in (fleet.key, new)]
    wanted = RotationRequest(public_key=public(new), challenge=challenge, proof=proofs[0], new_proof=proofs[1])
    assert fleet.confirm(fleet.hand_out(wanted).secret)
    with pytest.raises(EnrolmentError):
        fleet.hand_out(fleet.request(fleet.challenge()))
    assert fleet.hand_out(fleet.request(fleet.challenge(), old=new)).number == 3


def test_who_does_not_prove_both_keys_is_refused(fleet: Fleet) -> None:
    with pytest.raises(EnrolmentError):
        fleet.hand_out(fleet.request(fleet.challenge(), old=new_key()))
    good = fleet.request(fleet.challenge())
    for changed in ({"new_proof": good.proof}, {"proof": good.new_proof}, {"proof": "no hex"}):
        with pytest.raises(EnrolmentError):
            fleet.hand_out(RotationRequest(**{**_fields(good), **changed}))
    with pytest.raises(EnrolmentError):
        fleet.hand_out(RotationRequest(**{**_fields(good), "public_key": public(new_key())}))
    assert fleet.holds(OLD) == (True, True)


def test_a_challenge_is_answered_once_in_time_and_by_whom_it_was_made_for(fleet: Fleet) -> None:
    answered = fleet.request(fleet.challenge())
    fleet.hand_out(answered)
    with pytest.raises(ChallengeError, match="answered already"):
        fleet.hand_out(answered)
    for challenge in (fleet.challenge("cam-1"), "", "1.2.3", "x" * 9999, "9" * 300 + ".1.1", "a.b.c"):
        with pytest.raises(ChallengeError, match="not one that this server made"):
            fleet.hand_out(fleet.request(challenge))
    late = fleet.challenge()
    fleet.clock.advance(121)
    with pytest.raises(ChallengeError, match="older"):
        fleet.hand_out(fleet.request(late))


def _fields(request: RotationRequest) -> dict[str, str]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


def wanted(session: Session, device: str) -> tuple[int, int]:
    """The credentials that a device should hold, and the generation that says so."""
    found = store.device(session, device)
    return found.credential_wanted, found.generation


def test_asking_is_one_new_generation_however_often(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        before = wanted(session, "cam-0")
        assert credentials.ask(session, "cam-0", now=fleet.clock()) == 2
        asked = wanted(session, "cam-0")
        credentials.ask(session, "cam-0", now=fleet.clock())
        assert wanted(session, "cam-0") == asked == (2, before[1] + 1)
    assert fleet.confirm(fleet.hand_out(fleet.request(fleet.challenge())).secret)
    with fleet.database.write() as session:
        assert wanted(session, "cam-0") == asked, "nothing more is wanted"
        assert credentials.ask(session, "cam-0", now=fleet.clock()) == 3


def test_only_accepted_devices_are_asked(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        store.revoke(session, "cam-0")
        with pytest.raises(ConflictError, match="revoked"):
            credentials.ask(session, "cam-0", now=fleet.clock())


def test_the_oldest_are_asked_some_at_a_time_and_once(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        row = store.row_of(session, "cam-1")
        row.credential_at -= 100
        session.add(row)
        before = fleet.clock() - 50
        assert credentials.ask_old(session, held_before=before, now=fleet.clock()) == ["cam-1"]
        assert credentials.ask_old(session, held_before=before, now=fleet.clock()) == []
        later = fleet.clock() + 1
        assert credentials.ask_old(session, held_before=later, now=later, limit=1) == ["cam-0"]
        assert credentials.ask_old(session, held_before=later, now=later) == []


def test_asking_keeps_what_should_run(fleet: Fleet) -> None:
    from shoal_protocol.trust.assignment import SlotTarget

    target = SlotTarget(digest="sha256:" + "1" * 64)
    with fleet.database.write() as session:
        assignments.assign(session, "cam-0", "quality", target, now=fleet.clock())
        credentials.ask(session, "cam-0", now=fleet.clock())
        assert assignments.targets(session, "cam-0") == {"quality": target}


def test_the_suspicion_of_a_clone_ends_with_the_rotation(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        on_clone(session, "cam-0", 7, fleet.clock())
        assert open_alert(session, "clone:cam-0") is not None
        assert store.device(session, "cam-0").clone_suspected_at == fleet.clock()
    assert fleet.confirm(fleet.hand_out(fleet.request(fleet.challenge())).secret)
    with fleet.database.read() as session:
        assert open_alert(session, "clone:cam-0") is None
        assert store.device(session, "cam-0").clone_suspected_at is None
