"""The doctor's judgements that need no network: clock, file system, disk, rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal_agent.adapters.hold_file import HoldFile
from shoal_agent.doctor import Chart, Finding, State, examine, is_well, machine, network, state, updates
from shoal_agent.domain.hold import Hold
from shoal_agent.settings import Settings

NOW_S = 1_790_000_000.0
DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("server_s", "floor_s", "expected"),
    [
        (NOW_S + 3, NOW_S - DAY_S, State.OK),
        (NOW_S + 300, NOW_S - DAY_S, State.NOTE),
        (None, 0.0, State.OK),
        (NOW_S, NOW_S + DAY_S, State.WRONG),  # the server signed a time that this clock has not reached
        (NOW_S, NOW_S - 31 * DAY_S, State.WRONG),
    ],
)
def test_the_clock(server_s, floor_s, expected):
    found = network.clock(NOW_S, server_s=server_s, floor_ms=int(floor_s * 1000))
    assert found.state is expected
    assert bool(found.advice) == (expected is not State.OK)


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path):
    inner = tmp_path / "var lib"
    inner.mkdir()
    mounts = f"/dev/sda1 / ext4 rw 0 0\nnas:/x {str(tmp_path).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    assert machine.file_system(inner, mounts) == "nfs4"
    assert machine.file_system(Path("/"), mounts) == "ext4"
    mounts += f"tmpfs {str(inner).replace(' ', chr(92) + '040')} tmpfs rw 0 0\n"
    assert machine.file_system(inner, mounts) == "tmpfs"


def test_a_slow_disk_is_noted_and_nothing_is_left(tmp_path):
    times = iter([0.0, 3.0])
    *_, sync = machine.disk(tmp_path, clock=lambda: next(times))
    assert (sync.check, sync.state) == ("disk_sync", State.NOTE)
    assert "3.0 s" in sync.came
    assert list(tmp_path.iterdir()) == []


def test_credentials_that_others_can_read_are_wrong(tmp_path):
    (tmp_path / "identity").mkdir(mode=0o700)
    secret = tmp_path / "identity" / "device.json"
    secret.touch(mode=0o600)
    assert state.rights(tmp_path).state is State.OK
    secret.chmod(0o644)
    found = state.rights(tmp_path)
    assert (found.state, "device.json is -rw-r--r--" in found.came) == (State.WRONG, True)


def test_more_threads_than_processors_are_noted():
    assert machine.processors(10_000).state is State.NOTE
    assert machine.processors(None).state is State.OK


def test_a_folder_that_is_not_there_ends_the_examination_with_advice(tmp_path):
    found = examine(Chart(tmp_path / "none", offline=True))
    assert found[-1] == Finding(
        "state_folder",
        State.WRONG,
        f"there is no folder {tmp_path / 'none'}",
        "name it by --state or SHOAL_STATE; `shoal-agent join` makes it",
    )
    assert not is_well(found)


def test_a_hook_that_can_not_be_run_is_wrong_and_none_is_no_finding(tmp_path):
    hook = tmp_path / "veto"
    assert updates.hooks(Settings()) == []
    found = updates.hooks(Settings(hooks_veto=str(hook)))
    assert (found[0].state, found[0].came) == (
        State.WRONG,
        f"hooks.veto = {hook} is not there; until it can be run, no update is activated",
    )
    hook.mkdir()
    assert "is no file" in updates.hooks(Settings(hooks_veto=str(hook)))[0].came
    hook.rmdir()
    hook.touch(mode=0o644)
    assert "is not executable" in updates.hooks(Settings(hooks_on_rollback=str(hook)))[0].came
    hook.chmod(0o755)
    assert updates.hooks(Settings(hooks_veto=str(hook)))[0].state is State.OK


def test_what_keeps_updates_waiting_is_told(tmp_path):
    lock = tmp_path / "busy"
    lock.touch()
    HoldFile(tmp_path).save(Hold(since_ms=0, until_ms=int((NOW_S + 60) * 1000), reason="repairs"))
    settings = Settings(activation_lock_file=str(lock), download_windows="00:00-24:00")
    found = {one.check: one for one in updates.leave(tmp_path, settings, lambda: NOW_S)}
    assert {check: one.state for check, one in found.items()} == {
        "hold": State.NOTE,
        "lock_file": State.NOTE,
        "download_windows": State.OK,
    }
    assert "repairs" in found["hold"].came
    assert "open now" in found["download_windows"].came
    assert updates.leave(tmp_path, Settings(), lambda: NOW_S + 61) == []
