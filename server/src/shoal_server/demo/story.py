"""The story: eight chapters, each with what must be true at its end.

What is asserted is what the devices report and what the server's database holds, never what was printed. Only durations
differ from production: windows of half a second instead of five minutes, soaks of seconds instead of hours.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from shoal_converter import Bundle, pack
from shoal_protocol.errors import ShoalError
from shoal_server.demo.ledger import Ledger
from shoal_server.demo.models import MODEL, SLOT, Workshop, train
from shoal_server.demo.narrator import Narrator
from shoal_server.demo.stage import WINDOW_S, Stage

BASELINE_S = 60 * WINDOW_S
"""48 windows of the drift rule's baseline, and a few for its running means."""

FOGGY_SITE = "bern"
_EVERY_S = 4.0
"""Between two lines about the same stage."""

_ENDED = {"completed", "rolled_back", "cancelled", "paused"}


class UntrueError(ShoalError):
    """A chapter did not end as told; the message says why."""

    code = "untrue"


class Story:
    """Tells the chapters in their order.

    Args:
        stage: What it is played on.
        narrator: Who tells it.
        devices: Size of the fleet.
        asserting: Whether to print a verdict for each chapter.
    """

    def __init__(self, stage: Stage, narrator: Narrator, *, devices: int, asserting: bool) -> None:
        self._stage = stage
        self._tell = narrator
        self._count = devices
        self._asserting = asserting
        self._client = stage.client()
        self._workshop: Workshop
        self._bundles: dict[str, Bundle] = {}

    def tell(self) -> int:
        """Tell all chapters; return how many did not come true. The first that doesn't ends the story."""
        chapters: list[tuple[str, str, Callable[[], None]]] = [
            ("models_travel", "A data scientist packs and pushes two versions", self._models_travel),
            ("fleet_joins", f"{self._count} cameras join at three sites", self._fleet_joins),
            ("first_deployment", "Version 1.0 goes to every camera", self._first_deployment),
            ("staged_rollout", "Version 1.1 goes out by stages, judged by its predictions", self._staged_rollout),
            ("quiet_fleet", "Nothing happens, and nothing is alarmed", self._quiet_fleet),
            ("fog_localised", f"Fog drifts over {FOGGY_SITE}", self._fog_localised),
            ("bad_release_stopped", "Version 1.2 was trained on inverted images", self._bad_release_stopped),
            ("every_row_counted_once", "Every answer of every camera is counted, once", self._every_row_counted_once),
        ]
        login = self._stage.login
        self._tell.say(f"dashboard {login.url}   login {login.name} / {login.password}")
        for number, (name, title, chapter) in enumerate(chapters, start=1):
            self._tell.chapter(number, title)
            try:
                chapter()
            except ShoalError as error:
                self._tell.verdict(name, str(error))
                for later, _, _ in chapters[number:]:
                    self._tell.verdict(later, f"not told, since {name} failed")
                return 1
            if self._asserting:
                self._tell.verdict(name, None)
        return 0

    def invite(self) -> None:
        """Say how to look closer while the fleet goes on."""
        login = self._stage.login
        self._tell.chapter(9, "Look closer; the fleet goes on until Ctrl-C")
        self._stage.fleet_or_fail().start()
        self._tell.block(
            [
                f"  dashboard   {login.url}   ({login.name} / {login.password})",
                "  in another terminal, with .venv/bin on the PATH:",
                f"    export SHOAL_URL={login.url} SHOAL_TOKEN={self._stage.token}",
                "    shoalctl device list",
                "    shoalctl rollout status reader-1.2",
                f"    shoalctl drift show {SLOT}",
                "    shoalctl alert list",
                "    shoalctl audit list",
            ]
        )

    def _models_travel(self) -> None:
        with self._tell.working("training three digit readers on scikit-learn's digits"):
            self._workshop = train()
        for version in ("1.0", "1.1"):
            self._pack_and_push(version)
        listed = {item["version"]: item["digest"] for item in self._client.items(f"/api/v1/models/{MODEL}/versions")}
        wanted = {version: bundle.digest for version, bundle in self._bundles.items()}
        self._expect(listed == wanted, f"the registry lists {listed}, packed were {wanted}")

    def _pack_and_push(self, version: str) -> None:
        release = self._workshop.release(version)
        began = time.monotonic()
        bundle = pack(
            release.estimator,
            sample=release.sample,
            y=release.labels,
            tag=f"{MODEL}:{version}",
            parent=self._bundles.get("1.0"),
        )
        bundle.push(self._stage.login.url, token=self._stage.token)
        self._bundles[version] = bundle
        size_kb = sum(len(content) for content in bundle.files.values()) / 1000
        self._tell.say(
            f"{MODEL}:{version} is {release.story}: packed, proven equal to scikit-learn on {len(release.sample)} "
            f"images and pushed in {time.monotonic() - began:.1f} s ({size_kb:.0f} kB, {bundle.digest[:19]}…)"
        )

    def _fleet_joins(self) -> None:
        joined = 0

        def progress() -> None:
            nonlocal joined
            joined += 1
            if joined % 10 == 0 or joined == self._count:
                self._tell.say(f"{joined} cameras made their own keys and joined")

        self._stage.hire(self._count, self._workshop.live_images, progress=progress)
        self._wait(lambda: self._online() == self._count, "all cameras are online", within_s=30)
        sites = Counter(device["labels"]["site"] for device in self._devices())
        self._tell.say("online: " + ", ".join(f"{count} at {site}" for site, count in sorted(sites.items())))

    def _first_deployment(self) -> None:
        self._roll_out("1.0", [{"devices": {"percent": 100}, "soak": "2s"}], within_s=90)
        self._expect_everywhere("1.0")

    def _staged_rollout(self) -> None:
        stages = [
            {"devices": {"percent": 10, "min": 3}, "soak": "4s"},
            {"devices": {"percent": 50}, "soak": "4s"},
            {"devices": {"percent": 100}, "soak": "3s"},
        ]
        ended = self._roll_out("1.1", stages, within_s=120)
        gates = [gate for stage in ended["stages"] for gate in stage["gates"] if gate["gate"] == "output"]
        judged = [gate for gate in gates if gate["n"] > 0 and gate["verdict"] == "pass"]
        self._expect(len(judged) == len(stages), f"not every stage was judged by its predictions: {gates}")
        self._expect_everywhere("1.1")

    def _quiet_fleet(self) -> None:
        began = time.monotonic()
        self._tell.say(f"the server learns what is normal: {BASELINE_S:.0f} s, {BASELINE_S / WINDOW_S:.0f} windows")
        self._wait(
            lambda: time.monotonic() - began >= BASELINE_S and self._verdicts(scope="fleet") == {"none"},
            "the fleet's drift state is 'none' on every stream",
            within_s=BASELINE_S + 30,
        )
        alarms = self._drifting()
        self._expect(not alarms, f"a quiet fleet was alarmed: {alarms[:3]}")
        self._tell.say("no alarm: " + ", ".join(f"{count} streams say {verdict}" for verdict, count in self._tally()))

    def _fog_localised(self) -> None:
        fleet = self._stage.fleet_or_fail()
        fleet.fog(FOGGY_SITE, on=True)
        began = time.monotonic()
        self._tell.say(f"{sum(camera.foggy for camera in fleet.cameras)} lenses at {FOGGY_SITE} fog up")
        self._wait(lambda: bool(self._site_alerts()), f"an alert that names {FOGGY_SITE}", within_s=30)
        alert = self._site_alerts()[0]
        self._tell.say(f"after {time.monotonic() - began:.0f} s: {alert['title']}")
        self._tell.block([f"            {line}" for line in alert["body"].splitlines()[:5]])
        blamed = {item["name"] for item in self._drifting() if item["scope"] == "cohort"}
        self._expect(blamed == {f"site={FOGGY_SITE}"}, f"alarmed cohorts are {sorted(blamed)}")
        inputs = {item["feature"] for item in self._drifting() if item["scope"] == "cohort"} - {"label", "confidence"}
        self._expect(bool(inputs), "no input stream of the foggy site is alarmed")
        fleet.fog(FOGGY_SITE, on=False)
        self._tell.say("the fog lifts")

    def _site_alerts(self) -> list[dict[str, Any]]:
        alerts = self._client.items("/api/v1/alerts")
        return [alert for alert in alerts if f"site={FOGGY_SITE}" in f"{alert['title']} {alert['body']}"]

    def _bad_release_stopped(self) -> None:
        self._pack_and_push("1.2")
        stages = [
            {"devices": {"percent": 10, "min": 3}, "soak": "10s"},
            {"devices": {"percent": 100}, "soak": "10s"},
        ]
        ended = self._roll_out("1.2", stages, within_s=90, expected="rolled_back")
        failed = [gate for gate in ended["stages"][0]["gates"] if gate["verdict"] == "fail"]
        self._expect([gate["gate"] for gate in failed] == ["output"], f"failed gates: {failed}")
        self._tell.say(f"stopped by its predictions: {failed[0]['reason']}")
        self._expect_everywhere("1.1")
        canaries = self._members("reader-1.2", stage=1)
        ran = Ledger(self._stage.database()).devices_that_ran(self._bundles["1.2"].digest)
        self._expect(ran <= canaries, f"version 1.2 also ran on {sorted(ran - canaries)}")
        self._expect(bool(ran), "no window of version 1.2 was stored, so it was not its predictions that stopped it")
        self._tell.say(f"only its {len(canaries)} canaries ever ran it; all {self._count} cameras report 1.1 again")

    def _every_row_counted_once(self) -> None:
        fleet = self._stage.fleet_or_fail()
        fleet.pause()
        self._wait(fleet.drained, "every window is acknowledged by the server", within_s=60)
        answered = {camera.name: camera.answered for camera in fleet.cameras}
        ledger = Ledger(self._stage.database())
        until = time.monotonic() + 30  # drained, a camera may still have its last window open
        while (stored := ledger.rows()) != answered and time.monotonic() < until:
            time.sleep(0.25)
        wrong = [
            f"{name} answered {rows} and has {stored.get(name, 0)} stored"
            for name, rows in answered.items()
            if stored.get(name, 0) != rows
        ]
        self._expect(not wrong, f"{len(wrong)} cameras' rows are not counted once: {', '.join(wrong[:3])}")
        self._expect(not fleet.faults, f"predictions failed: {fleet.faults[:3]}")
        self._tell.say(
            f"{sum(answered.values()):,} answers in {ledger.windows():,} windows of {ledger.bytes_per_window():.0f} "
            "bytes; none lost, none counted twice, none refused"
        )

    def _roll_out(
        self, version: str, stages: list[dict[str, Any]], *, within_s: float, expected: str = "completed"
    ) -> dict[str, Any]:
        name = f"reader-{version}"
        plan = {
            "name": name,
            "slot": SLOT,
            "bundle": f"{MODEL}:{version}",
            "cohort": "all",
            "stages": stages,
            "gates": {
                "install": {"failed": "<= 5%", "lost": "<= 5%"},
                "output": {"drift_vs": "control", "level": "alarm"},
                "input": {"drift_vs": "reference", "on": "alert"},
            },
            "deadline": "2m",
            "lost_after": "30s",
        }
        self._client.post("/api/v1/rollouts", plan)
        told: tuple[str, float] = ("", 0.0)

        def ended() -> bool:
            nonlocal told
            now = self._client.get(f"/api/v1/rollouts/{name}")
            where, count = _progress(now)
            if where != told[0] or time.monotonic() - told[1] > _EVERY_S:
                self._tell.say(f"rollout {name}: {where}{count}")
                told = (where, time.monotonic())
            return now["state"] in _ENDED

        self._wait(ended, f"rollout {name} ends", within_s=within_s)
        rollout: dict[str, Any] = self._client.get(f"/api/v1/rollouts/{name}")
        self._expect(rollout["state"] == expected, f"rollout {name} is {rollout['state']}: {rollout['reason']}")
        return rollout

    def _expect_everywhere(self, version: str) -> None:
        """Hold every device's own report against a version."""
        digest = self._bundles[version].digest
        reports = {device["id"]: device["slots"].get(SLOT, {}) for device in self._devices()}
        wrong = {name: report.get("active") for name, report in reports.items() if report.get("active") != digest}
        self._expect(not wrong, f"{len(wrong)} devices do not report {version}: {dict(list(wrong.items())[:3])}")
        self._tell.say(f"all {len(reports)} cameras report {digest[:19]}… as running and proven")

    def _devices(self) -> list[dict[str, Any]]:
        return list(self._client.items("/api/v1/devices"))

    def _online(self) -> int:
        return sum(device["online"] for device in self._devices())

    def _members(self, rollout: str, *, stage: int) -> set[str]:
        members = self._client.get(f"/api/v1/rollouts/{rollout}/devices")["items"]
        return {member["device"] for member in members if member["stage"] == stage}

    def _states(self) -> list[dict[str, Any]]:
        return list(self._client.items("/api/v1/drift", slot=SLOT))

    def _drifting(self) -> list[dict[str, Any]]:
        return [state for state in self._states() if state["verdict"] == "drift"]

    def _verdicts(self, *, scope: str) -> set[str]:
        return {state["verdict"] for state in self._states() if state["scope"] == scope}

    def _tally(self) -> list[tuple[str, int]]:
        return sorted(Counter(state["verdict"] for state in self._states()).items())

    def _expect(self, condition: bool, why: str) -> None:  # noqa: FBT001 - reads like assert
        if not condition:
            raise UntrueError(why)

    def _wait(self, condition: Callable[[], bool], what: str, *, within_s: float) -> None:
        until = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > until:
                raise UntrueError(f"waited {within_s:.0f} s in vain: {what}")
            time.sleep(0.25)


def _progress(rollout: dict[str, Any]) -> tuple[str, str]:
    """Return where a rollout is, and how far."""
    at = next((stage for stage in rollout["stages"] if stage["state"] not in {"passed", "pending"}), None)
    if at is None or rollout["state"] != "running":
        return rollout["state"], ""
    where = f"stage {at['stage']} of {len(rollout['stages'])} is {at['state']}"
    return where, f", {at['healthy']} of {at['eligible']} healthy"
