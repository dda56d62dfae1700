"""Devices in the database: changes by people, messages of the devices themselves, assignments."""

from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from shoal_protocol.errors import CallerError
from shoal_protocol.mqtt.messages import Birth, Fault, HoldReport, Presence, Reported, ShadowReport, SlotReport
from shoal_protocol.trust.assignment import LATEST_MS, SlotTarget, verify_assignment
from shoal_server.errors import ConflictError, NotFoundError
from shoal_server.fleet import assignments, intake, store
from shoal_server.fleet.cohort import parse_cohort
from shoal_server.fleet.desired import LIFETIME_S
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow
from shoal_server.fleet.views import device_json
from shoal_server.link.verifiers import verifier_line
from shoal_server.storage.database import Database

NOW = 1_800_000_000.0
ONE, TWO = (SlotTarget(digest="sha256:" + digit * 64) for digit in "12")


def _add(database: Database, *names: str, state: DeviceState = DeviceState.ACCEPTED, **fields: Any) -> None:
    with database.write() as session:
        for name in names:
            session.add(
                DeviceRow(
                    **{
                        "id": name,
                        "state": state,
                        "public_key": "",
                        "verifier": verifier_line("secret", salt=b"123456789012"),
                        "token_id": "t",
                        "enrolled_at": NOW,
                        **fields,
                    }
                )
            )


def _head(epoch: str = "a" * 16, boot: int = 1, seq: int = 1, sent_at: int = 0) -> dict[str, Any]:
    return {"epoch": epoch, "boot": boot, "seq": seq, "sent_at": sent_at}


def test_devices_are_chosen_by_id_and_by_query(database: Database) -> None:
    _add(database, "b", "a", labels={"site": "bern"})
    _add(database, "c", labels={"site": "basel"})
    with database.read() as session:
        assert [device.id for device in store.devices(session)] == ["a", "b", "c"]
        assert [device.id for device in store.devices(session, cohort=parse_cohort("site = bern"))] == ["a", "b"]
        assert [device.id for device in store.devices(session, ids=["c", "a", "x"])] == ["a", "c"]
        with pytest.raises(NotFoundError, match="there is no device 'x'"):
            store.device(session, "x")


def test_labels_are_merged_checked_and_taken_away(database: Database) -> None:
    _add(database, "a", labels={"site": "bern", "line": "3"})
    with database.write() as session:
        changed = store.set_labels(session, "a", {"site": "basel", "line": None, "new": "x"})
    assert changed.labels == {"site": "basel", "new": "x"}
    for bad in ({"a b": "x"}, {"": "x"}, {"a": "line\nbreak"}, {"a": "x" * 200}, {str(n): "" for n in range(70)}):
        with database.write() as session, pytest.raises(CallerError):
            store.set_labels(session, "a", bad)


def test_credentials_are_those_of_accepted_devices(database: Database) -> None:
    _add(database, "a", "b")
    _add(database, "p", state=DeviceState.PENDING)
    with database.write() as session:
        store.revoke(session, "b")
    with database.read() as session:
        assert [device for device, _ in store.credentials(session)] == ["a"]
        assert store.verify_secret(session, "a", "secret")
        assert not store.verify_secret(session, "a", "guess")
        assert not any(store.verify_secret(session, name, "secret") for name in ("b", "p", "x"))
    with database.write() as session:
        assert store.accept(session, "p").state is DeviceState.ACCEPTED
        with pytest.raises(ConflictError, match="was revoked"):
            store.accept(session, "b")


def test_decommission_forgets(database: Database) -> None:
    _add(database, "a")
    with database.write() as session:
        assignments.assign(session, "a", "quality", ONE, now=NOW)
        store.decommission(session, "a", now=NOW)
    with database.read() as session:
        assert store.devices(session) == []
        assert assignments.targets(session, "a") == {}


def test_pins(database: Database) -> None:
    _add(database, "a")
    with database.write() as session:
        assert store.pin(session, "a", slot="quality", reason="repair").pin("quality") == "repair"
        store.pin(session, "a", reason="all")
        assert store.unpin(session, "a", slot="quality").pins == {"*": "all"}
        assert store.unpin(session, "a").pins == {}


def test_the_newest_message_of_each_kind_holds(database: Database) -> None:
    _add(database, "a")

    def online() -> bool:
        with database.read() as session:
            return store.device(session, "a").online

    def says(now_online: bool, **head: Any) -> bool:
        with database.write() as session:
            return intake.on_presence(session, "a", Presence(**_head(**head), online=now_online), NOW)

    assert says(True, seq=5)
    assert online()
    assert not says(False, seq=4), "a late will of an earlier connection"
    assert online()
    assert not says(True, seq=5), "a duplicate"
    assert says(True, boot=2, seq=1)
    assert not says(False, boot=1, seq=99), "a late will of an earlier boot"
    assert online()
    assert says(True, epoch="b" * 16, boot=1, seq=1), "a state that was made anew"
    assert not says(False, epoch="a" * 16, boot=9, seq=9), "a state that was replaced"
    assert online()
    assert says(False, epoch="b" * 16, boot=1, seq=2)
    assert not online()


