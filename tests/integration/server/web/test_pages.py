"""What each page says, who may see and do what, and that nothing from outside becomes part of a page."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import col, update

from fixtures_dashboard import HOSTILE, PASSWORD, seed
from shoal_server.alerts import store as alerts
from shoal_server.drift.being_learnt import BeingLearnt
from shoal_server.fleet import store as fleet
from shoal_server.quality.tables import OutputHourRow
from shoal_server.registry import store as registry
from shoal_server.rollouts import store as rollouts
from shoal_server.storage.database import Database
from shoal_server.telemetry.tables import LabelRow
from shoal_server.web import drift_pages

from .conftest import ORIGIN, Browser, browser_of, dashboard

PATHS = [
    "/",
    "/devices",
    "/devices?show=trouble",
    "/devices?q=site+%3D+bern",
    "/devices/cam-bern-01",
    "/devices/cam-new-01",
    "/models",
    "/models/meter-reader",
    "/models/meter-reader/1.1.0",
    "/models?q=meter",
    "/models/meter-reader/compare?old=1.0.0&new=1.1.0",
    "/rollouts",
    "/rollouts/meter-1.1",
    "/rollouts/meter-1.2",
    "/drift",
    "/alerts",
    "/alerts?show=all",
    "/webhooks",
    "/webhooks/ops",
    "/audit",
    "/audit?verify=yes",
    "/docs",
]


def test_what_changes_while_a_page_is_made_is_told_to_it(
    app: FastAPI, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, signals = alerts.alerts, app.state.shoal.signals
    before = signals.counters().get("alerts", 0)

    def read(*asked: object, **more: object) -> object:
        found = really(*asked, **more)  # type: ignore[arg-type]  # passed on
        if signals.counters().get("alerts", 0) == before:
            signals.bump("alerts")  # somebody raises one that the page does not show
        return found

    monkeypatch.setattr(alerts, "alerts", read)
    shown = browser("admin").get("/alerts").text
    (position,) = re.findall(r"/events\?topics=[^&]*&amp;after=([^\"]*)", shown)
    assert signals.counters()["alerts"] == before + 1
    assert f"alerts-{before + 1}" not in position


class _Page(HTMLParser):
    """Finds what a page would run or load, and every link on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []
        self.links: set[str] = set()
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._script = tag == "script"
        self.inline += [f"{tag} {name}" for name in found if name.startswith("on") or name == "style"]
        self.inline += [tag] * (tag == "style")
        self.loaded += [value for name in ("src",) if (value := found.get(name))]
        if tag == "link":
            self.loaded.append(found.get("href") or "")
        if tag == "a" and found.get("href"):
            self.links.add(str(found["href"]))

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("path", PATHS)
def test_a_page_runs_nothing_that_is_not_a_file_of_ours(browser: Browser, path: str) -> None:
    answer = browser("admin").get(path)
    assert answer.status_code == 200
    page = _Page(answer.text)
    assert page.inline == []
    assert all(address.startswith("/static/") for address in page.loaded)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"


def test_every_link_leads_somewhere(browser: Browser) -> None:
    client = browser("admin")
    links = set().union(*(_Page(client.get(path).text).links for path in PATHS))
    like_others = re.compile(r"/devices/cam-(basel|geneva)-")
    local = sorted(link for link in links if link.startswith("/") and not like_others.match(link))
    assert len(local) > 40
    assert {link: code for link in local if (code := client.get(link).status_code) != 200} == {}


@pytest.mark.parametrize(
    "path", ["/devices", "/devices/cam-new-01", f"/devices?q={quote(HOSTILE)}", "/webhooks/ops", "/audit"]
)
def test_what_comes_from_outside_is_only_text(browser: Browser, path: str) -> None:
    text = browser("admin").get(path).text
    assert "<script>alert" not in text
    if path != "/audit":
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_overview_counts_the_fleet(browser: Browser) -> None:
    text = _words(browser("victor").get("/").text)
    assert "Devices online 28 of 30" in text
    assert "1 waiting to be accepted" in text
    assert "Devices in trouble 3" in text
    assert "meter-reader:1.1.0 27" in text
    assert "Rollout meter-1.2 was rolled back" in text


