"""shoalctl against the server's real routes, with nothing but the socket left out."""

import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from dashboard_rollouts import plan_of
from fixtures_dashboard import PASSWORD, seed
from shoal_protocol.samples import SampleBatch, SampledRow
from shoal_server.access import Role
from shoal_server.access import routes as access_routes
from shoal_server.access.secrets import Passwords
from shoal_server.alerts import routes as alert_routes
from shoal_server.analysis import read_windows
from shoal_server.ctl.cli import run
from shoal_server.ctl.program import Program
from shoal_server.drift import routes as drift_routes
from shoal_server.fleet import routes as fleet_routes
from shoal_server.fleet import sampling_routes, shadow_routes
from shoal_server.quality import routes as quality_routes
from shoal_server.registry import routes as model_routes
from shoal_server.registry.trust import TrustService
from shoal_server.rollouts import routes as rollout_routes
from shoal_server.storage.database import Database
from shoal_server.telemetry import samples
from shoal_server.testing import FakeClock, api_token, fake_services, program_of
from shoal_server.testing.link import FakeLink

ROOMS = [
    access_routes,
    fleet_routes,
    shadow_routes,
    sampling_routes,
    model_routes,
    rollout_routes,
    drift_routes,
    alert_routes,
    quality_routes,
]
DIGEST = "sha256:" + "ab" * 32
LATER = "2030-01-01T00:00:00Z"
Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("server")
    database = Database(f"sqlite:///{folder}/shoal.db")
    database.create_all()
    trust = TrustService(database, keys_folder=folder / "keys", clock=FakeClock())
    program = fake_services(database, folder, link=FakeLink(), trust=trust)
    seed(program)
    app = program_of(program, [room.router for room in ROOMS])
    app.state.passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    yield TestClient(app)
    database.close()


