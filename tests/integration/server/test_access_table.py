"""Default deny: who may do what, for every route there is, tried with every kind of caller.

The table is to be read by people. A route that isn't in it fails the first test; a route that lets somebody else
through than it says fails the second.
"""

import base64
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import shoal_server.tables  # noqa: F401 - all of them, for the database
from shoal_server import bootstrap
from shoal_server.access import Role
from shoal_server.access.guard import endpoints
from shoal_server.storage.database import Database
from shoal_server.testing import FakeClock, api_token, settings_in

NOBODY, DEVICE = "nobody", "device"
PEOPLE = [role.value for role in Role]
ALL = [NOBODY, DEVICE, *PEOPLE]
DEVICE_SECRET = "device-secret"

EVERYBODY = "everybody"
DEVICES = "devices"
PULL = "devices, viewer and up"
WAYS = {
    EVERYBODY: set(ALL),
    DEVICES: {DEVICE},
    PULL: {DEVICE, *PEOPLE},
    "viewer": set(PEOPLE),
    "operator": set(PEOPLE[1:]),
    "releaser": set(PEOPLE[2:]),
    "admin": set(PEOPLE[3:]),
}
"""Whom each word of the table lets through."""

TABLE = """
    everybody  GET     /healthz
    everybody  GET     /readyz
    everybody  GET     /version
    viewer     GET     /metrics
    everybody  POST    /api/v1/login
    viewer     POST    /api/v1/logout
    viewer     GET     /api/v1/whoami
    admin      POST    /api/v1/tokens
    admin      GET     /api/v1/tokens
    admin      DELETE  /api/v1/tokens/{name}
    admin      POST    /api/v1/people
    admin      GET     /api/v1/people
    admin      DELETE  /api/v1/people/{name}
    viewer     GET     /api/v1/audit
    viewer     GET     /api/v1/audit/verification

    everybody  GET     /trust/{file}
    everybody  GET     /trust/ca.pem
    releaser   PUT     /trust/targets.json
    admin      PUT     /trust/root.json
    viewer     GET     /api/v1/trust
    admin      POST    /api/v1/trust/online-keys
    pull       GET     /v2/
    pull       GET     /v2/token
    pull       HEAD    /v2/{name}/blobs/{digest}
    pull       GET     /v2/{name}/blobs/{digest}
    releaser   DELETE  /v2/{name}/blobs/{digest}
    releaser   POST    /v2/{name}/blobs/uploads/
    releaser   GET     /v2/{name}/blobs/uploads/{upload}
    releaser   PATCH   /v2/{name}/blobs/uploads/{upload}
    releaser   PUT     /v2/{name}/blobs/uploads/{upload}
    releaser   DELETE  /v2/{name}/blobs/uploads/{upload}
    pull       HEAD    /v2/{name}/manifests/{reference}
    pull       GET     /v2/{name}/manifests/{reference}
    releaser   PUT     /v2/{name}/manifests/{reference}
    releaser   DELETE  /v2/{name}/manifests/{reference}
    viewer     GET     /v2/{name}/tags/list
    pull       GET     /v2/{name}/referrers/{digest}
    viewer     GET     /api/v1/models
    viewer     GET     /api/v1/models/{model}
    viewer     GET     /api/v1/models/{model}/versions
    viewer     GET     /api/v1/models/{model}/versions/{version}
    viewer     GET     /api/v1/models/{model}/versions/{version}/lineage
    viewer     GET     /api/v1/models/{model}/diff
    releaser   PUT     /api/v1/models/{model}/versions/{version}/deprecation
    releaser   POST    /api/v1/models/{model}/versions/{version}/deny
    releaser   POST    /api/v1/models/{model}/versions/{version}/allow
    releaser   DELETE  /api/v1/models/{model}/versions/{version}
    viewer     GET     /api/v1/models/{model}/aliases
    viewer     GET     /api/v1/models/{model}/aliases/{alias}
    releaser   PUT     /api/v1/models/{model}/aliases/{alias}
    releaser   DELETE  /api/v1/models/{model}/aliases/{alias}

    everybody  POST    /api/v1/device/enrol
    everybody  GET     /api/v1/device/challenge
    device     POST    /api/v1/device/credential
    device     POST    /api/v1/device/credential/confirmation
    device     GET     /api/v1/device/desired
    viewer     GET     /api/v1/devices
    viewer     GET     /api/v1/devices/{device_id}
    operator   PATCH   /api/v1/devices/{device_id}/labels
    operator   POST    /api/v1/devices/{device_id}/pin
    operator   POST    /api/v1/devices/{device_id}/unpin
    operator   POST    /api/v1/devices/{device_id}/accept
    operator   POST    /api/v1/devices/{device_id}/revoke
    operator   POST    /api/v1/devices/{device_id}/rotate
    operator   POST    /api/v1/devices/{device_id}/decommission
    operator   POST    /api/v1/devices/{device_id}/parcel
    operator   POST    /api/v1/devices/{device_id}/mail
    operator   POST    /api/v1/join-tokens
    operator   GET     /api/v1/join-tokens
    operator   DELETE  /api/v1/join-tokens/{token_id}
    device     POST    /api/v1/device/messages
    device     POST    /api/v1/device/samples
    device     GET     /api/v1/device/counting/{digest}
    operator   POST    /api/v1/sampling
    operator   POST    /api/v1/sampling/stop
    viewer     GET     /api/v1/sampling
    operator   GET     /api/v1/samples
    operator   DELETE  /api/v1/samples
    operator   POST    /api/v1/shadows
    operator   POST    /api/v1/shadows/unset
    viewer     GET     /api/v1/shadows

    operator   POST    /api/v1/rollouts
    viewer     GET     /api/v1/rollouts
    viewer     GET     /api/v1/rollouts/{name}
    viewer     GET     /api/v1/rollouts/{name}/devices
    viewer     GET     /api/v1/rollouts/{name}/history
    operator   POST    /api/v1/rollouts/{name}/actions/{verb}
    viewer     GET     /api/v1/alerts
    viewer     GET     /api/v1/alerts/{alert_id}
    operator   POST    /api/v1/alerts/{alert_id}/ack
    operator   POST    /api/v1/alerts/{alert_id}/silence
    viewer     GET     /api/v1/event-types
    viewer     GET     /api/v1/webhooks
    admin      POST    /api/v1/webhooks
    viewer     GET     /api/v1/webhooks/{name}
    admin      PATCH   /api/v1/webhooks/{name}
    admin      DELETE  /api/v1/webhooks/{name}
    admin      POST    /api/v1/webhooks/{name}/rotate
    operator   POST    /api/v1/webhooks/{name}/test
    operator   GET     /api/v1/webhooks/{name}/deliveries
    operator   POST    /api/v1/webhooks/{name}/deliveries/{delivery}/redeliver
    viewer     GET     /api/v1/drift
    viewer     GET     /api/v1/drift/heatmap
    viewer     GET     /api/v1/drift/watched
    viewer     GET     /api/v1/drift/report
    viewer     GET     /api/v1/drift/windows
    viewer     GET     /api/v1/drift/features/{name}
    viewer     GET     /api/v1/contracts
    viewer     GET     /api/v1/contracts/{model}
    operator   PUT     /api/v1/contracts/{model}
    operator   DELETE  /api/v1/contracts/{model}
    viewer     GET     /api/v1/contracts/{model}/derived
    viewer     GET     /api/v1/quality
    viewer     GET     /api/v1/quality/comparison

    everybody  *       /static
    everybody  GET     /login
    everybody  POST    /login
    everybody  POST    /logout
    viewer     GET     /
    viewer     GET     /devices
    viewer     GET     /devices/{device_id}
    operator   POST    /devices/{device_id}/labels
    operator   POST    /devices/{device_id}/pins
    operator   POST    /devices/{device_id}/actions/{verb}
    operator   POST    /devices/join
    viewer     GET     /models
    viewer     GET     /models/{model}
    viewer     GET     /models/{model}/compare
    viewer     GET     /models/{model}/{version}
    releaser   POST    /models/{model}/{version}/deprecate
    releaser   POST    /models/{model}/aliases
    releaser   POST    /models/{model}/{version}/{verb}
    viewer     GET     /rollouts
    viewer     GET     /rollouts/{name}
    operator   POST    /rollouts/{name}/{verb}
    viewer     GET     /drift
    viewer     GET     /drift/{slot}/{feature}
    viewer     GET     /alerts
    operator   POST    /alerts/{alert_id}/ack
    operator   POST    /alerts/{alert_id}/silence
    viewer     GET     /webhooks
    admin      POST    /webhooks
    viewer     GET     /webhooks/{name}
    operator   POST    /webhooks/{name}/test
    operator   POST    /webhooks/{name}/deliveries/{delivery}/redeliver
    admin      POST    /webhooks/{name}/{verb}
    viewer     GET     /audit
    viewer     GET     /docs
    viewer     GET     /openapi.json
    viewer     GET     /events
"""
SPEAK_FOR_THEMSELVES = {"/api/v1/login", "/login", "/logout", "/v2/token"}
"""Their refusals are about what they carry, not about who calls; see their own tests."""

