"""Events on their way to real receivers, through everything that can go wrong on it."""

import threading
from contextlib import ExitStack

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from fixtures_broker import eventually, find_free_port
from shoal_server.access import audit
from shoal_server.alerts import store as alerts
from shoal_server.alerts.rules import AlertState
from shoal_server.loops import Loop
from shoal_server.outbox.tables import DeliveryRow, WebhookRow
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.webhooks import queue
from shoal_server.webhooks.courier import Courier
from shoal_server.webhooks.sender import Sender
from shoal_server.webhooks.signature import sign
from shoal_server.webhooks.targets import parse_allowed
from webhook_receiver import Receiver, receiving, status

from .conftest import Hook, courier_of, say


@pytest.fixture
def database(on_sqlite: Database) -> Database:
    return on_sqlite


def states(program: Services) -> list[tuple[str, int, int | None]]:
    with program.database.read() as session:
        found = session.exec(select(DeliveryRow).order_by(DeliveryRow.id))  # type: ignore[arg-type]
        return [(row.state, row.attempts, row.status) for row in found]


def test_events_arrive_in_order_signed_and_logged(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    row = hook(receiver.url)
    say(program, "one", "two", "three")
    courier.tick()
    assert receiver.subjects == ["device:one", "device:two", "device:three"]
    first = receiver.got[0]
    assert first.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert first.event["id"] == first.id
    timestamp = int(first.headers["webhook-timestamp"])
    assert timestamp == int(program.clock())
    assert first.headers["webhook-signature"] == sign(
        row.secret, message_id=first.id, timestamp_s=timestamp, body=first.body
    )
    assert states(program) == [("delivered", 1, 204)] * 3
    courier.tick()
    assert len(receiver.got) == 3


def test_after_server_errors_the_same_event_comes_again_under_its_id(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    hook(receiver.url)
    receiver.answer = status(500, 503, 200)
    say(program, "one", "two")
    for _ in range(3):
        courier.tick()
        program.clock.advance(60)
    assert receiver.subjects == ["device:one"] * 3 + ["device:two"]
    assert len({one.id for one in receiver.got[:3]}) == 1
    assert len({one.body for one in receiver.got[:3]}) == 1
    assert states(program) == [("delivered", 3, 200), ("delivered", 1, 200)]
    with program.database.read() as session:
        logged = session.exec(select(DeliveryRow)).first()
    assert (logged.response_head, logged.error) == ("as told", "")


def test_retry_after_is_kept_to(program: Services, courier: Courier, hook: Hook, receiver: Receiver) -> None:
    hook(receiver.url)
    receiver.answer = lambda number, _one: (429, {"retry-after": "600"}, b"") if number == 0 else (200, {}, b"")
    say(program, "one")
    courier.tick()
    program.clock.advance(590)
    courier.tick()
    assert len(receiver.got) == 1
    program.clock.advance(11)
    courier.tick()
    assert states(program) == [("delivered", 2, 200)]


def test_a_receiver_that_is_away_gets_everything_when_it_is_back(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    row = hook(f"http://127.0.0.1:{find_free_port()}/")
    say(program, "one", "two")
    courier.tick()
    assert states(program) == [("pending", 1, None), ("pending", 0, None)]
    with program.database.write() as session:
        session.get_one(WebhookRow, row.id).url = receiver.url
    program.clock.advance(60)
    courier.tick()
    assert receiver.subjects == ["device:one", "device:two"]


def test_a_receiver_that_hangs_keeps_nobody_else_waiting(program: Services, courier: Courier, hook: Hook) -> None:
    with ExitStack() as stack:
        slow, quick = (stack.enter_context(receiving()) for _ in range(2))
        slow.hold.clear()
        hook(slow.url, "slow")
        say(program, "one")
        turn = threading.Thread(target=courier.tick)
        turn.start()
        assert slow.arrived.wait(20)
        hook(quick.url, "quick")
        say(program, "two")
        eventually(lambda: quick.subjects == ["device:two"], within_s=20)
        assert slow.subjects == ["device:one"]  # in its order: the second waits behind the first
        slow.hold.set()
        turn.join()
        assert slow.subjects == ["device:one", "device:two"]


def test_a_receiver_that_answers_too_slowly_is_given_up_in_time(
    program: Services, hook: Hook, receiver: Receiver
) -> None:
    sender = Sender(allowed=parse_allowed(["127.0.0.1"]), clock=program.clock, deadline_s=0.2)
    receiver.hold.clear()
    hook(receiver.url)
    say(program, "one")
    courier_of(program, sender=sender).tick()
    with program.database.read() as session:
        (row,) = session.exec(select(DeliveryRow))
    assert (row.state, row.error) == ("pending", "no complete answer within 0.2 s")
    assert row.latency_ms >= 200


def test_the_end_of_the_program_breaks_sending_off_and_loses_nothing(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    receiver.hold.clear()
    hook(receiver.url)
    say(program, "one")
    loop = Loop("webhooks", courier.tick, every_s=60.0, clock=program.clock, signals=program.signals)
    loop.start()
    assert receiver.arrived.wait(20)
    program.signals.close()
    loop.stop()
    assert states(program) == [("pending", 0, None)]
    receiver.hold.set()
    from shoal_server.signals import Signals

    courier_of(program, signals=Signals()).tick()  # the next start sends it at once
    assert len({one.id for one in receiver.got}) == 1
    assert states(program) == [("delivered", 1, 204)]


def test_what_a_killed_worker_sent_and_did_not_say_is_sent_again(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    row = hook(receiver.url)
    say(program, "one")
    with program.database.write() as session:
        assert queue.claim(session, row.id or 0, token="dead", now=program.clock()) is not None
    courier.tick()
    assert receiver.got == []  # it may still be at it
    program.clock.advance(queue.LEASE_S + 1)
    courier.tick()
    assert states(program) == [("delivered", 2, 204)]


def test_a_database_that_is_away_for_a_moment_costs_a_second_sending_at_most(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver, monkeypatch
) -> None:
    hook(receiver.url)
    say(program, "one")
    true_settle, calls = queue.settle, []

    def away_once(*words, **more):
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("UPDATE", {}, Exception("the connection is gone"))
        return true_settle(*words, **more)

    monkeypatch.setattr(queue, "settle", away_once)
    with pytest.raises(OperationalError):
        courier.tick()
    program.clock.advance(queue.LEASE_S + 1)
    courier.tick()
    assert [one.id for one in receiver.got] == [receiver.got[0].id] * 2
    assert states(program) == [("delivered", 2, 204)]


def test_a_delivery_that_can_not_be_made_holds_up_no_other_webhook(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    broken = hook(receiver.url, "broken")
    hook(receiver.url, "whole")
    with program.database.write() as session:
        session.get_one(WebhookRow, broken.id).format = "of a later version"
    say(program, "one")
    courier.tick()
    assert receiver.subjects == ["device:one"]
    with program.database.read() as session:
        first = session.exec(select(DeliveryRow).order_by(DeliveryRow.id)).first()  # type: ignore[arg-type]
    assert (first.state, first.attempts) == ("pending", 1)
    assert "of a later version" in first.error


def test_a_delivery_whose_event_was_forgotten_is_given_up(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    row = hook(receiver.url)
    with program.database.write() as session:
        session.add(DeliveryRow(webhook=row.id or 0, event="evt_gone", created_at=program.clock()))
    say(program, "one")
    courier.tick()
    courier.tick()
    assert receiver.subjects == ["device:one"]
    assert [state for state, _, _ in states(program)] == ["failed", "delivered"]


def test_a_name_that_nobody_looks_up_keeps_no_other_webhook_waiting(
    program: Services, hook: Hook, receiver: Receiver
) -> None:
    answered, asked = threading.Event(), threading.Event()

    def slow(host: str, _port: int) -> list[str]:
        if host == "slow.lan":
            asked.set()
            answered.wait(30)
        return ["127.0.0.1"]

    sender = Sender(allowed=parse_allowed(["127.0.0.1"]), clock=program.clock, lookup=slow, deadline_s=0.3)
    port = receiver.url.split(":")[2]
    hook(f"http://slow.lan:{port}", "slow")
    say(program, "one")
    try:
        courier_of(program, sender=sender).tick()  # ends, though the lookup hasn't
        assert asked.is_set()
        assert states(program) == [("pending", 1, None)]
    finally:
        answered.set()


def test_a_disabled_webhook_is_told_of_in_audit_and_alerts(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver
) -> None:
    with receiving() as other:
        hook(other.url, "other", ("alert.*",))
        hook(receiver.url)
        receiver.answer = status(410)
        say(program, "one")
        courier.tick()
        courier.tick()
        assert other.types == ["alert.opened"]  # somebody else hears of it
        assert other.got[0].event["data"]["about"] == "webhook:ops"
    with program.database.read() as session:
        (alert,) = alerts.alerts(session, states=[AlertState.OPEN])
        (row,) = audit.rows(session, subject="webhook:ops")
    assert (alert.kind, alert.title) == ("webhook", "The webhook ops was disabled")
    assert "410" in alert.body
    assert (row.actor, row.action) == ("server", "webhook.disable")


def test_attempts_are_counted_by_what_came_of_them(program: Services, hook: Hook, receiver: Receiver) -> None:
    from shoal_server.webhooks.courier import DeliveryMetrics

    hook(receiver.url)
    receiver.answer = status(500, 200)
    say(program, "one")
    courier = courier_of(program, metrics=DeliveryMetrics(program.metrics))
    courier.tick()
    program.clock.advance(60)
    courier.tick()

    def counted(outcome: str) -> float | None:
        labels = {"webhook": "ops", "outcome": outcome}
        return program.metrics.get_sample_value("shoal_webhook_attempts_total", labels)

    assert (counted("retry"), counted("delivered"), counted("lost")) == (1, 1, None)
    assert program.metrics.get_sample_value("shoal_webhook_attempt_seconds_count") == 2
