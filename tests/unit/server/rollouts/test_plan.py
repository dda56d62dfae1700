"""Plans: what is understood, and that all that is wrong is told at once."""

from typing import Any

import pytest
import yaml

from shoal_server.rollouts.plan import ErrorsGate, InstallGate, OutputGate, Plan, PlanError, parse_plan
from shoal_server.testing.rollout_world import plan_of

FULL = """
name: quality-1.4
slot: quality
bundle: quality:1.4.0
cohort: "site in (bern, basel) and arch = arm64 and not label.frozen"
strategy: canary
stages:
  - {devices: {percent: 5, min: 3},  soak: 30m}
  - {devices: {percent: 25},         soak: 2h, approval: required}
  - {devices: {percent: 100}}
rate: {per_minute: 50, in_flight: 100, growth: 1.5}
gates:
  install:   {failed: "<= 5%", lost: "<= 2%", min_devices: 3}
  errors:    {vs: control, increase: "<= 1pp"}
  output:    {drift_vs: control, level: alarm, tolerance: 0.2}
  input:     {drift_vs: reference, on: alert}
on_failure: rollback
deadline: 3d
"""


def test_the_whole_plan_is_understood() -> None:
    plan = parse_plan(yaml.safe_load(FULL))
    assert plan.name == "quality-1.4"
    assert [(stage.share, stage.at_least, stage.soak_s, stage.approval) for stage in plan.stages] == [
        (0.05, 3, 1800.0, False),
        (0.25, 0, 7200.0, True),
        (1.0, 0, 0.0, False),
    ]
    assert (plan.rate.per_minute, plan.rate.in_flight, plan.rate.growth) == (50, 100, 1.5)
    assert plan.gates.install == InstallGate(failed=0.05, lost=0.02, min_devices=3)
    assert plan.gates.errors == ErrorsGate(increase=0.01)
    assert plan.gates.output == OutputGate(tolerance=0.2)
    assert (plan.roll_back_on_failure, plan.deadline_s, plan.standing) == (True, 259_200.0, True)


def test_a_short_plan_has_sound_defaults() -> None:
    plan = parse_plan(
        {"name": "r", "bundle": "quality:1.4.0", "cohort": "all", "stages": [{"devices": {"percent": 100}}]}
    )
    assert plan.slot == "quality"
    assert plan.gates.install == InstallGate()
    assert (plan.roll_back_on_failure, plan.standing, plan.dynamic, plan.approval) == (True, True, False, False)


def test_all_faults_are_told_together() -> None:
    broken = {
        "name": "Not A Name",
        "bundle": "quality",
        "cohort": "site in (bern",
        "stages": [{"devices": {"percent": 50}, "soak": "soon"}, {"devices": {"percent": 25}}],
        "gates": {"install": {"failed": "5%"}},
        "on_failure": "shrug",
    }
    with pytest.raises(PlanError) as refused:
        parse_plan(broken)
    where = [fault["where"] for fault in refused.value.data["faults"]]
    for expected in ("name", "bundle", "cohort", "stages[1].soak", "stages[2]", "gates.install.failed", "on_failure"):
        assert expected in where
    assert "position 14" in refused.value.message


@pytest.mark.parametrize(
    ("given", "windows"),
    [
        (["Mon-Fri 22:00-04:00 device", "Sat,Sun 00:00-24:00 utc"], ("Mon-Fri 22:00-04:00", "Sat,Sun 00:00-24:00 utc")),
        ("02:00-04:00; 12:00-13:00", ("02:00-04:00", "12:00-13:00")),
        ([], ()),
    ],
)
def test_windows_are_kept_in_their_one_form(given: object, windows: tuple[str, ...]) -> None:
    assert parse_plan(plan_of(windows=given)).windows == windows


@pytest.mark.parametrize("given", [["Mo-Fr 22:00-04:00"], ["22:00"], 22, [22], {"days": "Mon"}])
def test_windows_that_are_none_are_a_fault_of_the_plan(given: object) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(plan_of(windows=given))
    assert [fault["where"] for fault in refused.value.data["faults"]] == ["windows"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"strategy": "ab"}, "strategy"),
        ({"strategy": "shadow"}, "strategy"),
        ({"gates": {"latency": {"p95": "<= 20ms"}}}, "gates.latency"),
    ],
)
def test_what_is_not_supported_yet_is_refused_not_ignored(change: dict[str, Any], where: str) -> None:
    with pytest.raises(PlanError, match="not supported yet") as refused:
        parse_plan(plan_of(**change))
    assert [fault["where"] for fault in refused.value.data["faults"]] == [where]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on_failur": "pause"}, "on_failur: is not a key of a plan; did you mean 'on_failure'"),
        ({"gates": {"install": {"broken": "<= 5%"}}}, "gates.install.broken: is not a key"),
        ({"gates": {"input": {"drift_vs": "reference", "on": "rollback"}}}, "gates.input.on: expected alert"),
        (
            {"gates": {"accuracy": {"estimated": "<= 0.93"}}},
            "gates.accuracy.estimated: expected a bound such as '>= 93%'",
        ),
        ({"gates": {"accuracy": {"min_labels": 10}}}, "gates.accuracy: asks for nothing"),
        ({"stages": []}, "stages: expected a list"),
        ({"stages": None}, "stages: is missing"),
        ({"stages": [{"devices": {"percent": 0}}]}, "a stage of 0 percent changes nothing"),
        ({"stages": [{"soak": "6s"}]}, r"stages\[1\]: is missing: for example devices"),
        (
            {"stages": [{"devices": {"percent": 50}}], "standing": True},
            "standing: a standing assignment needs a last stage of 100 percent",
        ),
        ({"rate": {"per_minute": 0}}, "rate.per_minute: expected a whole number from 1"),
        ({"deadline": "0s"}, "deadline: expected a duration above zero"),
        ({"override": {"denied": ""}}, "override.denied: expected the reason"),
    ],
)
def test_single_faults(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_plan(plan_of(**change))


def test_a_plan_that_stops_short_is_no_standing_assignment() -> None:
    assert parse_plan(plan_of(stages=[{"devices": {"percent": 50}}])).standing is False


def test_a_start_is_read_as_text_or_as_yaml_reads_it() -> None:
    text = parse_plan(plan_of(start="2026-12-01T22:00:00Z")).start_at
    read = parse_plan(plan_of(start=yaml.safe_load("2026-12-01 22:00:00"))).start_at
    assert text == read == 1_796_162_400.0


def test_something_else_than_a_mapping() -> None:
    with pytest.raises(PlanError, match="a rollout plan is a mapping, got list"):
        parse_plan([])  # type: ignore[arg-type]


def test_plans_of_the_documentation_are_understood(request: pytest.FixtureRequest) -> None:
    page = request.config.rootpath / "docs/how-to/write-a-rollout-plan.md"
    plans = [block.split("```")[0] for block in page.read_text().split("```yaml\n")[1:]]
    assert plans
    assert all(isinstance(parse_plan(yaml.safe_load(plan)), Plan) for plan in plans)
