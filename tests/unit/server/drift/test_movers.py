"""Who is blamed while the fleet's mean still follows those that changed, window by window."""

import copy
from collections.abc import Sequence

import pytest

from shoal_server.drift.watch import Role
from shoal_server.testing.drift_fleet import SimulatedFleet
from shoal_server.testing.watched_fleet import WatchedFleet

SEEDS = (0, 2)


@pytest.fixture(scope="module", params=SEEDS)
def learnt(request: pytest.FixtureRequest) -> WatchedFleet:
    return WatchedFleet(SimulatedFleet(rows=25, seed=request.param)).learn()


def blamed_while(learnt: WatchedFleet, sites: Sequence[str], shift: float, *, begun: float) -> set[tuple[str, str]]:
    """Return whom any window blamed, and whom people were told of, while sites changed and came back.

    The first of the windows saw the change in a part of it only.
    """
    watched = copy.deepcopy(learnt)
    devices = [device for site in sites for device in watched.fleet.members(site)]
    blamed: set[tuple[str, str]] = set()
    for at in range(24):
        size = shift * begun if at == 0 else shift if at < 12 else 0.0
        watched.run(1, {device: {"normal": size, "gaps": size} for device in devices} if size else None)
        roles = watched.watch.roles()
        blamed |= {(key[0].value, key[1]) for key, (role, _) in roles.items() if role is Role.CAUSE}
    assert watched.told
    return blamed | {(finding.scope.value, finding.name) for finding in watched.told}


@pytest.mark.parametrize("begun", [0.2, 1.0])
@pytest.mark.parametrize("shift", [0.4, 1.0])
def test_no_window_blames_those_who_stayed_for_the_one_that_changed(
    learnt: WatchedFleet, shift: float, begun: float
) -> None:
    assert blamed_while(learnt, ["site=s2"], shift, begun=begun) == {("cohort", "site=s2")}


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_two_of_three_sites_that_changed_are_blamed_and_not_the_third(learnt: WatchedFleet, shift: float) -> None:
    changed = {("cohort", "site=s0"), ("cohort", "site=s1")}
    blamed = blamed_while(learnt, ["site=s0", "site=s1"], shift, begun=1.0)
    assert changed == {who for who in blamed if who != ("fleet", "fleet")}
