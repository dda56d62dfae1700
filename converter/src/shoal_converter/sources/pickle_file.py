"""Estimators in pickles (.joblib, .pkl): loaded in the child process alone.

Leaves to `model_file` whether it may be loaded, and to `confinement` what the code in it can reach.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from shoal_converter.errors import SourceError


def load_pickle(path: Path) -> Any:
    """Run a pickle and return what it makes.

    Raises:
        SourceError: A module is missing, or it fails.
    """
    import joblib  # noqa: PLC0415 - heavy

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            model = joblib.load(path)  # reads plain pickles too
        except ModuleNotFoundError as error:
            raise SourceError(
                f"{path.name} needs the module {error.name!r}, which is not installed here", hint=bringing(error.name)
            ) from error
        except MemoryError as error:
            raise SourceError(
                f"{path.name} asks for more memory than its process may take",
                hint="pack it on a larger machine; or is it the model that you think it is?",
            ) from error
        except Exception as error:
            raise SourceError(
                f"{path.name} can't be loaded: {type(error).__name__}: {error}",
                hint="was it written by the same versions of scikit-learn and numpy, and copied completely?",
            ) from error
    versions = [str(w.message) for w in seen if type(w.message).__name__ == "InconsistentVersionWarning"]
    if versions:
        sys.stderr.write(f"warning: {versions[0].split('.  ')[0].splitlines()[0][:300]}\n")
    return model


def bringing(module: str | None) -> str:
    """Return what brings a module that a file asks for."""
    root = (module or "").partition(".")[0]
    if root in {"xgboost", "lightgbm", "catboost", "torch", "tensorflow", "skops"}:
        return f"pip install 'shoal-converter[{root}]'"
    return "install it, or put its folder into PYTHONPATH"
