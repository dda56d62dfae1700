"""Whether a device is two machines, by the runs of its agent; and what one machine may do without that suspicion."""

import itertools

import pytest

from shoal_protocol.mqtt.messages import Presence, Reported
from shoal_server.alerts.store import open_alert
from shoal_server.fleet import clones, intake, store
from shoal_server.storage.database import Database
from shoal_server.testing.program import FakeClock
from shoal_server.testing.simulated_devices import fleet_of
from shoal_server.testing.stored_fleet import StoredFleet

EPOCH = "0123456789abcdef"


class Fleet:
    """The device cam-0, and what is heard of it."""

    def __init__(self, database: Database) -> None:
        self.database, self.clock = database, FakeClock()
        StoredFleet(database, fleet_of(1, active=None), clock=self.clock)

    def heard(self, run: str, place: tuple[int, int], sent_at: int, *, epoch: str = EPOCH) -> None:
        """Hear presence (odd numbers) or reported (even ones) of a (boot, seq)."""
        boot, seq = place
        head = {"epoch": epoch, "boot": boot, "seq": seq, "sent_at": sent_at, "run": run}
        with self.database.write() as session:
            if seq % 2:
                intake.on_presence(session, "cam-0", Presence(**head, online=True), self.clock())
            else:
                intake.on_reported(session, "cam-0", Reported(**head, generation=1, slots={}), self.clock())

    def epoch(self) -> tuple[str, bool]:
        """The epoch that is believed, and whether the device counts as connected."""
        with self.database.read() as session:
            found = store.device(session, "cam-0")
            return found.epoch, found.online

    def will(self, run: str, place: tuple[int, int], sent_at: int, *, epoch: str = EPOCH) -> None:
        boot, seq = place
        message = Presence(epoch=epoch, boot=boot, seq=seq, sent_at=sent_at, run=run, online=False)
        with self.database.write() as session:
            intake.on_presence(session, "cam-0", message, self.clock())

    @property
    def is_suspected(self) -> bool:
        with self.database.read() as session:
            alert = open_alert(session, "clone:cam-0")
            assert (alert is not None) == (store.device(session, "cam-0").clone_suspected_at is not None)
            return alert is not None


@pytest.fixture
def fleet(database: Database) -> Fleet:
    return Fleet(database)


@pytest.mark.parametrize("boots", [(5, 5), (5, 6)])
def test_two_machines_that_take_turns_are_suspected_at_the_first_turn_back(
    fleet: Fleet, boots: tuple[int, int]
) -> None:
    fleet.heard("original", (boots[0], 1), 1000)
    fleet.heard("copy", (boots[1], 1), 1001)
    assert not fleet.is_suspected, "so far it may be a restart"
    fleet.heard("original", (boots[0], 3), 1002)
    assert fleet.is_suspected


def test_a_suspicion_ends_with_its_device(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        clones.suspect(session, "cam-0", why="its number 7 came twice", now=fleet.clock())
    assert fleet.is_suspected
    with fleet.database.write() as session:
        store.decommission(session, "cam-0", now=fleet.clock())
        clones.suspect(session, "cam-0", why="what it had sent comes late", now=fleet.clock())
    with fleet.database.read() as session:
        assert open_alert(session, "clone:cam-0") is None


def test_a_machine_that_starts_again_and_again_is_one(fleet: Fleet) -> None:
    for boot in range(1, 12):
        for seq in (1, 2, 3):
            fleet.heard(f"run-{boot}", (boot, seq), 1000 * boot + seq)
    assert not fleet.is_suspected


def test_a_machine_that_came_back_from_a_snapshot_is_one(fleet: Fleet) -> None:
    fleet.heard("before", (9, 1), 1000)
    fleet.heard("after", (7, 1), 2000)  # the same disk, as it was two starts ago
    fleet.heard("after", (7, 3), 2001)
    assert not fleet.is_suspected


def test_neither_late_copies_nor_wills_nor_a_clock_set_back_are_signs(fleet: Fleet) -> None:
    said = [("a", (1, 1), 1000), ("a", (1, 2), 1001), ("b", (2, 1), 2000)]
    for order in itertools.permutations(said):
        for message in order:
            fleet.heard(*message)
            fleet.heard(*said[0])
    fleet.will("a", (1, 3), 1000)
    fleet.heard("c", (3, 1), 10)  # its clock went back to the beginning
    fleet.heard("c", (3, 3), 11)
    assert not fleet.is_suspected


def test_an_image_made_before_the_first_start_has_no_epoch_and_is_found_too(fleet: Fleet) -> None:
    fleet.heard("a", (1, 1), 1000)
    fleet.heard("b", (1, 1), 2000, epoch="f" * 16)
    assert not fleet.is_suspected, "so far its state may have been recreated"
    fleet.heard("a", (1, 3), 3000)
    assert fleet.is_suspected


def test_the_machine_that_stays_is_believed_again_whichever_it_is(fleet: Fleet) -> None:
    fleet.heard("a", (1, 1), 1000)
    fleet.heard("b", (1, 1), 2000, epoch="f" * 16)
    fleet.heard("a", (1, 3), 3000)
    with fleet.database.write() as session:
        clones.settle(session, store.row_of(session, "cam-0"), now=fleet.clock())
        row = store.row_of(session, "cam-0")
        row.credential_at = fleet.clock()
        session.add(row)
    fleet.heard("a", (1, 5), 4000)
    assert fleet.epoch() == (EPOCH, True)
    fleet.will("b", (1, 2), 2000, epoch="f" * 16)  # of the session that the other one lost
    assert fleet.epoch() == (EPOCH, True)
    fleet.heard("b", (1, 3), 2001, epoch="f" * 16)  # it was under way
    fleet.heard("a", (1, 7), 4001)
    assert fleet.epoch() == (EPOCH, True)
    assert not fleet.is_suspected
    fleet.clock.advance(601)
    fleet.heard("b", (1, 5), 2002, epoch="f" * 16)
    assert fleet.epoch() == (EPOCH, True), "what is past stays past"
