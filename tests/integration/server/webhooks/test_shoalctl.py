"""`shoalctl webhook` against the real routes and a real receiver."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from shoal_server.access import Role
from shoal_server.ctl.cli import run
from shoal_server.ctl.program import Program
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, program_of
from shoal_server.webhooks.courier import Courier
from shoal_server.webhooks.routes import router
from webhook_receiver import Receiver, status

from .conftest import say

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def database(on_sqlite: Database) -> Database:
    return on_sqlite


@pytest.fixture
def ctl(program: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """Runs one command as an admin, or as somebody else; returns exit code, output and what was told on stderr."""
    client = TestClient(program_of(program, [router]))
    tokens = {role: api_token(program, role) for role in (Role.ADMIN, Role.OPERATOR)}

    def invoke(*words: str, role: Role = Role.ADMIN) -> tuple[int, str, str]:
        given = {"XDG_CONFIG_HOME": str(tmp_path), "SHOAL_URL": "http://testserver", "SHOAL_TOKEN": tokens[role]}
        code = run(["webhook", *words], Program(given, transport=client._transport))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return invoke


def _json(ctl: Ctl, *words: str) -> Any:
    code, out, told = ctl(*words, "--json")
    assert code == 0, told
    return json.loads(out)


def test_a_webhook_is_made_tried_changed_and_deleted(ctl: Ctl, receiver: Receiver) -> None:
    code, secret, told = ctl("create", "ops", receiver.url, "--type", "rollout.*", "--min-severity", "warning")
    assert (code, secret[:6], len(secret.split())) == (0, "whsec_", 1)
    assert "shown only now" in told
    assert "shoalctl webhook test ops" in told
    assert _json(ctl, "test", "ops")["state"] == "delivered"
    assert _json(ctl, "list")["items"][0]["types"] == ["rollout.*"]
    changed = _json(ctl, "edit", "ops", "--type", "alert.*", "--min-severity", "any", "--disable")
    assert (changed["types"], changed["min_severity"], changed["enabled"]) == (["alert.*"], None, False)
    assert "disabled" in ctl("list")[1]
    assert _json(ctl, "edit", "ops", "--enable", "--to", f"{receiver.url}/2")["url"] == f"{receiver.url}/2"
    shown = ctl("show", "ops")[1]
    assert f"{receiver.url}/2" in shown
    assert "alert.*" in shown
    code, renewed, _ = ctl("rotate", "ops")
    assert (code, renewed.startswith("whsec_"), renewed == secret) == (0, True, False)
    assert _json(ctl, "delete", "ops") == {"deleted": "ops"}
    assert ctl("list")[1] == "No webhooks. Make one: shoalctl webhook create NAME URL\n"


def test_a_chat_needs_no_secret_so_none_is_printed(ctl: Ctl, receiver: Receiver) -> None:
    assert ctl("create", "chat", receiver.url, "--format", "slack")[:2] == (0, "")


def test_a_test_that_is_not_taken_fails_and_says_why(ctl: Ctl, receiver: Receiver) -> None:
    ctl("create", "ops", receiver.url)
    receiver.answer = status(401)
    code, out, _ = ctl("test", "ops", role=Role.OPERATOR)
    assert code == 1
    assert "answered 401 Unauthorized" in out
    assert "as told" in out


def test_deliveries_are_listed_and_sent_again(
    ctl: Ctl, program: Services, courier: Courier, receiver: Receiver
) -> None:
    ctl("create", "ops", receiver.url)
    say(program, "one", "two")
    courier.tick()
    (two, one) = _json(ctl, "deliveries", "ops", "--state", "delivered")["items"]
    text = ctl("deliveries", "ops")[1]
    for words in ("device.enrolled", "device:one", "delivered", "204", " ms"):
        assert words in text
    again = _json(ctl, "redeliver", "ops", str(one["id"]), str(two["id"]))["items"]
    assert [item["state"] for item in again] == ["pending", "pending"]
    assert "Nothing was to be sent yet." in ctl("deliveries", "ops", "--state", "failed")[1]


def test_mistakes_are_answered_with_advice(ctl: Ctl, receiver: Receiver) -> None:
    ctl("create", "ops", receiver.url)
    for words, code, says in (
        (("create", "ops", receiver.url), 1, "shoalctl webhook edit ops"),
        (("create", "x", "https://127.8.8.8/"), 1, "--webhook-allow 127.8.8.8"),
        (("create", "x", receiver.url, "--type", "alert.open"), 1, "did you mean alert.opened"),
        (("create", "x", receiver.url, "--format", "discord"), 2, "cloudevents"),
        (("create", "x"), 2, "Missing argument 'URL'"),
        (("edit", "ops"), 2, "say what to change"),
        (("test", "opps"), 1, "shoalctl webhook list"),
        (("redeliver", "ops", "7"), 1, "shoalctl webhook deliveries ops"),
    ):
        found = ctl(*words)
        assert found[0] == code, found
        assert says in found[2], found
    assert ctl("delete", "ops", role=Role.OPERATOR)[0] == 4


def test_the_types_are_listed_with_their_meaning(ctl: Ctl) -> None:
    text = ctl("types")[1]
    assert "rollout.rolled_back" in text
    assert "every touched device is back" in text
