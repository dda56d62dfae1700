"""The files of a mosquitto that does not run: written whole, and again after they could not be."""

from pathlib import Path
from typing import Any

import pytest

from shoal_server.link.mosquitto import PASSWORDS, MosquittoCredentials
from shoal_server.link.port import LinkError
from shoal_server.link.verifiers import verifier_line

LINES = [(name, verifier_line("s" * 43, salt=b"0123456789ab")) for name in ("d1", "d2")]


@pytest.fixture
def credentials(tmp_path: Path) -> MosquittoCredentials:
    return MosquittoCredentials(tmp_path, address=("127.0.0.1", 1), server=("server", "x" * 43))


def users(folder: Path) -> set[str]:
    lines = (folder / PASSWORDS).read_text().splitlines()
    return {line.partition(":")[0] for line in lines if not line.startswith(".")}


def test_a_list_that_could_not_be_written_is_written_though_nothing_has_changed_since(
    credentials: MosquittoCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.sync(LINES)
    assert users(tmp_path) == {"server", "d1", "d2"}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(credentials, "_replace", full)
        with pytest.raises(LinkError, match="No space left"):
            credentials.sync(LINES[:1])
    assert users(tmp_path) == {"server", "d1", "d2"}
    credentials.sync(LINES[:1])
    assert users(tmp_path) == {"server", "d1"}
