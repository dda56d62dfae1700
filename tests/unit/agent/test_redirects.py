"""Where redirects may lead, and which mirrors a server may name."""

from __future__ import annotations

import pytest

from shoal_agent.adapters.addresses import origin_of, redirected
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.adapters.sources import MOST_NAMED, Sources, mirrors_in
from shoal_agent.errors import TransportError
from shoal_agent.testing import FakeClock


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a.example/v2/x", "/y", "https://a.example/y"),
        ("https://a.example/v2/x", "//b.example/y", "https://b.example/y"),
        ("http://a.example/v2/x", "https://a.example/v2/x", "https://a.example/v2/x"),
        ("https://a.example/x", "https://b.example:8443/y?z=1", "https://b.example:8443/y?z=1"),
    ],
)
def test_where_a_redirect_leads(url, location, target):
    assert redirected(url, location) == target


@pytest.mark.parametrize("location", ["http://a.example/x", "http://b.example/", "ftp://a.example/x", "javascript:1"])
def test_from_https_a_redirect_leads_to_https_only(location):
    with pytest.raises(TransportError):
        redirected("https://a.example/x", location)


def test_another_port_or_scheme_is_another_origin():
    origins = ["https://a.example", "http://a.example", "https://a.example:8443", "https://b.example", "https://[::1]"]
    assert len({origin_of(url) for url in origins}) == len(origins)
    assert origin_of("https://a.example/x") == origin_of("https://A.example:443/y")


def named(server: str, *urls: str) -> list[str]:
    sources = Sources(HttpClient(server), connect=HttpClient, clock=FakeClock())
    sources.name(urls)
    return [source.url for source in sources.order()][:-1]


def test_a_server_with_tls_names_no_mirrors_without():
    urls = ("https://cache.example", "http://cache.example", "https://u:p@cache.example", "file:///x", "https://")
    assert named("https://server.example", *urls) == ["https://cache.example"]
    assert named("http://server.example", *urls) == ["https://cache.example", "http://cache.example"]


def test_a_server_names_few_mirrors():
    assert len(named("https://server.example", *(f"https://m{at}.example" for at in range(20)))) == MOST_NAMED


@pytest.mark.parametrize(
    ("link", "roots"),
    [
        (None, []),
        ("", []),
        ('<https://m.example/v2/q/manifests/d>; rel="duplicate"', ["https://m.example"]),
        ("<https://m.example/v2/q/manifests/d>;rel=duplicate;pri=1", ["https://m.example"]),
        ('<https://m.example/v2/q/manifests/other>; rel="duplicate"', []),
        ('<https://m.example/v2/q/manifests/d>; rel="next"', []),
        ('<https://m.example/v2/q/manifests/d>; rel="duplicates"', []),
        (
            '<https://a.example/v2/q/manifests/d>; rel="duplicate", <https://b.ch/v2/q/manifests/d>; rel=duplicate',
            ["https://a.example", "https://b.ch"],
        ),
        ("<" * 3000, []),
    ],
)
def test_which_mirrors_a_header_names(link, roots):
    assert mirrors_in(link, "/v2/q/manifests/d") == roots
