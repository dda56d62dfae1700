"""The normal distribution's quantiles as a formula: rational functions, exact to about 1e-16.

M. J. Wichura, Algorithm AS 241: The Percentage Points of the Normal Distribution, Applied Statistics 37 (1988) 477-484
(PPND16).
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal_converter.sources.formula import Formula

_SPLIT, _CONSTANT = 0.425, 0.180625
_TAIL = 5.0

_CENTRE = (
    (
        *(3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4),
        *(4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    ),
    (
        *(1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3),
        *(2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
    ),
)
_MIDDLE = (
    (
        *(1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0),
        *(1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    ),
    (
        *(1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1),
        *(1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
    ),
)
_FAR = (
    (
        *(6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1),
        *(2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    ),
    (
        *(1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2),
        *(7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
    ),
)


def normal_quantile(f: Formula, p: str) -> str:
    """Return the value below which a standard normal number lies with probability p; p is above 0 and below 1."""
    q = f.node("Sub", p, 0.5)
    centre = f.node("Mul", q, _ratio(f, f.node("Sub", _CONSTANT, f.node("Mul", q, q)), _CENTRE))
    r = f.node("Sqrt", f.node("Neg", f.node("Log", f.node("Min", p, f.node("Sub", 1.0, p)))))
    middle = _ratio(f, f.node("Sub", r, 1.6), _MIDDLE)
    far = _ratio(f, f.node("Sub", r, _TAIL), _FAR)
    outer = f.node("Mul", f.node("Sign", q), f.node("Where", f.node("Greater", r, _TAIL), far, middle))
    return f.node("Where", f.node("LessOrEqual", f.node("Abs", q), _SPLIT), centre, outer)


def _ratio(f: Formula, x: str, coefficients: tuple[Sequence[float], Sequence[float]]) -> str:
    above, below = (_polynomial(f, x, part) for part in coefficients)
    return f.node("Div", above, below)


def _polynomial(f: Formula, x: str, coefficients: Sequence[float]) -> str:
    """Return the polynomial by Horner's rule; the constant comes first."""
    *lower, value = coefficients
    result = f.node("Add", f.node("Mul", x, value), lower[-1])
    for coefficient in reversed(lower[:-1]):
        result = f.node("Add", f.node("Mul", result, x), coefficient)
    return result
