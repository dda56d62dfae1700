"""The command line against a fake server: what is asked, what is printed, how it ends."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shoal_server.ctl.cli import run
from shoal_server.ctl.errors import ExitCode
from shoal_server.ctl.program import Program

Answer = tuple[int, Any]


class FakeServer:
    """Answers requests from a table, and remembers them."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        found = self.answers.get(f"{request.method} {request.url.path}", (404, {"detail": "there is no such thing"}))
        if isinstance(found, list):
            found = found.pop(0)
        status, body = found
        return httpx2.Response(status, json=body) if body is not None else httpx2.Response(status)

    def body(self, at: int = -1) -> Any:
        return json.loads(self.requests[at].content)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def shoalctl(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def invoke(*words: str, **environment: str) -> tuple[int, str, str]:
        program = Program(
            {"XDG_CONFIG_HOME": str(tmp_path), **environment},
            transport=httpx2.MockTransport(server),
            sleep=lambda _seconds: None,
        )
        code = run(words, program)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return invoke


def _rollout(state: str = "running", *, healthy: int = 0, verdict: str = "inconclusive") -> dict[str, Any]:
    gate = {
        "gate": "output",
        "verdict": verdict,
        "value": 0.41,
        "bound": 0.33,
        "threshold": 0.1,
        "n": 1211,
        "devices": 3,
        "reason": "0.41 (threshold 0.1)",
    }
    stage = {
        "stage": 1,
        "state": "rolling",
        "reason": "",
        "percent": 10.0,
        "soak_until": None,
        "eligible": 3,
        "offered": 3,
        "reported": healthy,
        "healthy": healthy,
        "failed": 0,
        "lost": 0,
        "gates": [gate],
    }
    return {
        "name": "meter-1.2",
        "state": state,
        "reason": "the gate output failed" if state != "running" else "",
        "slot": "meter",
        "bundle": "meter:1.2.0",
        "cohort": "all",
        "stages": [stage],
    }


def test_help_is_quick_and_imports_no_http_client() -> None:
    script = "import sys; from shoal_server.ctl.cli import main; sys.argv = ['shoalctl', '--help']\n"
    script += "try: main()\nexcept SystemExit: pass\nassert 'httpx2' not in sys.modules and 'rich' not in sys.modules"
    began = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    took_s = time.monotonic() - began
    assert answer.returncode == 0, answer.stderr
    assert "rollout" in answer.stdout
    assert took_s < 3  # 0.07 s when the machine is idle; the imports above are what keeps it so


def test_a_mistyped_command_gets_a_suggestion(shoalctl: Run) -> None:
    code, _, told = shoalctl("rolout")
    assert (code, "Did you mean 'rollout'?" in told) == (ExitCode.USAGE, True)
    code, _, told = shoalctl("device", "lisst")
    assert (code, "Did you mean 'list'?" in told) == (ExitCode.USAGE, True)


def test_nobody_at_home_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = Program({"XDG_CONFIG_HOME": str(tmp_path), "SHOAL_URL": "http://127.0.0.1:9"})
    code = run(["device", "list"], program)
    told = capsys.readouterr().err
    assert code == ExitCode.FAILED
    assert "nothing answers at http://127.0.0.1:9" in told
    assert "shoal-server serve" in told


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 1), (409, 1), (422, 1), (500, 1)])
def test_a_problem_is_shown_with_its_hint(shoalctl: Run, server: FakeServer, status: int, code: int) -> None:
    problem = {"detail": "this can't be", "hint": "do that", "code": "x", "request_id": "abc123"}
    server.answers["GET /api/v1/devices"] = (status, problem)
    ended, out, told = shoalctl("device", "list")
    assert (ended, out) == (code, "")
    assert "this can't be" in told
    assert ("shoalctl login" if status == 401 else "do that") in told
    assert ("abc123" in told) == (status == 500)


def test_something_that_is_no_shoal_server_is_told(shoalctl: Run, server: FakeServer, tmp_path: Path) -> None:
    def page(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text="<html>")

    program = Program({"XDG_CONFIG_HOME": str(tmp_path)}, transport=httpx2.MockTransport(page))
    assert run(["device", "list"], program) == ExitCode.FAILED


