"""`/api/v1/drift` over HTTP."""

from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from msgspec.structs import replace as changed

from shoal_protocol.profile.learning import LEARNT
from shoal_server.access import Role
from shoal_server.drift.routes import router
from shoal_server.drift.scan import DriftScan
from shoal_server.report.fleet import fleet_report
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, fake_services, program_of
from shoal_server.testing.drift_fleet import SimulatedFleet, training_reference, window_rows

REFERENCE = training_reference()
STREAMS = len(REFERENCE.spec.streams)
DEVICES = 9


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("drift")
    database = Database(f"sqlite:///{folder}/shoal.db")
    database.create_all()
    fleet = SimulatedFleet(reference=REFERENCE, devices=DEVICES, seed=3)
    scan = DriftScan(database, lambda _digest: REFERENCE, lambda: 100.0, facts=lambda _session: fleet.facts)
    fog = {at: {"normal": 2.5} for at in fleet.members("site=s0")}
    with database.write() as session:
        for at in range(58):
            session.add_all(window_rows(fleet.messages(at, shifts=fog if at >= 52 else None), received_at=at + 1.0))
    scan.tick()
    shoal = fake_services(database, Path(folder), reference=lambda _digest: REFERENCE)
    made = TestClient(program_of(shoal, [router]))
    made.headers["authorization"] = f"Bearer {api_token(shoal, Role.VIEWER)}"
    return made


def test_states_come_in_pages_and_by_slot_scope_and_verdict(client: TestClient) -> None:
    items, cursor = [], {}
    while cursor is not None:
        answer = client.get("/api/v1/drift", params={"slot": "reader", "limit": 50, **cursor}).json()
        items += answer["items"]
        cursor = {"cursor": answer["next_cursor"]} if answer["next_cursor"] else None
    keys = [(item["scope"], item["name"], item["feature"]) for item in items]
    assert len(keys) == len(set(keys)) == STREAMS * (1 + 3 + DEVICES)
    drifting = client.get("/api/v1/drift", params={"scope": "cohort", "verdict": "drift"}).json()["items"]
    assert [(item["name"], item["feature"], item["view"]) for item in drifting] == [("site=s0", "normal", "location")]
    (state,) = drifting
    assert state["effect"] > 1
    assert state["evidence"] >= 1
    assert state["since"].startswith("1970-01-01T00:00:5")
    assert state["role"] == "cause"
    assert "site=s0" in state["cause"]
    assert client.get("/api/v1/drift", params={"slot": "nothing"}).json() == {"items": [], "next_cursor": None}


def test_the_heatmap_is_a_matrix_of_features_and_scopes(client: TestClient) -> None:
    answer = client.get("/api/v1/drift/heatmap", params={"slot": "reader"}).json()
    assert answer["features"] == [stream.name for stream in REFERENCE.spec.streams]
    names = [scope["name"] for scope in answer["scopes"]]
    assert names[:4] == ["fleet", "site=s0", "site=s1", "site=s2"]
    assert len(names) == 4 + DEVICES
    for matrix in ("evidence", "effect", "view", "verdict"):
        assert [len(row) for row in answer[matrix]] == [len(names)] * STREAMS
    column = [row[1] for row in answer["evidence"]]
    assert column.index(max(column)) == answer["features"].index("normal")
    fleet = client.get("/api/v1/drift/heatmap", params={"slot": "reader", "scope": "fleet"}).json()
    assert [scope["name"] for scope in fleet["scopes"]] == ["fleet"]


