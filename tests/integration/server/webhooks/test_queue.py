"""The outbox and the queue on both kinds of database: nothing is lost, nothing is told that did not happen."""

import threading

import pytest
from sqlmodel import Session, select

from shoal_server.outbox import EventType, announce
from shoal_server.outbox.tables import DeliveryRow, EventRow, WebhookRow
from shoal_server.services import Services
from shoal_server.webhooks import queue, store
from shoal_server.webhooks.courier import Courier
from shoal_server.webhooks.queue import Outcome, Parcel, Settled
from shoal_server.webhooks.schedule import DISABLE_S, GIVE_UP_S, HELD_ATTEMPTS, LONGEST_PAUSE_S
from shoal_server.webhooks.sender import Answer
from webhook_receiver import Receiver

from .conftest import Hook, courier_of, event_of, say

NOWHERE = "https://hooks.example.com/x"
TAKEN, REFUSED, AWAY = Answer(status=204), Answer(status=500, error="answered 500"), Answer(error="no answer: x")


def claim(program: Services, hook: WebhookRow, token: str = "a") -> Parcel | None:
    with program.database.write() as session:
        return queue.claim(session, hook.id or 0, token=token, now=program.clock())


def settle(program: Services, parcel: Parcel | None, answer: Answer) -> Settled:
    assert parcel is not None
    with program.database.write() as session:
        return queue.settle(session, parcel, answer, now=program.clock(), uniform=max)


def rows(program: Services) -> list[DeliveryRow]:
    with program.database.read() as session:
        return list(session.exec(select(DeliveryRow).order_by(DeliveryRow.id)))  # type: ignore[arg-type]


def subject(parcel: Parcel | None) -> str:
    return "" if parcel is None else parcel.event.subject.removeprefix("device:")


def test_what_is_rolled_back_is_never_told(program: Services, hook: Hook) -> None:
    hook(NOWHERE)

    def announce_and_fail() -> None:
        with program.database.write() as session:
            assert announce(session, event_of("cam", at=1.0)) == 1
            raise RuntimeError("the change failed after all")

    with pytest.raises(RuntimeError, match="after all"):
        announce_and_fail()
    assert rows(program) == []


def test_an_event_is_kept_for_those_who_want_it_and_for_nobody_else(program: Services, hook: Hook) -> None:
    wants = [hook(NOWHERE, "all"), hook(NOWHERE, "joins", ("device.enrolled",))]
    hook(NOWHERE, "rollouts", ("rollout.*",))
    hook(NOWHERE, "off", enabled=False)
    say(program, "cam")
    assert sorted(row.webhook for row in rows(program)) == sorted(row.id or 0 for row in wants)
    assert len({row.event for row in rows(program)}) == 1
    say(program, "cam", type_=EventType.DEVICE_REVOKED)
    assert len(rows(program)) == 3


def test_nobody_who_wants_it_means_no_row(program: Services, hook: Hook) -> None:
    hook(NOWHERE, types=("rollout.*",))
    say(program, "cam")
    with program.database.read() as session:
        assert session.exec(select(EventRow)).all() == []


def test_one_worker_at_a_time_sends_to_a_webhook(program: Services, hook: Hook) -> None:
    row = hook(NOWHERE)
    say(program, "one", "two")
    first = claim(program, row, "a")
    assert claim(program, row, "b") is None
    program.clock.advance(queue.LEASE_S + 1)  # a was killed
    second = claim(program, row, "b")
    assert (subject(first), subject(second)) == ("one", "one")
    assert first is not None
    assert second is not None
    assert first.event.id == second.event.id
    assert settle(program, first, TAKEN).outcome is Outcome.LOST
    assert settle(program, second, TAKEN).outcome is Outcome.DELIVERED
    assert subject(claim(program, row, "b")) == "two"


def test_a_failure_holds_the_next_event_back_until_it_is_set_aside(program: Services, hook: Hook) -> None:
    row = hook(NOWHERE)
    say(program, "poison", "two")
    for attempt in range(HELD_ATTEMPTS):
        assert subject(claim(program, row)) == "poison", attempt
        settle(program, _last(program, row), REFUSED)
        assert claim(program, row) is None  # not before its pause is over
        program.clock.advance(5.0 * 2**attempt)
    parcel = claim(program, row)
    assert subject(parcel) == "two"
    settle(program, parcel, TAKEN)
    program.clock.advance(LONGEST_PAUSE_S)
    assert subject(claim(program, row)) == "poison"


def _last(program: Services, row: WebhookRow) -> Parcel:
    """Rebuild the parcel that is claimed now."""
    with program.database.read() as session:
        hook = session.get_one(WebhookRow, row.id)
        delivery = session.exec(select(DeliveryRow).where(DeliveryRow.state == "pending")).first()
        assert delivery is not None
        event = session.get_one(EventRow, delivery.event)
    return Parcel(
        delivery=delivery.id or 0,
        webhook=hook.id or 0,
        name=hook.name,
        url=hook.url,
        format=hook.format,
        secrets=(hook.secret,),
        event=event,
        claim=hook.claim,
    )


