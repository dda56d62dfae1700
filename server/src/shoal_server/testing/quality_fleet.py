"""A simulated fleet whose model is over-confident and whose true labels come back: for tests of quality.

The model has two classes; its logit is half again as large as the truth's, so only a calibrated estimate comes true.
Seeded; `flipped` turns the truth of a share of rows, which no confidence shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sqlmodel import Session

from shoal_protocol.bundle.schema import ModelSchema, OutputSpec
from shoal_protocol.mqtt.topics import Up
from shoal_protocol.profile.codec import ProfileMessage, encode_counts, encode_profile
from shoal_protocol.profile.grid import CategoricalGrid, unit_interval_grid
from shoal_protocol.profile.labels import CONFIDENCE_BINS, LabelGroup, confidence_bins
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.quality import Quality, ScoreCounts
from shoal_protocol.profile.reference import Reference
from shoal_server.fleet.devices import DeviceState
from shoal_server.fleet.tables import DeviceRow
from shoal_server.storage.database import Database
from shoal_server.telemetry.arrivals import arrival
from shoal_server.telemetry.batch import store_batch

CLASSES = ("bad", "good")
SPEC = ProfileSpec(
    (
        Stream("label", "output", CategoricalGrid(CLASSES), "label"),
        Stream("confidence", "output", unit_interval_grid(), "probabilities", None, "row_max"),
        Stream("score", "output", unit_interval_grid(), "probabilities", 1),
    )
)
SCHEMA = ModelSchema(
    tensors=(),
    inputs=(),
    outputs=(
        OutputSpec(name="label", dtype="string", shape=(None,), role="label", classes=CLASSES),
        OutputSpec(name="probabilities", dtype="float32", shape=(None, 2), role="probabilities", classes=CLASSES),
    ),
)


def draw(
    random: np.random.Generator, rows: int, *, centre: float = 0.0, flipped: float = 0.0, spread: float = 2.0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the model's outputs and the place of the true class of each row."""
    logit = random.normal(centre, spread, rows)
    truth = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    truth = np.where(random.random(rows) < flipped, 1 - truth, truth)
    score = (1 / (1 + np.exp(-1.5 * logit))).astype(np.float32)
    probabilities = np.stack([1 - score, score], axis=1)
    return {"label": np.array(CLASSES, dtype=object)[(score >= 0.5).astype(int)], "probabilities": probabilities}, truth


def reference(rows: int = 20_000) -> Reference:
    """Return the model's reference with its calibration."""
    outputs, truth = draw(np.random.default_rng(0), rows)
    said = (outputs["label"] == CLASSES[1]).astype(int)
    bins = confidence_bins(outputs["probabilities"].max(axis=1))
    answered, correct = np.zeros((2, CONFIDENCE_BINS), int), np.zeros((2, CONFIDENCE_BINS), int)
    confusion = np.zeros((2, 2), int)
    np.add.at(answered, (said, bins), 1)
    np.add.at(correct, (said, bins), said == truth)
    np.add.at(confusion, (truth, said), 1)
    by_score = confidence_bins(outputs["probabilities"][:, 1])
    scores, positive = (np.bincount(x, minlength=CONFIDENCE_BINS).tolist() for x in (by_score, by_score[truth == 1]))
    quality = Quality(
        data="validation",
        n=rows,
        classes=CLASSES,
        answered=tuple(map(tuple, answered.tolist())),
        correct=tuple(map(tuple, correct.tolist())),
        confusion=tuple(map(tuple, confusion.tolist())),
        scores=ScoreCounts(rows=tuple(scores), positive=tuple(positive)),
    )
    return Reference(SPEC, summarise(SPEC, outputs), quality=quality)


class QualityFleet:
    """Devices whose windows and labels are brought into a database.

    Args:
        database: Where to.
        devices: Device -> its site.
        digest: Of the bundle that they run.
        seed: Of all that is drawn.
    """

    def __init__(self, database: Database, devices: Mapping[str, str], *, digest: str, seed: int = 1) -> None:
        self._database = database
        self._devices = dict(devices)
        self._digest = digest
        self._random = np.random.default_rng(seed)
        self._seq = 0
        with database.write() as session:
            for device, site in self._devices.items():
                _accept(session, device, site)

    def predict(
        self,
        start_ms: int,
        *,
        rows: int = 100,
        labelled: float = 0.0,
        centre: float = 0.0,
        flipped: Mapping[str, float] | None = None,
        spread: float = 2.0,
    ) -> None:
        """Let every device predict for one window, and the labels of a share of its rows come back with the next.

        Args:
            start_ms: Begin of the window.
            rows: Of each device.
            labelled: Share of the rows whose labels come back.
            centre: Where the world is; 0 is the reference's.
            flipped: Site -> share of rows whose truth no confidence shows.
            spread: How far rows lie from what the model is unsure about.
        """
        self._seq += 1
        arrivals = []
        for device, site in self._devices.items():
            outputs, truth = draw(
                self._random, rows, centre=centre, flipped=(flipped or {}).get(site, 0.0), spread=spread
            )
            known = int(rows * labelled)
            said = (outputs["label"] == CLASSES[1]).astype(int)[:known]
            bins = confidence_bins(outputs["probabilities"].max(axis=1))[:known]
            cells, counts = np.unique(np.stack([truth[:known], said, bins], axis=1), axis=0, return_counts=True)
            group = LabelGroup(
                "quality",
                self._digest,
                start_ms,
                300_000,
                tuple((*cell, n) for cell, n in zip(cells.tolist(), counts.tolist(), strict=True)),
            )
            profile = summarise(SPEC, outputs)
            message = ProfileMessage(
                epoch="0123456789abcdef",
                boot=1,
                seq=self._seq,
                sent_at=start_ms,
                slot="quality",
                digest=self._digest,
                spec_hash=SPEC.hash,
                start_ms=start_ms,
                length_ms=300_000,
                n=rows,
                errors=0,
                latency=(),
                resources={},
                body=encode_counts(profile.cells, profile.moments),
                labels=(group,) if known else (),
            )
            arrivals.append(arrival(device, Up.PROFILE, encode_profile(message)))
        with self._database.write() as session:
            store_batch(session, arrivals, handlers={}, on_clone=lambda *_: None, now=start_ms / 1000 + 600)


def _accept(session: Session, device: str, site: str) -> None:
    session.merge(
        DeviceRow(
            id=device,
            state=DeviceState.ACCEPTED,
            labels={"site": site},
            facts={"arch": "arm64"},
            public_key="",
            verifier="",
            token_id="",
            enrolled_at=0.0,
        )
    )
