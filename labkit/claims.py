"""Claims: a paper's statement as a measured number held against a bound.

A claim is shown to the reader as a small card and stored in the cell's output as data, so that an
executed notebook carries its own evidence. `labkit.headless.evidence` reads it back.
"""

import sys
from dataclasses import asdict, dataclass
from html import escape
from math import isfinite
from numbers import Real
from typing import Any

from labkit import atlas

CLAIM_MIME = "application/vnd.labkit.claim+json"
METRIC_MIME = "application/vnd.labkit.metric+json"


@dataclass(frozen=True)
class Claim:
    """One measured statement; `holds` is derived from value and bounds by `claim`."""

    paper: str
    statement: str
    value: float
    at_least: float | None
    at_most: float | None
    unit: str
    holds: bool

    @property
    def bound(self) -> str:
        """The bound as a reader writes it, e.g. ``≤ 0.45``."""
        unit = f" {self.unit}" if self.unit else ""
        if self.at_least is None:
            return f"≤ {self.at_most:.4g}{unit}"
        if self.at_most is None:
            return f"≥ {self.at_least:.4g}{unit}"
        return f"{self.at_least:.4g} to {self.at_most:.4g}{unit}"

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"[{verdict}] {self.statement}: {self.value:.4g}{unit} (claimed {self.bound})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {CLAIM_MIME: asdict(self), "text/html": _card(self), "text/plain": str(self)}


def _card(c: Claim) -> str:
    # Inline styles only: JupyterLab drops <style> elements from notebooks it does not trust yet.
    colour, verdict = ("#1a7f37", "holds") if c.holds else ("#b35900", "does not hold")
    unit = f" {escape(c.unit)}" if c.unit else ""
    return (
        f'<div class="labkit-claim" data-holds="{str(c.holds).lower()}" style="border-left:4px '
        f"solid {colour}; padding:6px 12px; margin:6px 0; max-width:46em; "
        f'background-color:#f6f8fa; color:#1f2328">'
        f'<div style="font-size:85%; color:#59636e">claim · {escape(c.paper)}</div>'
        f"<div>{escape(c.statement)}</div>"
        f"<div><b>{c.value:.4g}{unit}</b> measured, {escape(c.bound)} claimed · "
        f'<b style="color:{colour}">{verdict}</b></div></div>'
    )


# The claims of this kernel, latest value each, for the closing summary of a notebook.
_made: dict[tuple[str, str], Claim] = {}


def claim(
    paper: str,
    statement: str,
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "",
) -> None:
    """Hold a measured value against a bound, show the verdict and record it.

    A claim that does not hold is shown and recorded, never raised: a reader who moves a slider may
    break one and should see that. Headless runs fail on it.

    Parameters
    ----------
    paper : id of a paper in the atlas (`labkit atlas` lists them)
    statement : what is measured, in words, without the numbers
    value : the measured number (any real scalar, also a 0-d array or tensor)
    at_least, at_most : the bound; one or both, a number or a baseline measured in the same run
    unit : unit of value and bounds, shown beside them

    Raises
    ------
    ValueError
        for the author: unknown paper, empty statement, no bound, NaN or infinity, an empty range.
    TypeError
        for a value or bound that is no real number.
    """
    atlas.paper(paper)
    if not str(statement).strip():
        raise ValueError(f"a claim of {paper!r} needs a statement")
    measured = _number("value", value)
    low = None if at_least is None else _number("at_least", at_least)
    high = None if at_most is None else _number("at_most", at_most)
    if low is None and high is None:
        raise ValueError(f"claim {statement!r} needs a bound: at_least=, at_most= or both")
    if low is not None and high is not None and low > high:
        raise ValueError(f"claim {statement!r}: at_least={low} exceeds at_most={high}")
    holds = (low is None or measured >= low) and (high is None or measured <= high)
    made = Claim(paper, str(statement), measured, low, high, str(unit), holds)
    _made[made.paper, made.statement] = made
    _show(made)


def metric(name: str, value: float) -> None:
    """Record a number that is no claim; headless runs collect it beside the claims.

    Raises
    ------
    ValueError, TypeError
        for an empty name, or a value that is no finite real number.
    """
    if not str(name).strip():
        raise ValueError("a metric needs a name")
    _show(_Metric(str(name), _number(f"metric {name!r}", value)))


@dataclass(frozen=True)
class _Metric:
    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.6g}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {METRIC_MIME: asdict(self), "text/plain": str(self)}


def summary() -> None:
    """Print how many of the claims made in this kernel hold: the last cell of every notebook."""
    held = sum(c.holds for c in _made.values())
    print(f"{held} of {len(_made)} claims hold")
    for c in _made.values():
        if not c.holds:
            print(f"  does not hold: {c.statement}")


def _number(what: str, value: Any) -> float:
    """Convert a real scalar to float; `what` names it in the error."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # numpy scalars, 0-d arrays and tensors
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{what} must be a real number, not {type(value).__name__} {value!r}; "
            "pass the measured quantity rather than a verdict or an array"
        )
    if not isfinite(value):
        raise ValueError(f"{what} must be finite, not {value}")
    return float(value)


def _show(thing: Claim | _Metric) -> None:
    ipython = sys.modules.get("IPython")  # a running notebook has loaded it; a script need not
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(thing)
    else:
        print(thing)