def test_reports_and_births_are_kept(database: Database) -> None:
    _add(database, "a")
    report = SlotReport(state="idle", active=ONE.digest, proven=ONE.digest)
    with database.write() as session:
        intake.on_reported(session, "a", Reported(**_head(), generation=4, slots={"quality": report}), NOW)
        intake.on_birth(
            session, "a", Birth(**_head(seq=2), agent_version="0.1", arch="\0arm64", labels={"site": "x"}), NOW
        )
    with database.read() as session:
        device = store.device(session, "a")
    assert device.reported == {"quality": report}
    assert (device.generation_reported, device.last_seen_at, device.seq) == (4, NOW, 2)
    assert device.facts == {"agent": "0.1", "arch": "arm64", "said.site": "x"}
    assert device.labels == {}, "a device can't label itself"
    assert not {"said.site", "site"} & device.cohort_facts().keys(), "nor choose its cohort"
    many = {f"k{at}": "\0v" for at in range(99)}
    with database.write() as session:
        intake.on_birth(session, "a", Birth(**_head(seq=3), agent_version="0.2", labels=many), NOW)
        facts = store.device(session, "a").facts
    own = {name: value for name, value in facts.items() if name.startswith("said.")}
    assert (len(own), set(own.values()), facts["agent"]) == (16, {"v"}, "0.2")


def test_messages_of_unknown_pending_and_revoked_devices_change_nothing(database: Database) -> None:
    _add(database, "p", state=DeviceState.PENDING)
    with database.write() as session:
        assert not intake.on_presence(session, "x", Presence(**_head(), online=True), NOW)
        assert not intake.on_presence(session, "p", Presence(**_head(), online=True), NOW)
    with database.read() as session:
        assert not store.device(session, "p").online


def test_two_live_boots_are_a_suspected_clone(database: Database) -> None:
    _add(database, "a")
    with database.write() as session:
        for head in (_head(boot=2, sent_at=1000), _head(boot=1, seq=9, sent_at=900)):
            intake.on_reported(session, "a", Reported(**head, generation=0, slots={}), NOW)
        assert store.device(session, "a").clone_suspected_at is None, "it was only late"
        intake.on_reported(session, "a", Reported(**_head(boot=1, seq=10, sent_at=2000), generation=0, slots={}), NOW)
        assert store.device(session, "a").clone_suspected_at == NOW


def test_a_started_server_knows_nobody_as_online(database: Database) -> None:
    _add(database, "a", "b")
    stored_at_the_broker = Presence(**_head(), online=True)
    with database.write() as session:
        for name in ("a", "b"):
            intake.on_presence(session, name, stored_at_the_broker, NOW)
    with database.write() as session:
        assert store.forget_presence(session) == 2
        assert not any(device.online for device in store.devices(session))
        assert intake.on_presence(session, "a", stored_at_the_broker, NOW)
        assert [device.id for device in store.devices(session) if device.online] == ["a"]


def test_a_device_that_polls_is_reachable_without_mqtt(database: Database) -> None:
    _add(database, "a")
    with database.write() as session:
        assert not store.device(session, "a").reachable(NOW)
        intake.on_poll(session, "a", NOW)
        intake.on_poll(session, "a", NOW + 5)
        device = store.device(session, "a")
    assert (device.polled_at, device.last_seen_at, device.online) == (NOW, NOW, False)
    assert device.reachable(NOW + 100)
    assert not device.reachable(NOW + 200)


def test_a_generation_grows_with_every_change_and_only_then(database: Database) -> None:
    _add(database, "a")
    with database.write() as session:
        assert assignments.assign(session, "a", "quality", ONE, now=NOW) == 1
        assert assignments.assign(session, "a", "quality", ONE, now=NOW) == 1
        assert assignments.assign(session, "a", "quality", TWO, now=NOW) == 2
        assert assignments.assign(session, "a", "other", ONE, now=NOW) == 3
        assert assignments.assign(session, "a", "other", None, now=NOW) == 4
        assert assignments.targets(session, "a") == {"quality": TWO}
        assert assignments.slot_targets(session, "quality") == {"a": TWO}
        assert assignments.generations(session) == {"a": 4}


def test_after_a_restore_it_continues_above_what_devices_have_seen(database: Database) -> None:
    _add(database, "a")
    with database.write() as session:
        assignments.assign(session, "a", "quality", ONE, now=NOW)
        intake.on_reported(session, "a", Reported(**_head(), generation=70, slots={}), NOW)
        assert assignments.generations(session) == {"a": 71}
        assert assignments.due(session, now=NOW, limit=10) == ["a"]
        intake.on_reported(session, "a", Reported(**_head(seq=2), generation=2**60, slots={}), NOW)
        assert assignments.generations(session) == {"a": 71}, "nonsense is no reason to jump"


