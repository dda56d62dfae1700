"""``shoal-agent predict``: its arguments, and what it says while it works and when it is stopped."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal_agent.adapters.folder_owner import as_owner
from shoal_agent.errors import SettingsError
from shoal_agent.settings import state_folder

if TYPE_CHECKING:
    from shoal_agent.bulk.job import Outcome
    from shoal_agent.runtime.model import LoadedModel

OK, INTERRUPTED = 0, 130

_EPILOG = """\
example: shoal-agent predict --input visits.csv --keep id --missing NA --output answers.csv
The output appears only when it is whole. Rows of a file are not counted in the statistics unless --count says so.
"""


def add_predict(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command.

    Args:
        add: Takes name, function and description, and returns the command's parser.
    """
    predict = add("predict", run_predict, "Answer the rows of a file, however many, with the active model.")
    predict.epilog = _EPILOG
    predict.formatter_class = argparse.RawDescriptionHelpFormatter
    option = predict.add_argument
    option("--input", metavar="FILE", type=Path, help=".csv .jsonl .json .npz .parquet; - or none: standard input")
    option(
        "--input-format", choices=["csv", "jsonl", "json", "npz", "parquet"],
        help="what the input is, where its name does not tell; standard input is json",
    )  # fmt: skip
    option("--output", metavar="FILE", type=Path, help=".csv .jsonl .parquet; a JSON document is printed when left out")
    option("--output-format", choices=["csv", "jsonl", "parquet"], help="where the name does not tell")
    option("--keep", action="append", default=[], metavar="COLUMN", help="write this column of the input too, as an id")
    option("--missing", action="append", default=[], metavar="TEXT", help="cells of CSV with this text are missing: NA")
    option("--count", action="store_true", help="count the rows in the device's statistics; only while no agent runs")
    option("--bundle", metavar="FILE", help="ask this bundle instead of the active model")
    option("--slot", metavar="NAME", help="which model, where there are several")


def run_predict(given: argparse.Namespace) -> int:
    """Answer a file's rows; return the exit code.

    Raises:
        ShoalError: What was given does not fit; nothing was written.
    """
    from shoal_agent.bulk.job import Job, run_job  # noqa: PLC0415 - numpy and onnxruntime come with these
    from shoal_agent.bulk.source import FileForm, Source  # noqa: PLC0415

    job = Job(
        Source(given.input, given.input_format and FileForm(given.input_format)),
        given.output,
        output_form=given.output_format and FileForm(given.output_format),
        keep=tuple(given.keep),
        missing=tuple(given.missing),
    )
    job.check()  # before a model is loaded
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the half-written file goes then, too
    try:
        with _asked_model(given) as model:
            done = run_job(model, job, tell=_tell)
    except KeyboardInterrupt:
        sys.stderr.write(f"shoal-agent: stopped; {given.output or 'the document'} was not finished\n")
        return INTERRUPTED
    if given.output is not None:
        took = f"{done.rows:,} rows in {done.seconds:.1f} s"
        sys.stderr.write(f"{took}, answered by {model.name}:{model.version}: {given.output}\n")
    return OK


@contextmanager
def _asked_model(given: argparse.Namespace) -> Iterator[LoadedModel]:
    if given.bundle is not None:
        if given.count:
            raise SettingsError("--count needs a device that has joined; a bundle alone reports to nobody")
        from shoal_agent.serving.standalone import load_bundle  # noqa: PLC0415 - onnxruntime comes with it

        yield load_bundle(Path(given.bundle))
        return
    from shoal_agent.stored_model import chosen_slot, open_active, stored_state  # noqa: PLC0415 - likewise

    folder = state_folder(given.state)
    if given.count:
        as_owner(folder)
    slot = chosen_slot(stored_state(folder), given.slot)
    model = open_active(folder, slot)
    if not given.count:
        yield model
        return
    from shoal_agent.bulk.window_count import counted  # noqa: PLC0415 - the updating half comes with it

    with counted(folder, slot, model):
        yield model


def _tell(so_far: Outcome) -> None:
    sys.stderr.write(f"{so_far.rows:,} rows, {so_far.rows / so_far.seconds:,.0f} a second\n")
