"""What `shoal-server serve` says when it is ready."""

from types import SimpleNamespace
from typing import Any

import pytest

from shoal_protocol.trust.roots import TrustMode
from shoal_server import cli


@pytest.mark.parametrize(
    ("mode", "says"),
    [(TrustMode.DEVELOPMENT, "this server holds all signing keys"), (TrustMode.RELEASE_KEY, "signs no releases")],
)
def test_it_says_who_holds_the_signing_keys(mode: TrustMode, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    runtime = SimpleNamespace(url="http://here", broker_url="mqtt://here", ca=None)
    services = SimpleNamespace(trust=SimpleNamespace(mode=mode))
    server: Any = SimpleNamespace(
        runtime=runtime, first_password=None, services=services, settings=SimpleNamespace(data="d")
    )
    cli._announce(server, as_json=False)
    assert says in capsys.readouterr().out
    assert set(cli._TRUST) == {one.value for one in TrustMode}
