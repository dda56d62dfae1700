"""Every command that a document shows is one that the programs take, with options that they know."""

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from shoal_agent.cli import _parser as build_parser
from shoal_converter.cli import cli as shoal_convert
from shoal_server.cli import main as shoal_server
from shoal_server.ctl.cli import cli as shoalctl

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "*/README.md", "docs/**/*.md", "deploy/**/*.md")
DOCUMENTS = sorted({path for place in PLACES for path in ROOT.glob(place)})
RECIPES = sorted((ROOT / "deploy" / "container").glob("*.Containerfile"))
CALL = re.compile(r"(?:^|[|$(\s])((?:shoal-convert|shoal-server|shoalctl|shoal-agent)\s.*)")
PROGRAMS = {"shoal-convert": shoal_convert, "shoal-server": shoal_server, "shoalctl": shoalctl}
INDENTED = re.compile(r"^    shoal(?:-convert|-server|-agent|ctl) (?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> Iterator[list[str]]:
    text = document.read_text()
    for block in [*BLOCK.findall(text), *INDENTED.findall(text)]:
        for line in block.replace("\\\n", " ").splitlines():
            found = CALL.search(line.removeprefix("$ "))
            if found and not line.lstrip().startswith(("#", "until")):
                call = re.split(r"\s(?:[|<>&]|2>|\|\|)|\)", re.sub(r"\s#.*", "", found.group(1)))[0]
                yield shlex.split(call.replace("…", "x"))


def run_by_container(recipe: Path) -> list[str]:
    return [
        word
        for line in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", recipe.read_text(), re.MULTILINE)
        for word in json.loads(line)
    ]


def unknown(words: list[str]) -> str | None:
    program, *rest = words
    if program == "shoal-agent":
        return unknown_to_agent(rest)
    command: click.Command = PROGRAMS[program]
    context = click.Context(command)
    options = known_options(command, context)
    for word in rest:
        if word.startswith("-") and word != "-":
            if word.split("=")[0] not in options:
                return f"{program} has no option {word} here"
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                return f"{program} has no command {word}"
            command, context = inner, click.Context(inner, parent=context)
            options |= known_options(command, context)
    return None


def known_options(command: click.Command, context: click.Context) -> set[str]:
    return {name for option in command.get_params(context) for name in [*option.opts, *option.secondary_opts]}


def unknown_to_agent(rest: list[str]) -> str | None:
    parser = build_parser()
    if not rest or rest[0].startswith("-"):
        return None
    inner = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    chosen = inner.get(rest[0])
    if chosen is None:
        return f"shoal-agent has no command {rest[0]}"
    known = {name for action in chosen._actions for name in action.option_strings}
    return next(
        (f"shoal-agent {rest[0]} has no option {w}" for w in rest if w.startswith("--") and w not in known), None
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_commands_exist(document: Path) -> None:
    faults = [f"{' '.join(words)}: {fault}" for words in commands(document) if (fault := unknown(words))]
    assert faults == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_container_copies_what_is_there_and_runs_what_exists(recipe: Path) -> None:
    copied = re.findall(r"^COPY (?:--chmod=\d+ )?(?!--)(\S+) ", recipe.read_text(), re.MULTILINE)
    assert len(copied) >= 3
    assert [name for name in copied if not (ROOT / name).exists()] == []
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) <= let_in, ".dockerignore keeps it from the builder"
    words = ["shoal-agent" if word == "agent-entrypoint" else word for word in run_by_container(recipe)]
    assert words[0] in {*PROGRAMS, "shoal-agent"}
    assert unknown(words) is None


def test_the_documents_show_commands_of_every_program() -> None:
    shown = {words[0] for document in DOCUMENTS for words in commands(document)}
    assert shown == {*PROGRAMS, "shoal-agent"}


@pytest.mark.parametrize(
    "line", ["shoalctl rollout nonsense x", "shoal-convert pack x --nonsense", "shoal-agent run --nonsense"]
)
def test_an_invented_command_is_noticed(line: str) -> None:
    assert unknown(shlex.split(line))
