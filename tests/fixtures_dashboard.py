"""A fleet to look at: three versions of a model, thirty devices, four rollouts, drift; the same every time.

Pages are tested on it, and it shows what a page looks like when there is something to show. One device has a name that
would harm a page that doesn't escape.
"""

from typing import Any

import numpy as np
from sqlmodel import Session

from dashboard_rollouts import SITES, add_rollouts
from shoal_protocol.bundle.assembly import build_manifest
from shoal_protocol.bundle.manifest import encode_manifest
from shoal_protocol.bundle.schema import (
    BundleInfo,
    FieldSpec,
    Golden,
    ModelSchema,
    OutputSpec,
    TensorSpec,
    encode_document,
)
from shoal_protocol.mqtt.messages import Fault, SlotReport
from shoal_protocol.profile.codec import ProfileMessage, encode_counts, encode_profile
from shoal_protocol.profile.grid import fit_categorical, fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import Profile, ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference, encode_reference
from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.access import Role, audit
from shoal_server.access import store as access
from shoal_server.access.secrets import Passwords
from shoal_server.alerts import store as alerts
from shoal_server.drift.rules import Rules
from shoal_server.drift.scan import DriftScan
from shoal_server.drift.season import Season
from shoal_server.fleet import assignments
from shoal_server.fleet.tables import DeviceRow
from shoal_server.outbox import Event, EventType, announce
from shoal_server.outbox.event_types import DeviceData
from shoal_server.quality.scan import QualityScan
from shoal_server.registry import store as registry
from shoal_server.registry.bundles import Bundles
from shoal_server.registry.tables import ModelVersion
from shoal_server.services import Services
from shoal_server.telemetry.tables import LabelRow, WindowRow
from shoal_server.webhooks import queue
from shoal_server.webhooks import store as webhooks
from shoal_server.webhooks.sender import Answer

HOSTILE = "<script>alert(1)</script>"
PASSWORD = "correct horse battery"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
_BUCKETS = 24
_FEATURES = ("brightness", "contrast", "blur", "temperature")


def seed(program: Services, *, windows: bool = True) -> dict[str, str]:
    """Fill an empty database; returns the digest of each version. Windows, and so drift, take a second."""
    now = program.clock()
    program.bundles = Bundles(program.blobs)
    program.reference = program.bundles.reference
    digests = {version: _push(program, version, at) for at, version in enumerate(VERSIONS)}
    with program.database.write() as session:
        add_people(session, now)
        _versions(session, digests, now)
        _devices(session, digests, now)
        add_rollouts(session, digests, now)
        _alerts(session, now)
        _webhooks(session, now)
        if windows:
            _windows(session, digests, now)
    rules = Rules(baseline_windows=14)
    scan = DriftScan(program.database, program.reference, program.clock, rules=rules, season=Season.NONE)
    scan.tick()
    _labels(program, digests["1.1.0"])
    QualityScan(program.database, program.reference, program.clock).tick()
    return digests


