"""Gaussian processes, as formulas: kernels between rows and training rows, the mean, and the classifier's integral."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.sources.formula import Formula
from shoal_converter.sources.kernels import kernel

Array = npt.NDArray[Any]

_ERF_TERMS = 29
_TAYLOR_TERMS = 16
_NEAR = 0.75


def covariance(f: Formula, x: str, points: Array, k: Any) -> str:
    """Return ``k(x, points)``, [N, K], of scikit-learn's kernels (Rasmussen and Williams, chapter 4).

    Raises:
        RuntimeError: A kernel without a form here.
    """
    name = type(k).__name__
    points = np.asarray(points, dtype=np.float64)
    if name in {"Sum", "Product"}:
        both = (covariance(f, x, points, part) for part in (k.k1, k.k2))
        return f.node("Add" if name == "Sum" else "Mul", *both)
    if name == "Exponentiation":
        return f.node("Pow", covariance(f, x, points, k.kernel), float(k.exponent))
    if name in {"ConstantKernel", "WhiteKernel"}:  # white noise is between a row and itself only
        value = float(k.constant_value) if name == "ConstantKernel" else 0.0
        return f.affine(x, np.zeros_like(points.T), np.full((1, len(points)), value))
    if name == "DotProduct":
        return f.affine(x, points.T, float(k.sigma_0) ** 2)
    if name == "PairwiseKernel":
        return kernel(f, x, points, k.metric, {"gamma": k.gamma, **(k.pairwise_kernels_kwargs or {})})
    if name in {"RBF", "Matern", "RationalQuadratic", "ExpSineSquared"}:
        return _stationary(f, x, points, k)
    raise RuntimeError(f"the kernel {name} has no form in ONNX")


def _stationary(f: Formula, x: str, points: Array, k: Any) -> str:
    """Kernels of the distance in units of the length scale alone."""
    name = type(k).__name__
    scale = np.asarray(k.length_scale, dtype=np.float64)
    if name in {"RBF", "Matern"}:
        squares = _squares(f, f.node("Div", x, scale), points / scale)
        return _exponential(f, squares, k) if name == "Matern" else f.node("Exp", f.node("Mul", squares, -0.5))
    squares = _squares(f, x, points)
    if name == "RationalQuadratic":
        base = f.node("Add", f.node("Div", squares, float(2 * k.alpha * scale**2)), 1.0)
        return f.node("Pow", base, -float(k.alpha))
    sine = f.node("Sin", f.node("Mul", f.node("Sqrt", squares), float(np.pi / k.periodicity)))
    ratio = f.node("Div", sine, scale)
    return f.node("Exp", f.node("Mul", f.node("Mul", ratio, ratio), -2.0))


def _squares(f: Formula, x: str, points: Array) -> str:
    """Return squared distances by differences, as scipy's cdist does: a product of matrices cancels near 0."""
    total = ""
    for at in range(points.shape[1]):
        apart = f.node("Sub", f.columns(x, [at]), points[np.newaxis, :, at])
        part = f.node("Mul", apart, apart)
        total = f.node("Add", total, part) if total else part
    return total


def _exponential(f: Formula, squares: str, k: Any) -> str:
    """Matérn's kernel where it is an exponential times a polynomial."""
    if np.isinf(k.nu):
        return f.node("Exp", f.node("Mul", squares, -0.5))
    if k.nu not in {0.5, 1.5, 2.5}:
        raise RuntimeError(f"Matern with nu={k.nu} has no form in ONNX; 0.5, 1.5, 2.5 and infinity have")
    far = f.node("Mul", f.node("Sqrt", squares), float(np.sqrt(2 * k.nu)))
    factor = f.node("Add", far, 1.0)
    if k.nu == 2.5:
        factor = f.node("Add", factor, f.node("Div", f.node("Mul", far, far), 3.0))
    decay = f.node("Exp", f.node("Neg", far))
    return decay if k.nu == 0.5 else f.node("Mul", factor, decay)


def gaussian_process_regressor(f: Formula, model: Any) -> tuple[str, ...]:
    """The mean ``k(x, X) a``, scaled back to the target (Algorithm 2.1); a prior that saw nothing has the mean 0."""
    if not hasattr(model, "X_train_"):
        raise RuntimeError("a Gaussian process that was not fitted has no values to convert")
    weights = np.asarray(model.alpha_, dtype=np.float64).reshape(len(model.X_train_), -1)
    mean = f.node("MatMul", covariance(f, f.x, model.X_train_, model.kernel_), weights)
    scaled = f.node("Mul", mean, np.asarray(model._y_train_std, np.float64).reshape(1, -1))  # noqa: SLF001 - no public
    return (f.node("Add", scaled, np.asarray(model._y_train_mean, np.float64).reshape(1, -1)),)  # noqa: SLF001 - names


