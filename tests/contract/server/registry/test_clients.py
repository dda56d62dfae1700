"""Existing OCI clients against the registry, unchanged: oras-py and skopeo, over a real socket."""

import json
from pathlib import Path

import pytest
from oras.client import OrasClient
from oras.container import Container

from registry_clients import skopeo, write_layout
from shoal_protocol.bundle.layout import MODEL_ONNX
from shoal_protocol.bundle.manifest import MANIFEST_MEDIA_TYPE
from shoal_protocol.canonical import sha256_digest
from shoal_server.access import Role
from shoal_server.registry import store
from shoal_server.services import Services
from shoal_server.testing import api_token
from shoal_server.testing.bundles import TinyBundle, tiny_bundle


def _oras(host: str, token: str, backend: str) -> OrasClient:
    client = OrasClient(hostname=host, insecure=True, auth_backend=backend)
    client.auth.set_basic_auth("ci", token)
    return client


def _oras_push(client: OrasClient, host: str, bundle: TinyBundle, folder: Path) -> None:
    container = Container(f"{host}/{bundle.name}:{bundle.version}")
    folder.mkdir()
    for number, (digest, content) in enumerate(bundle.blobs.items()):
        path = folder / digest.removeprefix("sha256:")
        path.write_bytes(content)
        layer = {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}
        chunked = number == 0  # both ways of uploading
        client.upload_blob(str(path), container, layer, do_chunked=chunked, chunk_size=64)
    answer = client.do_request(
        f"http://{container.manifest_url()}", "PUT", data=bundle.manifest, headers={"Content-Type": MANIFEST_MEDIA_TYPE}
    )
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("backend", ["token", "basic"])
def test_oras_pushes_and_pulls_a_bundle(shoal: Services, host: str, token: str, tmp_path: Path, backend: str) -> None:
    bundle = tiny_bundle()
    client = _oras(host, token, backend)
    _oras_push(client, host, bundle, tmp_path / "files")
    with shoal.database.read() as session:
        assert store.resolve(session, "quality:1.0.0").digest == bundle.digest
    assert client.get_tags(f"{host}/quality") == ["1.0.0"]
    files = client.pull(f"{host}/quality:1.0.0", outdir=str(tmp_path / "pulled"))
    pulled = {str(Path(file).relative_to(tmp_path / "pulled")): Path(file).read_bytes() for file in files}
    assert pulled == bundle.files
    assert sha256_digest(json.dumps(client.get_manifest(f"{host}/quality:1.0.0")).encode())


def test_oras_is_told_why_a_push_is_refused(host: str, token: str, tmp_path: Path) -> None:
    bundle = tiny_bundle()
    bundle.files["model/extra.pkl"] = b"\x80\x04."
    with pytest.raises(AssertionError, match="pickles and libraries are never taken"):
        _oras_push(_oras(host, token, "token"), host, bundle, tmp_path / "files")


def test_skopeo_copies_a_bundle_in_and_out(shoal: Services, host: str, token: str, tmp_path: Path) -> None:
    bundle = tiny_bundle()
    source, target = write_layout(bundle, tmp_path / "in"), tmp_path / "out"
    remote, credentials = f"docker://{host}/quality:1.0.0", f"ci:{token}"
    pushed = skopeo("copy", "--dest-tls-verify=false", "--dest-creds", credentials, f"oci:{source}", remote)
    assert pushed.returncode == 0, pushed.stderr
    with shoal.database.read() as session:
        assert store.resolve(session, "quality:1.0.0").digest == bundle.digest
    inspected = skopeo("inspect", "--raw", "--tls-verify=false", "--creds", credentials, remote)
    assert inspected.stdout.encode() == bundle.manifest
    pulled = skopeo("copy", "--src-tls-verify=false", "--src-creds", credentials, remote, f"oci:{target}")
    assert pulled.returncode == 0, pulled.stderr
    model = sha256_digest(bundle.files[MODEL_ONNX]).removeprefix("sha256:")
    assert (target / "blobs" / "sha256" / model).read_bytes() == bundle.files[MODEL_ONNX]
    digests = [entry["digest"] for entry in json.loads((target / "index.json").read_text())["manifests"]]
    assert digests == [bundle.digest]


def test_skopeo_is_told_why_a_push_is_refused(host: str, token: str, tmp_path: Path) -> None:
    bundle = tiny_bundle()
    bundle.files["model/extra.pkl"] = b"\x80\x04."
    source = write_layout(bundle, tmp_path / "in")
    remote = f"docker://{host}/quality:1.0.0"
    pushed = skopeo("copy", "--dest-tls-verify=false", "--dest-creds", f"ci:{token}", f"oci:{source}", remote)
    assert pushed.returncode != 0
    assert "refused by the rule file_types" in pushed.stderr


def test_skopeo_without_rights_is_turned_away(shoal: Services, host: str, tmp_path: Path) -> None:
    viewer = api_token(shoal, Role.VIEWER)
    source = write_layout(tiny_bundle(), tmp_path / "in")
    remote = f"docker://{host}/quality:1.0.0"
    pushed = skopeo("copy", "--dest-tls-verify=false", "--dest-creds", f"viewer:{viewer}", f"oci:{source}", remote)
    assert pushed.returncode != 0
    assert "needs the role releaser" in pushed.stderr
