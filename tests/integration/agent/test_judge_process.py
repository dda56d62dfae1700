"""The process that judges signatures: killed, silent, talking nonsense, or left alone, it takes nothing along."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal_agent.adapters import child, judge_process
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.judge_process import ChildJudge
from shoal_agent.adapters.trust_store import TrustStore
from shoal_agent.errors import JudgeError
from shoal_agent.testing import SimulatedServer
from shoal_protocol.canonical import sha256_digest


class Place:
    """A device's trust in a server, whose judges are children that a test knows."""

    def __init__(self, server, folder: Path, monkeypatch) -> None:
        self.server, self.folder = server, folder
        self.http = HttpClient(server.url, timeout_s=5.0)
        self.children: list[subprocess.Popen[bytes]] = []
        start = child.start

        def known(script: Path) -> subprocess.Popen[bytes]:
            self.children.append(start(script))
            return self.children[-1]

        monkeypatch.setattr(child, "start", known)
        self.root = server.trust_files["1.root.json"]
        self.store().pin_root(self.root)

    def store(self) -> TrustStore:
        digest = sha256_digest(self.root)
        return TrustStore(self.folder, http=self.http, root_digest=digest, clock=time.time, judge=ChildJudge)


@pytest.fixture
def place(tmp_path, monkeypatch):
    with SimulatedServer() as server:
        place = Place(server, tmp_path / "trust", monkeypatch)
        yield place
        place.http.close()
        assert [process for process in place.children if process.poll() is None] == []


class KillingSource:
    """The server, but the judge is killed when it asks for a certain document."""

    def __init__(self, place: Place, document: str) -> None:
        self.url, self._place, self._document = place.server.url, place, document

    @contextmanager
    def open(self, method: str, path: str):
        if path.endswith(self._document):
            self._place.children[-1].send_signal(signal.SIGKILL)
        with self._place.http.open(method, path) as answer:
            yield answer


@pytest.mark.parametrize("document", ["2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json"])
def test_killed_at_any_document_it_leaves_the_list_before_or_the_one_after_it(place, document):
    first = place.server.release(place.server.add_bundle({"README.md": b"1"}), "m", "1.0")
    store = place.store()
    assert [*store.refresh().entries] == [first]
    place.server.rotate("timestamp")
    second = place.server.release(place.server.add_bundle({"README.md": b"2"}), "m", "2.0")
    with pytest.raises(JudgeError, match="SIGKILL"):
        store.refresh(KillingSource(place, document))
    known = store.newest()
    assert known is not None
    assert [*known.entries] == [first]
    assert {*store.refresh().entries} == {first, second} == {*store.known().entries}


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(600)", "print('{')", "print()", "import sys; sys.exit(3)", "print('{}')"]
)
def test_a_judge_that_says_nothing_to_the_purpose_has_judged_nothing(place, monkeypatch, code):
    script = place.folder / "changed_child.py"
    script.write_text(code)
    monkeypatch.setattr(judge_process, "CHILD", script)
    with pytest.raises(JudgeError):
        ChildJudge(place.folder / "metadata", silence_s=1.0).recall(pinned=place.root)


def test_without_a_process_nothing_is_judged(place, monkeypatch):
    def none_left(_script: Path) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(child, "start", none_left)
    with pytest.raises(JudgeError, match="no process can be started"):
        place.store().newest()


def test_what_it_found_is_not_asked_again(place):
    place.server.release(place.server.add_bundle({"README.md": b"1"}), "m", "1.0")
    store = place.store()
    store.refresh()
    store.raise_floors(time_ms=int(time.time() * 1000))
    assert store.known() == store.newest()
    assert store.list_ends_ms() > 0
    assert len(place.children) == 1


ORPHAN = """
import os, signal, sys, time
from pathlib import Path
from shoal_agent.adapters import child
from shoal_agent.adapters.judge_process import ChildJudge
start = child.start
def told(script):
    process = start(script)
    print(process.pid, flush=True)
    return process
child.start = told
class Source:
    url = "http://nowhere"
    def open(self, method, path):
        os.kill(os.getpid(), signal.SIGKILL)
ChildJudge(Path(sys.argv[1])).refresh(Source(), pinned=Path(sys.argv[2]).read_bytes(), now_ms=0)
"""


def test_it_ends_with_the_agent(place):
    pinned = place.folder / "root.pinned.json"
    run = [sys.executable, "-c", ORPHAN, str(place.folder / "metadata"), str(pinned)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 60
    while _runs(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_has_neither_the_network_nor_the_credentials_nor_the_environment_of_the_agent(place, monkeypatch):
    monkeypatch.setenv("SHOAL_AGENT_SECRET", "hush")
    seen = []

    class Source(KillingSource):
        def open(self, method: str, path: str):
            process = Path(f"/proc/{place.children[-1].pid}")
            seen.append((process / "environ").read_bytes())
            seen.extend(str(link.readlink()).encode() for link in (process / "fd").iterdir())
            return super().open(method, path)

    place.store().refresh(Source(place, "none"))
    assert seen
    assert not [one for one in seen if b"hush" in one or one.startswith(b"socket:") or b"identity" in one]
