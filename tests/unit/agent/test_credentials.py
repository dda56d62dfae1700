"""Which of two passwords a device uses, by what the server's answers say of them."""

from __future__ import annotations

import msgspec
import pytest

from shoal_agent.adapters.credentials import Credentials
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.identity import Held, Identity, IdentityFolder
from shoal_agent.testing import SimulatedServer
from shoal_protocol.trust.enrolment import CHALLENGE_PATH

NOW = Identity(
    device="cam-1",
    secret="now",
    url="http://server.example",
    root_digest="sha256:" + "0" * 64,
    credential=2,
    key_file="key-2.pem",
    previous=Held(secret="before", credential=1, key_file="key.pem"),
)


@pytest.fixture
def folder(tmp_path):
    folder = IdentityFolder(tmp_path / "identity")
    folder.save(NOW)
    return folder


@pytest.mark.parametrize("status", [302, 400, 403, 404, 500, 503])
def test_no_fault_speaks_for_a_password(folder, status):
    credentials = Credentials(folder, NOW)
    credentials.answered("now", 401)
    assert credentials.login() == ("cam-1", "before")
    credentials.answered("before", status)
    assert folder.load() == NOW
    assert credentials.refused


@pytest.mark.parametrize("status", [200, 204, 304])
def test_the_one_that_the_server_takes_is_used_and_the_other_kept(folder, status):
    credentials = Credentials(folder, NOW)
    credentials.answered("now", 401)
    credentials.answered("before", status)
    stored = folder.load()
    assert (stored.secret, stored.credential, stored.key_file) == ("before", 1, "key.pem")
    assert stored.previous == Held(secret="now", credential=2, key_file="key-2.pem")
    credentials.answered("before", 401)  # the 401 was a mistake: it heals by itself
    credentials.answered("now", status)
    assert folder.load() == NOW
    assert not credentials.refused


class AskedLogin:
    """Remembers for which requests it was asked, and what it was told."""

    def __init__(self) -> None:
        self.asked, self.told = 0, []

    def login(self) -> tuple[str, str]:
        self.asked += 1
        return "cam-1", "now"

    def answered(self, secret: str, status: int) -> None:
        self.told.append((secret, status))


@pytest.mark.parametrize("path", ["/trust/timestamp.json", f"{CHALLENGE_PATH}?subject=cam-1"])
def test_where_anybody_may_ask_no_password_is_shown_and_nothing_learnt(path):
    login = AskedLogin()
    with SimulatedServer() as server:
        http = HttpClient(server.url, login=login)
        assert http.exchange("GET", path)[0] == 200
        assert (login.asked, login.told) == (0, [])
        assert http.exchange("GET", "/api/v1/device/desired")[0]
        assert (login.asked, len(login.told)) == (1, 1)
        http.close()


def test_mail_is_signed_by_the_previous_key_until_the_new_one_is_confirmed():
    assert NOW.known_key_file == "key-2.pem"
    assert msgspec.structs.replace(NOW, confirmed=False).known_key_file == "key.pem"
