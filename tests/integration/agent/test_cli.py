"""The command line as a user types it: names, output, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request

import pytest

from fixtures_models import linear_bundle, write_tar
from shoal_agent import Agent
from shoal_agent.testing import SimulatedServer
from shoal_protocol.trust.assignment import SlotTarget
from shoal_protocol.trust.join_token import JoinToken


def shoal_agent(*arguments: str, check: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "shoal_agent.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
        input=environment.get("STDIN"),
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


def test_help_imports_nothing_heavy():
    source = (
        "import sys; from shoal_agent import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'cryptography', 'tuf', 'urllib3', 'paho', 'sqlite3'}\n"
        "print(sorted(heavy.intersection(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "rollback" in done.stdout


def test_a_folder_that_never_joined_is_told_how_to(tmp_path):
    done = shoal_agent("status", "--state", str(tmp_path), check=4)
    assert "shoal-agent join" in done.stderr
    assert (
        json.loads(shoal_agent("status", "--json", "--state", str(tmp_path), check=4).stdout)["error"]["code"]
        == "not_enrolled"
    )
    shoal_agent("run", "--state", str(tmp_path), check=4)


def test_a_damaged_token_and_an_unknown_setting_are_usage_errors(tmp_path):
    done = shoal_agent("join", "http://127.0.0.1:9", "--token", "sjt_x", "--state", str(tmp_path), check=2)
    assert "whole token" in done.stderr
    done = shoal_agent("run", "--state", str(tmp_path), "--set", "window=3", check=2)
    assert "'window'" in done.stderr


@pytest.mark.parametrize("command", ["run", "status", "join", "predict", "rollback"])
@pytest.mark.parametrize("folder", ["missing/deep", "file"])
def test_a_folder_that_can_not_be_used_is_told_without_a_traceback(tmp_path, command, folder):
    (tmp_path / "file").touch()
    (tmp_path / "missing").symlink_to("/proc/nothing")  # nobody can make a folder there
    token = ["http://127.0.0.1:9", "--token", _token()] if command == "join" else []
    done = shoal_agent(command, *token, "--state", str(tmp_path / folder))
    assert done.returncode in {1, 2, 4}
    assert "Traceback" not in done.stderr
    assert str(tmp_path / folder) in done.stderr
    assert len(done.stderr.splitlines()) == 2


def _token() -> str:
    return str(JoinToken(id="t", secret="s" * 43, root_digest="sha256:" + "0" * 64, targets_version=1))


def test_a_server_that_is_not_there_is_told_in_plain_words(tmp_path):
    state = ["--token", _token(), "--state", str(tmp_path)]
    done = shoal_agent("join", "http://127.0.0.1:9", *state, check=1)
    assert done.stderr.splitlines() == [
        "shoal-agent: GET http://127.0.0.1:9/trust/1.root.json: Connection refused",
        "  is the server up and reachable?",
    ]
    assert "https://HOST" in shoal_agent("join", "127.0.0.1:9", *state, check=2).stderr
    with SimulatedServer() as server:
        done = shoal_agent("join", server.url.replace("http:", "https:"), *state, check=1)
    assert "does not speak TLS" in done.stderr
    done = shoal_agent("join", "http://nowhere.invalid", *state, check=1)
    assert "NameResolution" not in done.stderr.splitlines()[0]


def test_a_damaged_identity_says_how_to_join_again(tmp_path):
    with SimulatedServer() as server:
        join = ["join", server.url, "--token", server.join_token, "--state", str(tmp_path)]
        shoal_agent(*join, check=0)
        (tmp_path / "identity" / "device.json").write_text("{")
        done = shoal_agent("status", "--state", str(tmp_path), check=1)
        assert f"move {tmp_path / 'identity'} away" in done.stderr
        (tmp_path / "identity").rename(tmp_path / "identity.old")
        shoal_agent(*join, check=0)


def test_a_device_that_joins_as_pending_says_who_has_to_do_what(tmp_path):
    with SimulatedServer() as server:
        server.joins_as = "pending"
        done = shoal_agent("join", server.url, "--token", server.join_token, "--state", str(tmp_path), check=0)
    assert f"shoalctl device accept {server.device}\n" in done.stdout


def test_join_by_environment_and_status_before_any_assignment(tmp_path):
    with SimulatedServer() as server:
        done = shoal_agent(
            "join", server.url, "--name", "cam-7", "--label", "site=bern", "--json",
            SHOAL_TOKEN=server.join_token, SHOAL_STATE=str(tmp_path), check=0,
        )  # fmt: skip
    assert json.loads(done.stdout) == {"device": "cam-7", "state": "accepted", "url": server.url}
    status = json.loads(shoal_agent("status", "--json", SHOAL_STATE=str(tmp_path), check=3).stdout)
    assert (status["device"], status["generation"], status["slots"]) == ("cam-7", 0, {})
    assert status["spool"] == {"windows": 0, "bytes": 0, "dropped": 0, "fault": None}
    assert status["clock"]["plausible"] is True


@pytest.fixture
def running(world):
    """`shoal-agent run` as a process, once its first model is committed."""
    digest = world.pack(3.0, "1.0")
    world.server.assign("quality", digest, name="quality:1.0")
    command = [
        sys.executable, "-m", "shoal_agent.cli", "--log-level", "warning", "run", "--state", str(world.state),
        "--listen", "127.0.0.1:0", "--set", "poll_s=0.1", "--set", "trial.seconds=0.2", "--set", "window_s=0.5",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[-1]
    world.committed(digest)
    yield world, digest, url, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_is_not_there_belongs_to_no_device(tmp_path):
    shoal_agent("status", "--state", str(tmp_path / "none"), check=4)
    assert "no state folder" in shoal_agent("run", "--state", str(tmp_path / "none"), check=4).stderr


def test_a_healthy_state_without_an_agent_is_not_well(running):
    world, digest, _, process = running
    state = str(world.state)
    shoal_agent("status", "--state", state, check=0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    told = shoal_agent("status", "--state", state, check=1).stdout
    assert "not running" in told
    assert f"quality:1.0 ({digest[7:19]})" in told


def test_a_bundle_is_served_whatever_configuration_lies_beside_it(tmp_path):
    bundle = write_tar(tmp_path / "quality.tar", *linear_bundle())
    (tmp_path / "config.toml").write_text("window = 3\n")
    command = [sys.executable, "-m", "shoal_agent.cli", "run", "--bundle", str(bundle), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert "answers as" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        process.stdout.close()


def test_run_status_predict_and_roll_back(running):
    world, first, url, process = running
    state = str(world.state)
    with urllib.request.urlopen(f"{url}/v2/models/quality", timeout=10) as answer:
        assert json.load(answer)["name"] == "quality"
    status = json.loads(shoal_agent("status", "--json", "--state", state, check=0).stdout)
    assert (status["running"], status["slots"]["quality"]["active"]) == (True, first)
    assert set(status["slots"]["quality"]) >= {"state", "active", "variant", "previous", "trial", "error"}
    assert f"idle, active quality:1.0 ({first[7:19]})" in shoal_agent("status", "--state", state, check=0).stdout

    second = world.pack(5.0, "1.1")
    world.assign(second)
    world.committed(second)
    rows = world.state / "rows.json"
    rows.write_text('[{"x": [1.0, 2.0]}]')
    done = shoal_agent("rollback", "--state", state, check=0)
    assert done.stdout == f"Slot quality is back at quality:1.0 ({first[7:19]}).\n"
    status = json.loads(shoal_agent("status", "--json", "--state", state, check=1).stdout)
    assert status["slots"]["quality"]["error"]["code"] == "local_rollback"
    shoal_agent("rollback", "--state", state, check=3)

    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - began < 10.0
    status = json.loads(shoal_agent("status", "--json", "--state", state, check=1).stdout)
    assert status["running"] is False


def test_predict_answers_from_the_state_folder(world):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent():
        world.committed(digest)
    rows = world.state / "x.npz"
    import numpy as np

    np.savez(rows, x=np.ones((2, 2), np.float32))
    done = shoal_agent("predict", "--state", str(world.state), "--input", str(rows), check=0)
    answer = json.loads(done.stdout)
    assert (answer["digest"], answer["version"], len(answer["predictions"])) == (digest, "1.0", 2)
    shoal_agent("predict", "--state", str(world.state), "--slot", "other", check=2)


def test_config_shows_where_each_value_comes_from_and_checks_a_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[log]\nformat = "json"\n')
    state = ["--state", str(tmp_path), "--json"]
    shown = json.loads(shoal_agent("config", "show", *state, check=0, SHOAL_WINDOW_S="9").stdout)["settings"]
    assert shown["window_s"] == {"value": 9.0, "origin": "SHOAL_WINDOW_S"}
    assert shown["log.format"] == {"value": "json", "origin": f"{file}:2"}
    assert shown["trial.seconds"]["origin"] == "default"
    assert "1 settings" in shoal_agent("config", "check", str(file), check=0).stdout
    hook = ["config", "show", "--set", f"hooks.veto={tmp_path / 'veto'}"]
    told = f"hooks.veto = {tmp_path / 'veto'} is not there; until it can be run, no update is activated"
    assert shoal_agent(*hook, "--state", str(tmp_path), check=0).stderr == f"shoal-agent: {told}\n"
    assert json.loads(shoal_agent(*hook, *state, check=0).stdout)["faults"] == [told]
    file.write_text("[log]\nlevels = 3\n")
    unknown = shoal_agent("config", "check", str(file), check=2).stderr
    assert "is log.level meant?" in unknown
    assert "settings are" in unknown
    file.write_text("window_s = -1\n")
    malformed = shoal_agent("config", "check", str(file), check=2).stderr
    assert "expected seconds above 0" in malformed
    assert "settings are" not in malformed  # the name is right
    assert "FILE" in shoal_agent("config", "check", check=2).stderr


def test_a_hold_is_said_and_taken_back_without_a_running_agent(tmp_path):
    with SimulatedServer() as server:
        shoal_agent("join", server.url, "--token", server.join_token, "--state", str(tmp_path), check=0)
    state = ["--state", str(tmp_path)]
    assert "on hold" in shoal_agent("hold", *state, "--for", "2h", "--reason", "repairs", check=0).stdout
    hold = json.loads(shoal_agent("status", "--json", *state).stdout)["hold"]
    assert (hold["reason"], hold["until"] > hold["since"]) == ("repairs", True)
    assert "repairs" in shoal_agent("status", *state).stdout
    assert "go on" in shoal_agent("unhold", *state, check=0).stdout
    assert json.loads(shoal_agent("status", "--json", *state).stdout)["hold"] is None
    assert "Nothing" in shoal_agent("unhold", *state, check=0).stdout
    assert "90m" in shoal_agent("hold", *state, "--for", "2", check=2).stderr
    shoal_agent("hold", "--state", str(tmp_path / "other"), check=4)


def test_a_vetoed_update_waits_is_reported_and_goes_on(world):
    busy, hook = world.state / "busy", world.state / "may-update"
    hook.write_text(f"#!/bin/sh\n[ -e {busy} ] || exit 0\necho a batch is running\nexit 75\n")
    hook.chmod(0o755)
    busy.touch()
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent(hooks_veto=str(hook), hooks_retry_s=0.2) as agent:
        world.reported(lambda report: report.waiting, "that it waits")
        assert (world.report().waiting.code, world.report().state) == ("vetoed", "verified")
        assert "a batch is running" in agent.status()["slots"]["quality"]["waiting"]["message"]
        agent.hold(reason="repairs")
        busy.unlink()
        world.reported(lambda report: report.waiting and report.waiting.code == "held", "that it is on hold")
        agent.unhold()
        world.committed(digest)
        assert world.report().waiting is None


def test_a_running_agent_takes_a_parcel_in_and_writes_mail(running, tmp_path):
    world, _, _, _ = running
    state = ["--state", str(world.state)]
    second = world.pack(5.0, "1.1")
    world.server.slots["quality"] = SlotTarget(digest=second, name="quality:1.1")
    world.server.generation += 1
    wanted = world.server.sign(generation=world.server.generation)  # only the parcel tells of it
    with tarfile.open(tmp_path / "parcel", "w") as tar:
        for name, raw in {**world.server.parcel(), "desired.json": wanted}.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    done = shoal_agent("import", str(tmp_path / "parcel"), *state, check=0)
    assert "quality: quality:1.1 answers" in done.stdout
    (tmp_path / "words").write_text("no parcel")
    done = shoal_agent("import", str(tmp_path / "words"), *state, check=1)
    assert str(tmp_path / "words") in done.stderr
    shoal_agent("import", str(tmp_path / "missing"), *state, check=2)
    told = json.loads(shoal_agent("export", str(tmp_path / "mail"), "--json", *state, check=0).stdout)
    assert (told["file"], (tmp_path / "mail").read_bytes().count(b"\n") >= 1) == (str(tmp_path / "mail"), True)
    told = json.loads(shoal_agent("export", "-o", str(tmp_path / "again"), "--json", *state, check=0).stdout)
    assert (tmp_path / "again").read_bytes().count(b"\n") >= 1, told
    assert "expected one file" in shoal_agent("export", *state, check=2).stderr
    shoal_agent("export", str(tmp_path / "no" / "folder"), *state, check=2)
    assert not list((world.state / "requests").iterdir())


def test_a_wrong_address_is_told_before_a_model_is_loaded_or_anybody_is_asked(tmp_path):
    with SimulatedServer() as server, socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        shoal_agent("join", server.url, "--token", server.join_token, "--state", str(tmp_path), check=0)
        asked = len(server.requests)
        told = {
            taken: (1, f"can't listen on {taken}: Address already in use"),
            "192.0.2.1:8130": (2, "would let other machines in"),
            "8130": (2, "'8130' is no address to listen on"),
            f"unix:{tmp_path}/no/folder/agent.sock": (1, "No such file or directory"),
        }
        for listen, (code, message) in told.items():
            done = shoal_agent("run", "--state", str(tmp_path), "--listen", listen, check=code)
            assert message in done.stderr
            assert len(done.stderr.splitlines()) == 2
        assert len(server.requests) == asked
        found = shoal_agent("doctor", "--offline", "--json", "--state", str(tmp_path), check=1, SHOAL_LISTEN=taken)
    checks = {check["check"]: check for check in json.loads(found.stdout)["checks"]}
    assert (checks["local_api"]["state"], "already in use" in checks["local_api"]["came"]) == ("wrong", True)
    done = shoal_agent("install", "--systemd", "--print", "--listen", "8130", check=2)
    assert "no address to listen on" in done.stderr


def test_a_second_agent_on_a_folder_is_told_of_the_first_and_not_of_its_address(tmp_path):
    with SimulatedServer() as server, socket.create_server(("127.0.0.1", 0)) as other:
        shoal_agent("join", server.url, "--token", server.join_token, "--state", str(tmp_path), check=0)
        with Agent(tmp_path, {"listen": "none"}):
            listen = f"127.0.0.1:{other.getsockname()[1]}"
            done = shoal_agent("run", "--state", str(tmp_path), "--listen", listen, check=1)
    assert f"in use by the agent with process id {os.getpid()}" in done.stderr