def test_the_token_is_sent_and_the_environment_is_heard(shoalctl: Run, server: FakeServer) -> None:
    server.answers["GET /api/v1/devices"] = (200, {"items": [], "next_cursor": None})
    code, out, _ = shoalctl("device", "list", SHOAL_URL="http://fleet:1", SHOAL_TOKEN="t0k")
    assert (code, out) == (0, "No devices yet. Let one join: shoalctl token create\n")
    assert server.requests[0].headers["authorization"] == "Bearer t0k"
    assert server.requests[0].url.host == "fleet"


def test_lists_follow_their_cursors_to_the_end(shoalctl: Run, server: FakeServer) -> None:
    pages = [
        {"items": [{"id": 1, "at": None}], "next_cursor": "c1"},
        {"items": [{"id": 2, "at": None}], "next_cursor": None},
    ]
    server.answers["GET /api/v1/audit"] = [
        (200, {**page, "items": [{**row, "actor": "a", "action": "b", "subject": "c"} for row in page["items"]]})
        for page in pages
    ]
    _, out, _ = shoalctl("audit", "list", "--json")
    assert [row["id"] for row in json.loads(out)["items"]] == [1, 2]
    assert server.requests[1].url.params["cursor"] == "c1"


def test_what_devices_say_can_not_steer_the_terminal(shoalctl: Run, server: FakeServer) -> None:
    row = {"id": 1, "at": None, "actor": "\x1b[2Jevil\r\n", "action": "b", "subject": "c"}
    server.answers["GET /api/v1/audit"] = (200, {"items": [row], "next_cursor": None})
    _, out, _ = shoalctl("audit", "list")
    assert "\x1b[2J" not in out
    assert "?[2Jevil??" in out


def test_login_keeps_a_token_that_works(shoalctl: Run, server: FakeServer, tmp_path: Path) -> None:
    server.answers["GET /api/v1/whoami"] = (200, {"name": "ci", "kind": "token", "role": "operator"})
    code, out, _ = shoalctl("login", "http://fleet:8080/", "--token", "t0k")
    assert (code, "as ci (operator)" in out) == (0, True)
    kept = tmp_path / "shoal" / "shoalctl.toml"
    assert kept.read_text() == 'url = "http://fleet:8080"\ntoken = "t0k"\n'
    server.answers["GET /api/v1/devices"] = (200, {"items": [], "next_cursor": None})
    shoalctl("device", "list")
    assert server.requests[-1].headers["authorization"] == "Bearer t0k"


def test_login_with_a_wrong_token_keeps_nothing(shoalctl: Run, server: FakeServer, tmp_path: Path) -> None:
    server.answers["GET /api/v1/whoami"] = (401, {"detail": "these credentials are unknown"})
    code, _, _ = shoalctl("login", "http://fleet", "--token", "bad")
    assert code == ExitCode.NOT_ALLOWED
    assert not (tmp_path / "shoal" / "shoalctl.toml").exists()


def test_a_join_token_prints_the_line_to_paste_and_nothing_else(shoalctl: Run, server: FakeServer) -> None:
    made = {"token": "sjt_x", "join": "shoal-agent join http://x --token sjt_x", "expires_at": "2026-11-22T09:00:00Z"}
    server.answers["POST /api/v1/join-tokens"] = (201, made)
    code, out, told = shoalctl("token", "create", "--uses", "3", "--label", "site=bern", "--expires", "2h")
    assert (code, out) == (0, made["join"] + "\n")
    assert "3 devices" in told
    assert server.body() == {"uses": 3, "labels": {"site": "bern"}, "expires_in_s": 7200.0}
    _, out, _ = shoalctl("token", "create", "--uses", "1", "--label", "site=bern", "--json")
    assert json.loads(out) == made


@pytest.mark.parametrize("words", [["--label", "site"], ["--expires", "soon"], ["--role", "viewer"], ["--uses", "0"]])
def test_wrong_words_are_usage_errors(shoalctl: Run, server: FakeServer, words: list[str]) -> None:
    code, _, told = shoalctl("token", "create", *words)
    assert (code, server.requests) == (ExitCode.USAGE, [])
    assert told