def test_while_nothing_gets_through_attempts_come_at_the_webhooks_pace(program: Services, hook: Hook) -> None:
    row = hook(NOWHERE)
    say(program, *(f"cam-{number}" for number in range(50)))
    attempts, ends = 0, program.clock() + 6 * 3600
    while program.clock() < ends:
        attempts += 1
        settle(program, _until(program, row), AWAY)
        assert claim(program, row) is None
    assert 10 < attempts < 30
    settle(program, _until(program, row), TAKEN)
    left = 0
    while (parcel := claim(program, row)) is not None:
        left += settle(program, parcel, TAKEN).outcome is Outcome.DELIVERED
    assert left > 40  # the rest at once, when the receiver is back


def _until(program: Services, row: WebhookRow) -> Parcel:
    """Wait out the pause, then claim."""
    with program.database.read() as session:
        program.clock.now = max(program.clock.now, session.get_one(WebhookRow, row.id).retry_at)
    parcel = claim(program, row)
    assert parcel is not None
    return parcel


def test_a_delivery_is_given_up_after_a_day(program: Services, hook: Hook) -> None:
    row = hook(NOWHERE)
    say(program, "one", "two")
    parcel = claim(program, row)
    program.clock.advance(GIVE_UP_S)
    settled = settle(program, parcel, AWAY)
    assert settled.outcome is Outcome.GIVEN_UP
    with program.database.write() as session:
        queue.prune(session, now=program.clock() + 1)
    one, two = rows(program)
    assert (one.state, one.error, one.attempts) == ("failed", "no answer: x", 1)
    assert (two.state, two.attempts) == ("failed", 0)
    assert "within a day" in two.error


def test_gone_or_days_of_failure_disable_a_webhook_and_free_what_waited(program: Services, hook: Hook) -> None:
    gone, tired = hook(NOWHERE, "gone"), hook(NOWHERE, "tired")
    say(program, "one", "two")
    assert "410" in settle(program, claim(program, gone), Answer(status=410, error="answered 410 Gone")).disabled
    reason = ""
    while not reason and program.clock() < 1_800_000_000 + 2 * DISABLE_S:
        say(program, "more")
        program.clock.advance(6 * 3600)
        reason = settle(program, _until(program, tired), REFUSED).disabled
        with program.database.write() as session:
            queue.prune(session, now=program.clock())
    assert "nothing was delivered for" in reason
    assert program.clock() - 1_800_000_000 >= DISABLE_S
    assert {row.state for row in rows(program)} == {"failed"}
    with program.database.read() as session:
        assert [hook.enabled for hook in store.webhooks(session)] == [False, False]
        assert queue.due(session, now=program.clock()) == []


def test_a_clock_that_was_set_back_silences_nobody(program: Services, hook: Hook) -> None:
    row = hook(NOWHERE)
    say(program, "one")
    settle(program, claim(program, row), AWAY)
    claim(program, row)
    program.clock.now -= 10 * 86_400
    with program.database.read() as session:
        assert queue.due(session, now=program.clock()) == [row.id]
    assert subject(claim(program, row)) == "one"


def test_what_a_deleted_webhook_leaves_is_forgotten(program: Services, hook: Hook) -> None:
    row = hook(NOWHERE)
    say(program, "one")
    parcel = claim(program, row)
    with program.database.write() as session:
        store.remove(session, store.get(session, "ops"))
        session.add(DeliveryRow(webhook=row.id or 0, event=parcel.event.id if parcel else "", created_at=0.0))
    assert settle(program, parcel, TAKEN).outcome is Outcome.LOST
    with program.database.write() as session:
        queue.prune(session, now=program.clock())
        assert (session.exec(select(DeliveryRow)).all(), session.exec(select(EventRow)).all()) == ([], [])


def test_the_log_and_the_queue_of_a_webhook_are_bounded(program: Services, hook: Hook, monkeypatch) -> None:
    monkeypatch.setattr(queue, "MAX_KEPT", 3)
    monkeypatch.setattr(queue, "MAX_WAITING", 5)
    row = hook(NOWHERE)
    say(program, *(f"cam-{number}" for number in range(9)))
    prune(program)
    assert [one.state for one in rows(program)] == ["failed"] * 3 + ["pending"] * 5
    settle(program, claim(program, row), TAKEN)
    prune(program)
    assert [one.state for one in rows(program)] == ["failed"] * 2 + ["delivered"] + ["pending"] * 4
    program.clock.advance(queue.KEPT_S + 1)
    prune(program)
    prune(program)
    with program.database.read() as session:
        assert session.exec(select(EventRow)).all() == []


def prune(program: Services) -> None:
    with program.database.write() as session:
        queue.prune(session, now=program.clock())


def test_the_number_of_waiting_deliveries_is_known(program: Services, hook: Hook) -> None:
    hook(NOWHERE)
    say(program, "one", "two")
    with program.database.read() as session:
        assert queue.waiting(session) == 2
        assert isinstance(session, Session)


def test_two_workers_on_one_database_send_nothing_twice(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    hook(receiver.url)
    say(program, *(f"cam-{number}" for number in range(10)))
    turns = [threading.Thread(target=one.tick) for one in (courier, courier_of(program))]
    for turn in turns:
        turn.start()
    for turn in turns:
        turn.join()
    courier.tick()  # one may have left while the other held the claim
    assert receiver.subjects == [f"device:cam-{number}" for number in range(10)]
