"""What is carried by hand: parcels to the device, mail from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_agent.domain.device import DeviceState
from shoal_agent.ports import Parcel
from shoal_agent.updating.delivery import Delivery, check_device
from shoal_agent.updating.mail import Mail

if TYPE_CHECKING:
    from shoal_agent.updating.assignments import AssignmentIntake

OpenParcel = Callable[[Path], AbstractContextManager[Parcel]]


class Courier:
    """Hands over for one device.

    Args:
        device: Its id.
        delivery: Verifies and stores.
        mail: Writes.
        open_parcel: Opens a file.
    """

    def __init__(self, device: str, delivery: Delivery, mail: Mail, *, open_parcel: OpenParcel) -> None:
        self._device = device
        self._delivery = delivery
        self._mail = mail
        self._open_parcel = open_parcel

    def receive(self, path: Path, intake: AssignmentIntake, state: DeviceState) -> tuple[bytes, dict[str, Any]]:
        """Verify and store a parcel; returns the assignment's document, and what to tell of it.

        Raises:
            ShoalError: As `Delivery.unpack`, or it is for another device.
            OSError: The disk fails.
        """
        with self._open_parcel(path) as parcel:
            check_device(parcel, self._device)
            document, receipt = self._delivery.unpack(parcel, intake, state)
            about = parcel.about
        acknowledged = 0 if receipt is None else self._mail.acknowledged(receipt)
        told = {"generation": about.generation, "slots": about.slots, "expires": about.expires}
        return document, {**told, "acknowledged": acknowledged}

    def write_mail(self, path: Path) -> dict[str, Any]:
        """Write what waits for the server; returns how many messages of each kind that was.

        Raises:
            ShoalError: It can't be noted or signed.
            OSError: It can't be written.
        """
        return dict(self._mail.write(path))