def test_labels_are_set_and_taken_away(shoalctl: Run, server: FakeServer) -> None:
    server.answers["PATCH /api/v1/devices/cam-1/labels"] = (200, {"id": "cam-1", "labels": {"site": "bern"}})
    assert shoalctl("device", "label", "cam-1", "site=bern", "line-")[0] == 0
    assert server.body() == {"labels": {"line": None, "site": "bern"}}


def test_a_rollout_is_made_from_a_file(shoalctl: Run, server: FakeServer, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: meter-1.2\nbundle: meter:1.2.0\nstart: 2026-11-22T09:00:00Z\n")
    server.answers["POST /api/v1/rollouts"] = (201, _rollout())
    code, out, told = shoalctl("rollout", "create", "-f", str(plan))
    assert (code, "meter-1.2  running" in out) == (0, True)
    assert "--watch" in told
    assert server.body()["start"] == "2026-11-22T09:00:00+00:00"
    assert server.requests[0].headers["idempotency-key"]
    plan.write_text("- just\n- a list\n")
    assert shoalctl("rollout", "create", "-f", str(plan))[0] == ExitCode.USAGE
    assert shoalctl("rollout", "create", "-f", str(tmp_path / "absent.yaml"))[0] == ExitCode.USAGE


def test_a_dry_run_names_the_devices_of_each_stage(shoalctl: Run, server: FakeServer, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: meter-1.2\n")
    stages = [{"stage": 1, "percent": 10.0, "devices": ["cam-1", "cam-7"]}]
    made = {"name": "meter-1.2", "bundle": "meter:1.2.0", "slot": "meter", "notes": ["2 are offline"], "stages": stages}
    server.answers["POST /api/v1/rollouts"] = (200, made)
    _, out, _ = shoalctl("rollout", "create", "-f", str(plan), "--dry-run")
    assert "cam-1, cam-7" in out
    assert "note: 2 are offline" in out
    assert server.requests[0].url.params["dry_run"] == "true"


def test_status_shows_denominators_and_gates_with_reasons(shoalctl: Run, server: FakeServer) -> None:
    server.answers["GET /api/v1/rollouts/meter-1.2"] = (200, _rollout(healthy=2))
    _, out, _ = shoalctl("rollout", "status", "meter-1.2")
    assert "3 eligible, 3 offered, 2 reported, 2 healthy, 0 failed, 0 lost" in out
    assert "0.41 (threshold 0.1)" in out
    _, out, _ = shoalctl("rollout", "status", "meter-1.2", "--json")
    assert json.loads(out) == _rollout(healthy=2)


@pytest.mark.parametrize(("end", "code"), [("completed", 0), ("rolled_back", 3), ("cancelled", 3)])
def test_watching_tells_what_changes_until_the_end(shoalctl: Run, server: FakeServer, end: str, code: int) -> None:
    server.answers["GET /api/v1/rollouts/meter-1.2"] = [
        (200, _rollout()),
        (200, _rollout()),
        (200, _rollout(healthy=2)),
        (200, _rollout(end, healthy=3, verdict="fail")),
    ]
    ended, out, _ = shoalctl("rollout", "status", "meter-1.2", "--watch")
    lines = out.splitlines()
    assert ended == code
    assert sum("2 healthy" in line for line in lines) == 1
    assert lines[-1] == f"meter-1.2: {end} - the gate output failed"
    assert "stage 1: gate output fail - 0.41 (threshold 0.1)" in lines


@pytest.mark.parametrize("verb", ["pause", "resume", "abort", "undo", "promote", "cancel", "approve", "retry"])
def test_every_verb_asks_for_itself(shoalctl: Run, server: FakeServer, verb: str) -> None:
    server.answers[f"POST /api/v1/rollouts/meter-1.2/actions/{verb}"] = (200, _rollout("paused"))
    code, out, _ = shoalctl("rollout", verb, "meter-1.2", "--reason", "it smells")
    assert (code, "paused" in out) == (0, True)
    assert server.body()["reason"] == "it smells"


def test_abort_can_leave_the_bundle_where_it_is(shoalctl: Run, server: FakeServer) -> None:
    server.answers["POST /api/v1/rollouts/a%2Fb/actions/abort"] = (200, _rollout("cancelled"))
    server.answers["POST /api/v1/rollouts/a/b/actions/abort"] = (200, _rollout("cancelled"))
    assert shoalctl("rollout", "abort", "a/b", "--leave")[0] == 0
    assert server.body() == {"reason": "", "leave": True}
    assert server.requests[-1].url.raw_path == b"/api/v1/rollouts/a%2Fb/actions/abort"


def test_a_broken_audit_chain_ends_with_1(shoalctl: Run, server: FakeServer) -> None:
    server.answers["GET /api/v1/audit/verification"] = (
        200,
        {"intact": True, "first_break": None, "rows": 3, "head": "ab"},
    )
    assert shoalctl("audit", "verify")[0] == 0
    assert shoalctl("audit", "verify", "--head", "ab")[0] == 0
    assert shoalctl("audit", "verify", "--head", "other")[0] == 1
    server.answers["GET /api/v1/audit/verification"] = (
        200,
        {"intact": False, "first_break": 2, "rows": 3, "head": "ab"},
    )
    assert shoalctl("audit", "verify")[0] == 1


def test_revoking_asks_first(shoalctl: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["POST /api/v1/devices/cam-1/revoke"] = (200, {"id": "cam-1", "state": "revoked", "pins": {}})
    monkeypatch.setattr("click.confirm", _refuse)
    assert shoalctl("device", "revoke", "cam-1")[0] == ExitCode.STOPPED
    assert server.requests == []
    assert shoalctl("device", "revoke", "cam-1", "--yes")[0] == 0


def _refuse(*_words: Any, **_options: Any) -> None:
    import click

    raise click.Abort


def test_drift_is_shown_with_place_and_cause(shoalctl: Run, server: FakeServer) -> None:
    one = {
        "slot": "meter",
        "digest": "sha256:" + "ab" * 32,
        "scope": "cohort",
        "name": "site=bern",
        "feature": "joint 1",
        "title": "joint 1 (brightness, -contrast)",
        "verdict": "drift",
        "view": "location",
        "effect": 1.8,
        "since": None,
        "cause": "only site=bern changed",
        "windows": 48,
        "baseline_windows": 48,
    }
    server.answers["GET /api/v1/drift"] = (200, {"items": [one], "next_cursor": None})
    promise = "At this setting a fleet in which nothing drifts gets at most one false alarm in 1 year on average."
    server.answers["GET /api/v1/drift/watched"] = (200, {"items": [{"slot": "meter", "false_alarms": promise}]})
    _, out, _ = shoalctl("drift", "show", "meter")
    assert "joint 1 (brightness, -contrast)" in out
    assert "meter: at this setting a fleet in which nothing drifts gets at most one false alarm in 1 year" in out
    assert "only site=bern changed" in out
    assert server.requests[0].url.params["verdict"] == "drift"
    learning = {**one, "verdict": "learning", "windows": 7}
    server.answers["GET /api/v1/drift"] = [
        (200, {"items": [], "next_cursor": None}),
        (200, {"items": [learning], "next_cursor": None}),
    ]
    assert shoalctl("drift", "show")[1].startswith("No drift; learning the baseline, window 7 of 48.\n")


def test_what_matters_most_to_the_model_is_told_first(shoalctl: Run, server: FakeServer) -> None:
    def state(feature: str, *, effect: float, matters: float, verdict: str = "drift") -> dict[str, Any]:
        return {
            "slot": "meter",
            "digest": "sha256:" + "ab" * 32,
            "scope": "fleet",
            "name": "fleet",
            "feature": feature,
            "title": feature,
            "verdict": verdict,
            "view": "location",
            "effect": effect,
            "matters": matters,
            "since": None,
            "cause": None,
            "windows": 48,
            "baseline_windows": 48,
        }

    found = [
        state("unused", effect=9.0, matters=0.0),
        state("quiet", effect=0.1, matters=9.0, verdict="none"),
        state("small", effect=-1.0, matters=0.3),
        state("strong", effect=-2.0, matters=0.6),
        state("idle", effect=-10.0, matters=0.0),
    ]
    server.answers["GET /api/v1/drift"] = (200, {"items": found, "next_cursor": None})
    server.answers["GET /api/v1/drift/watched"] = (200, {"items": []})
    _, out, _ = shoalctl("drift", "show", "meter", "--all")
    assert [line.split()[0] for line in out.splitlines()[1:6]] == ["strong", "small", "idle", "unused", "quiet"]


def test_a_bundle_that_is_being_learnt_is_told_of(server: FakeServer, shoalctl: Run) -> None:
    one = {"slot": "camera", "digest": "sha256:ab", "devices": 5, "told": 2}
    server.answers["GET /api/v1/drift"] = (200, {"items": [], "next_cursor": None})
    server.answers["GET /api/v1/drift/watched"] = (200, {"items": [], "being_learnt": [one]})
    _, out, _ = shoalctl("drift", "show")
    assert out == (
        "camera: learning what to count of the first rows; 2 of 5 devices told of theirs. "
        "No drift is looked for until then.\n"
    )
    assert json.loads(shoalctl("drift", "show", "--json")[1])["being_learnt"] == [one]


def test_quality_is_told_in_words(server: FakeServer, shoalctl: Run) -> None:
    figure = {"value": 0.93, "low": 0.92, "high": 0.94, "n": 900, "devices": 9}
    item = {
        "slot": "quality",
        "digest": "sha256:" + "ab" * 32,
        "bundle": "quality:1.4.0",
        "predictions": 5000,
        "reference": {"accuracy": 0.95},
        "truth": {"verdict": "value", "reason": "", "n": 900, "accuracy": figure, "classes": []},
        "estimate": {"verdict": "cant_tell", "reason": "can't tell: no calibration in the bundle"},
        "label_shift": {"verdict": "too_few", "reason": "too few: 12 predictions"},
        "segments": {
            "by": "site",
            "gap": 0.1,
            "groups": [
                {
                    "name": "bern",
                    "n": 400,
                    "devices": 4,
                    "accuracy": figure,
                    "gap": {"value": -0.1, "low": -0.2, "high": -0.05},
                    "shown": True,
                }
            ],
        },
        "hours": [],
        "drifting": ["width"],
    }
    matrix = {"classes": ["bad", "good"], "rows": [[310.2, 12.1], [40.4, 4637.3]]}
    names = ("accuracy", "precision", "recall", "specificity", "f1", "auc")
    unlabelled = {
        **item,
        "truth": {"verdict": "none", "reason": "no label has come back", "n": 0},
        "estimate": {"verdict": "value", "reason": "", **dict.fromkeys(names, figure), "confusion": matrix},
        "segments": None,
    }
    server.answers["GET /api/v1/quality"] = [(200, {"items": [x]}) for x in (item, unlabelled)] + [(200, {"items": []})]
    out = shoalctl("quality", "show", "quality", "--segment-by", "site")[1]
    for words in (
        "93 % (92 % to 94 %) from 900 labels",
        "no calibration",
        "inputs drift (width)",
        "-10.0 pp (-20.0 to",
    ):
        assert words in out
    assert server.requests[0].url.params["segment_by"] == "site"
    out = shoalctl("quality", "show", "quality")[1]
    for words in (
        "estimated specificity",
        "estimated AUC",
        "0.930 (0.920 to 0.940)",
        "class good",
        "SAID GOOD",
        "4637",
    ):
        assert words in out
    assert "Nothing was predicted in slot quality" in shoalctl("quality", "show", "quality")[1]


def test_the_reference_names_every_command() -> None:
    import click

    from shoal_server.ctl.cli import cli

    text = (Path(__file__).parents[4] / "docs" / "reference" / "shoalctl.md").read_text()
    context = click.Context(cli)
    named = []
    for name in cli.list_commands(context):
        group = cli.get_command(context, name)
        named += [f"{name} {leaf}" for leaf in group.commands] if isinstance(group, click.Group) else [name]
    assert len(named) > 35
    assert [command for command in named if f"`{command}" not in text] == []
