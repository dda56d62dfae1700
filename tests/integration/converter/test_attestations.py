"""OMS signatures and the bill of materials: ours, and as the field's own programs see them where they are installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from peers import peer
from shoal_converter import Bundle
from shoal_converter.errors import SignatureError
from shoal_converter.signing.oms import check_files, sign_files
from shoal_protocol.errors import CallerError, ContentError

SIGNER = CryptoSigner.generate_ecdsa()
PUBLIC = SIGNER.public_key.to_dict()["keyval"]["public"].encode()
FILES = {"README.md": b"b\n", "model/x.txt": b"a\n"}


def test_a_signature_covers_every_file() -> None:
    raw = sign_files(FILES, name="m", signer=SIGNER)
    assert check_files(raw, FILES, public_pem=PUBLIC).startswith("2 files")
    for other in ({**FILES, "README.md": b"c"}, {**FILES, "more": b""}, {"README.md": b"b\n"}):
        with pytest.raises(SignatureError, match="covers other files"):
            check_files(raw, other, public_pem=PUBLIC)


def test_other_keys_changed_signatures_and_garbage_are_refused() -> None:
    raw = sign_files(FILES, name="m", signer=SIGNER)
    stranger = CryptoSigner.generate_ecdsa().public_key.to_dict()["keyval"]["public"].encode()
    with pytest.raises(SignatureError, match="is by the key"):
        check_files(raw, FILES, public_pem=stranger)
    document = json.loads(raw)
    document["verificationMaterial"]["publicKey"].pop("hint")
    with pytest.raises(SignatureError, match="does not verify"):
        check_files(json.dumps(document).encode(), FILES, public_pem=stranger)
    for garbage in (b"", b"{}", b"[]", b'{"dsseEnvelope": {"payload": "%"}}'):
        with pytest.raises(ContentError, match="no OMS signature"):
            check_files(garbage, FILES, public_pem=PUBLIC)
    with pytest.raises(CallerError, match="no public key"):
        check_files(raw, FILES, public_pem=b"x")
    ed = CryptoSigner.generate_ed25519()
    with pytest.raises(CallerError, match="ECDSA"):
        sign_files(FILES, name="m", signer=ed)


def test_the_commands_sign_verify_and_unpack(shoal_convert: Any, bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b.tar")
    (tmp_path / "key.pem").write_bytes(SIGNER.private_bytes)
    (tmp_path / "key.pub").write_bytes(PUBLIC)
    code, out, _ = shoal_convert("verify", "b.tar", "--oms-key", "key.pub")
    assert (code, "there is no OMS signature" in out) == (1, True)
    assert shoal_convert("attest", "b.tar", "--key", "key.pem")[0] == 0
    assert Bundle.open(tmp_path / "b.tar").digest == bundle.digest
    code, out, _ = shoal_convert("verify", "b.tar", "--oms-key", "key.pub")
    assert (code, "signed by the key" in out) == (0, True)
    assert "give --oms-key" in shoal_convert("verify", "b.tar")[1]
    assert shoal_convert("unpack", "b.tar", "-o", "out")[0] == 0
    assert (tmp_path / "out" / "attestations" / "oms.sig").is_file()


def test_pack_signs_in_one_go_and_a_dry_run_writes_nothing(shoal_convert: Any, workshop: Any, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(SIGNER.private_bytes)
    (tmp_path / "key.pub").write_bytes(PUBLIC)
    words = ["pack", workshop.file("model.joblib"), "--trust", "--sample", workshop.file("train.csv")]
    words += ["--target", "species", "-t", "iris:1.0.0", "--oms-key"]
    code, _, err = shoal_convert(*words, "nowhere.pem")
    assert (code, "converting" in err) == (5, False), "a key that is not there is told before any work"
    code, out, _ = shoal_convert(*words, "key.pem", "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["dry_run"], told["path"]) == (0, True, None)
    assert not (tmp_path / "iris-1.0.0.tar").exists()
    code, out, _ = shoal_convert(*words, "key.pem")
    assert (code, "beside it an OMS signature" in out) == (0, True)
    packed = Bundle.open(tmp_path / "iris-1.0.0.tar")
    assert packed.digest == told["digest"]
    assert check_files(packed.statements["oms"], packed.unpacked(), public_pem=PUBLIC)


def test_model_signing_accepts_ours_and_we_accept_theirs(shoal_convert: Any, bundle: Bundle, tmp_path: Path) -> None:
    program = peer("model_signing")
    bundle.write(tmp_path / "b.tar")
    (tmp_path / "key.pem").write_bytes(SIGNER.private_bytes)
    (tmp_path / "key.pub").write_bytes(PUBLIC)
    shoal_convert("attest", "b.tar", "--key", "key.pem")
    shoal_convert("unpack", "b.tar", "-o", "out")
    ours = ["verify", "key", "out", "--signature", "out/attestations/oms.sig", "--public_key", "key.pub"]
    done = subprocess.run([program, *ours], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle.write(tmp_path / "plain.tar")
    shoal_convert("unpack", "plain.tar", "-o", "plain")
    theirs = ["sign", "key", "plain", "--signature", "theirs.sig", "--private_key", "key.pem"]
    subprocess.run([program, *theirs], cwd=tmp_path, capture_output=True, check=True)
    words = ("verify", "plain.tar", "--oms-key", "key.pub", "--oms-signature", "theirs.sig")
    assert shoal_convert(*words)[0] == 0


def test_the_bill_of_materials_names_model_and_packages(bundle: Bundle) -> None:
    statement = json.loads(bundle.statements["sbom"])
    assert statement["predicateType"] == "https://cyclonedx.org/bom"
    bom = statement["predicate"]
    assert bom["metadata"]["component"]["hashes"][0]["content"] == bundle.digest.removeprefix("sha256:")
    assert {"onnx", "scikit-learn"} <= {component["name"] for component in bom["components"]}
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed")
    from cyclonedx.schema import SchemaVersion

    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None
