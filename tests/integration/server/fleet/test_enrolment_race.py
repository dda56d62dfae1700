"""Two devices that ask for one name at the same moment, by two tokens: one gets it, the other is told so."""

import threading

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shoal_protocol.trust.enrolment import EnrolRequest, enrol_proof_message
from shoal_server.errors import ConflictError
from shoal_server.fleet import enrolment
from shoal_server.fleet.challenges import make_challenge, make_key
from shoal_server.storage.database import Database

NOW = 1_800_000_000.0


def request(database: Database, token_id: str) -> EnrolRequest:
    with database.write() as session:
        challenge = make_challenge(make_key(session), token_id, now=NOW, nonce=b"0" * 16)
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip
    proof = key.sign(enrol_proof_message(challenge, token_id, "cam", public), ec.ECDSA(hashes.SHA256())).hex()
    return EnrolRequest(
        token_id=token_id, token_secret="s", name="cam", public_key=public, challenge=challenge, proof=proof
    )


def test_the_second_is_refused_as_a_conflict(database: Database) -> None:
    wanted = enrolment.NewToken(labels={}, expires_at=NOW + 60, created_by="admin")
    with database.write() as session:
        for token_id in ("a", "b"):
            enrolment.create_token(session, wanted, token_id=token_id, secret="s", now=NOW)
    requests = {token_id: request(database, token_id) for token_id in ("a", "b")}
    came: list[Exception] = []
    asked = threading.Event()

    def enrol(token_id: str, hold: threading.Thread | None) -> None:
        asked.set()
        wanted = requests[token_id]
        with database.write() as session:
            enrolment.enrol(session, wanted, now=NOW, new_secret=lambda: "x" * 43, new_salt=lambda: b"0" * 12)
            if hold is not None:
                hold.start()
                asked.wait(60)
                hold.join(0.3)  # it waits for us by now: on PostgreSQL in its INSERT

    def second() -> None:
        try:
            enrol("b", None)
        except Exception as error:  # noqa: BLE001 - judged below
            came.append(error)

    other = threading.Thread(target=second)
    enrol("a", other)
    other.join(60)
    assert [type(error) for error in came] == [ConflictError]
