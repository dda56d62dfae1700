"""A simulated fleet for tests of drift: devices with lasting and slowly moving offsets that count skewed features.

Seeded, and quick: rows are drawn and counted for all devices of a window at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.codec import ProfileMessage, encode_counts, encode_profile
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid, fit_numeric, unit_interval_grid
from shoal_protocol.profile.profile import Counts, ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference
from shoal_server.telemetry.tables import WindowRow

FEATURES = ("normal", "zeros", "skewed", "gaps", "constant", "rare")
CLASSES = tuple("0123456789")
DIGEST = "sha256:" + "ab" * 32

Shift = Mapping[str, float] | None
"""Feature name -> shift in standard deviations, for one device."""


def draw(random: np.random.Generator, rows: int, offset: float = 0.0) -> dict[str, npt.NDArray[np.float64]]:
    """Draw rows of every feature: normal, mostly zero, log-normal, 1 % missing, constant, and one in 500."""
    normal = random.normal(size=(4, rows)) + offset
    values = {
        "normal": normal[0],
        "zeros": np.where(random.random(rows) < 0.97, 0.0, np.abs(normal[1])),
        "skewed": np.exp(normal[2]),
        "gaps": np.where(random.random(rows) < 0.01, np.nan, normal[3]),
        "constant": np.zeros(rows),
        "rare": np.where(random.random(rows) < 0.002, 1.0, 0.0),
        "confidence": random.beta(20, 1.5, size=rows),
        "label": random.integers(0, len(CLASSES), rows).astype(np.float64),
    }
    return {name: column.reshape(-1, 1) for name, column in values.items()}


def training_reference(seed: int = 0, rows: int = 2000, copies: int = 1) -> Reference:
    """Make the reference of `draw`'s data; `copies` repeats the input features under other names."""
    tensors = draw(np.random.default_rng(seed), rows)
    inputs = [
        Stream(name if copy == 0 else f"{name}_{copy}", "input", fit_numeric(tensors[name]), name)
        for copy in range(copies)
        for name in FEATURES
    ]
    outputs = [
        Stream("label", "output", CategoricalGrid(CLASSES), "label"),
        Stream("confidence", "output", unit_interval_grid(bins=64), "confidence"),
    ]
    spec = ProfileSpec((*inputs, *outputs))
    return Reference(spec, summarise(spec, tensors))


@dataclass
class SimulatedFleet:
    """Devices of some sites.

    Attributes:
        devices: Number of devices, D.
        rows: Rows of each device in a window.
        sites: Number of sites; device i stands at site i modulo this.
        offset_sd: Spread of the devices' lasting offsets.
        wobble_sd: Spread of offsets that move from window to window.
        memory: Autocorrelation of those.
        seed: Of everything random.
    """

    reference: Reference = field(default_factory=training_reference)
    devices: int = 30
    rows: int = 20
    sites: int = 3
    offset_sd: float = 0.3
    wobble_sd: float = 0.0
    memory: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._offsets = self._random.normal(size=self.devices) * self.offset_sd
        self._wobble = self._random.normal(size=self.devices) * self.wobble_sd

    @property
    def names(self) -> list[str]:
        """Names of the devices."""
        return [f"cam-{at:03}" for at in range(self.devices)]

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """Facts of each device."""
        return {name: {"id": name, "site": f"s{at % self.sites}"} for at, name in enumerate(self.names)}

    @property
    def cohorts(self) -> dict[str, frozenset[str]]:
        """Devices by site."""
        return {
            f"site=s{site}": frozenset(self.names[at] for at in range(site, self.devices, self.sites))
            for site in range(self.sites)
        }

    def members(self, cohort: str) -> list[int]:
        """Return where a cohort's devices lie."""
        return [at for at, name in enumerate(self.names) if name in self.cohorts[cohort]]

    def window(self, shifts: Mapping[int, Mapping[str, float]] | None = None) -> Counts:
        """Count one window of all devices.

        Args:
            shifts: For some devices: feature name -> shift in standard deviations, or ``missing`` -> share of `gaps`
                that goes missing.

        Returns:
            Cells, shape (D, size).
        """
        step = np.sqrt(1 - self.memory**2) * self.wobble_sd
        self._wobble = self.memory * self._wobble + step * self._random.normal(size=self.devices)
        offsets = np.repeat(self._offsets + self._wobble, self.rows)
        tensors = draw(self._random, self.devices * self.rows)
        moved = {"normal": offsets, "gaps": offsets}
        for name, offset in moved.items():
            tensors[name] = tensors[name] + offset[:, None]
        tensors["skewed"] = tensors["skewed"] * np.exp(offsets[:, None])
        for device, shift in (shifts or {}).items():
            mine = slice(device * self.rows, (device + 1) * self.rows)
            for name, amount in shift.items():
                if name == "missing":
                    gone = self._random.random(self.rows) < amount
                    tensors["gaps"][mine][gone] = np.nan
                else:
                    tensors[name][mine] += amount
        of = np.repeat(np.arange(self.devices), self.rows)
        values = {name: column[:, 0] for name, column in tensors.items()}
        return count_rows(self.reference.spec, {**values, "label": values["label"] + 2}, of, self.devices)

    def messages(
        self, index: int, *, window_ms: int = 1000, shifts: Mapping[int, Mapping[str, float]] | None = None
    ) -> list[tuple[str, ProfileMessage]]:
        """Return the window with this number as (device, message) of each device."""
        cells = self.window(shifts)
        spec = self.reference.spec
        moments = np.zeros((len(spec.streams), 2), np.int64)
        return [
            (
                name,
                ProfileMessage(
                    epoch="00" * 8,
                    boot=1,
                    seq=index + 1,
                    sent_at=(index + 1) * window_ms,
                    slot="reader",
                    digest=DIGEST,
                    spec_hash=spec.hash,
                    start_ms=index * window_ms,
                    length_ms=window_ms,
                    n=self.rows,
                    errors=0,
                    latency=(),
                    resources={},
                    body=encode_counts(cells[at], moments),
                ),
            )
            for at, name in enumerate(self.names)
        ]


def window_rows(messages: Iterable[tuple[str, ProfileMessage]], *, received_at: float) -> list[WindowRow]:
    """Return messages as rows of the telemetry, to be added to a session."""
    return [
        WindowRow(
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
            content_hash=b"",
            received_at=received_at,
            body=encode_profile(message),
        )
        for device, message in messages
    ]


def count_rows(
    spec: ProfileSpec,
    values: Mapping[str, npt.NDArray[np.float64]],
    device: npt.NDArray[np.int64],
    devices: int,
) -> Counts:
    """Count rows by device.

    Args:
        spec: What is counted.
        values: Of each stream's tensor, shape (rows,); of categorical ones the number of the cell.
        device: Of each row, shape (rows,).
        devices: Number of devices, D.

    Returns:
        Cells, shape (D, size).
    """
    parts: list[Counts] = []
    for stream in spec.streams:
        grid = stream.grid
        fine = grid.cells_of(values[stream.tensor]) if isinstance(grid, NumericGrid) else values[stream.tensor]
        coarse = np.searchsorted(np.array(grid.coarse), fine, side="right") - 1
        counted = np.bincount(device * grid.size + coarse, minlength=devices * grid.size)
        parts.append(counted.reshape(devices, grid.size))
    return np.concatenate(parts, axis=1).astype(np.int64)


__all__: Sequence[str] = [
    "DIGEST",
    "FEATURES",
    "SimulatedFleet",
    "count_rows",
    "draw",
    "training_reference",
    "window_rows",
]
