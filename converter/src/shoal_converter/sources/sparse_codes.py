"""Codes over a dictionary of atoms (SparseCoder, DictionaryLearning), as formulas.

Orthogonal matching pursuit and thresholding take a known number of steps. The other algorithms run until they converge,
and where they stop is not a formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.formula import Formula

Array = npt.NDArray[Any]

_MOST_ATOMS = 12


def sparse_code(f: Formula, model: Any) -> tuple[str, ...]:
    """The code of each row.

    Raises:
        RuntimeError: Another algorithm, or too many atoms a row.
    """
    atoms = np.asarray(getattr(model, "components_", getattr(model, "dictionary", None)), dtype=np.float64)
    match = f.node("MatMul", f.x, atoms.T)
    if model.transform_algorithm == "threshold":
        code = _soft_threshold(f, model, match)
    elif model.transform_algorithm == "omp":
        code = _pursuit(f, match, atoms, _atoms_a_row(model, atoms))
    else:
        raise RuntimeError(
            f"transform_algorithm={model.transform_algorithm!r} iterates until it converges, which has no exact form; "
            "'omp' and 'threshold' have"
        )
    if model.split_sign:
        zero = np.float64(0)
        code = f.node("Concat", f.node("Max", code, zero), f.node("Neg", f.node("Min", code, zero)), axis=1)
    return (code,)


def _soft_threshold(f: Formula, model: Any, match: str) -> str:
    alpha = model.transform_alpha if model.transform_alpha is not None else getattr(model, "alpha", None)
    alpha = 1.0 if alpha is None else float(alpha)
    size = f.node("Max", f.node("Sub", f.node("Abs", match), alpha), np.float64(0))
    code = f.node("Mul", f.node("Sign", match), size)
    return f.node("Max", code, np.float64(0)) if model.positive_code else code


def _atoms_a_row(model: Any, atoms: Array) -> int:
    count = model.transform_n_nonzero_coefs
    if count is None:
        count = min(max(int(atoms.shape[1] / 10), 1), len(atoms))
    if count > _MOST_ATOMS:
        raise RuntimeError(f"transform_n_nonzero_coefs={count} needs too large a graph; up to {_MOST_ATOMS} work")
    return int(count)


def _pursuit(f: Formula, match: str, atoms: Array, count: int) -> str:
    """Choose the atom that fits the rest best, fit all chosen ones anew, and so on (Rubinstein et al., 2008).

    A row whose best atom is a chosen one already has nothing left to fit: it stops, as if the atom were no atom.
    """
    gram = atoms @ atoms.T
    total = len(atoms)
    chosen: list[str] = []  # one-hot rows, [N, 1, K]
    code, rest = "", match
    for at in range(count):
        best = f.largest(f.node("Abs", rest))
        one = f.node("Unsqueeze", f.node("Gather", np.eye(total), best), np.array([1]))
        if chosen:
            before = f.node("ReduceSum", f.node("Concat", *chosen, axis=1), np.array([1]), keepdims=1)
            one = f.node("Mul", one, f.node("Sub", 1.0, before))
        chosen.append(one)
        code = _fitted(f, match, gram, chosen, at + 1)
        rest = f.node("Sub", match, f.node("MatMul", code, gram))
    return code


def _fitted(f: Formula, match: str, gram: Array, chosen: list[str], count: int) -> str:
    """Return the code over the chosen atoms alone: least squares by their Gram matrix."""
    picks = f.node("Concat", *chosen, axis=1) if count > 1 else chosen[0]  # [N, s, K]
    turned = f.node("Transpose", picks, perm=[0, 2, 1])
    system = f.node("MatMul", f.node("MatMul", picks, gram), turned)
    absent = f.node("Sub", 1.0, f.node("ReduceSum", picks, np.array([2]), keepdims=1))
    system = f.node("Add", system, f.node("Mul", absent, np.eye(count)))
    right = f.node("MatMul", picks, f.node("Unsqueeze", match, np.array([2])))
    gamma = f.solved(system, right, count)  # [N, s, 1]
    return f.node("ReduceSum", f.node("Mul", picks, gamma), np.array([1]), keepdims=0)