@pytest.fixture
def ctl(server: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """Runs one command as an admin; returns exit code, output and what was told on stderr."""
    program = server.app.state.shoal
    token = api_token(program, Role.ADMIN, name=f"admin-{tmp_path.name[:40]}-{tmp_path.stat().st_ino}")

    def invoke(*words: str, **environment: str) -> tuple[int, str, str]:
        given = {
            "XDG_CONFIG_HOME": str(tmp_path),
            "SHOAL_URL": "http://testserver",
            "SHOAL_TOKEN": token,
            **environment,
        }
        code = run(words, Program(given, transport=server._transport, sleep=lambda _seconds: None))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return invoke


def _json(ctl: Ctl, *words: str) -> Any:
    code, out, told = ctl(*words, "--json")
    assert code == 0, told
    return json.loads(out)


def test_devices(ctl: Ctl) -> None:
    code, out, _ = ctl("device", "list", "--cohort", "site = bern")
    assert code == 0
    assert len(out.splitlines()) == 11
    assert "meter-reader:1.1.0" in out
    assert len(_json(ctl, "device", "list")["items"]) == 31
    shown = _json(ctl, "device", "show", "cam-geneva-10")["slots"]["meter-reader"]
    assert (shown["state"], shown["progress"]) == ("downloading", 0.42)
    refused = ctl("device", "show", "cam-basel-01")[1]
    assert "self_test: golden row 4" in refused
    assert "cam-basel-01 did not take a model into meter-reader; self_test: golden row 4" in refused
    assert ctl("device", "label", "cam-basel-05", "line=9", "site-")[0] == 0
    assert _json(ctl, "device", "show", "cam-basel-05")["labels"] == {"line": "9"}
    assert "pins" in ctl("device", "pin", "cam-basel-05", "--reason", "repair")[1]
    assert _json(ctl, "device", "unpin", "cam-basel-05")["pins"] == {}
    assert ctl("device", "accept", "cam-new-01")[0] == 0
    assert ctl("device", "revoke", "cam-new-01", "--yes")[1].split() == ["device", "cam-new-01", "state", "revoked"]
    assert ctl("device", "decommission", "cam-new-01", "--yes")[0] == 0
    assert ctl("device", "show", "cam-new-01")[0] == 1


def test_a_shadow_is_wanted_shown_and_taken_away(ctl: Ctl) -> None:
    slot, bundle = "meter-reader", "meter-reader:1.2.0"
    running = _json(ctl, "model", "show", "meter-reader")["versions"][0]["digest"]
    answer = _json(ctl, "shadow", "set", slot, bundle, "--cohort", "site = bern")
    assert answer["devices"]
    assert not set(answer["devices"]) & set(answer["skipped"])
    assert answer["shadow"] == running
    device = answer["devices"][0]
    assert _json(ctl, "device", "show", device)["slots"][slot]["desired"]["shadow"] == running
    assert "meter-reader:1.2.0 not reported yet" in ctl("device", "show", device)[1]
    assert f"slot {slot}: {bundle} is wanted on" in ctl("shadow", "show", slot)[1]
    assert _json(ctl, "shadow", "unset", slot, "--device", device)["devices"] == [device]
    assert _json(ctl, "device", "show", device)["slots"][slot]["desired"]["shadow"] is None
    assert ctl("shadow", "unset", slot)[0] == 0
    assert _json(ctl, "shadow", "show")["wanted"] == []


def test_a_shadow_that_can_not_be_set_says_why(ctl: Ctl) -> None:
    code, _, told = ctl("shadow", "set", "meter-reader", "meter-reader:1.2.0")
    assert (code, "one of --cohort QUERY and --device NAME" in told) == (2, True)
    assert ctl("shadow", "set", "meter-reader", "meter-reader:9.9.9", "--cohort", "all")[0] == 1
    code, _, told = ctl("shadow", "set", "no-such-slot", "meter-reader:1.2.0", "--cohort", "all")
    assert (code, "none of which runs another bundle in slot 'no-such-slot'" in told) == (1, True)
    code, _, told = ctl("shadow", "set", "meter-reader", "meter-reader:1.2.0", "--cohort", "site = nowhere")
    assert (code, "no device matches the cohort 'site = nowhere'" in told) == (1, True)


def _stored_samples(server: TestClient, device: str) -> None:
    row = SampledRow(at=5, reason="random", inputs={"age": 34.0, "city": "Bern"}, outputs={"p": [0.1, 0.9]})
    program = server.app.state.shoal
    with program.database.write() as session:
        for number in range(20):
            batch = SampleBatch(batch=f"{number:032x}", slot="meter-reader", digest=DIGEST, seen=9, rows=(row, row))
            assert samples.store(session, device, batch, now=program.clock())
            assert not samples.store(session, device, batch, now=program.clock())


def test_sampling_is_started_shown_fetched_stopped_and_deleted(ctl: Ctl, server: TestClient, tmp_path: Path) -> None:
    slot = "meter-reader"
    too_long = ctl("sampling", "start", slot, "--share", "1%", "--for", "31d", "--cohort", "all")
    assert (too_long[0], "from 1s to 30d" in too_long[2]) == (2, True)
    started = _json(ctl, "sampling", "start", slot, "--share", "1%", "--for", "1h", "--cohort", "site = bern")
    assert (started["share"], started["until"][-1]) == (0.01, "Z")
    _stored_samples(server, started["devices"][0])
    shown = ctl("sampling", "show", slot)[1]
    assert f"slot {slot}: 1 % of the rows may leave {len(started['devices'])} device" in shown
    assert _json(ctl, "sampling", "show")["stored"][0]["rows"] == 40
    lines = ctl("sampling", "download", slot)[1].splitlines()
    assert len(lines) == 40
    assert json.loads(lines[0])["inputs"] == {"age": 34.0, "city": "Bern"}
    code, _, told = ctl("sampling", "download", slot, "-o", str(tmp_path / "rows.csv"))
    assert (code, "40 rows in" in told) == (0, True)
    head, first, *_ = (tmp_path / "rows.csv").read_text().splitlines()
    assert head == "at,device,digest,reason,input.age,input.city,output.p"
    assert first == f'5,{started["devices"][0]},{DIGEST},random,34.0,Bern,"[0.1, 0.9]"'
    assert _json(ctl, "sampling", "stop", slot)["devices"]
    assert _json(ctl, "sampling", "show")["permitted"] == []
    assert _json(ctl, "sampling", "delete", slot, "--cohort", "site = nowhere")["rows"] == 0
    assert _json(ctl, "sampling", "delete", slot)["rows"] == 40
    done = [row["action"] for row in _json(ctl, "audit", "list", "--subject", f"slot:{slot}", "--limit", "9")["items"]]
    wanted = ["start", "download", "download", "stop", "delete", "delete"]
    assert [action for action in reversed(done) if action.startswith("sampling.")] == [f"sampling.{w}" for w in wanted]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("start", "meter-reader", "--share", "1%", "--for", "1h"), "one of --cohort QUERY and --device NAME"),
        (("start", "meter-reader", "--share", "0", "--for", "1h", "--cohort", "all"), "a share of the rows such as"),
        (("start", "meter-reader", "--share", "2", "--for", "1h", "--cohort", "all"), "a share of the rows such as"),
        (("start", "meter-reader", "--share", "1%", "--for", "soon", "--cohort", "all"), "expected a span of time"),
        (("start", "meter-reader", "--share", "1%", "--for", "90d", "--cohort", "all"), "30d"),
        (("start", "no-such", "--share", "1%", "--for", "1h", "--cohort", "all"), "none of which runs a model in slot"),
        (("stop", "no-such"), "none of which runs a model in slot 'no-such'"),
    ],
)
def test_sampling_that_can_not_be_is_told(ctl: Ctl, words: tuple[str, ...], told: str) -> None:
    code, _, said = ctl("sampling", *words)
    assert code in {1, 2}
    assert told in said


