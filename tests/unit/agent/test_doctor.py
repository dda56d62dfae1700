"""The doctor's judgements that need no network: clock, file system, disk, rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal_agent.doctor import Chart, Finding, State, examine, is_well, machine, network, state

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
