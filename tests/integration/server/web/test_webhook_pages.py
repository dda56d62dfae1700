"""The pages of webhooks: what each role sees, the form with its mistakes, the buttons."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fixtures_dashboard import seed
from shoal_server.storage.database import Database
from shoal_server.webhooks.sender import Sender
from shoal_server.webhooks.targets import parse_allowed
from webhook_receiver import Receiver, receiving, status

from .conftest import browser_of, dashboard


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    folder: Path = tmp_path_factory.mktemp("dashboard")
    database = Database(f"sqlite:///{folder}/shoal.db")
    database.create_all()
    app = dashboard(database, folder)
    app.state.shoal.webhooks = Sender(allowed=parse_allowed(["127.0.0.1"]), clock=app.state.shoal.clock)
    seed(app.state.shoal, windows=False)
    yield app
    database.close()


@pytest.fixture
def admin(app: FastAPI) -> TestClient:
    return browser_of(app, "admin")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def test_each_role_sees_what_it_may(app: FastAPI, admin: TestClient) -> None:
    shown = {name: browser_of(app, name).get("/webhooks/ops").text for name in ("admin", "olga", "victor")}
    assert "https://ops.example.com/in/s3cret" in shown["admin"]
    assert all("s3cret" not in shown[name] for name in ("olga", "victor"))
    assert all("cam-new-01 joined" in shown[name] for name in ("admin", "olga"))
    assert "cam-new-01 joined" not in shown["victor"]
    assert "Send a test event" not in shown["victor"]
    assert "Delete…" not in shown["olga"]
    assert "New webhook" in admin.get("/webhooks").text
    assert "New webhook" not in browser_of(app, "olga").get("/webhooks").text
    assert "s3cret" not in admin.get("/webhooks").text


def test_the_log_says_status_latency_and_what_the_receiver_said(admin: TestClient) -> None:
    text = admin.get("/webhooks/ops").text
    for words in (
        "34 ms",
        "120 ms",
        "answered 500",
        "&lt;script&gt;alert(1)&lt;/script&gt;</pre>",
        "failing",
        "Next try",
    ):
        assert words in text


def test_a_webhook_is_made_by_the_form_and_its_secret_shown_once(admin: TestClient, receiver: Receiver) -> None:
    given = {"name": " new ", "url": receiver.url, "types": "rollout.*, alert.opened", "format": "slack"}
    made = admin.post("/webhooks", data=given)
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/=]+", made.text))
    page = admin.get("/webhooks/new").text
    assert secret not in page
    assert "rollout.*" in page
    assert "slack" in page
    renewed = admin.post("/webhooks/new/rotate").text
    assert "whsec_" in renewed
    assert secret not in renewed
    assert admin.post("/webhooks/new/delete").headers["location"] == "/webhooks"
    assert admin.get("/webhooks/new").status_code == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "https://10.1.2.3/x"}, "10.1.2.3 is a private address"),
        ({"types": "rollout.finished"}, "did you mean"),
        ({"name": "ops"}, "already a webhook ops"),
        ({"name": "Ops Team"}, "is no name for a webhook"),
    ],
)
def test_a_form_with_a_mistake_comes_back_as_it_was_filled_in(
    admin: TestClient, receiver: Receiver, change: dict[str, str], says: str
) -> None:
    given = {"name": "other", "url": receiver.url, "types": "alert.*", "min_severity": "critical", **change}
    answer = admin.post("/webhooks", data=given)
    assert answer.status_code in (400, 409)
    assert says in answer.text
    for value in (given["url"], given["types"], given["name"]):
        assert f'value="{value}"' in answer.text
    assert '<option value="critical" selected>' in answer.text


def test_the_buttons_do_what_they_say(admin: TestClient, receiver: Receiver) -> None:
    admin.post("/webhooks", data={"name": "buttons", "url": receiver.url})
    receiver.answer = status(200, 503)
    for _ in range(2):
        assert admin.post("/webhooks/buttons/test").headers["location"] == "/webhooks/buttons"
    text = admin.get("/webhooks/buttons").text
    assert text.index("answered 503") < text.index("as told")
    admin.post("/webhooks/buttons/disable")
    assert ">Enable</button>" in admin.get("/webhooks/buttons").text
    admin.post("/webhooks/buttons/enable")
    assert "Disable…" in admin.get("/webhooks/buttons").text
    assert admin.post("/webhooks/buttons/nonsense").status_code == 404


def test_an_event_can_be_sent_again_from_the_log(app: FastAPI) -> None:
    operator = browser_of(app, "olga")
    (path,) = re.findall(r'action="(/webhooks/ops/deliveries/\d+/redeliver)"', operator.get("/webhooks/ops").text)
    assert operator.post(path).headers["location"] == "/webhooks/ops"
    assert "sent again" in operator.get("/webhooks/ops").text
