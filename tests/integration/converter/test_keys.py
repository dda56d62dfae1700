"""Release keys away from the server: made, adopted, used, changed and lost, against the real registry over a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

import shoal_server.tables  # noqa: F401 - all of them, for the database
from shoal_converter import Bundle
from shoal_converter.errors import SignatureError
from shoal_converter.pushing import push
from shoal_converter.registry import Registry
from shoal_converter.signing.authority import Authority
from shoal_converter.signing.keyring import RootMemory
from shoal_converter.signing.pipeline import open_release_key
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.trust.signed_list import SignedList
from shoal_protocol.trust.targets import signed_list
from shoal_server.access import Role
from shoal_server.registry import blob_routes, manifest_routes, routes, trust_routes
from shoal_server.registry.trust import TrustService
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, fake_services, listening, program_of
from shoal_server.testing.bundles import tiny_bundle
from shoal_server.web import health


class Place:
    """A server, an administrator's token in the environment, and a command line."""

    def __init__(self, shoal: Services, url: str, run: Any, folder: Path) -> None:
        self.shoal, self.url, self._run, self.folder = shoal, url, run, folder
        self.admin, self.releaser = api_token(shoal, Role.ADMIN), api_token(shoal, Role.RELEASER)
        self.calls: list[str] = []

    def __call__(self, *words: str) -> tuple[int, str, str]:
        found: tuple[int, str, str] = self._run(*words)
        return found

    def ok(self, *words: str) -> str:
        code, out, err = self(*words)
        assert code == 0, err
        return out

    def listed(self) -> SignedList:
        return signed_list(Metadata[Targets].from_bytes(self.get("targets.json")).signed)

    def get(self, file: str) -> bytes:
        return httpx2.get(f"{self.url}/trust/{file}", trust_env=False).content

    def put(self, raw: bytes, **headers: str) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.releaser}", **headers}
        return httpx2.put(f"{self.url}/trust/targets.json", content=raw, headers=headers, trust_env=False)