def test_devices_are_chosen_by_a_cohort_query(browser: Browser) -> None:
    client = browser("victor")
    found = client.get("/devices", params={"q": "site = bern and line = 1"}).text
    assert set(re.findall(r'href="/devices/(cam-[^"]+)"', found)) == {"cam-bern-01", "cam-bern-05", "cam-bern-09"}
    wrong = client.get("/devices", params={"q": "site in bern"}).text
    assert "This query can't be read." in wrong
    assert "position" in wrong


def test_devices_come_in_pages(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_server.web.fleet_pages._PAGE", 12)
    client, seen, path = browser("victor"), [], "/devices"
    while path:
        text = client.get(path).text
        seen += re.findall(r'<tr id="row-([^"]+)"', text)
        following = re.search(r'class="button" href="([^"]+)">Next', text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == len(set(seen)) == 31
    assert seen == sorted(seen)


def test_a_device_says_that_somebody_there_lets_updates_wait(browser: Browser) -> None:
    client = browser("victor")
    listed = client.get("/devices").text
    held = re.findall(
        r'href="/devices/(cam-[^"]+)"><strong>[^<]*</strong></a> <span class="label"[^>]*>on hold', listed
    )
    assert len(held) == 1
    shown = _words(client.get(f"/devices/{held[0]}").text)
    assert "Somebody at the device lets updates wait. line 3 is being repaired" in shown
    assert "until shoal-agent unhold there" in shown
    assert "Waits: held updates are on hold: line 3 is being repaired" in shown


def test_a_device_shows_desired_beside_reported(browser: Browser) -> None:
    text = _words(browser("victor").get("/devices/cam-basel-01").text)
    assert "self test ( meter-reader:1.2.0 ) golden row 4: label is 3, expected 8" in text
    assert "Desired meter-reader:1.1.0" in text
    assert "as desired" in text
    other = _words(browser("victor").get("/devices/cam-geneva-10").text)
    assert "differs from desired" in other
    assert "On its way to meter-reader:1.1.0 , 42 % downloaded" in other


def test_a_rollout_tells_denominators_gates_and_reasons(browser: Browser) -> None:
    text = _words(browser("victor").get("/rollouts/meter-1.1").text)
    assert "9 eligible 8 offered 7 reported 5 healthy 1 failed 1 lost 1 on their way 1 out of reach" in text
    assert "1 of 6 devices: 0.167 (threshold 0.05): beyond the threshold, not yet proven" in text
    assert "4,310 predictions on 9 devices" in text
    ended = _words(browser("victor").get("/rollouts/meter-1.2").text)
    assert "the gate output failed: 0.41 (threshold 0.1), with 95 % confidence above 0.33" in ended


def test_a_rollout_leads_to_the_quality_of_its_bundle_and_of_the_one_before(browser: Browser) -> None:
    client = browser("victor")
    links = re.findall(r'href="(/models/[^"]+)"', client.get("/rollouts/meter-1.1").text)
    assert "/models/meter-reader/1.1.0#quality-meter-reader" in links
    (compared,) = [link.replace("&amp;", "&") for link in links if "/compare?" in link]
    assert compared == "/models/meter-reader/compare?old=1.0.0&new=1.1.0"
    assert "meter-reader:1.0.0 and meter-reader:1.1.0" in _words(client.get(compared).text)


def test_a_model_shows_versions_aliases_and_where_they_run(browser: Browser) -> None:
    text = _words(browser("victor").get("/models/meter-reader").text)
    assert "champion 1.1.0" in text
    assert "27 devices" in text
    assert "1.0.0, 2 d ago by person:admin" in text
    inside = _words(browser("victor").get("/models/meter-reader/1.1.0").text)
    assert "accuracy 0.962" in inside
    assert "brightness input float32 2 to 18" in inside


def test_a_version_shows_where_it_comes_from(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {
        "finished_at": None,
        "builder": None,
        "code": {"uri": "https://example/x", "commit": "c0ffee", "dirty": True},
        "inputs": [{"name": "sample", "digest": "sha256:aa", "rows": None}],
        "parameters": {"depth": 5},
        "packages": {"numpy": "2.4"},
        "python": "3.11",
    }
    told = {
        "ancestors": [{"ref": "meter-reader:1.0.0", "digest": "sha256:bb"}, {"ref": None, "digest": "sha256:cc"}],
        "children": [],
        "source": source,
        "parity": {"rows": 9, "label_flips": 0, "max_abs": None, "max_rel": None},
        "cost": {"p50_ms": 0.1, "p95_ms": None, "batch_us": None, "peak_bytes": None},
    }
    monkeypatch.setattr("shoal_server.web.model_pages.lineage_of", lambda *_: told)
    text = _words(browser("victor").get("/models/meter-reader/1.1.0").text)
    assert "Made from meter-reader:1.0.0 , from cc (not here)" in text
    assert "c0ffee" in text
    assert "with changes that were not committed" in text
    assert "9 rows compared, 0 labels differ" in text


def test_a_version_shows_its_quality(browser: Browser) -> None:
    page = browser("victor").get("/models/meter-reader/1.1.0").text
    text = _words(page)
    assert "Quality in slot meter-reader" in text
    assert "right, from 2,320 labels of 30 devices" in text
    assert "can't tell: no calibration in the bundle" in text
    assert "by labels: " in page, "a point of the chart"
    assert re.search(r"bern 79\.5 % .{10,40} -1\d\.\d points", text)
    assert "said 8" in text


def test_without_labels_a_version_shows_what_to_expect(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = {"value": 0.82, "low": 0.8, "high": 0.84, "n": 1800, "devices": 3}
    names = ("accuracy", "precision", "recall", "specificity", "f1", "auc")
    matrix = {"classes": ["good", "torn"], "rows": [[1194.4, 241.6], [94.0, 357.5]]}
    item = {
        "slot": "press",
        "digest": "sha256:" + "5" * 64,
        "predictions": 1887,
        "reference": {"accuracy": 0.85},
        "truth": {"verdict": "none", "reason": "no label has come back", "n": 0},
        "estimate": {"verdict": "value", "reason": "", **dict.fromkeys(names, figure), "confusion": matrix},
        "label_shift": {"verdict": "none", "reason": "", "classes": []},
        "hours": [],
        "segments": {"by": "site", "groups": [], "gap": None},
        "drifting": [],
    }
    monkeypatch.setattr("shoal_server.web.model_pages.quality_of", lambda *_: [item])
    text = _words(browser("victor").get("/models/meter-reader/1.1.0").text)
    assert "precision 82 %, recall 82 %, specificity 82 %, F1 82 %, AUC 0.820 of class torn" in text
    assert "Expected without labels" in text
    assert "good 1,194 242" in text.replace("\u202f", ",").replace("\u00a0", " ")


def test_a_bundle_that_is_being_learnt_is_told_of_before_anything_is_watched(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = browser("victor")
    assert "learning what to count" not in client.get("/drift").text
    monkeypatch.setattr(drift_pages, "being_learnt", lambda *_: [BeingLearnt("camera", "sha256:" + "5" * 64, 5, 2)])
    text = _words(client.get("/drift").text)
    assert "in slot camera learning what to count" in text
    assert "2 of 5 devices told of their first rows" in text


def test_drift_is_found_at_its_site_and_explained(browser: Browser) -> None:
    client = browser("victor")
    text = client.get("/drift").text
    drifting = set(re.findall(r'aria-label="(\w+) at site=bern drifts', text))
    assert drifting == {"brightness", "contrast", "confidence"}
    assert not re.search(r"at (the fleet|site=basel|site=geneva) drifts", text)
    assert "brightness at site=bern drifts since" in _words(text), "said in a sentence, above the map"
    assert "2 more of its streams drift too" in _words(text)
    assert "What to do: see whether answers got worse (shoalctl quality show meter-reader)" in _words(text)
    assert re.search(r'href="/models/meter-reader/1\.\d\.0#quality-meter-reader"', text)
    assert "✕ +1.2" in text, "the size as it is told elsewhere"
    link = re.search(r'href="(/drift/meter-reader/brightness[^"]*bern)"', text)
    assert link is not None
    feature = _words(client.get(link[1].replace("&amp;", "&")).text)
    by_hand = client.get("/drift/meter-reader/brightness?scope=cohort&name=site=bern")
    assert _words(by_hand.text) == feature, "without a digest: of the bundle that was heard last"
    assert re.search(r"Suspected cause: [^.]*only site=bern changed", feature)
    assert "live, 8,010 rows" in feature
    assert "reference, 3,000 rows" in feature


def test_nobody_sees_anything_without_logging_in(app: FastAPI) -> None:
    client = browser_of(app, None)
    for path in PATHS:
        answer = client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
    program = TestClient(app, headers={"accept": "application/json"}, follow_redirects=False)
    assert {path: program.get(path).status_code for path in PATHS} == dict.fromkeys(PATHS, 401)


def test_logging_in_leads_to_the_page_that_was_wanted(app: FastAPI) -> None:
    client = browser_of(app, None)
    form = {"name": "victor", "password": PASSWORD}
    assert client.post("/login", data={**form, "next": "/rollouts"}).headers["location"] == "/rollouts"
    assert client.post("/login", data={**form, "next": "//evil.example"}).headers["location"] == "/"
    wrong = client.post("/login", data={**form, "password": "guess", "next": "/rollouts"})
    assert wrong.status_code == 401
    assert "Name or password is wrong" in wrong.text
    assert PASSWORD not in wrong.text


def test_what_is_not_there_is_told_as_a_page(browser: Browser) -> None:
    client = browser("victor")
    for path in ("/devices/nope", "/models/nope", "/rollouts/nope", "/drift/s/f?digest=sha256:0"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "Not found" in answer.text


def test_a_viewer_has_no_buttons_and_may_not_press_them(browser: Browser) -> None:
    client = browser("victor")
    for path in ("/rollouts/meter-1.1", "/devices/cam-bern-01", "/devices", "/alerts"):
        assert "<dialog" not in client.get(path).text
    for path in ("/rollouts/meter-1.1/pause", "/devices/cam-bern-01/actions/revoke", "/alerts/1/ack"):
        answer = client.post(path)
        assert answer.status_code == 403
        assert "Not allowed" in answer.text


def test_static_files_are_what_their_record_says() -> None:
    import hashlib

    from shoal_server.web.site import STATIC

    record = (STATIC / "vendor" / "VENDORED.md").read_text()
    rows = dict(re.findall(r"^\| (\S+\.js) \|.*\| ([0-9a-f]{64}) \|$", record, re.MULTILINE))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in STATIC.glob("vendor/*.js")}
    assert rows == files
    assert {path.stem.removesuffix(".min") for path in STATIC.glob("vendor/*.js")} == {
        path.stem for path in STATIC.glob("vendor/*.LICENSE")
    }


@pytest.fixture
def changing(database: Database, tmp_path: Path) -> FastAPI:
    """A seeded dashboard of the test's own, on each kind of database."""
    app = dashboard(database, tmp_path)
    seed(app.state.shoal, windows=False)
    return app


def test_buttons_do_what_they_say(changing: FastAPI) -> None:
    client, program = browser_of(changing, "olga"), changing.state.shoal
    assert client.post("/rollouts/meter-1.1/pause", data={"reason": "lunch"}).status_code == 303
    page = client.get("/rollouts/meter-1.1").text
    assert "pause by person:olga: lunch" in page
    assert client.post("/rollouts/meter-1.1/approve").status_code == 409
    assert client.post("/devices/cam-bern-01/labels", data={"key": "line", "value": "9"}).status_code == 303
    assert client.post("/devices/cam-bern-01/labels", data={"key": "site", "remove": "yes"}).status_code == 303
    assert client.post("/devices/cam-bern-01/pins", data={"reason": "repair"}).status_code == 303
    assert client.post("/devices/cam-new-01/actions/accept").status_code == 303
    assert client.post("/devices/cam-bern-02/actions/decommission").headers["location"] == "/devices"
    assert client.post("/alerts/1/ack").status_code == 303
    assert client.post("/alerts/2/silence", data={"hours": "1"}).status_code == 303
    with program.database.read() as session:
        assert rollouts.read(session, "meter-1.1").state == "paused"
        device = fleet.device(session, "cam-bern-01")
        assert (dict(device.labels), dict(device.pins)) == ({"line": "9"}, {"*": "repair"})
        assert fleet.device(session, "cam-new-01").state == "accepted"
        assert "cam-bern-02" not in {device.id for device in fleet.devices(session)}
        assert alerts.get(session, 1).state == "acknowledged"
    audit = client.get("/audit").text
    for action in ("rollout.pause", "device.label", "device.pin", "device.accept", "device.decommission", "alert.ack"):
        assert action in audit


def test_every_page_works_on_this_database(database: Database, tmp_path: Path) -> None:
    app = dashboard(database, tmp_path)
    seed(app.state.shoal)
    program = app.state.shoal
    with program.database.write() as session:  # as if the older version had stayed at one site
        older, newer = (registry.version(session, "meter-reader", name).digest for name in ("1.0.0", "1.1.0"))
        for table in (OutputHourRow, LabelRow):
            chosen = update(table).where(col(table.digest) == newer, col(table.device).like("cam-basel-%"))
            session.execute(chosen.values(digest=older))
    client = browser_of(app, "admin")
    assert {path: client.get(path).status_code for path in PATHS} == dict.fromkeys(PATHS, 200)
    text = _words(client.get("/models/meter-reader/compare?old=1.0.0&new=1.1.0").text)
    assert "Answers in slot meter-reader" in text
    assert "accuracy by labels 97.2 % 87.5 %" in text
    assert re.search(r"-9\.\d points \(-\d+\.\d to \+?-?\d+\.\d\)", text)
    assert "10 and 20" in text, "devices of each"


def test_a_form_of_another_site_does_nothing(changing: FastAPI) -> None:
    client = browser_of(changing, "admin")
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}):
        assert client.post("/rollouts/meter-1.1/abort", headers=headers).status_code == 403
        assert client.post("/logout", headers=headers).status_code == 403
    with changing.state.shoal.database.read() as session:
        assert rollouts.read(session, "meter-1.1").state == "running"
    assert client.post("/logout", headers=ORIGIN).status_code == 303
    assert client.get("/").headers["location"] == "/login"


def test_an_empty_server_tells_what_to_type(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/shoal.db")
    database.create_all()
    app = dashboard(database, tmp_path)
    with database.write() as session:
        from fixtures_dashboard import add_people

        add_people(session, app.state.shoal.clock())
    client = browser_of(app)
    for path, command in {
        "/": "shoalctl token create",
        "/devices": "shoalctl token create",
        "/models": "shoal-convert pack",
        "/rollouts": "shoalctl rollout create",
        "/drift": "shoalctl drift show",
        "/alerts": "shoalctl alert list",
    }.items():
        assert command in client.get(path).text
    database.close()


def _words(page: str) -> str:
    """The text of a page as it is read, in one line."""
    text = re.sub(r"<(script|title|style).*?</\1>", " ", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", text).replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")
    text = re.sub(r"[✓✕○▸●‖↶!]\s", " ", text)
    return " ".join(text.split())
