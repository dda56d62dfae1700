"""The recipes for CI servers: whole files, of commands that the programs take, doing the same four things."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from tests.architecture.test_documented_commands import unknown

from shoal_server.rollouts.plan import parse_plan

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "ci"
RECIPES = ("gitlab-ci.yml", "github-actions.yml", "Jenkinsfile")
STEPS = [
    ["shoal-convert", "pack"],
    ["shoal-convert", "check"],
    ["shoal-convert", "push"],
    ["shoalctl", "rollout", "create"],
    ["shoalctl", "rollout", "status"],
]


def commands(recipe: str) -> list[list[str]]:
    text = (FOLDER / recipe).read_text().replace("\\\n", " ")
    if recipe == "gitlab-ci.yml":  # a folded scalar: the next line belongs to the command
        text = "\n".join(line for job in scripts(recipe) for line in job)
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if re.match(r"(shoal-convert|shoalctl)\s", line)]


def scripts(recipe: str) -> list[list[str]]:
    document = yaml.safe_load((FOLDER / recipe).read_text())
    return [job["script"] for job in document.values() if isinstance(job, dict) and "script" in job]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_of_commands_that_the_programs_take(recipe: str) -> None:
    found = commands(recipe)
    assert [unknown(words) for words in found] == [None] * len(STEPS)
    assert [words[: len(step)] for words, step in zip(found, STEPS, strict=True)] == STEPS
    said = " ".join(" ".join(words) for words in found)
    for needed in ("--validation", "--require accuracy>=0.9", "--junit gates.xml", "--watch", "--junit rollout.xml"):
        assert needed in said


def test_the_job_that_runs_the_pickle_has_no_token() -> None:
    """Where jobs name their own secrets; GitLab's are the project's, and the child process drops them."""
    jobs = yaml.safe_load((FOLDER / "github-actions.yml").read_text())["jobs"]
    assert {name for name, job in jobs.items() if "SHOAL_TOKEN" in job.get("env", {})} == {"push", "rollout"}
    before, _, after = (FOLDER / "Jenkinsfile").read_text().partition("stage('push')")
    assert "credentials(" not in before
    assert after.count("credentials('shoal-token')") == 2


def test_github_s_recipe_has_its_jobs_one_behind_the_other() -> None:
    document = yaml.safe_load((FOLDER / "github-actions.yml").read_text())
    assert [job.get("needs") for job in document["jobs"].values()] == [None, "pack", "gate", "push"]
    assert [len(job) for job in scripts("gitlab-ci.yml")] == [3, 2, 2, 4]


def test_the_plan_is_one_that_the_server_takes() -> None:
    text = (FOLDER / "plan.yaml").read_text().replace("@MODEL@", "quality").replace("@VERSION@", "1.4.0")
    plan = parse_plan(yaml.safe_load(text))
    assert (plan.name, len(plan.stages)) == ("quality-1.4.0", 2)
    assert "@" not in text