def _labels(program: Services, digest: str) -> None:
    """Let labels come back of the last hours: fewer right ones where the fog is."""
    hour_ms = int(program.clock() // 3600) * 3_600_000
    with program.database.write() as session:
        for at in range(30):
            site = SITES[at % 3]
            for truth, said, cell, n in ((3, 3, 62, 40), (3, 8, 40, 18 if site == "bern" else 2), (8, 8, 60, 30)):
                session.add(
                    LabelRow(
                        slot="meter-reader",
                        digest=digest,
                        device=f"cam-{site}-{at // 3 + 1:02}",
                        hour_ms=hour_ms,
                        truth=truth,
                        said=said,
                        bin=cell,
                        n=n,
                    )
                )


def profile_spec() -> ProfileSpec:
    """The streams of the seeded model."""
    random = np.random.default_rng(1)
    inputs = [
        Stream(name, "input", fit_numeric(random.normal(10, 2, 4000)), "input", at) for at, name in enumerate(_FEATURES)
    ]
    label = Stream("label", "output", fit_categorical([str(digit) for digit in range(10)]), "label")
    confidence = Stream("confidence", "output", unit_interval_grid(), "probabilities", None, "row_max")
    return ProfileSpec((*inputs, label, confidence))


def profile_of(spec: ProfileSpec, *, rows: int, fog: float = 0.0, seed: int = 0) -> Profile:
    """What a device counts in one window; `fog` moves brightness and contrast."""
    random = np.random.default_rng(seed)
    inputs = random.normal(10, 2, (rows, len(_FEATURES))).astype(np.float32)
    inputs[:, 0] += 3 * fog
    inputs[:, 1] -= 2 * fog
    labels = np.array([str(digit) for digit in random.integers(0, 10, rows)])
    probabilities = random.dirichlet([6 - 4 * min(fog, 1), *[0.3] * 9], rows).astype(np.float32)
    return summarise(spec, {"input": inputs, "label": labels, "probabilities": probabilities})


def _push(program: Services, version: str, at: int) -> str:
    info = BundleInfo(
        name="meter-reader",
        version=version,
        task="classification",
        framework="scikit-learn 1.9.1",
        onnx={"ir_version": 10, "opsets": {"ai.onnx": 21}},
        golden=Golden(rows=32),
    )
    schema = ModelSchema(
        tensors=(TensorSpec(name="input", dtype="float32", shape=(None, len(_FEATURES))),),
        inputs=tuple(
            FieldSpec(name=name, dtype="float32", tensor="input", column=at, low=2.0, high=18.0)
            for at, name in enumerate(_FEATURES)
        ),
        outputs=(
            OutputSpec(name="label", dtype="int64", shape=(None,), role="label", classes=tuple("0123456789")),
            OutputSpec(name="probabilities", dtype="float32", shape=(None, 10), role="probabilities"),
        ),
    )
    spec = profile_spec()
    reference = Reference(spec, profile_of(spec, rows=3000, seed=99), metrics={"accuracy": 0.962})
    files = {
        "bundle.json": encode_document(info),
        "schema.json": encode_document(schema),
        "reference.json": encode_reference(reference),
        "model/model.onnx": b"\x08" + bytes(40_000 + at),
        "README.md": b"# Meter reader\n",
    }
    for content in (*files.values(), b"{}"):
        program.blobs.put(content)
    return program.blobs.put(encode_manifest(build_manifest(files, config=b"{}")))


def add_people(session: Session, now: float) -> None:
    """An admin, an operator and a viewer, all with the same password."""
    from argon2 import PasswordHasher

    quick = Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    for name, role in (("admin", Role.ADMIN), ("olga", Role.OPERATOR), ("victor", Role.VIEWER)):
        access.add_person(session, name=name, role=role, password_hash=quick.hash(PASSWORD), now=now)


def _versions(session: Session, digests: dict[str, str], now: float) -> None:
    for at, (version, digest) in enumerate(digests.items()):
        row = ModelVersion(
            model="meter-reader",
            version=version,
            digest=digest,
            counter=at + 1,
            state="denied" if version == "1.2.0" else "released",
            task="classification",
            framework="scikit-learn 1.9.1",
            size=48_211 + 900 * at,
            variants=[],
            created_at=now - 86_400 * (3 - at),
            created_by="token:ci",
        )
        registry.add_version(session, row)
        audit.record(
            session, actor="token:ci", action="model.push", subject=f"model:meter-reader:{version}", now=row.created_at
        )
    for days, version in ((2.9, "1.0.0"), (1.5, "1.1.0")):
        registry.set_alias(
            session,
            model="meter-reader",
            name="champion",
            version_name=version,
            by="person:admin",
            now=now - 86_400 * days,
        )


def _devices(session: Session, digests: dict[str, str], now: float) -> None:
    for at in range(30):
        site = SITES[at % 3]
        name = f"cam-{site}-{at // 3 + 1:02}"
        _device(session, name=name, site=site, digests=digests, now=now, at=at)
    session.add(
        DeviceRow(
            id="cam-new-01",
            state="pending",
            public_key="",
            verifier="",
            token_id="t1",
            enrolled_at=now - 40,
            facts={"arch": HOSTILE, "agent": "0.1.0"},
            labels={"site": HOSTILE},
        )
    )
    session.flush()


def _device(session: Session, *, name: str, site: str, digests: dict[str, str], now: float, at: int) -> None:
    new, old, bad = digests["1.1.0"], digests["1.0.0"], digests["1.2.0"]
    fault = Fault(code="self_test", message="golden row 4: label is 3, expected 8 (tolerance 0)", digest=bad)
    report = SlotReport(
        state="idle",
        active=new if at < 27 else old,
        proven=new if at < 27 else old,
        previous=old if at < 27 else None,
        variant="model/model.onnx",
        attempt=0,
        error=fault if at in (1, 4) else None,
    )
    if at == 29:
        waiting = Fault(code="held", message="updates are on hold: line 3 is being repaired", digest=new)
        report = SlotReport(state="downloading", active=old, proven=old, target=new, progress=0.42, waiting=waiting)
    row = DeviceRow(
        id=name,
        state="accepted",
        public_key="",
        verifier="",
        token_id="t1",
        enrolled_at=now - 86_400 * 4,
        labels={"site": site, "line": str(at % 4 + 1)},
        facts={"agent": "0.1.0", "arch": "aarch64" if at % 2 else "x86_64", "os": "Linux", "onnxruntime": "1.31.1"},
        pins={"*": "under repair until Monday"} if at == 7 else {},
        online=at not in (5, 17),
        last_seen_at=now - (3600 * 5 if at in (5, 17) else at % 9),
        epoch="ab" * 8,
        boot=3,
        seq=120,
        reported=_plain({"meter-reader": report}),
        generation_reported=2,
        clone_suspected_at=now - 600 if at == 11 else None,
        hold={"since": int(now * 1000) - 60_000, "until": None, "reason": "line 3 is being repaired"}
        if at == 29
        else None,
    )
    session.add(row)
    session.flush()
    target = SlotTarget(digest=new, name="meter-reader:1.1.0")
    assignments.assign(session, name, "meter-reader", target, now=now - 3600)


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def _alerts(session: Session, now: float) -> None:
    alerts.raise_alert(
        session,
        kind="drift.input",
        subject="cohort:site=bern",
        title="Inputs of meter-reader changed at site=bern",
        body="only site=bern changed: look at what its devices share, such as place, light or supply",
        severity="warning",
        key="drift:meter-reader:site=bern",
        now=now - 840,
    )
    alerts.raise_alert(
        session,
        kind="device_rejected",
        subject="device:cam-basel-01",
        title="cam-basel-01 did not take a model into meter-reader",
        body="self_test: golden row 4 differs",
        severity="warning",
        key="device_rejected:cam-basel-01:meter-reader",
        now=now - 900,
    )
    alerts.raise_alert(
        session,
        kind="rollout.rolled_back",
        subject="rollout:meter-1.2",
        title="Rollout meter-1.2 was rolled back",
        body="stage 1: the gate output failed",
        severity="critical",
        key="rollout:meter-1.2:rolled_back",
        now=now - 6000,
    )


def _windows(session: Session, digests: dict[str, str], now: float) -> None:
    spec = profile_spec()
    rows = []
    for back in range(_BUCKETS):
        for at in range(30):
            site = SITES[at % 3]
            fog = 1.0 if site == "bern" and back < 6 else 0.0
            profile = profile_of(spec, rows=120 + at, fog=fog, seed=back * 31 + at)
            start_ms = int(now // 300 - back - 2) * 300_000
            message = ProfileMessage(
                epoch="ab" * 8,
                boot=3,
                seq=1000 - back,
                sent_at=start_ms + 300_000,
                slot="meter-reader",
                digest=digests["1.1.0"],
                spec_hash=spec.hash,
                start_ms=start_ms,
                length_ms=300_000,
                n=profile.n,
                errors=at % 2,
                latency=(),
                resources={},
                body=encode_counts(profile.cells, profile.moments),
            )
            rows.append(_window_row(message, f"cam-{site}-{at // 3 + 1:02}", start_ms / 1000 + 301))
    session.add_all(rows[::-1])


def _window_row(message: ProfileMessage, device: str, received_at: float) -> WindowRow:
    return WindowRow(
        device=device,
        epoch=message.epoch,
        seq=message.seq,
        slot=message.slot,
        digest=message.digest,
        spec_hash=message.spec_hash,
        start_ms=message.start_ms,
        length_ms=message.length_ms,
        n=message.n,
        errors=message.errors,
        content_hash=bytes(16),
        received_at=received_at,
        body=encode_profile(message),
    )


def _webhooks(session: Session, now: float) -> None:
    """Make a webhook that took one event and refuses another with a page that would harm."""
    wish = webhooks.Wish(
        url="https://ops.example.com/in/s3cret",
        types=("device.*", "alert.*"),
        min_severity="warning",
        format="cloudevents",
        enabled=True,
    )
    hook = webhooks.create(session, "ops", wish, by="person:admin", now=now - 7200)
    for at, name in enumerate(("cam-new-01", HOSTILE)):
        data = DeviceData(device=name, state="accepted", labels={}, actor="tests", reason="")
        event = Event(
            type=EventType.DEVICE_ENROLLED, subject=f"device:{name}", title=f"{name} joined", data=data, at=now - 60
        )
        announce(session, event)
        parcel = queue.claim(session, hook.id or 0, token="seed", now=now + at)
        refused = Answer(status=500, error="answered 500", head=HOSTILE, latency_ms=120)
        queue.settle(session, parcel, [Answer(status=204, latency_ms=34), refused][at], now=now, uniform=max)