@pytest.fixture
def place(shoal_convert: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    import time

    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    database.upgrade()
    trust = TrustService(database, keys_folder=tmp_path / "server-keys", clock=time.time)
    shoal = fake_services(database, tmp_path, clock=time.time, trust=trust)
    parts = [blob_routes.router, manifest_routes.router, routes.router, trust_routes.router, trust_routes.api]
    with listening(program_of(shoal, [*parts, health.router])) as url:
        found = Place(shoal, url, shoal_convert, tmp_path)
        monkeypatch.setenv("SHOAL_URL", url)
        monkeypatch.setenv("SHOAL_TOKEN", found.admin)
        yield found
    database.close()


@pytest.fixture
def adopted(place: Place) -> Place:
    place.ok("keys", "init", "--url", place.url)
    return place


def bundles(count: int) -> list[Bundle]:
    """Return small bundles that differ in their version."""
    found = []
    for at in range(count):
        made = tiny_bundle(version=f"1.{at}.0")
        found.append(Bundle(made.manifest, made.config, made.files))
    return found


def test_one_command_makes_keys_and_takes_the_servers_own_away(place: Place, bundle: Bundle) -> None:
    push(bundle, place.url, token=place.releaser)  # signed by the server, in development trust
    before = sha256_digest(place.get("1.root.json"))
    out = place.ok("keys", "init", "--url", place.url)
    assert "the server signs no releases any more" in out
    assert "root.pem, targets.pem" in out
    assert sorted(path.name for path in (place.folder / "server-keys").iterdir()) == ["snapshot.pem", "timestamp.pem"]
    keys = place.folder / "shoal-keys"
    assert {path.stat().st_mode & 0o777 for path in keys.glob("*.pem")} == {0o600}
    assert place.listed().find(bundle.digest) is not None
    assert sha256_digest(place.get("1.root.json")) == before  # devices walk on from the root that they pinned
    said = httpx2.get(f"{place.url}/version", trust_env=False).json()
    assert said["trust"] == "release_key"


def test_a_push_with_the_key_is_signed_and_one_without_is_told(adopted: Place, bundle: Bundle) -> None:
    bundle.write(adopted.folder / "b.tar")
    code, _, err = adopted("push", "b.tar")
    assert (code, "push again with --key" in err) == (5, True)
    assert adopted.listed().find(bundle.digest) is None
    shown = httpx2.get(
        f"{adopted.url}/api/v1/models/iris/versions/1.0.0",
        headers={"authorization": f"Bearer {adopted.admin}"},
        trust_env=False,
    ).json()
    assert shown["state"] == "unsigned"
    out = adopted.ok("push", "b.tar", "--key", "shoal-keys/release-1.pem")
    assert "signed by  the release key" in out
    assert adopted.listed().check(bundle.digest).counter == 1
    again = json.loads(adopted.ok("push", "b.tar", "--key", "shoal-keys/release-1.pem", "--json"))
    assert (again["sent_bytes"], adopted.listed().version) == (0, 3)


def test_a_push_without_a_keyring_believes_only_what_its_own_key_signed(adopted: Place, bundle: Bundle) -> None:
    key = adopted.folder / "key.pem"  # as a pipeline gets it: the file alone
    key.write_bytes((adopted.folder / "shoal-keys" / "release-1.pem").read_bytes())
    push(bundle, adopted.url, token=adopted.releaser, key=open_release_key(str(key)))
    adopted.ok("keys", "rotate", "release", "--keep-old")
    adopted.ok("keys", "resign", "--key", "shoal-keys/release-2.pem")  # another pipeline's key
    with pytest.raises(SignatureError, match="not signed by this key"):
        push(bundle, adopted.url, token=adopted.releaser, key=open_release_key(str(key)))
    root = adopted.folder / "shoal-keys" / "root.json"
    push(bundle, adopted.url, token=adopted.releaser, key=open_release_key(str(key), root=root))


def test_the_wrong_key_is_told_before_anything_is_sent(adopted: Place, bundle: Bundle) -> None:
    adopted.ok("keys", "init", "--dir", "other")
    with pytest.raises(SignatureError, match="no release key of this server"):
        push(bundle, adopted.url, token=adopted.releaser, key=open_release_key("other/release-1.pem"))
    with Registry(adopted.url, token=adopted.releaser) as registry:
        assert registry.manifest_digest("iris", "1.0.0") is None


def test_a_key_has_no_say_in_development_trust(place: Place, bundle: Bundle) -> None:
    place.ok("keys", "init")
    bundle.write(place.folder / "b.tar")
    code, _, err = place("push", "b.tar", "--key", "shoal-keys/release-1.pem")
    assert code == 5
    assert "keys adopt" in err
    place.ok("keys", "adopt")
    place.ok("push", "b.tar", "--key", "shoal-keys/release-1.pem")


def test_twelve_pipelines_at_once_lose_nothing(adopted: Place) -> None:
    wanted, faults = bundles(12), []

    def work(one: Bundle) -> None:
        try:
            push(one, adopted.url, token=adopted.releaser, key=open_release_key("shoal-keys/release-1.pem"))
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            faults.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    listed = adopted.listed()
    assert {entry.digest for entry in listed.entries.values()} == {one.digest for one in wanted}
    assert sorted(entry.counter for entry in listed.entries.values()) == list(range(1, 13))


def signed(place: Place, change: Any = None, *, version: int = 1, signer: CryptoSigner | None = None) -> bytes:
    metadata = Metadata[Targets].from_bytes(place.get("targets.json"))
    if change is not None:
        change(metadata.signed)
    metadata.signed.version += version
    metadata.sign(signer or open_release_key("shoal-keys/release-1.pem").signer)
    return metadata.to_bytes()


def test_what_the_server_refuses_to_take(adopted: Place, bundle: Bundle) -> None:
    push(bundle, adopted.url, token=adopted.releaser, key=open_release_key("shoal-keys/release-1.pem"))
    entry = next(iter(Metadata[Targets].from_bytes(adopted.get("targets.json")).signed.targets.values()))

    def unknown(targets: Targets) -> None:
        targets.targets["iris/9.0.0"] = type(entry).from_dict(entry.to_dict(), "iris/9.0.0")

    def changed(targets: Targets) -> None:
        targets.targets["iris/1.0.0"].hashes["sha256"] = "0" * 64

    def expired(targets: Targets) -> None:
        targets.expires = targets.expires.replace(year=2020)

    for raw, status, word in (
        (signed(adopted, signer=CryptoSigner.generate_ecdsa()), 403, "release keys"),
        (signed(adopted, version=2), 409, "stale_list"),
        (signed(adopted, version=0), 409, "stale_list"),
        (signed(adopted, unknown), 422, "push the bundle first"),
        (signed(adopted, changed), 422, "versions never change"),
        (signed(adopted, expired), 403, "expired"),
        (b"{}", 422, "no signed list"),
    ):
        answer = adopted.put(raw)
        assert (answer.status_code, word in answer.text) == (status, True), answer.text
    good = signed(adopted)
    assert adopted.put(good, **{"if-match": '"other"'}).status_code == 412
    assert adopted.put(good).json()["changed"]
    assert adopted.put(good).json() == {"version": 4, "changed": False}  # an answer that got lost: sent again


def test_revoked_and_denied_releases_leave_the_list_and_their_states(adopted: Place) -> None:
    first, second, third = bundles(3)
    for one in (first, second, third):
        push(one, adopted.url, token=adopted.releaser, key=open_release_key("shoal-keys/release-1.pem"))
    model = first.info.name
    states = lambda: {  # noqa: E731 - said once
        v["version"]: v["state"]
        for v in httpx2.get(
            f"{adopted.url}/api/v1/models/{model}",
            headers={"authorization": f"Bearer {adopted.admin}"},
            trust_env=False,
        ).json()["versions"]
    }
    adopted.ok("keys", "deny", f"{model}:1.2.0")
    assert states()["1.2.0"] == "denied"
    adopted.ok("keys", "allow", f"{model}:1.2.0")
    adopted.ok("keys", "revoke", f"{model}:1.1.0", "--below")
    assert states() == {"1.0.0": "revoked", "1.1.0": "revoked", "1.2.0": "released"}
    assert adopted.listed().minimum == {model: 3}
    assert adopted.listed().revocation(third.digest) is None
    code, _, err = adopted("keys", "revoke", f"{model}:9.9.9")
    assert (code, "does not name" in err) == (2, True)


def test_root_keys_on_several_machines_sign_one_after_the_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "secret").write_text("correct horse\n")
    place.ok("keys", "init", "--root-keys", "3", "--threshold", "2", "--passphrase-file", "secret")
    assert b"ENCRYPTED" in (place.folder / "shoal-keys" / "root-1.pem").read_bytes()
    for name in ("root-2.pem", "root-3.pem"):
        (place.folder / "shoal-keys" / name).rename(place.folder / name)  # another machine
    told = ("--passphrase-file", "secret")
    code, _, err = place("keys", "adopt", *told)
    assert (code, "--export" in err) == (5, True)
    place.ok("keys", "adopt", "--export", "next.json", *told)
    code, _, err = place("keys", "import", "next.json", *told)
    assert (code, "1 of 2 signatures" in err) == (5, True)
    monkeypatch.setenv("SHOAL_URL", "http://127.0.0.1:9")  # the other machine has no network
    place.ok("keys", "sign", "next.json", "--key", "root-2.pem", *told)
    monkeypatch.setenv("SHOAL_URL", place.url)
    place.ok("keys", "import", "next.json", *told)
    assert Metadata[Root].from_bytes(place.get("root.json")).signed.roles["root"].threshold == 2
    code, _, err = place("keys", "sign", "next.json", "--key", "root-3.pem", "--passphrase-file", "next.json")
    assert (code, "passphrase right" in err) == (5, True)


