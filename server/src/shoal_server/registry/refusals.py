"""Why something pushed was not taken: which rule, and what broke it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from shoal_protocol.errors import ContentError


@dataclass(frozen=True)
class Fault:
    """One rule that a bundle breaks."""

    rule: str
    """Short name of the rule, stable for programs."""
    what: str
    """What was expected and what came."""


class RefusedError(ContentError):
    """A push breaks a rule of the registry; nothing of it was recorded."""

    code = "refused"
    status: ClassVar[int] = 400

    def __init__(
        self, rule: str, what: str, *, hint: str = "", oci_code: str = "MANIFEST_INVALID", **data: Any
    ) -> None:
        super().__init__(f"refused by the rule {rule}: {what}", hint=hint, oci_code=oci_code, rule=rule, **data)


def refuse(faults: list[Fault]) -> None:
    """Raise one `RefusedError` that tells all faults together; do nothing when there are none."""
    if not faults:
        return
    rule = faults[0].rule
    what = "; ".join(fault.what if fault.rule == rule else f"[{fault.rule}] {fault.what}" for fault in faults)
    raise RefusedError(rule, what, faults=[{"rule": fault.rule, "what": fault.what} for fault in faults])