WORDS = {"device": DEVICES, "pull": PULL}


def _table() -> dict[tuple[str, str], set[str]]:
    rows = [line.split() for line in TABLE.splitlines() if line.strip()]
    return {(method, path): WAYS[WORDS.get(who, who)] for who, method, path in rows}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder: Path = tmp_path_factory.mktemp("server")
    settings = settings_in(folder)
    database = Database(settings.database_url)
    database.create_all()
    services = bootstrap.build_services(settings, database, FakeClock(), url="http://testserver")
    services.verify_device = lambda _session, device, secret: (device, secret) == ("cam", DEVICE_SECRET)
    yield bootstrap.build_app(services, [])
    database.close()


@pytest.fixture(scope="module")
def callers(app: FastAPI) -> dict[str, dict[str, str]]:
    basic = base64.b64encode(f"cam:{DEVICE_SECRET}".encode()).decode()
    people = {role.value: {"authorization": f"Bearer {api_token(app.state.shoal, role)}"} for role in Role}
    return {NOBODY: {}, DEVICE: {"authorization": f"Basic {basic}"}, **people}


def _routes(app: FastAPI) -> set[tuple[str, str]]:
    return {(endpoint.method, endpoint.path) for endpoint in endpoints(app)}


def test_every_route_is_in_the_table(app: FastAPI) -> None:
    assert _routes(app) - set(_table()) == set(), "add these to the table, with who may call them"
    assert set(_table()) - _routes(app) == set(), "these are in the table and don't exist"


