"""Which proxy the agent's HTTP goes by, as the environment says."""

from __future__ import annotations

import pytest

from shoal_agent.adapters.addresses import proxy_for


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://shoal.example", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://shoal.example:8443", "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "https://shoal.example", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://shoal.example", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".example,10.0.0.1"}, "https://shoal.example", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://127.0.0.1:8080", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://[::1]:8080", None),
    ],
)
def test_the_environment_is_followed(monkeypatch, environment, url, proxy):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy
