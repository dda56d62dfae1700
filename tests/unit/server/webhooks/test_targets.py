"""Where webhooks may be sent."""

from collections.abc import Sequence

import pytest

from shoal_protocol.errors import CallerError
from shoal_server.webhooks.targets import Allowed, Target, TargetError, allowed_addresses, parse_allowed, parse_target


def found(url: str, *addresses: str, allow: Sequence[str] = ()) -> Sequence[str]:
    return allowed_addresses(parse_target(url), parse_allowed(allow), lambda _host, _port: list(addresses))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "192.0.2.1", "224.0.0.1", "ff02::1",
        "255.255.255.255", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "240.0.0.1", "198.18.0.1",
    ],
)  # fmt: skip
def test_nothing_is_sent_to_addresses_that_are_not_public(address: str) -> None:
    with pytest.raises(TargetError, match="nothing is sent there unless it is allowed"):
        found("https://hooks.example.com/x", address)


def test_one_forbidden_address_among_public_ones_is_enough() -> None:
    with pytest.raises(TargetError, match=r"hooks.example.com \(10.0.0.1\) is a private address"):
        found("https://hooks.example.com/x", "1.1.1.1", "10.0.0.1")


def test_public_addresses_are_taken_by_https_only() -> None:
    assert found("https://hooks.example.com/x", "1.1.1.1", "2606:4700::1111") == ["1.1.1.1", "2606:4700::1111"]
    with pytest.raises(TargetError, match="by https only"):
        found("http://hooks.example.com/x", "1.1.1.1")


@pytest.mark.parametrize("allow", ["chat.lan", "CHAT.lan", "10.0.0.0/8", "10.0.0.5"])
def test_the_operator_allows_hosts_addresses_and_networks(allow: str) -> None:
    assert found("http://chat.lan:8065/hooks/x", "10.0.0.5", allow=[allow]) == ["10.0.0.5"]
    with pytest.raises(TargetError):
        found("http://other.lan/x", "192.168.0.1", allow=[allow])


@pytest.mark.parametrize("word", ["https://chat.lan", "chat.lan/x", "a b", "10.0.0.0/33", "münchen.lan", ""])
def test_what_is_no_host_or_network_is_no_exception(word: str) -> None:
    with pytest.raises(CallerError, match="--webhook-allow"):
        parse_allowed([word])


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com", "ftp://h/x", "https://", "https:///x", "https://u:p@h/x", "https://h@evil/x", "https://h/x#y",
        "https://h/ x", "https://h/\n", "https://h\\@evil/", "https://h:99999/", "https://h:x/", "javascript:alert(1)",
        "https://[::1/", "https://é.example/", "https://h/" + "x" * 2000, "file:///etc/passwd",
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(TargetError):
        parse_target(url)


def test_a_url_is_taken_apart_and_put_together_with_an_address() -> None:
    target = parse_target("https://Hooks.Example.com/a/b?c=d")
    assert target == Target("https", "hooks.example.com", 443, "Hooks.Example.com", "/a/b?c=d")
    assert target.at("1.1.1.1") == "https://1.1.1.1:443/a/b?c=d"
    assert parse_target("http://[::1]:81").at("::1") == "http://[::1]:81/"


def test_a_name_that_has_no_address_is_said_so() -> None:
    def nobody(_host: str, _port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(TargetError, match="the host hooks.exmaple.com can't be found: Name or service not known"):
        allowed_addresses(parse_target("https://hooks.exmaple.com"), Allowed(), nobody)
    with pytest.raises(TargetError, match="has no address"):
        found("https://hooks.example.com")
