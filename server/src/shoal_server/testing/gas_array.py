"""A made twin of a chemical-sensor array that ages over 36 months: 16 sensors of 8 values each, 6 gases, 10 batches.

Seeded. Sizes and mixes of gases are those of the public recordings after which it is made (Vergara and others 2012,
Sensors and Actuators B 166): from the third batch on one gas is absent for a year, the last batch holds all alike. Each
sensor answers a gas by a power of its concentration, and ages by a gain of its own and one that it shares with its
type; five of its eight values grow with the answer, three fall.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

SENSORS, KINDS, VALUES = 16, 4, 8
GASES = ("ethanol", "ethylene", "ammonia", "acetaldehyde", "acetone", "toluene")
MONTHS = (1.5, 6.5, 12.0, 14.5, 16.0, 18.0, 21.0, 23.0, 26.5, 36.0)
"""Age of the array in each batch."""

MIX = np.array([
    [90, 98, 83, 30, 70, 74], [164, 334, 100, 109, 532, 5], [365, 490, 216, 240, 275, 0], [64, 43, 12, 30, 12, 0],
    [28, 40, 20, 46, 63, 0], [514, 574, 110, 29, 606, 467], [649, 662, 360, 744, 630, 568], [30, 30, 40, 33, 143, 18],
    [61, 55, 100, 75, 78, 101], [600, 600, 600, 600, 600, 600],
])  # fmt: skip
"""Rows of each gas in each batch, shape (10, 6)."""

COLUMNS = tuple(f"s{sensor:02}_{value}" for sensor in range(SENSORS) for value in range(VALUES))


@dataclass
class GasArray:
    """The array, and what it is exposed to.

    Attributes:
        seed: Of everything random.
        aging: Standard deviation of a sensor's log gain after 36 months; 0: sensors stay as they are.
        noise: Of a sensor's answer, relative.
    """

    seed: int = 0
    aging: float = 0.35
    noise: float = 0.05
    _random: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        kind = np.arange(SENSORS) // (SENSORS // KINDS)
        strength = self._random.normal(size=(KINDS, len(GASES)))[kind]
        self._strength = 3.0 + 0.7 * strength + 0.15 * self._random.normal(size=(SENSORS, len(GASES)))
        self._power = 0.5 + 0.1 * self._random.random((SENSORS, len(GASES)))
        own, shared = self._random.normal(size=SENSORS), self._random.normal(size=KINDS)
        self._gain_at_last = self.aging * (0.7 * own + 0.7 * shared[kind] - 0.3)

    def log_gain(self, batch: int) -> Numbers:
        """Log gain of each sensor in a batch, shape (16,); it grows with the root of the age."""
        return np.asarray(self._gain_at_last * np.sqrt((MONTHS[batch] - MONTHS[0]) / (MONTHS[-1] - MONTHS[0])))

    def batch(
        self, number: int, *, mix: npt.NDArray[np.int64] | None = None, aged: bool = True
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Draw a batch, its rows in random order.

        Args:
            number: From 0 to 9.
            mix: Rows of each gas instead of the batch's own, shape (6,).
            aged: Whether sensors have aged since the first batch.

        Returns:
            Values, shape (rows, 128), and the number of the gas of each row.
        """
        gas = np.repeat(np.arange(len(GASES)), MIX[number] if mix is None else mix)
        self._random.shuffle(gas)
        level = self._random.uniform(np.log(10), np.log(300), size=len(gas))
        answer = self._strength[:, gas].T + self._power[:, gas].T * (level[:, None] - np.log(50))
        answer = answer + self.noise * self._random.normal(size=answer.shape)
        answer = np.exp(answer + (self.log_gain(number) if aged else 0.0))
        scale = np.array([500.0, 1.0, 0.2, 0.5, 0.9, -0.15, -0.4, -0.8])
        power = np.array([1.0, 0.35, 0.9, 1.0, 1.05, 0.9, 0.95, 1.0])
        values = scale * answer[..., None] ** power * np.exp(0.03 * self._random.normal(size=(*answer.shape, VALUES)))
        return values.reshape(len(gas), -1).astype(np.float32), gas