def test_a_document_is_signed_once_and_again_at_half_life(database: Database) -> None:
    _add(database, "a")
    signer = CryptoSigner.generate_ecdsa()
    with database.write() as session:
        assignments.assign(session, "a", "quality", ONE, now=NOW)
        assert assignments.stored_document(session, "a", now=NOW) is None
        first = assignments.document(session, "a", signer=signer, now=NOW)
        again = assignments.document(session, "a", signer=signer, now=NOW + 60)
        assignments.mark_published(session, {"a": (first.generation, first.issued_at)})
        assert assignments.due(session, now=NOW + 60, limit=10) == []
        assert assignments.due(session, now=NOW + LIFETIME_S / 2, limit=10) == ["a"]
        later = assignments.document(session, "a", signer=signer, now=NOW + LIFETIME_S / 2)
    assert first == again
    assert (later.generation, later.etag != first.etag) == (1, True)
    seen = [
        verify_assignment(one.envelope, [signer.public_key], device="a", now_ms=int(NOW * 1000) + 1)
        for one in (first, later)
    ]
    assert seen[0].slots == {"quality": ONE}
    assert seen[0].content_digest == seen[1].content_digest


def test_what_changes_between_signing_and_sending_stays_to_be_sent(database: Database) -> None:
    _add(database, "a")
    signer = CryptoSigner.generate_ecdsa()
    with database.write() as session:
        assignments.assign(session, "a", "quality", ONE, now=NOW)
        old = assignments.document(session, "a", signer=signer, now=NOW)
        assignments.assign(session, "a", "quality", TWO, now=NOW)
        assignments.mark_published(session, {"a": (old.generation, old.issued_at)})
        assert assignments.due(session, now=NOW, limit=10) == ["a"]


def test_a_hold_and_what_a_slot_waits_for_are_kept_until_the_device_says_otherwise(database: Database) -> None:
    _add(database, "a")
    waiting = Fault(code="held", message="updates are on hold: repair\0s", digest=ONE.digest)
    report = SlotReport(state="verified", target=ONE.digest, waiting=waiting)
    held = HoldReport(since=5, until=2**70, reason="repairs\0")
    with database.write() as session:
        intake.on_reported(session, "a", Reported(**_head(), generation=4, slots={"quality": report}, hold=held), NOW)
    with database.read() as session:
        device = store.device(session, "a")
    assert device.hold == HoldReport(since=5, until=LATEST_MS, reason="repairs")
    assert device.reported["quality"].waiting.message == "updates are on hold: repairs"
    shown = device_json(device, {})
    assert (shown["hold"]["since"], shown["hold"]["until"]) == ("1970-01-01T00:00:00.005Z", "9999-12-31T23:59:59.000Z")
    assert shown["slots"]["quality"]["waiting"]["code"] == "held"
    with database.write() as session:
        intake.on_reported(session, "a", Reported(**_head(seq=2), generation=4, slots={"quality": report}), NOW)
    with database.read() as session:
        assert store.device(session, "a").hold is None


def test_nonsense_in_a_report_is_not_believed(database: Database) -> None:
    _add(database, "a")
    nonsense = SlotReport(
        state="x" * 5000 + "\0",
        variant="\0int8",
        active="../../etc/passwd",
        proven="a\0b",
        target=ONE.digest,
        attempt=2**60,
        progress=float("inf"),
        error=Fault(code="c\0" + "c" * 5000, message="m" * 5000, digest="none"),
        waiting=Fault(code="\0held", message=""),
        shadow=ShadowReport(digest=TWO.digest, state="\0failed", error=Fault(code="\0", message="\0")),
        revoked="\0withdrawn",
    )
    with database.write() as session:
        slots = {"a\0b": nonsense, "x" * 65: nonsense, "quality": nonsense}
        reported = Reported(**_head(), generation=2**70, slots=slots)
        assert intake.on_reported(session, "a", reported, NOW)
    with database.read() as session:
        assert list(store.device(session, "a").reported) == ["quality"]
        report = store.device(session, "a").reported["quality"]
    assert (report.active, report.proven, report.target) == (None, None, ONE.digest)
    assert (report.attempt, report.progress, len(report.state)) == (intake.MAX_ATTEMPT, 0.0, 128)
    assert report.error is not None
    assert (report.error.digest, len(report.error.message)) == (None, 1000)
    assert report.error.code == "c" * 128
    assert report.waiting is not None
    assert (report.variant, report.waiting.code, report.revoked) == ("int8", "held", "withdrawn")
    assert report.shadow == ShadowReport(digest=TWO.digest, state="failed", error=Fault(code="", message=""))
    with database.write() as session:
        assert assignments.assign(session, "a", "quality", ONE, now=NOW) == 1
