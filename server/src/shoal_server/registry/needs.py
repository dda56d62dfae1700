"""Who still needs a bundle, told by the rooms that know: devices, rollouts, aliases. Pure.

Owns the form in which they say it. The registry imports none of those rooms; `bootstrap` joins their answers into one
function, by which garbage collection keeps bundles and deleting a version is refused.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sqlmodel import Session

_NAMED = 5


@dataclass(frozen=True, order=True)
class Need:
    """One reason why a bundle must stay."""

    digest: str
    who: str
    """For people: `device cam-1 (active)`, `rollout winter`, `alias @champion`."""


Needs: TypeAlias = Callable[[Session], Iterable[Need]]
"""(session) -> every need of one room, or of all."""


def joined(*rooms: Needs) -> Needs:
    """Return the needs of several rooms as those of one."""

    def needs(session: Session) -> Iterator[Need]:
        for room in rooms:
            yield from room(session)

    return needs


def names_of(needs: Iterable[Need]) -> str:
    """Name those who need something: the first five, and how many more there are."""
    who = sorted({need.who for need in needs})
    more = f" and {len(who) - _NAMED} more" if len(who) > _NAMED else ""
    return ", ".join(who[:_NAMED]) + more
