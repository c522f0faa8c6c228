"""How many clips a question needs."""

from __future__ import annotations

import math

from scipy.special import ndtr, ndtri  # pyright: ignore[reportMissingTypeStubs]


def power(difference: float, error: float, level: float = 0.05) -> float:
    """Return the chance that a two-sided test at a level finds a true difference.

    The normal approximation; the chance of a finding on the wrong side is left out.

    Args:
        difference: the true difference.
        error: the standard error of its estimate.

    >>> round(power(0.1, 0.1 / 2.8), 2)
    0.8
    """
    return float(ndtr(abs(difference) / error - ndtri(1 - level / 2)))


def cases_needed(
    difference: float, error: float, cases: int, *, chance: float = 0.8, level: float = 0.05
) -> int | None:
    """Return how many cases find a true difference with a given chance.

    The standard error of a paired difference falls with the root of the number of cases. A case is
    a group where clips are grouped. None where the difference or the error is 0 or unknown.

    Args:
        difference: the true difference to find.
        error: the standard error that `cases` cases have.
        chance: power aimed at.
        level: of the two-sided test, divided by their number where there are several.

    >>> cases_needed(0.1, 0.05, 100)
    197
    """
    if not abs(difference) > 0 or not error > 0:
        return None
    reach = float(ndtri(1 - level / 2) + ndtri(chance))
    return math.ceil(cases * (reach * error / difference) ** 2)