def test_the_openapi_document_has_the_same_routes(app: FastAPI) -> None:
    described = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in endpoints(app) if endpoint.documented}
    names = [operation["operationId"] for methods in app.openapi()["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("caller", ALL)
def test_nobody_gets_further_than_the_table_says(app: FastAPI, callers, caller: str) -> None:
    client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
    wrong = {}
    for (method, path), allowed in sorted(_table().items()):
        if method == "*" or path in SPEAK_FOR_THEMSELVES:
            continue
        # Nonsense in the path's places: whoever is let through gets another error, or an answer, but is not refused.
        answer = client.request(method, path.replace("{", "").replace("}", ""), headers=callers[caller])
        sent_to_log_in = answer.status_code == 303 and answer.headers["location"].startswith("/login")
        unknown = answer.status_code == 401 or sent_to_log_in
        refused = unknown or answer.status_code == 403
        if refused is (caller in allowed) or (refused and unknown is not (caller == NOBODY)):
            wrong[f"{method} {path}"] = answer.status_code
    assert wrong == {}


def test_a_route_without_a_guard_keeps_the_server_from_starting(app: FastAPI) -> None:
    from fastapi import APIRouter

    router = APIRouter()
    router.get("/forgotten")(lambda: None)
    with pytest.raises(RuntimeError, match="GET /forgotten"):
        bootstrap.build_app(app.state.shoal, [], routers=[*bootstrap.ROUTERS, router])
