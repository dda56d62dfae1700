"""People, tokens, sessions and the audit over HTTP."""

import base64
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from shoal_server.access import Role, people, store
from shoal_server.access.routes import router
from shoal_server.access.secrets import Passwords
from shoal_server.access.tables import LoginFailures
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, fake_services, program_of


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    from argon2 import PasswordHasher

    return Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def client(database: Database, tmp_path: Path, passwords: Passwords) -> TestClient:
    app = program_of(fake_services(database, tmp_path), [router])
    app.state.passwords = passwords
    return TestClient(app)


@pytest.fixture
def admin_password(client: TestClient, passwords: Passwords) -> str:
    shoal = client.app.state.shoal
    password = people.ensure_admin(shoal.database, passwords, now=shoal.clock())
    assert password is not None
    return password


def _log_in(client: TestClient, password: str, name: str = "admin"):
    return client.post("/api/v1/login", json={"name": name, "password": password})


def _bearer(client: TestClient, role: Role) -> dict[str, str]:
    return {"authorization": f"Bearer {api_token(client.app.state.shoal, role)}"}


def test_the_first_admin_is_made_once(client: TestClient, admin_password: str, passwords: Passwords) -> None:
    shoal = client.app.state.shoal
    assert len(admin_password) == 27
    assert people.ensure_admin(shoal.database, passwords, now=0) is None


def test_log_in_opens_a_session_and_log_out_ends_it(client: TestClient, admin_password: str) -> None:
    assert client.get("/api/v1/whoami").status_code == 401
    answer = _log_in(client, admin_password)
    assert answer.status_code == 204
    assert {"httponly", "samesite=lax"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert client.get("/api/v1/whoami").json() == {"name": "admin", "kind": "person", "role": "admin"}
    cookie = client.cookies["shoal_session"]
    assert client.post("/api/v1/logout", headers={"origin": "http://testserver"}).status_code == 204
    client.cookies.set("shoal_session", cookie)
    assert client.get("/api/v1/whoami").status_code == 401


def test_a_session_ends_by_itself(client: TestClient, admin_password: str) -> None:
    _log_in(client, admin_password)
    client.app.state.shoal.clock.advance(people.SESSION_LIFETIME_S + 1)
    assert client.get("/api/v1/whoami").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"origin": "http://testserver"}, 201),
    ],
)
def test_a_cookie_works_only_from_our_own_pages(
    client: TestClient, admin_password: str, headers: dict[str, str], status: int
) -> None:
    _log_in(client, admin_password)
    answer = client.post("/api/v1/tokens", json={"name": "ci", "role": "releaser"}, headers=headers)
    assert answer.status_code == status