def test_a_feature_in_full(client: TestClient) -> None:
    where = {"slot": "reader", "scope": "cohort", "scope_name": "site=s0"}
    answer = client.get("/api/v1/drift/features/normal", params=where).json()
    fleet = client.get("/api/v1/drift/features/normal", params={"slot": "reader", "scope": "fleet"}).json()
    assert (answer["name"], fleet["name"]) == ("site=s0", "fleet")
    cells = fleet["distribution"]["cells"]
    assert sum(cell["reference"] for cell in cells) == pytest.approx(1, abs=1e-3)
    assert sum(cell["live"] for cell in cells) == pytest.approx(1, abs=1e-3)
    assert [cell["label"] for cell in cells[:2]] == ["missing", f"below {cells[2]['label'].split()[0]}"]
    assert all(low["high"] == high["low"] for low, high in pairwise(cells[1:]))
    evidence = answer["series"]["views"]["location"]
    assert evidence[-1] >= 1 > evidence[0]
    assert list(answer["series"]["views"]) == ["location", "shape", "missing", "range"]
    assert len(answer["series"]["at"]) == len(evidence) == len(answer["series"]["effect"])
    assert answer["gap"]["verdict"] == "none"
    assert answer["gap"]["js"] < answer["gap"]["psi"]
    assert answer["states"][0]["name"] == "site=s0"
    labels = client.get("/api/v1/drift/features/label", params={"slot": "reader"}).json()["distribution"]
    assert labels["kind"] == "categorical"
    assert [cell["label"] for cell in labels["cells"]][:3] == ["missing", "other", "0"]


@pytest.mark.parametrize(("name", "slot"), [("nothing", "reader"), ("normal", "elsewhere")])
def test_what_is_not_there_is_not_found(client: TestClient, name: str, slot: str) -> None:
    assert client.get(f"/api/v1/drift/features/{name}", params={"slot": slot}).status_code == 404


def test_strangers_see_nothing(client: TestClient) -> None:
    assert client.get("/api/v1/drift", headers={"authorization": ""}).status_code == 401


def test_of_cells_that_were_learnt_no_gap_to_training_data_is_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = changed(REFERENCE, profile=changed(REFERENCE.profile, cells=REFERENCE.profile.cells[::-1].copy()))
    told = {}
    for name, reference in (("packed", far), ("learnt", changed(far, sources={"profile": LEARNT}))):
        monkeypatch.setattr(client.app.state.shoal, "reference", lambda _digest, it=reference: it)
        (bundle,) = client.get("/api/v1/drift/report", params={"slot": "reader"}).json()["bundles"]
        (watched,) = client.get("/api/v1/drift/watched", params={"slot": "reader"}).json()["items"]
        page = fleet_report(client.get("/api/v1/drift/report", params={"slot": "reader"}).json())
        verdicts = {one["gap"]["verdict"] for one in bundle["features"]}
        feature = client.get("/api/v1/drift/features/normal", params={"slot": "reader"}).json()
        assert (feature["gap"]["verdict"] == "unknown", verdicts == {"unknown"}) == (name == "learnt",) * 2
        gap = any("training data" in sentence for sentence in bundle["summary"])
        told[name] = (bundle["settings"]["reference_data"], gap, bool(watched["beyond_training"]))
        assert ("first rows" in page) is (name == "learnt")
    assert told == {"packed": ("sample", True, True), "learnt": (LEARNT, False, False)}


def test_the_page_of_a_report_begins_with_what_matters_and_folds_the_rest(client: TestClient) -> None:
    document = client.get("/api/v1/drift/report", params={"slot": "reader"}).json()
    (bundle,) = document["bundles"]
    loud = next(one for one in bundle["features"] if one["verdict"] == "drift")
    heat = bundle["heatmap"]
    row = heat["features"].index(loud["name"])
    many = [f"extra {at}" for at in range(40)]
    bundle["features"] = [dict(loud, name=name, title=name) for name in many[::-1]] + [loud]
    for key in ("verdict", "view", "effect"):
        heat[key] += [heat[key][row]] * len(many)
    heat["features"], heat["titles"] = [*heat["features"], *many], [*heat["titles"], *many]
    page = fleet_report(document, [("reader:1.0.0", {"by true labels": "97 %"})])
    order = [
        "What to do: ",
        "<h2>Quality</h2>",
        "<h2>Where</h2>",
        "extra 39",
        "<h2>Features</h2>",
        "29 more that drift",
    ]
    assert [place for place in map(page.find, order) if place >= 0] == sorted(map(page.find, order))
    assert page.index("29 more that drift") < page.index("<h2>Data</h2>") < page.index("What the words mean")
    where = page[page.index("<h2>Where</h2>") : page.index("<h2>Features</h2>")]
    assert where.count("<tr>") == 31
    assert "11 more features drift" in where