def test_keys_are_rotated_and_removed(adopted: Place, bundle: Bundle) -> None:
    push(bundle, adopted.url, token=adopted.releaser, key=open_release_key("shoal-keys/release-1.pem"))
    assert "file:release-2.pem" in adopted.ok("keys", "rotate", "release")
    with pytest.raises(SignatureError, match="no release key"):
        push(bundle, adopted.url, token=adopted.releaser, key=open_release_key("shoal-keys/release-1.pem"))
    push(bundle, adopted.url, token=adopted.releaser, key=open_release_key("shoal-keys/release-2.pem"))
    adopted.ok("keys", "rotate", "root")
    adopted.ok("keys", "rotate", "root", "--keep-old")
    old = adopted.shoal.trust.assignment_signer.public_key.keyid
    adopted.ok("keys", "rotate", "online")
    assert adopted.shoal.trust.assignment_signer.public_key.keyid != old
    adopted.ok("keys", "resign")
    shown = json.loads(adopted.ok("keys", "show", "--url", adopted.url, "--json"))
    assert [len(shown["root"]["keys"]), shown["server"]["root"]["version"]] == [2, 6]
    adopted.ok("keys", "remove", shown["root"]["keys"][0]["keyid"][:12])
    code, _, err = adopted("keys", "remove", shown["root"]["keys"][1]["keyid"][:12])
    assert (code, "only root key" in err) == (2, True)


