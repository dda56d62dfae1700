"""The client judged as the conformance suite judges it: hostile repositories, exit codes, what is stored, who is asked.

The cases are those of https://github.com/theupdateframework/tuf-conformance, written anew against a repository of ours.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest
from securesystemslib.signer import CryptoSigner

from shoal_agent.cli import main
from tuf_repository import Repository, RepositoryServer

ECDSA = CryptoSigner.generate_ecdsa
RSA = CryptoSigner.generate_rsa
KEYS = [CryptoSigner.generate_ed25519() for _ in range(10)]
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class Client:
    """The commands as the suite types them."""

    def __init__(self, repository: Repository, url: str, folder) -> None:
        self.repository, self.url, self.folder = repository, url, folder
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        for made in (self.metadata, self.targets):
            made.mkdir()

    def init(self, root: bytes | None = None) -> int:
        pinned = self.folder / "initial_root.json"
        pinned.write_bytes(root or self.repository.published["root"][0])
        return main(["tuf-client", "--metadata-dir", str(self.metadata), "init", str(pinned)])

    def refresh(self, *words: str) -> int:
        self.repository.asked.clear()
        return main(["tuf-client", "--metadata-url", f"{self.url}/metadata/", *self._to, *words, "refresh"])

    def download(self, name: str, *words: str) -> int:
        self.repository.asked.clear()
        words += ("--target-name", name, "--target-dir", str(self.targets))
        words += ("--target-base-url", f"{self.url}/targets/")
        return main(["tuf-client", "--metadata-url", f"{self.url}/metadata/", *self._to, *words, "download"])

    @property
    def _to(self) -> tuple[str, str]:
        return ("--metadata-dir", str(self.metadata))

    def version(self, role: str) -> int | None:
        path = self.metadata / f"{role}.json"
        return json.loads(path.read_bytes())["signed"]["version"] if path.exists() else None

    @property
    def versions(self) -> tuple[int | None, ...]:
        return tuple(self.version(role) for role in ("root", "timestamp", "snapshot", "targets"))

    @property
    def downloaded(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.targets.rglob("*") if path.is_file())


@pytest.fixture
def world(tmp_path):
    """A repository and a client that was given its first root."""
    repository = Repository()
    with RepositoryServer(repository) as server:
        client = Client(repository, server.url, tmp_path)
        assert client.init() == 0
        yield repository, client


@pytest.mark.parametrize("signer", [RSA, ECDSA, lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256")])
def test_keys_of_every_kind_are_taken(tmp_path, signer: Callable[[], CryptoSigner]):
    with RepositoryServer(repository := Repository(signer=signer)) as server:
        client = Client(repository, server.url, tmp_path)
        assert (client.init(), client.refresh()) == (0, 0)
        assert repository.asked == ["2.root", "timestamp", "1.snapshot", "1.targets"]
        assert client.versions == (1, 1, 1, 1)


@pytest.mark.parametrize("spoil", ["version", "signature"])
def test_a_first_root_that_is_no_root_asks_nobody(world, spoil):
    repository, client = world
    root = json.loads(repository.published["root"][0])
    if spoil == "version":
        del root["signed"]["version"]
    else:
        root["signatures"][0]["sig"] = "00" * 64
    client.init(json.dumps(root).encode())
    assert client.refresh() == 1
    assert repository.asked == []


def test_the_same_version_with_another_content_is_not_taken(world):
    repository, client = world
    assert client.refresh() == 0
    kept = (client.metadata / "timestamp.json").read_bytes()
    repository.signed["timestamp"].snapshot_meta.version = 100
    repository.publish("timestamp", bump=False)
    client.refresh()
    assert (client.metadata / "timestamp.json").read_bytes() == kept


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_file_that_is_not_the_one_that_was_named_is_not_taken(world, role):
    repository, client = world
    repository.with_hashes = True
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repository.publish("targets", "snapshot", "timestamp")
    repository.signed[role].unrecognized_fields["x"] = "another content of the same version"
    repository.publish(role, bump=False)
    if role == "targets":
        repository.published["targets"] = [repository.published["targets"][-1]]
    assert client.refresh() == 1
    assert client.version(role) == 2


@pytest.mark.parametrize("with_hashes", [False, True])
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_going_back_is_refused(world, role, with_hashes):
    repository, client = world
    repository.with_hashes = with_hashes
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repository.signed[role].version = 1
    for later in ("targets", "snapshot", "timestamp")[("targets", "snapshot", "timestamp").index(role) :]:
        repository.publish(later, bump=later != role)
    assert client.refresh() == 1
    assert client.version(role) == 2


@pytest.mark.parametrize(("role", "rotated"), [("timestamp", 1), ("snapshot", 2), ("targets", 1)])
def test_new_keys_cure_a_version_that_an_attacker_drove_up(world, role, rotated):
    repository, client = world
    repository.signed[role].version = 9_998
    repository.publish(*{"targets": ("targets", "snapshot")}.get(role, (role,)), "timestamp")
    assert client.refresh() == 0
    for fresh in {"targets": ("snapshot",), "snapshot": ("snapshot", "timestamp")}.get(role, (role,)):
        repository.give_keys(fresh, [CryptoSigner.generate_ed25519()])
    repository.signed[role].version = 0
    repository.publish("targets", "snapshot", "timestamp", "root")
    assert client.refresh() == 0
    assert client.version(role) == rotated - (role == "snapshot")


@pytest.mark.parametrize(
    ("role", "kept"),
    [("root", (2, 1, 1, 1)), ("timestamp", (1, 1, 1, 1)), ("snapshot", (1, 2, 1, 1)), ("targets", (1, 2, 2, 1))],
)
def test_what_has_expired_is_not_taken(world, role, kept):
    repository, client = world
    assert client.refresh() == 0
    repository.signed[role].expires = PAST
    repository.publish(*(("root",) if role == "root" else ("targets", "snapshot", "timestamp")))
    assert client.refresh() == 1
    assert client.versions == kept


def test_expired_files_of_the_client_lead_on_to_fresh_ones(world):
    repository, client = world
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    repository.signed["timestamp"].expires = now + dt.timedelta(days=7)
    repository.publish("timestamp")
    assert client.refresh() == 0
    repository.signed["timestamp"].expires = now + dt.timedelta(days=21)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh("--days-in-future", "18") == 0
    assert client.versions == (1, 3, 2, 2)


def test_a_key_counts_once_under_however_many_names(world):
    repository, client = world
    assert client.refresh() == 0
    signer, root = CryptoSigner.generate_ed25519(), repository.signed["root"]
    repository.give_keys("snapshot", [signer], threshold=2)
    raw = signer.public_key.to_dict()
    for name in ("a" * 64, "b" * 64):
        root.add_key(type(signer.public_key).from_dict(name, dict(raw)), "snapshot")
    repository.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 1
    assert client.version("snapshot") == 1


def test_fields_that_nobody_knows_are_part_of_what_is_signed(world):
    repository, client = world
    root = repository.signed["root"]
    root.unrecognized_fields["custom"] = "value"
    key = root.keys[root.roles["root"].keyids[0]]
    key.unrecognized_fields |= {"extra": {"a": 1}, "keyid_hash_algorithms": ["md5"]}
    root.roles["root"].unrecognized_fields["another"] = "value"
    repository.publish("root")
    assert client.refresh() == 0
    assert client.version("root") == 2


ROOTS = {
    "a new key": ([(1,), 1, (1,)], [(2,), 1, (2, 1)], [(2,), 1, (2,)]),
    "signatures of nobody": ([(1,), 1, (3, 1, 4)], [(2,), 1, (3, 2, 1, 4)], [(2,), 1, (3, 2, 4)]),
    "others of five": ([(0, 1, 2, 3, 4), 3, (0, 2, 4)], [(0, 1, 2, 3, 4), 3, (0, 4, 1)]),
    "one of five is new": ([(0, 1, 2, 3, 4), 3, (0, 2, 4)], [(0, 1, 3, 4, 5), 3, (0, 4, 1)]),
    "all five are new": ([(0, 1, 2, 3, 4), 3, (0, 2, 4)], [(5, 6, 7, 8, 9), 3, (0, 2, 4, 5, 6, 7)]),
    "one becomes two": ([(1, 2, 3), 1, (1,)], [(1, 2, 3), 2, (1, 2)]),
    "two become one": ([(1, 2, 3), 2, (1, 2)], [(1, 2, 3), 1, (1, 2)], [(1, 2, 3), 1, (1,)]),
    "not signed by the old key": ([(1,), 1, (1,)], [(2,), 1, (2, 3, 4)], None),
    "not signed by the new key": ([(1,), 1, (1,)], [(2,), 1, (1, 3, 4)], None),
    "two new of three": ([(0, 1, 2, 3, 4), 3, (0, 2, 4)], [(0, 1, 3, 4, 5), 3, (0, 2, 4)], None),
    "two old of three": ([(0, 1, 2, 3, 4), 3, (0, 2, 4)], [(0, 1, 3, 4, 5), 3, (0, 4, 5)], None),
    "too few for the new threshold": ([(1, 2, 3), 1, (1,)], [(1, 2, 3), 2, (2,)], None),
    "too few for the old threshold": ([(1, 2, 3), 2, (1, 2)], [(1, 2, 3), 1, (1,)], None),
}


@pytest.mark.parametrize("steps", ROOTS.values(), ids=ROOTS)
def test_roots_follow_each_other_by_both_their_keys(world, steps):
    repository, client = world
    repository.published["root"].clear()
    repository.signed["root"].version = 0
    wanted = [step for step in steps if step is not None]
    for keys, threshold, signers in wanted:
        repository.give_keys("root", [KEYS[at] for at in keys], threshold=threshold)
        repository.signers["root"] = [KEYS[at] for at in signers]
        repository.publish("root")
    client.init()
    refused = steps[-1] is None
    assert client.refresh() == int(refused)
    assert (client.metadata / "root.json").read_bytes() == repository.published["root"][-2 if refused else -1]


OTHERS = {
    "a new key": ((2,), 1, (2,), True),
    "signatures of nobody": ((1,), 1, (3, 1, 4), True),
    "not signed by the new key": ((2,), 1, (1, 3, 4), False),
    "two of three": ((0, 1, 3, 4, 5), 3, (0, 2, 4), False),
    "too few": ((0, 1, 3, 4, 5), 3, (0, 4), False),
    "three of five": ((0, 1, 2, 3, 4), 3, (2, 3, 4), True),
}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_files_need_the_signatures_that_the_root_names(world, role, case):
    keys, threshold, signers, taken = case
    repository, client = world
    assert client.refresh() == 0
    repository.give_keys(role, [KEYS[at] for at in keys], threshold=threshold)
    repository.signers[role] = [KEYS[at] for at in signers]
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == int(not taken)
    assert client.version(role) == (2 if taken else 1)


def test_only_the_named_bytes_are_kept_whatever_is_served(world):
    repository, client = world
    repository.add("path/to a/target", b"right")
    repository.add("other", b"right too")
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.downloaded == []
    assert client.download("path/to a/target") == 0
    assert client.downloaded == [b"right"]
    repository.artifacts |= {"path/to a/target": b"wrong", "other": b"wrong and longer"}
    client.download("path/to a/target")
    assert client.download("other") == 1
    assert client.downloaded == [b"right"]
    repository.add("path/to a/target", b"newer")
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("path/to a/target") == 0
    assert client.downloaded == [b"newer"]


def test_a_download_refreshes_first(world):
    repository, client = world
    assert client.download("not there") == 1
    assert repository.asked == ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert client.versions == (1, 1, 1, 1)


GRAPHS = {
    "one": ("targets>A", "A"),
    "depth first": ("targets>A targets>B A>C A>D", "A C D B"),
    "terminating": ("targets>A targets>B A>C! C>D", "A C D"),
    "terminating among siblings": ("targets>A targets>B A>C! A>D", "A C"),
    "only paths that match": ("targets>A:*.py targets>B A>C", "B"),
    "a circle": ("targets>A targets>B B>C C>D D>B", "A B C D"),
    "twice to the same": ("targets>A targets>B B>C A>C", "A C B"),
}


@pytest.mark.parametrize(("edges", "asked"), GRAPHS.values(), ids=GRAPHS)
def test_delegated_roles_are_searched_in_order(world, edges, asked):
    repository, client = world
    roles: dict[str, None] = {}
    for edge in edges.split():
        ends, _, paths = edge.partition(":")
        delegator, _, role = ends.rstrip("!").partition(">")
        repository.delegate(delegator, role, *filter(None, [paths]), terminating=ends.endswith("!"))
        roles[role] = None
    repository.publish(*roles, "targets", "snapshot", "timestamp")
    assert client.download("missing") == 1
    assert [name.partition(".")[2] for name in repository.asked[4:]] == asked.split()


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role"])
def test_odd_names_of_roles_leave_no_file_elsewhere(world, role):
    repository, client = world
    repository.delegate("targets", role)
    repository.add("x", b"content", role=role)
    repository.publish(role, "targets", "snapshot", "timestamp")
    assert client.download("x") == 0
    assert len([path for path in client.metadata.iterdir() if path.suffix == ".json"]) == 5
    assert not [path for path in client.folder.iterdir() if "role" in path.name]


def test_an_expired_delegated_role_gives_nothing(world):
    repository, client = world
    repository.delegate("targets", "A")
    repository.add("x", b"content", role="A")
    repository.signed["A"].expires = PAST
    repository.publish("A", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.download("x") == 1
    assert client.downloaded == []
    assert client.version("A") is None