def test_another_site_cannot_log_a_browser_in(client: TestClient, admin_password: str) -> None:
    body = {"name": "admin", "password": admin_password}
    answer = client.post("/api/v1/login", json=body, headers={"origin": "http://evil.example"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_failed_log_ins_are_throttled_by_name(client: TestClient, admin_password: str) -> None:
    for _ in range(5):
        assert _log_in(client, "wrong").status_code == 401
    answer = _log_in(client, admin_password)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    client.app.state.shoal.clock.advance(2)
    assert _log_in(client, admin_password).status_code == 204


def test_old_failures_leave_nothing_behind(client: TestClient, admin_password: str) -> None:
    shoal = client.app.state.shoal
    for number in range(3):
        _log_in(client, "wrong", name=f"nobody-{number}")
    shoal.clock.advance(3601)
    _log_in(client, "wrong")
    with shoal.database.read() as session:
        kept = sorted(row.subject for row in session.exec(select(LoginFailures)))
    assert kept == ["address:testclient", "name:admin"]


def test_unknown_names_answer_as_wrong_passwords_do(client: TestClient, admin_password: str) -> None:
    known, unknown = _log_in(client, "wrong"), _log_in(client, "wrong", name="nobody")
    assert {**known.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}


def test_a_token_works_as_bearer_and_basic_until_it_is_deleted(client: TestClient) -> None:
    admin = _bearer(client, Role.ADMIN)
    made = client.post("/api/v1/tokens", json={"name": "ci", "role": "releaser"}, headers=admin).json()
    basic = base64.b64encode(f"ci:{made['token']}".encode()).decode()
    wrong_name = base64.b64encode(f"cx:{made['token']}".encode()).decode()
    ways = [f"Bearer {made['token']}", f"Basic {basic}"]
    for header in ways:
        assert client.get("/api/v1/whoami", headers={"authorization": header}).json()["role"] == "releaser"
    assert client.get("/api/v1/whoami", headers={"authorization": f"Basic {wrong_name}"}).status_code == 401
    listed = client.get("/api/v1/tokens", headers=admin).text
    assert '"ci"' in listed
    assert made["token"] not in listed
    assert client.delete("/api/v1/tokens/ci", headers=admin).status_code == 204
    for header in ways:
        assert client.get("/api/v1/whoami", headers={"authorization": header}).status_code == 401


def test_a_token_expires(client: TestClient) -> None:
    body = {"name": "ci", "role": "viewer", "expires_in_s": 60}
    token = client.post("/api/v1/tokens", json=body, headers=_bearer(client, Role.ADMIN)).json()["token"]
    header = {"authorization": f"Bearer {token}"}
    assert client.get("/api/v1/whoami", headers=header).status_code == 200
    client.app.state.shoal.clock.advance(61)
    assert client.get("/api/v1/whoami", headers=header).status_code == 401


def test_a_persons_tokens_end_with_the_person(client: TestClient, admin_password: str) -> None:
    admin = _bearer(client, Role.ADMIN)
    body = {"name": "eve", "role": "admin", "password": "long enough 1"}
    assert client.post("/api/v1/people", json=body, headers=admin).status_code == 201
    _log_in(client, "long enough 1", name="eve")
    made = client.post(
        "/api/v1/tokens", json={"name": "hers", "role": "admin"}, headers={"origin": "http://testserver"}
    )
    hers = {"authorization": f"Bearer {made.json()['token']}"}
    assert client.get("/api/v1/whoami", headers=hers).status_code == 200
    assert client.delete("/api/v1/people/eve", headers=admin).status_code == 204
    assert client.get("/api/v1/whoami", headers=hers).status_code == 401
    assert client.get("/api/v1/whoami").status_code == 401


def _eve_with_two_tokens(client: TestClient, admin: dict[str, str]) -> list[dict[str, str]]:
    """Let eve make a token, and another with that one."""
    body = {"name": "eve", "role": "admin", "password": "long enough 1"}
    assert client.post("/api/v1/people", json=body, headers=admin).status_code == 201
    _log_in(client, "long enough 1", name="eve")
    headers, made = {"origin": "http://testserver"}, []
    for name in ("first", "second"):
        answer = client.post("/api/v1/tokens", json={"name": name, "role": "admin"}, headers=headers)
        headers = {"authorization": f"Bearer {answer.json()['token']}"}
        made.append(headers)
    client.cookies.clear()
    return made


def test_tokens_made_with_a_persons_token_end_with_the_person(client: TestClient, admin_password: str) -> None:
    admin = _bearer(client, Role.ADMIN)
    tokens = _eve_with_two_tokens(client, admin)
    assert [client.get("/api/v1/whoami", headers=token).status_code for token in tokens] == [200, 200]
    assert client.delete("/api/v1/people/eve", headers=admin).status_code == 204
    assert [client.get("/api/v1/whoami", headers=token).status_code for token in tokens] == [401, 401]


def test_a_removed_persons_tokens_do_not_come_back_with_the_name(client: TestClient, admin_password: str) -> None:
    admin = _bearer(client, Role.ADMIN)
    tokens = _eve_with_two_tokens(client, admin)
    client.delete("/api/v1/people/eve", headers=admin)
    another = {"name": "eve", "role": "admin", "password": "another eve 1"}
    assert client.post("/api/v1/people", json=another, headers=admin).status_code == 201
    assert [client.get("/api/v1/whoami", headers=token).status_code for token in tokens] == [401, 401]


def test_a_password_changed_during_a_log_in_opens_no_session(
    client: TestClient, admin_password: str, passwords: Passwords
) -> None:
    shoal = client.app.state.shoal

    class Slow(Passwords):
        def verify(self, stored: str | None, password: str) -> bool:
            right = passwords.verify(stored, password)
            people.reset_password(shoal.database, passwords, name="admin", now=shoal.clock())
            return right

    client.app.state.passwords = Slow()
    assert _log_in(client, admin_password).status_code == 401
    assert client.get("/api/v1/whoami").status_code == 401


def test_a_persons_tokens_reach_no_further_than_the_person_does_now(client: TestClient, admin_password: str) -> None:
    _log_in(client, admin_password)
    ours = {"origin": "http://testserver"}
    made = client.post("/api/v1/tokens", json={"name": "mine", "role": "admin"}, headers=ours).json()
    mine = {"authorization": f"Bearer {made['token']}"}
    assert client.get("/api/v1/people", headers=mine).status_code == 200
    with client.app.state.shoal.database.write() as session:
        store.person(session, "admin").role = Role.VIEWER.value
    assert client.get("/api/v1/people", headers=mine).status_code == 403
    assert client.get("/api/v1/whoami", headers=mine).json()["role"] == "viewer"


def test_the_last_admin_stays(client: TestClient, admin_password: str) -> None:
    answer = client.delete("/api/v1/people/admin", headers=_bearer(client, Role.ADMIN))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_new_password_ends_sessions(client: TestClient, admin_password: str, passwords: Passwords) -> None:
    _log_in(client, admin_password)
    shoal = client.app.state.shoal
    new = people.reset_password(shoal.database, passwords, name="admin", now=shoal.clock())
    assert client.get("/api/v1/whoami").status_code == 401
    assert _log_in(client, admin_password).status_code == 401
    assert _log_in(client, new).status_code == 204


def test_every_change_has_its_audit_row(client: TestClient) -> None:
    admin = _bearer(client, Role.ADMIN)
    made = client.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"}, headers=admin)
    client.delete("/api/v1/tokens/ci", headers=admin)
    rows = client.get("/api/v1/audit", headers=admin).json()["items"]
    assert [(row["actor"], row["action"], row["subject"]) for row in rows] == [
        ("token:admin", "token.delete", "token:ci"),
        ("token:admin", "token.create", "token:ci"),
    ]
    assert rows[1]["request_id"] == made.headers["x-request-id"]


def test_the_audit_comes_in_pages(client: TestClient) -> None:
    admin = _bearer(client, Role.ADMIN)
    for name in ("a", "b", "c"):
        client.post("/api/v1/tokens", json={"name": name, "role": "viewer"}, headers=admin)
    first = client.get("/api/v1/audit?limit=2", headers=admin).json()
    second = client.get("/api/v1/audit", params={"limit": 2, "cursor": first["next_cursor"]}, headers=admin).json()
    assert [row["subject"] for row in first["items"] + second["items"]] == ["token:c", "token:b", "token:a"]
    assert second["next_cursor"] is None
    assert client.get("/api/v1/audit?cursor=%3F", headers=admin).status_code == 400


def test_errors_are_problems(client: TestClient) -> None:
    answer = client.post("/api/v1/tokens", json={"name": "ci"}, headers=_bearer(client, Role.ADMIN))
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "body.role" in answer.json()["detail"]
    assert client.get("/api/v1/nowhere").json()["code"] == "not_found"
