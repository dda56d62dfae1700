"""``shoal-convert pack``: names, options and help. What it does is `pack`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shoal_converter.commands.arguments import (
    Share,
    json_option,
    oms_key_option,
    opened_signer,
    parent_path,
    passphrase_option,
    token_file_option,
    url_option,
)
from shoal_converter.terminal import Terminal

_TRUST = ("isolated", "unisolated")


class _Pack(click.Command):
    """Takes ``--trust`` alone for ``--trust=isolated``; click would take the word that follows it for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what was typed."""
        words: list[str] = []
        for word in args:
            if word in _TRUST and words[-1:] == ["--trust=isolated"]:
                words[-1] = f"--trust={word}"
            else:
                words.append("--trust=isolated" if word == "--trust" else word)
        return super().parse_args(ctx, words)


# long by its options: one decorator each
@click.command(cls=_Pack)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--sample", type=click.Path(path_type=Path), help="Rows like the training data: .npz .npy .csv .parquet.")
@click.option("--target", metavar="NAME", help="Column (or array of an .npz) that holds the labels or values.")
@click.option("-t", "--tag", required=True, metavar="NAME:VERSION", help="What to call it, such as quality:1.4.0.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder or .tar. Default: NAME-VERSION.tar.")
@click.option(
    "--trust",
    type=click.Choice(_TRUST),
    metavar="[=unisolated]",
    help="SOURCE runs code and you know its origin. It runs shut off; =unisolated: also where it can't be.",
)
@click.option(
    "--trust-type",
    "trusted_types",
    multiple=True,
    metavar="TYPE",
    help="A type in a .skops that you know, such as ours.Scaler; may be repeated.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=3600, show_default=True, metavar="S", help="Seconds it may take."
)
@click.option("--parent", metavar="BUNDLE", help="Earlier version (path, or name:1.3.0) whose grids are inherited.")
@click.option(
    "--validation", type=click.Path(path_type=Path), help="Rows the model has never seen, for honest figures."
)
@click.option(
    "--segment-by", multiple=True, metavar="COLUMN[,COLUMN]", help="Split the figures by columns; may be repeated."
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice(["fp16", "int8", "int8-dynamic", "auto"]),
    help="Build it beside the canonical model, if it proves near enough and a gain; may be repeated.",
)
@click.option("--latency-budget", type=click.FloatRange(min=0, min_open=True), metavar="MS", help="p95 of one row.")
@click.option("--memory-budget", type=click.IntRange(min=1), metavar="MB", help="What the model may need on a device.")
@click.option("--rtol", type=float, default=1e-4, show_default=True, help="Relative difference that counts as equal.")
@click.option("--atol", type=float, default=1e-5, show_default=True, help="Absolute difference that counts as equal.")
@click.option("--max-label-flips", type=Share(), default="0%", show_default=True, help="Rows whose label may differ.")
@click.option("--float64-inputs", is_flag=True, help="Feed floats in double from the start.")
@click.option("--about", type=click.Path(path_type=Path), help="Markdown for the model card: intended use, limits.")
@click.option("--licence", type=click.Path(path_type=Path), help="The model's licence text.")
@click.option(
    "--contract",
    type=click.Path(path_type=Path),
    help="YAML: what the features' values must be; auto: as the sample's.",
)
@click.option("--no-reference", is_flag=True, help="The sample shows no distribution: devices learn it at first.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Added to the provenance; may be repeated.")
@oms_key_option
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Convert and prove, say what would be made, and write nothing.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
@url_option
@token_file_option
@json_option
def pack(**arguments: Any) -> None:
    """Convert, prove and pack a trained model.

    SOURCE is a .skops, .joblib or .pkl with a fitted scikit-learn estimator or pipeline, a file of XGBoost, LightGBM or
    CatBoost, an .onnx, a .pt2 of PyTorch, a .keras, a SavedModel of TensorFlow, a folder that MLflow wrote, or its
    models:/ or runs:/ address. What runs code when it is loaded (pickles, .pt2, SavedModel) needs --trust; it is loaded
    in a child process without your credentials, without network, and without your files.

    \b
    shoal-convert pack model.joblib --trust --sample train.csv --target y -t quality:1.4.0
    shoal-convert pack model.joblib --trust --sample train.npz -t quality:1.4.1 --parent quality-1.4.0.tar
    shoal-convert pack model.joblib --trust --sample train.csv --validation unseen.csv --target y \
        --segment-by site -t quality:1.4.2
    """  # noqa: D301 - click needs the character itself
    from shoal_converter.commands.pack import run  # noqa: PLC0415 - keeps --help quick

    oms_key, passphrase_file = arguments.pop("oms_key"), arguments.pop("passphrase_file")
    arguments["signer"] = None if oms_key is None else opened_signer(oms_key, passphrase_file)
    with parent_path(arguments.pop("parent"), arguments.pop("url"), arguments.pop("token_file")) as parent:
        run(Terminal(json_wanted=arguments.pop("json_wanted")), parent=parent, **arguments)
