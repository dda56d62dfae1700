"""A fleet and a rollout that step together in memory: the controller's other side, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal_protocol.trust.assignment import SlotTarget
from shoal_server.rollouts import stages
from shoal_server.rollouts.commands import Verb, Wish, command
from shoal_server.rollouts.controller import step
from shoal_server.rollouts.effects import Assign, Effect
from shoal_server.rollouts.gates import Evidence
from shoal_server.rollouts.machine import Event, RolloutState
from shoal_server.rollouts.outcomes import DeviceFact, Facts
from shoal_server.rollouts.plan import parse_plan
from shoal_server.rollouts.rollout import Member, Rollout, Stage
from shoal_server.testing.simulated_devices import SimulatedDevice

OLD = "sha256:" + "1" * 64
NEW = "sha256:" + "2" * 64
START = 1_800_000_000.0


def plan_of(**changes: Any) -> dict[str, Any]:
    """Return a plan's document: two stages with short soaks, unless changed."""
    document: dict[str, Any] = {
        "name": "quality-1.1",
        "slot": "quality",
        "bundle": "quality:1.1.0",
        "cohort": "all",
        "stages": [{"devices": {"percent": 20, "min": 3}, "soak": "6s"}, {"devices": {"percent": 100}, "soak": "6s"}],
        "deadline": "1h",
        "lost_after": "30s",
    }
    document.update(changes)
    return {key: value for key, value in document.items() if value is not None}


class World:
    """A clock, devices, and one rollout.

    Args:
        devices: By id.
        plan: Document of the plan.
        sites: Stratum by device; all alike when left out.
    """

    def __init__(
        self, devices: dict[str, SimulatedDevice], plan: Mapping[str, Any], *, sites: Mapping[str, str] | None = None
    ) -> None:
        self.devices = devices
        self.now = START
        self.evidence = Evidence()
        self.newcomers: tuple[str, ...] = ()
        self.denied: dict[str, frozenset[str]] = {}
        self.barred: set[str] = set()
        self.desired = {
            name: SlotTarget(digest=device.active, name="quality:1.0.0") for name, device in devices.items()
        }
        self.generations = dict.fromkeys(devices, 0)
        self.last_seen = dict.fromkeys(devices, START)
        self.effects: list[Effect] = []
        self.sites = sites or dict.fromkeys(devices, "x/bern")
        checked = parse_plan(plan)
        chosen = stages.select(checked.stages, {name: self.sites[name] for name in devices}, checked.name)
        self.rollout = Rollout(
            plan=checked,
            digest=NEW,
            bundle_name="quality:1.1.0",
            salt=checked.name,
            created_at=START,
            created_by="person:ada",
            stages=tuple(Stage() for _ in checked.stages),
            members={
                name: Member(device=name, stage=stage, stratum=self.sites[name]) for name, stage in chosen.items()
            },
        ).after(Event.ASK if checked.approval else Event.SUBMIT)

    def facts(self) -> Facts:
        """Return what the controller may know now."""
        known = {}
        for name, device in self.devices.items():
            if device.online:
                self.last_seen[name] = self.now
            known[name] = DeviceFact(
                eligible=name not in self.barred,
                online=device.online,
                last_seen_at=self.last_seen[name],
                generation_reported=device.generation,
                report=device.report(),
                desired=self.desired.get(name),
                stratum=self.sites.get(name, "x/bern"),
                denied=self.denied.get(name, frozenset()),
            )
        evidence = self.evidence if self.rollout.touched() else Evidence()
        return Facts(devices=known, newcomers=self.newcomers, evidence=evidence)

    def tick(self, seconds: float = 1.0) -> list[Effect]:
        """Let the controller decide once, then the devices and the clock go on."""
        self.rollout, effects = step(self.rollout, self.facts(), self.now)
        self._carry_out(effects)
        for name, device in self.devices.items():
            device.advance()
            device.assigned(self.generations.get(name, 0), self.desired.get(name))
        self.now += seconds
        return effects

    def wish(self, verb: Verb, *, reason: str = "", leave: bool = False) -> list[Effect]:
        """Let a person want something."""
        wanted = Wish(verb=verb, actor="person:ada", reason=reason, leave=leave)
        self.rollout, effects = command(self.rollout, wanted, self.now)
        self._carry_out(effects)
        return effects

    def run(self, ticks: int = 200, *, seconds: float = 1.0, until: RolloutState | None = None) -> RolloutState:
        """Tick until a state is reached, or so many times; returns the state."""
        for _ in range(ticks):
            if self.rollout.state is until:
                break
            self.tick(seconds)
        return self.rollout.state

    def running(self, digest: str) -> set[str]:
        """Return the devices that run a bundle."""
        return {name for name, device in self.devices.items() if device.active == digest}

    def _carry_out(self, effects: list[Effect]) -> None:
        self.effects.extend(effects)
        generations: dict[str, int] = {}
        for effect in effects:
            if isinstance(effect, Assign):
                self.desired[effect.device] = effect.target
                generations[effect.device] = self.generations[effect.device] = (
                    self.generations.get(effect.device, 0) + 1
                )
        self.rollout = self.rollout.with_generations(generations)
