"""What the how-to tells receivers to do works on what is sent to them."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.webhooks.courier import Courier
from webhook_receiver import Receiver

from .conftest import Hook, say

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "webhooks.md"


@pytest.fixture
def database(on_sqlite: Database) -> Database:
    return on_sqlite


@pytest.fixture
def is_from_shoal() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    return names["is_from_shoal"]


def test_the_example_tells_true_requests_from_others(
    program: Services, courier: Courier, hook: Hook, receiver: Receiver, is_from_shoal: Any
) -> None:
    row = hook(receiver.url)
    program.clock.now = time.time()
    say(program, "cam")
    courier.tick()
    (got,) = receiver.got
    assert is_from_shoal(row.secret, got.headers, got.body)
    assert not is_from_shoal(row.secret, got.headers, got.body + b" ")
    assert not is_from_shoal("whsec_" + "A" * 44, got.headers, got.body)
    assert not is_from_shoal(row.secret, {**got.headers, "webhook-id": "evt_other"}, got.body)
    assert not is_from_shoal(row.secret, {**got.headers, "webhook-timestamp": "1700000000"}, got.body)


def test_the_example_event_has_the_fields_of_the_reference() -> None:
    import json

    from shoal_server.outbox.event_types import RolloutData

    (text,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = json.loads(text)
    fields = {"title", "text", "url", *RolloutData.__struct_fields__}
    assert set(shown["data"]) == fields
    assert shown["type"] == "dev.shoal.rollout.rolled_back.v1"
