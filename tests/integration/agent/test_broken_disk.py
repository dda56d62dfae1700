"""An agent whose disk takes nothing, or whose spool is damaged: its models answer, and it says what is wrong."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoal_agent.adapters.spare_spool import open_spool
from shoal_agent.adapters.spool import SqliteSpool
from shoal_agent.cli import main
from shoal_agent.errors import SpoolError
from shoal_agent.status import Health, health, stored_status
from shoal_protocol.mqtt.topics import Up


def answer(agent) -> float:
    return float(agent.model("quality").predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


def mount(folder: Path, options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"needs to mount a file system of its own: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    mount(folder, "size=2m,nr_inodes=200")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def settled(world, disk):
    """A device on the small disk that runs version 1, stopped."""
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent():
        world.committed(digest)
    moved = disk / "state"
    shutil.copytree(world.state, moved)
    return replace(world, state=moved), digest


def fill(disk: Path) -> None:
    """Leave not one byte."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (65536, 4096, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def use_up_inodes(disk: Path) -> None:
    try:
        for n in range(1000):
            (disk / f"inode-{n}").touch()
    except OSError:
        return


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


@pytest.mark.parametrize("harm", [fill, use_up_inodes, make_read_only])
def test_models_answer_from_a_disk_that_takes_nothing_and_the_server_hears_of_it(settled, disk, harm, caplog):
    world, digest = settled
    harm(disk)
    reports = len(world.server.of(Up.REPORTED))
    agent = world.agent(window_s=0.2)
    agent.start()
    try:
        assert answer(agent) == 3.0
        status = agent.status()
        assert "memory" in status["spool"]["fault"]
        assert health(status) is Health.DEGRADED
        assert stored_status(world.state)["spool"]["fault"]
        world.until(lambda: len(world.server.of(Up.REPORTED)) > reports, "a report")
        windows = len(world.server.of(Up.PROFILE))
        world.until(lambda: answer(agent) and len(world.server.of(Up.PROFILE)) > windows, "a window")
        world.until(lambda: agent.status()["spool"]["windows"] <= 1, "acknowledgements")
    finally:
        agent.stop()
    assert "can't be used" in caplog.text
    if harm is make_read_only:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with world.agent() as again:
            assert answer(again) == 3.0
            assert again.status()["spool"]["fault"] is None
    orders = [message.order for message in world.server.of(Up.BIRTH)]
    assert orders == sorted(set(orders))
    assert len({message.epoch for message in world.server.of(Up.BIRTH)}) == 1  # the server hears none that goes back
    last = max(world.server.of(Up.REPORTED), key=lambda message: message.order)
    assert (last.slots["quality"].active, last.slots["quality"].proven) == (digest, digest)


def test_a_disk_that_fills_up_while_the_agent_runs_loses_windows_that_it_counts_and_tells_later(settled, disk):
    world, _ = settled
    with world.agent(window_s=0.1) as agent:
        world.server.acknowledge = False  # so that the spool grows
        (disk / "spare").write_bytes(b"\0" * 400_000)
        fill(disk)
        world.until(lambda: answer(agent) and agent.status()["spool"]["dropped"] >= 2, "lost windows")
        assert agent.status()["spool"]["fault"]
        (disk / "filler").unlink()
        world.server.acknowledge = True
        world.until(lambda: answer(agent) and not agent.status()["spool"]["fault"], "room again")
        dropped = agent.status()["spool"]["dropped"]
        told = lambda: sum(e.data["count"] for e in world.server.of(Up.EVENT) if e.kind == "lost")  # noqa: E731
        world.until(lambda: told() >= dropped >= 2, "word of the loss")


@pytest.mark.parametrize("content", [b"", b"garbage" * 999, None])
def test_a_damaged_spool_begins_anew_without_holding_up_the_models(world, content):
    digest = world.pack(3.0, "1.0")
    world.assign(digest)
    with world.agent():
        world.committed(digest)
    epoch = world.server.of(Up.BIRTH)[0].epoch
    path = world.state / "spool.db"
    if content is None:  # a database, but no spool
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE items (x)")
        db.close()
    else:
        path.write_bytes(content)
    with world.agent() as agent:
        assert answer(agent) == 3.0
        world.until(lambda: world.server.of(Up.BIRTH)[-1].epoch != epoch, "a new epoch")
        assert agent.status()["spool"]["fault"] is None


def test_a_spare_goes_on_in_the_files_epoch_and_the_file_after_it(tmp_path, monkeypatch):
    path, epochs = tmp_path / "spool.db", iter("abc")

    def opened(at: float, chance: float):
        new_epoch = lambda: next(epochs) * 16  # noqa: E731
        return open_spool(path, budget_bytes=99, new_epoch=new_epoch, clock=lambda: at, chance=lambda: chance)

    def refuse(*_arguments, **_named):
        raise SpoolError("the disk is full")

    starts, numbers = [], []
    for at in (1000.0, 1001.0, 1002.0, 1003.0):
        with monkeypatch.context() as patch:
            if at in {1001.0, 1002.0}:
                patch.setattr(SqliteSpool, "_transaction", refuse)
            spool = opened(at, (at - 1000) / 10)
        assert bool(spool.usage().fault) == (at in {1001.0, 1002.0})
        numbers += [spool.append(Up.EVENT, lambda seq: b"x") for _ in range(2)]
        starts.append((spool.epoch, spool.boot, spool.first))
        spool.close()
    assert {epoch for epoch, _, _ in starts} == {"a" * 16}
    assert starts == sorted(set(starts))
    assert len(set(numbers)) == 8
    assert numbers[-2:] == [3, 4]


def test_a_command_says_that_the_disk_is_full(settled, disk, capsys):
    world, _ = settled
    fill(disk)
    assert main(["hold", "--state", str(world.state)]) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "df" in told
