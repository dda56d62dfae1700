"""Another registry as a peer: bundles are copied both ways by skopeo, unchanged, and sent only once."""

import json
from dataclasses import replace
from pathlib import Path

from registry_clients import Peer, skopeo, write_layout
from shoal_converter.bundle import Bundle
from shoal_converter.oci_layout import Layout
from shoal_converter.pushing import pull, push
from shoal_protocol.canonical import sha256_digest
from shoal_server.registry import store
from shoal_server.services import Services
from shoal_server.testing.bundles import tiny_bundle


def copy(source: str, target: str, token: str, *, ours: str) -> None:
    """Copy between registries; `ours` says which end needs our credentials, src or dest."""
    done = skopeo(
        "copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"--{ours}-creds", f"ci:{token}", source, target
    )
    assert done.returncode == 0, done.stderr


def test_a_bundle_comes_from_a_peer_and_goes_back_with_the_same_digest(
    shoal: Services, host: str, token: str, peer: Peer, tmp_path: Path
) -> None:
    bundle = tiny_bundle()
    theirs, ours = f"docker://{peer.host}/quality:1.0.0", f"docker://{host}/quality:1.0.0"
    layout = write_layout(bundle, tmp_path / "layout")
    assert skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}", theirs).returncode == 0
    copy(theirs, ours, token, ours="dest")
    with shoal.database.read() as session:
        assert store.resolve(session, "quality:1.0.0").digest == bundle.digest
    back = f"docker://{peer.host}/copy:1.0.0"
    copy(ours, back, token, ours="src")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", back).stdout.encode()
    assert sha256_digest(raw) == bundle.digest


def test_a_second_copy_sends_no_bytes_either_way(
    shoal: Services, host: str, token: str, peer: Peer, tmp_path: Path
) -> None:
    bundle = tiny_bundle()
    theirs, ours = f"docker://{peer.host}/quality:1.0.0", f"docker://{host}/quality:1.0.0"
    layout = write_layout(bundle, tmp_path / "layout")
    assert skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}", theirs).returncode == 0
    sent: list[int] = []
    append = shoal.blobs.append

    def counted(upload: str, data: bytes, *, offset: int) -> int:
        sent.append(len(data))
        return append(upload, data, offset=offset)

    shoal.blobs.append = counted  # type: ignore[method-assign]
    copy(theirs, ours, token, ours="dest")
    assert sum(sent) == sum(len(content) for content in bundle.blobs.values()) + len(bundle.manifest)
    sent.clear()
    uploads = peer.uploads()
    assert uploads > 0
    copy(theirs, ours, token, ours="dest")
    copy(ours, theirs, token, ours="src")
    assert sent == []
    assert peer.uploads() == uploads


def with_statements() -> Bundle:
    """Return a bundle with two statements about it."""
    tiny = tiny_bundle()
    bundle = Bundle.from_layout(Layout("1.0.0", tiny.manifest, (), tiny.blobs))
    return replace(bundle, statements={"parity": b'{"a": 1}', "sbom": b'{"b": 2}'})


def test_where_no_referrers_api_is_the_tag_stands_for_it(peer: Peer, host: str, token: str) -> None:
    bundle = with_statements()
    for _ in range(2):  # the second time changes nothing
        pushed = push(bundle, peer.url)
        assert pushed.statements
        raw = skopeo(
            "inspect", "--raw", "--tls-verify=false", f"docker://{peer.host}/quality:{bundle.digest.replace(':', '-')}"
        ).stdout
        index = json.loads(raw)
        expected = {sha256_digest(referrer) for referrer in bundle.layout().referrers}
        assert {entry["digest"] for entry in index["manifests"]} == expected
    assert pull("quality:1.0.0", peer.url).digest == bundle.digest
    assert push(bundle, f"http://{host}", token=token).statements  # ours lists them itself
    for url, secret in ((peer.url, None), (f"http://{host}", token)):
        again = push(bundle, url, token=secret)
        assert (again.statements, again.statements_sent) == (True, ())
        assert dict(pull("quality:1.0.0", url, token=secret).statements) == dict(bundle.statements)
