"""Root in the folder of another user: what it becomes, and when it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shoal_agent
import shoal_protocol
from shoal_agent.adapters import folder_owner
from shoal_agent.adapters.folder_owner import as_owner
from shoal_agent.errors import StateFolderError

OWNER = 54321
ROOMS = [Path(part.__file__).parent for part in (shoal_agent, shoal_protocol)]


@pytest.fixture
def calls(monkeypatch):
    """Let this process be root, and note what it would become."""
    made = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("seteuid", "setresgid", "setresuid", "initgroups"):
        monkeypatch.setattr(os, name, lambda *given, name=name: made.append((name, *given)))
    monkeypatch.setattr(folder_owner, "_hidden_part", lambda: None)
    return made


def owned_by(monkeypatch, user):
    about = os.stat_result((0o40700, 0, 0, 1, user, user + 1, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _path, **_how: about)


def test_root_becomes_whom_the_folder_belongs_to_for_good(calls, monkeypatch, tmp_path):
    owned_by(monkeypatch, OWNER)
    assert as_owner(tmp_path) == tmp_path
    assert calls[2:] == [
        ("initgroups", str(OWNER), OWNER + 1),
        ("setresgid", *[OWNER + 1] * 3),
        ("setresuid", *[OWNER] * 3),
    ]


def test_a_user_whose_the_program_can_not_be_is_not_become(calls, monkeypatch, tmp_path):
    owned_by(monkeypatch, OWNER)
    monkeypatch.setattr(folder_owner, "_hidden_part", lambda: Path("/root/venv/bin/python"))
    with pytest.raises(StateFolderError, match=r"who can't read this program: /root/venv/bin/python") as caught:
        as_owner(tmp_path)
    assert "/opt" in caught.value.hint
    assert calls == [("seteuid", OWNER), ("seteuid", 0)]


def test_nothing_happens_in_a_folder_of_roots_or_to_another_user(calls, monkeypatch, tmp_path):
    as_owner(tmp_path / "none")
    owned_by(monkeypatch, 0)
    as_owner(tmp_path)
    owned_by(monkeypatch, OWNER)
    monkeypatch.setattr(os, "geteuid", lambda: OWNER)
    as_owner(tmp_path)
    assert calls == []


def test_a_root_without_capabilities_stays_what_it_is(calls, monkeypatch, tmp_path):
    owned_by(monkeypatch, OWNER)

    def refuse(user):
        raise PermissionError(user)

    monkeypatch.setattr(os, "seteuid", refuse)
    as_owner(tmp_path)
    assert calls == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_root_then_writes_is_the_owners():
    python = next((p for p in (sys.executable, "/usr/bin/python3") if "/root/" not in os.path.realpath(p)), None)
    if python is None or subprocess.run([python, "-c", "import tomllib"], check=False, capture_output=True).returncode:
        pytest.skip("there is no Python 3.11 that other users can read")
    place = Path("/var/tmp") / f"shoal-owner-{os.getpid()}"  # every folder above must let others in
    place.mkdir(mode=0o755)
    for room in ROOMS:
        shutil.copytree(room, place / room.name)
    folder = place / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, OWNER, OWNER)
    code = (
        "import os, sys; from pathlib import Path; from shoal_agent.adapters.folder_owner import as_owner\n"
        "as_owner(Path(sys.argv[1])).joinpath('new').write_text(str(os.getresuid()) + str(os.getgroups()))"
    )
    try:
        subprocess.run(
            [python, "-c", code, str(folder)], env={"PYTHONPATH": str(place)}, check=True, timeout=60, cwd="/"
        )
        assert (folder / "new").stat().st_uid == OWNER
        assert (folder / "new").read_text() == f"({OWNER}, {OWNER}, {OWNER})[{OWNER}]"
    finally:
        shutil.rmtree(place)