def test_a_wrong_query_names_the_position(ctl: Ctl) -> None:
    code, _, told = ctl("device", "list", "-q", "site in bern")
    assert code == 1
    assert "position 9" in told
    assert "hint: for example" in told


def test_models(ctl: Ctl) -> None:
    assert "champion=1.1.0" in ctl("model", "list")[1]
    assert [v["version"] for v in _json(ctl, "model", "show", "meter-reader")["versions"]] == [
        "1.2.0",
        "1.1.0",
        "1.0.0",
    ]
    assert _json(ctl, "model", "show", "meter-reader@champion")["version"] == "1.1.0"
    assert "brightness" in ctl("model", "show", "meter-reader:1.1.0")[1]
    assert ctl("model", "alias", "meter-reader", "candidate", "1.0.0")[0] == 0
    assert "candidate" in ctl("model", "alias", "meter-reader")[1]
    assert _json(ctl, "model", "alias", "meter-reader", "candidate")["history"][0]["version"] == "1.0.0"
    assert ctl("model", "alias", "meter-reader", "candidate", "--delete")[0] == 0
    changes = _json(ctl, "model", "diff", "meter-reader:1.0.0", "meter-reader:1.1.0")["changes"]
    assert "files.model/model.onnx" in {change["where"] for change in changes}
    assert [m["name"] for m in _json(ctl, "model", "list", "--search", "CHAMP")["items"]] == ["meter-reader"]
    assert "No model matches." in ctl("model", "list", "-q", "100%")[1]
    line = _json(ctl, "model", "lineage", "meter-reader@champion")
    assert (line["ref"], line["source"]) == ("meter-reader:1.1.0", None)
    assert "made from" in ctl("model", "lineage", "meter-reader:1.2.0")[1]
    assert _json(ctl, "model", "deny", "meter-reader:1.0.0")["state"] == "denied"
    assert _json(ctl, "model", "allow", "meter-reader:1.0.0")["state"] == "released"
    assert ctl("model", "show", "meter-reader:9.9.9")[0] == 1


def test_a_deprecated_version_says_why_and_is_refused_to_nobody(ctl: Ctl, tmp_path: Path) -> None:
    ref, why = "meter-reader:1.0.0", "trained without the new line"
    assert ctl("model", "deprecate", ref)[0] == 2
    assert _json(ctl, "model", "deprecate", ref, "--reason", why)["deprecated"] == why
    assert "released, deprecated" in ctl("model", "show", "meter-reader")[1]
    assert why in ctl("model", "show", ref)[1]
    plan = tmp_path / "old.json"
    stages = [{"devices": {"percent": 100}}]
    plan.write_text(
        json.dumps({"name": "old", "slot": "another", "bundle": ref, "cohort": "site = bern", "stages": stages})
    )
    assert f"{ref} is deprecated: {why}" in ctl("rollout", "create", "-f", str(plan), "--dry-run")[1]
    assert _json(ctl, "model", "deprecate", ref, "--undo")["deprecated"] == ""
    assert "model.deprecate" in ctl("audit", "list", "--subject", f"model:{ref}")[1]


