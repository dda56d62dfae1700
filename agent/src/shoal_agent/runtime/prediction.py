"""A model's answer, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_agent.runtime.prediction_id import Mint


class Identity(msgspec.Struct, frozen=True):
    """Which model answers.

    Attributes:
        name: The bundle's name.
        version: The bundle's version.
        digest: Of the bundle.
        nonce: Of this load, so that prediction ids of two loads never meet.
        mint: Makes ids that labels can name; none: nobody takes labels here.
    """

    name: str
    version: str
    digest: str
    nonce: str
    mint: Mint | None = None


class Prediction(Mapping[str, npt.NDArray[Any]]):
    """Each output of the model by name, rows first; the arrays belong to the caller."""

    __slots__ = ("_at_ns", "_identity", "_outputs", "_serial")

    def __init__(self, outputs: dict[str, npt.NDArray[Any]], identity: Identity, serial: int, at_ns: int = 0) -> None:
        self._outputs = outputs
        self._identity = identity
        self._serial = serial
        self._at_ns = at_ns

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def outputs(self) -> dict[str, npt.NDArray[Any]]:
        """The same as a plain dict, which is faster to go through."""
        return self._outputs

    @property
    def bundle(self) -> str:
        """``name:version`` of the bundle that answered."""
        return f"{self._identity.name}:{self._identity.version}"

    @property
    def version(self) -> str:
        """Version of the bundle that answered."""
        return self._identity.version

    @property
    def digest(self) -> str:
        """Digest of the bundle that answered."""
        return self._identity.digest

    @property
    def prediction_id(self) -> str:
        """Names this prediction for `Agent.feedback`: made when it is asked for, from the outputs as they are then."""
        identity = self._identity
        if identity.mint is None:
            return f"{identity.nonce}-{self._serial:x}"
        return identity.mint.make(self._outputs, nonce=identity.nonce, serial=self._serial, at_ns=self._at_ns)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name}={_short(array)}" for name, array in self._outputs.items())
        return f"Prediction({arrays}, bundle={self.bundle!r})"


def _short(array: npt.NDArray[Any]) -> str:
    return np.array2string(array, threshold=6, edgeitems=2, precision=4, separator=", ").replace("\n", "")