def test_a_list_that_went_back_is_not_signed(adopted: Place) -> None:
    adopted.ok("keys", "resign")
    (adopted.folder / "shoal-keys" / "seen.json").write_text('{"list": 40}')
    code, _, err = adopted("keys", "resign")
    assert (code, "version 40 was seen" in err) == (5, True)


def test_a_faster_pipeline_does_not_make_the_list_look_old(adopted: Place) -> None:
    adopted.ok("keys", "resign")
    memory = RootMemory(adopted.folder / "shoal-keys" / "root.json")

    class Interrupted(Registry):
        """A registry whose answer travels while another pipeline sees a newer list."""

        def exchange(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
            answer = super().exchange(method, path, **more)
            if path.endswith("targets.json"):
                memory.save_seen(memory.seen() + 1)
            return answer

    with Interrupted(adopted.url, token=adopted.releaser) as registry:
        authority = Authority(registry, memory)
        found = authority.current(authority.root().signed, None)
    assert found.metadata.signed.version == memory.seen() - 1


def test_another_servers_root_is_not_followed(adopted: Place) -> None:
    adopted.ok("keys", "init", "--dir", "other")
    stranger = Metadata[Root].from_bytes(adopted.get("root.json"))
    stranger.signed.version += 1
    stranger.sign(open_release_key("other/root-1.pem").signer)
    (adopted.folder / "shoal-keys" / "root.json").write_bytes(stranger.to_bytes())
    code, _, err = adopted("keys", "resign")
    assert (code, "treat it as stolen" in err) == (5, True)


def test_what_a_person_gets_wrong(place: Place) -> None:
    for words, code, advice in (
        (("keys", "show"), 2, "keys init"),
        (("keys", "init", "--threshold", "2"), 2, "raise --root-keys"),
        (("keys", "resign", "--key", "nowhere.pem"), 5, "keys init"),
        (("keys", "resign", "--key", "magic:key"), 2, "awskms"),
        (("keys", "resign", "--key", "awskms:alias/x"), 1, "pip install 'securesystemslib[awskms]'"),
        (("keys", "resign", "--key", "gcpkms:projects/x"), 1, "pip install 'securesystemslib[gcpkms]'"),
        (("keys", "sign", "nothing.json", "--key", "k"), 2, "--export writes one"),
    ):
        found, _, err = place(*words)
        assert (found, advice in err) == (code, True), (words, err)
    place.ok("keys", "init")
    code, _, err = place("keys", "init")
    assert (code, "already" in err) == (2, True)


def test_a_list_near_its_end_is_told(adopted: Place) -> None:
    assert "warnings" not in httpx2.get(f"{adopted.url}/readyz", trust_env=False).text
    adopted.ok("keys", "resign", "--days", "29")
    found = httpx2.get(f"{adopted.url}/api/v1/trust", headers={"authorization": f"Bearer {adopted.admin}"})
    assert "expires in 28 days" in found.json()["warnings"][0]
    assert "keys resign" in httpx2.get(f"{adopted.url}/readyz", trust_env=False).json()["warnings"][0]