def test_rollouts(ctl: Ctl, tmp_path: Path) -> None:
    assert "meter-1.1" in ctl("rollout", "list")[1]
    found = _json(ctl, "rollout", "status", "meter-1.1")
    assert (found["state"], found["stages"][1]["healthy"]) == ("running", 5)
    assert {gate["gate"] for gate in found["stages"][1]["gates"]} == {"install", "lost", "errors", "output"}
    assert "5 healthy, 1 failed, 1 lost" in ctl("rollout", "status", "meter-1.1", "--devices")[1]
    assert "selected 30 devices" in ctl("rollout", "history", "meter-1.1")[1]
    assert ctl("rollout", "status", "meter-1.2", "--watch")[0] == 3
    assert ctl("rollout", "status", "meter-1.0", "--watch")[0] == 0
    assert "pause by token:" in ctl("rollout", "pause", "meter-1.1", "--reason", "lunch")[1]
    code, _, told = ctl("rollout", "approve", "meter-1.1")
    assert code == 1
    assert "possible is" in told
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({**plan_of("meter-again", "1.0.0"), "cohort": "id = cam-bern-01", "gates": {}}))
    code, _, told = ctl("rollout", "create", "-f", str(plan), "--dry-run")
    assert (code, "meter-1.1" in told) == (1, True)  # another one holds the device
    assert ctl("rollout", "abort", "meter-1.1", "--leave")[0] == 0
    code, out, told = ctl("rollout", "create", "-f", str(plan), "--dry-run")
    assert code == 0, told
    assert "cam-bern-01" in out
    plan.write_text(json.dumps({"name": "UPPER", "stages": []}))
    code, _, told = ctl("rollout", "create", "-f", str(plan))
    assert code == 1
    assert "faults" in told


def test_drift(ctl: Ctl) -> None:
    code, out, _ = ctl("drift", "show")
    assert code == 0
    *table, promise = out.splitlines()
    assert {line.split()[0] for line in table[1:]} == {"brightness", "contrast", "confidence"}
    assert promise.startswith(
        "meter-reader: at this setting a fleet in which nothing drifts gets at most one false alarm"
    )
    assert "only site=bern changed" in out
    everything = _json(ctl, "drift", "show", "meter-reader", "--all", "--scope", "cohort")["items"]
    assert {one["verdict"] for one in everything} == {"drift", "none"}


def test_alerts(ctl: Ctl) -> None:
    listed = _json(ctl, "alert", "list")["items"]
    number = next(one["id"] for one in listed if one["kind"] == "rollout.rolled_back")
    assert "Rollout meter-1.2 was rolled back" in ctl("alert", "list")[1]
    assert "the gate output failed" in ctl("alert", "show", str(number))[1]
    assert "acknowledged" in ctl("alert", "ack", str(number))[1]
    assert number not in {one["id"] for one in _json(ctl, "alert", "list")["items"]}
    assert ctl("alert", "silence", str(number), "--for", "2h")[0] == 0
    assert "silenced until" in ctl("alert", "show", str(number))[1]
    seen = [one["id"] for one in _json(ctl, "alert", "list", "--state", "acknowledged")["items"]]
    assert number in seen, "only open ones are kept out of sight"
    still = [str(one["id"]) for one in _json(ctl, "alert", "list")["items"]]
    for one in still:
        ctl("alert", "silence", one)
    assert ctl("alert", "list")[1] == "No open alerts, but silenced ones: shoalctl alert list --silenced\n"
    assert [str(one["id"]) for one in _json(ctl, "alert", "list", "--silenced")["items"]] == still
    for one in [*still, str(number)]:
        assert "no longer" in ctl("alert", "silence", one, "--for", "0")[1]
    assert [str(one["id"]) for one in _json(ctl, "alert", "list")["items"]] == still


def test_people(ctl: Ctl, server: TestClient) -> None:
    made = _json(ctl, "person", "create", "paula", "--role", "operator")
    assert (made["name"], made["role"]) == ("paula", "operator")
    page = {"origin": "http://testserver"}
    login = {"name": "paula", "password": made["password"]}
    assert server.post("/api/v1/login", json=login, headers=page).status_code == 204
    assert "paula" in ctl("person", "list")[1]
    code, _, err = ctl("person", "create", "paula")
    assert (code, "paula" in err) == (1, True)
    assert ctl("person", "delete", "paula")[0] == 0
    assert server.post("/api/v1/login", json=login, headers=page).status_code == 401
    assert "last admin" in ctl("person", "delete", "admin")[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO("a password of her own\n"))
        assert "password" not in _json(ctl, "person", "create", "paula", "--password-stdin")