def gaussian_process_classifier(f: Formula, model: Any) -> tuple[str, ...]:
    """The Laplace approximation (Algorithm 3.2); several classes one against the rest.

    Raises:
        RuntimeError: One against one, which has no probabilities.
    """
    base = model.base_estimator_
    if len(model.classes_) == 2:
        mean, share = _binary(f, base)
        label = f.flat(f.node("Cast", f.node("Greater", mean, 0.0), to=7))
        return f.labels(model.classes_, label), f.node("Concat", f.node("Sub", 1.0, share), share, axis=1)
    if model.multi_class != "one_vs_rest":
        raise RuntimeError("multi_class='one_vs_one' gives no probabilities; 'one_vs_rest' does")
    shares = f.node("Concat", *(_binary(f, each)[1] for each in base.estimators_), axis=1)
    total = f.total(shares)
    return f.labels(model.classes_, f.largest(shares)), f.node("Div", shares, total)


def _binary(f: Formula, model: Any) -> tuple[str, str]:
    """Return the latent mean and the probability of the second class, both [N, 1].

    The integral of the logistic function over the latent normal is that of five error functions (Williams and Barber,
    1998, appendix A), with scikit-learn's coefficients.
    """
    from scipy.linalg import solve_triangular  # noqa: PLC0415 - heavy
    from sklearn.gaussian_process._gpc import COEFS, LAMBDAS  # noqa: PLC0415 - heavy

    similar = covariance(f, f.x, model.X_train_, model.kernel_)
    mean = f.node("MatMul", similar, (model.y_train_ - model.pi_)[:, np.newaxis])
    lower = solve_triangular(model.L_, np.diag(model.W_sr_), lower=True)
    spread = f.node("MatMul", similar, lower.T)
    own = _own_variance(f, model)
    variance = f.node("Sub", own, f.total(f.node("Mul", spread, spread)))
    alpha = f.node("Div", 0.5, variance)
    slopes, parts = LAMBDAS.reshape(1, -1), COEFS.reshape(1, -1)
    ratio = f.node("Sqrt", f.node("Div", alpha, f.node("Add", alpha, slopes**2)))
    integrals = f.node("Mul", _erf(f, f.node("Mul", f.node("Mul", mean, slopes), ratio)), 0.5)
    return mean, f.node("Add", f.total(f.node("Mul", integrals, parts)), float(0.5 * parts.sum()))


def _own_variance(f: Formula, model: Any) -> str:
    """Return ``k(x, x)``, [N, 1]: a constant for stationary kernels."""
    rows = np.random.default_rng(0).normal(size=(8, model.X_train_.shape[1]))
    own = model.kernel_.diag(rows)
    if not np.allclose(own, own[0], rtol=1e-12):
        raise RuntimeError("a kernel that is not stationary (such as DotProduct) has no form in ONNX for classifiers")
    return f.affine(f.x, np.zeros((rows.shape[1], 1)), np.full((1, 1), own[0]))


def _erf(f: Formula, x: str) -> str:
    """The error function in double, which onnxruntime has in float32 alone.

    Near 0 its Taylor series, for the coefficients around it are in the thousands; beyond,
    ``1 - t exp(-x² + P(t))`` with ``t = 2 / (2 + |x|)`` and P a Chebyshev series (Press et al., Numerical Recipes,
    6.2.2), summed by Clenshaw's recurrence.
    """
    from scipy.special import erfcx  # noqa: PLC0415 - heavy

    def exponent(s: Any) -> Any:
        t = np.clip((s + 1) / 2, 1e-12, 1.0)
        return np.log(erfcx(2 / t - 2) / t)

    terms = np.polynomial.chebyshev.chebinterpolate(exponent, _ERF_TERMS - 1)
    size = f.node("Abs", x)
    t = f.node("Div", 2.0, f.node("Add", size, 2.0))
    s = f.node("Sub", f.node("Mul", t, 2.0), 1.0)
    twice = f.node("Mul", s, 2.0)
    after, last = f.const(np.float64(0)), f.const(np.float64(terms[-1]))
    for term in terms[-2:0:-1]:
        after, last = last, f.node("Add", f.node("Sub", f.node("Mul", twice, last), after), float(term))
    series = f.node("Add", f.node("Sub", f.node("Mul", s, last), after), float(terms[0]))
    tail = f.node("Mul", t, f.node("Exp", f.node("Sub", series, f.node("Mul", x, x))))
    far = f.node("Mul", f.node("Sign", x), f.node("Sub", 1.0, tail))
    return f.node("Where", f.node("Less", size, _NEAR), _near_zero(f, x), far)


def _near_zero(f: Formula, x: str) -> str:
    """``2 / sqrt(π) * sum (-1)^n x^(2n + 1) / (n! (2n + 1))``, by Horner's rule."""
    inner = f.node("Max", f.node("Min", x, np.float64(_NEAR)), np.float64(-_NEAR))
    square = f.node("Mul", inner, inner)
    terms = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(_TAYLOR_TERMS)]
    value = f.const(np.float64(terms[-1]))
    for term in terms[-2::-1]:
        value = f.node("Add", f.node("Mul", value, square), term)
    return f.node("Mul", value, inner)
