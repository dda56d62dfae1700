"""The show's models: three versions of a digit reader, the third one trained on inverted images.

Data: the handwritten digits that ship with scikit-learn (1,797 images of 8 x 8 pixels, values 0 to 16; E. Alpaydin and
C. Kaynak, 1998, UCI Machine Learning Repository). Half of the images train, the other half is what the cameras see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MODEL = "meter-digits"
SLOT = "reader"


@dataclass(frozen=True)
class Release:
    """A trained model with the data that its author has at hand when packing."""

    version: str
    estimator: Any
    sample: Images
    labels: Labels
    story: str


@dataclass(frozen=True)
class Workshop:
    """What training left: the releases, and the images that no model has seen."""

    releases: tuple[Release, ...]
    live_images: Images
    live_labels: Labels

    def release(self, version: str) -> Release:
        """Return one release by its version."""
        return next(release for release in self.releases if release.version == version)

    def accuracy(self, version: str) -> float:
        """Return the share of unseen images that a version reads right."""
        return float(self.release(version).estimator.score(self.live_images, self.live_labels))


def train() -> Workshop:
    """Train the three versions; under two seconds on one core."""
    images, labels = load_digits(return_X_y=True)
    seen, live, seen_labels, live_labels = train_test_split(
        images.astype(np.float32), labels.astype(np.int64), test_size=0.5, random_state=0, stratify=labels
    )

    def network(seed: int) -> Any:
        return make_pipeline(MinMaxScaler(clip=True), MLPClassifier((64,), max_iter=500, random_state=seed, alpha=0.01))

    linear = make_pipeline(MinMaxScaler(clip=True), LogisticRegression(max_iter=500))
    inverted = (16 - seen).astype(np.float32)
    return Workshop(
        (
            Release("1.0", linear.fit(seen, seen_labels), seen, seen_labels, "a linear model"),
            Release("1.1", network(0).fit(seen, seen_labels), seen, seen_labels, "a small neural network"),
            Release(
                "1.2",
                network(1).fit(inverted, seen_labels),
                inverted,
                seen_labels,
                "the same network, but trained on inverted images: its author's own tests all pass",
            ),
        ),
        live,
        live_labels,
    )