def test_tokens(ctl: Ctl, server: TestClient) -> None:
    made = _json(ctl, "token", "create", "--uses", "1", "--label", "site=bern")
    assert {"token", "join", "expires_at"} <= set(made)
    assert made["join"] == f"shoal-agent join http://testserver --token {made['token']}"
    assert ctl("token", "create", "--pending")[1].startswith("shoal-agent join ")
    secret = ctl("token", "create", "--role", "viewer", "--name", "board")[1].strip()
    assert ctl("device", "list", SHOAL_TOKEN=secret)[0] == 0
    assert ctl("device", "accept", "cam-bern-01", SHOAL_TOKEN=secret)[0] == 4
    assert "board" in ctl("token", "list")[1]
    assert ctl("token", "delete", "board")[0] == 0
    assert ctl("device", "list", SHOAL_TOKEN=secret)[0] == 4


def test_the_audit_holds_what_was_done(ctl: Ctl) -> None:
    ctl("device", "pin", "cam-bern-09", "--reason", "for the audit")
    assert "device.pin" in ctl("audit", "list", "--subject", "device:cam-bern-09")[1]
    assert _json(ctl, "audit", "verify")["intact"] is True


def test_log_in_with_a_password_keeps_a_token(ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "no password came" in ctl("login", "http://testserver", "--password-stdin", SHOAL_TOKEN="", SHOAL_URL="")[2]
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    code, out, told = ctl("login", "http://testserver", "--password-stdin", SHOAL_TOKEN="", SHOAL_URL="")
    assert code == 0, told
    assert "(admin)" in out
    assert PASSWORD not in (tmp_path / "shoal" / "shoalctl.toml").read_text()
    assert ctl("device", "list", SHOAL_TOKEN="", SHOAL_URL="")[0] == 0


def test_every_command_has_help_and_json(ctl: Ctl) -> None:
    import click

    from shoal_server.ctl.cli import cli

    context = click.Context(cli)
    groups = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    leaves = [group for group in groups.values() if not isinstance(group, click.Group)]
    leaves += [leaf for group in groups.values() if isinstance(group, click.Group) for leaf in group.commands.values()]
    assert len(leaves) > 35
    assert [leaf.name for leaf in leaves if "--json" not in {o for p in leaf.params for o in p.opts}] == []
    assert [leaf.name for leaf in leaves if not leaf.get_short_help_str()] == []


def test_a_drift_is_told_in_the_same_words_everywhere(ctl: Ctl, tmp_path: Path) -> None:
    states = _json(ctl, "drift", "show", "meter-reader", "--scope", "cohort")["items"]
    state = next(one for one in states if one["feature"] == "brightness")
    told = state["explanation"]
    assert told.startswith("brightness at site=bern drifts since ")
    assert f"Suspected cause: {state['cause']}." in told
    assert "shift: values are higher than before; only site=bern changed" in state["cause"], "fog makes it brighter"
    assert told in ctl("drift", "show", "meter-reader/brightness")[1]
    assert told in _json(ctl, "drift", "show", "meter-reader/brightness")["states"][0]["explanation"]
    assert ctl("drift", "report", "--since", "20000d", "--output", str(tmp_path / "r.html"))[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert told in html.unescape(page)
    assert not re.search(r"(src|href)=|<script|url[(]|@import", page), "it loads nothing"
    alert = next(one for one in _json(ctl, "alert", "list")["items"] if "site=bern drifts" in one["title"])
    first, last = told.split(": ", 1)[0], f"Suspected cause: {state['cause']}."
    line = next(line for line in alert["body"].splitlines() if "brightness" in line)
    assert line.startswith(f"- {first}: ")
    assert line.endswith(last)


def test_a_report_holds_all_that_an_analyst_asks(ctl: Ctl) -> None:
    found = _json(ctl, "drift", "report", "meter-reader", "--model", "meter-reader")
    (bundle,) = found["bundles"]
    assert (bundle["name"], bundle["verdict"]) == ("meter-reader:1.1.0", "drift")
    assert [one["name"] for one in bundle["findings"]] == ["site=bern"]
    assert bundle["findings"][0]["next_step"].startswith("What to do: see whether answers got worse")
    assert {one["name"] for one in bundle["features"][:3]} == {"brightness", "contrast", "confidence"}
    first = bundle["features"][0]
    assert sum(cell["live"] for cell in first["distribution"]["cells"]) == pytest.approx(1, abs=1e-3)
    assert (first["state"]["name"], first["live_where"]) == ("site=bern", "site=bern")
    assert bundle["settings"]["false_alarms"].startswith("at most one false alarm in")
    assert found["quality"][0]["bundle"] == "meter-reader:1.1.0"
    assert _json(ctl, "drift", "report", "meter-reader", "--model", "meter-reader:1.0.0")["bundles"] == []
    basel = _json(ctl, "drift", "report", "meter-reader", "--cohort", "site=basel")["bundles"][0]
    assert (basel["verdict"], basel["findings"]) == ("none", [])
    assert _json(ctl, "drift", "report", "elsewhere")["bundles"] == []


@pytest.mark.parametrize("suffix", ["jsonl", "npz"])
def test_windows_that_were_exported_give_the_same_alerts_again(ctl: Ctl, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"windows.{suffix}"
    told = _json(ctl, "drift", "export", "meter-reader", "--since", "20000d", "--until", LATER, "--output", str(path))
    assert (told["windows"], told["damaged"]) == (720, 0)
    recording = read_windows(path)
    windows = recording.windows("meter-reader:1.1.0")
    bern = windows.select((windows.fact("site") == "bern") & (windows.start >= windows.start.max() - 1))
    basel = windows.select(windows.fact("site") == "basel").quantile("brightness", 0.5)
    assert basel.low - 0.1 <= 10 <= basel.high + 0.1
    assert bern.quantile("brightness", 0.5).low > 12
    example = Path(__file__).parents[4] / "examples" / "read_windows.py"
    shown = subprocess.run([sys.executable, example, path, "brightness"], capture_output=True, text=True, check=True)
    assert "meter-reader:1.1.0 in slot meter-reader: 720 windows" in shown.stdout
    assert re.search(r"bern +brightness +1[1-3]\.\d+ \(", shown.stdout), "the hour of the fog"
    how_to = (Path(__file__).parents[4] / "docs" / "how-to" / "report-on-drift.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```", how_to, re.MULTILINE | re.DOTALL)
    names = {"windows.npz": str(path), "quality:1.4.0": "meter-reader:1.1.0", '"temp"': '"brightness"'}
    for written, here in names.items():
        snippet = snippet.replace(written, here)
    exec(snippet, {})
    answer = _json(ctl, "drift", "replay", str(path))
    (pair,) = answer["compared"]
    assert pair["title"].startswith("site=bern drifts in meter-reader: 3 streams")
    assert pair["came_at"] is not None
    assert pair["would_come_at"] <= pair["came_at"]
    alert = next(one for one in _json(ctl, "alert", "list")["items"] if one["title"] == pair["title"])
    replayed = next(alert for bundle in answer["bundles"] for alert in bundle["alerts"])
    assert replayed["body"] == alert["body"], "the very same rules and words"
    stricter = _json(ctl, "drift", "replay", str(path), "--threshold", "1e30")
    assert [one["would_come_at"] for one in stricter["compared"]] == [None]
    assert ctl("drift", "replay", str(path), "--window", "1m")[0] == 2


def test_replay_asks_the_server_where_there_is_no_file(ctl: Ctl, tmp_path: Path) -> None:
    asked = ("drift", "replay", "--slot", "meter-reader", "--from", "20000d", "--to", LATER)
    code, out, _ = ctl(*asked)
    assert code == 0
    assert "meter-reader:1.1.0 in slot meter-reader: 24 windows of 300 s" in out
    assert "site=bern drifts" in out
    assert ctl("drift", "replay", "--slot", "elsewhere")[0] == 2
    (tmp_path / "cut.jsonl").write_bytes(b"")
    code, _, told = ctl("drift", "replay", str(tmp_path / "cut.jsonl"))
    assert (code, "no recorded windows" in told) == (1, True)
