"""Settings: their order and the rules between them."""

from pathlib import Path

import pytest

from shoal_protocol.errors import CallerError
from shoal_server.errors import StartError
from shoal_server.storage.settings import Settings, is_loopback, settings_from, split_address


def test_flags_win_over_environment_over_defaults(tmp_path: Path) -> None:
    environment = {"SHOAL_DATA": "/a", "SHOAL_LISTEN": "127.0.0.1:1", "HOME": "/home/x"}
    found = settings_from(environment, {"data": tmp_path, "listen": None})
    assert (found.data, found.listen, found.broker) == (tmp_path, "127.0.0.1:1", "embedded")
    assert settings_from({"HOME": "/home/x"}, {}).data == Path("/home/x/.local/share/shoal")


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
    found = settings_from({"SHOAL_DATABASE_URL_FILE": str(tmp_path / "url")}, {})
    assert found.database_url == "postgresql://u:p@h/d"


def test_the_database_is_in_the_data_folder_by_default(tmp_path: Path) -> None:
    assert Settings(data=tmp_path).database_url == f"sqlite:///{tmp_path}/shoal.db"


@pytest.mark.parametrize(
    "changes",
    [{"listen": "0.0.0.0:80"}, {"listen": "[::]:80"}, {"listen": "edge:80"}, {"mqtt_listen": "10.0.0.1:1883"}],
)
def test_beyond_loopback_needs_the_word_insecure(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(StartError, match="without encryption"):
        Settings(data=tmp_path, **changes).check()
    Settings(data=tmp_path, insecure=True, **changes).check()


def test_an_external_broker_needs_no_endpoint(tmp_path: Path) -> None:
    Settings(data=tmp_path, broker="mqtts://server:x@broker:8883", mqtt_listen="0.0.0.0:1883").check()
    with pytest.raises(CallerError, match=r"mqtt\(s\)://"):
        Settings(data=tmp_path, broker="http://broker").check()


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["80", ":80", "host", "host:x", "host:70000"])
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(CallerError, match="HOST:PORT"):
        split_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("x.org", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_mirrors_come_from_flags_or_environment(tmp_path: Path) -> None:
    environment = {"SHOAL_MIRRORS": "https://a.example, https://b.example/x"}
    assert settings_from(environment, {"mirrors": ()}).mirrors == ("https://a.example", "https://b.example/x")
    assert settings_from(environment, {"mirrors": ("https://c.example",)}).mirrors == ("https://c.example",)


@pytest.mark.parametrize("url", ["a.example", "ftp://a.example", "https://", "https://u:p@a.example", "https://a/?b"])
def test_a_mirror_has_an_address_and_no_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(CallerError, match="--mirror is http"):
        Settings(data=tmp_path, mirrors=(url,)).check()


def test_a_server_with_tls_sends_nobody_to_a_mirror_without(tmp_path: Path) -> None:
    mirrors = ("http://cache.local:5000",)
    Settings(data=tmp_path, mirrors=mirrors).check()
    with pytest.raises(CallerError, match="by https"):
        Settings(data=tmp_path, mirrors=mirrors, public_url="https://shoal.example").check()
    with pytest.raises(CallerError, match="by https"):
        Settings(data=tmp_path, mirrors=mirrors, lan=True, listen="0.0.0.0:0").check()


@pytest.mark.parametrize(
    ("blobs", "what"),
    [
        ("ftp://x/y", "s3://BUCKET/PREFIX or oci://HOST/REPOSITORY"),
        ("registry.example/models", "s3://BUCKET/PREFIX or oci://HOST/REPOSITORY"),
        ("oci://registry.example", "oci://HOST"),
        ("oci://registry.example/Models", "lower case"),
        ("oci://registry.example/models:1", "without a tag"),
        ("oci://me:secret@registry.example/models", "name or password"),
    ],
)
def test_a_place_for_blobs_that_is_none_is_told(tmp_path: Path, blobs: str, what: str) -> None:
    with pytest.raises(CallerError, match=what) as caught:
        Settings(data=tmp_path, blobs=blobs).check()
    assert "secret" not in caught.value.message


def test_a_password_for_blobs_needs_a_name_and_never_goes_into_the_open(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("fish\n")
    environment = {"SHOAL_BLOBS_USER": "me", "SHOAL_BLOBS_PASSWORD_FILE": str(tmp_path / "password")}
    found = settings_from(environment, {"data": tmp_path, "blobs": "oci://registry.example/models"})
    found.check()
    assert found.blobs_password == "fish"
    assert "fish" not in repr(found)
    with pytest.raises(StartError, match="without encryption"):
        settings_from(environment, {"data": tmp_path, "blobs": "oci+http://registry.example/models"}).check()
    settings_from(environment, {"data": tmp_path, "blobs": "oci+http://127.0.0.1:5000/models"}).check()
    with pytest.raises(CallerError, match="SHOAL_BLOBS_USER"):
        Settings(data=tmp_path, blobs="oci://registry.example/models", blobs_password="x").check()
    with pytest.raises(CallerError, match="--blobs-ca"):
        Settings(data=tmp_path, blobs_ca=tmp_path / "ca.pem").check()


def test_receivers_of_webhooks_are_allowed_by_flag_or_environment() -> None:
    environment = {"SHOAL_WEBHOOK_ALLOW": "chat.lan, 10.0.0.0/8", "SHOAL_WEBHOOK_CA": "/etc/ca.pem"}
    told = settings_from(environment, {"data": Path("d")})
    assert told.webhook_allow == ("chat.lan", "10.0.0.0/8")
    assert told.webhook_ca == Path("/etc/ca.pem")
    assert settings_from(environment, {"data": Path("d"), "webhook_allow": ("x.lan",)}).webhook_allow == ("x.lan",)
