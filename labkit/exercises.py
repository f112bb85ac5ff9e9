"""Exercises: a stub that the reader fills in, checked against the folded solution.

In a notebook an exercise is four cells: the prompt with a folded hint (markdown, ``<details>``);
the stub, tagged ``exercise``, a function that raises `NotImplementedError`; its solution, tagged
``solution`` and folded, the same function under the name ``<name>_solution``; and

    check(<name>, <name>_solution, inputs)

where ``inputs(rng)`` draws one tuple of arguments. The convention of nbgrader (a stub raises
`NotImplementedError`) is kept; what differs is that a failed check is shown, not raised, so that
"Run All" passes over exercises that nobody has tried yet.
"""

from collections.abc import Callable
from html import escape
from numbers import Real
from typing import Any

import numpy as np
from numpy.random import Generator

TRIALS = 20


class Verdict:
    """What a check found: `status` is "not attempted", "correct" or "not yet"."""

    def __init__(self, exercise: str, status: str, detail: str) -> None:
        self.exercise, self.status, self.detail = exercise, status, detail

    def __repr__(self) -> str:
        return f"{self.exercise}: {self.status}: {self.detail}"

    def _repr_html_(self) -> str:
        colour = {"correct": "#1a7f37", "not yet": "#b35900"}.get(self.status, "#59636e")
        return (
            f'<div class="labkit-exercise" data-status="{self.status}" style="border-left:4px '
            f'solid {colour}; padding:6px 12px; margin:6px 0; max-width:46em">'
            f'<code>{escape(self.exercise)}</code> · <b style="color:{colour}">{self.status}</b>'
            f"<div>{escape(self.detail)}</div></div>"
        )


def check(
    attempt: Callable[..., Any],
    solution: Callable[..., Any],
    inputs: Callable[[Generator], tuple],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    seed: int = 0,
) -> Verdict:
    """Compare a reader's function with the solution on `TRIALS` random inputs.

    Parameters
    ----------
    attempt : the reader's function
    solution : the reference; it must not raise
    inputs : draws one tuple of arguments from a NumPy generator
    rtol, atol : tolerances as in `numpy.isclose`
    seed : seed of that generator
    """
    rng = np.random.default_rng(seed)
    name = getattr(attempt, "__name__", "exercise")
    for trial in range(TRIALS):
        arguments = inputs(rng)
        expected = _arrays(solution(*_copies(arguments)))
        try:
            answer = attempt(*_copies(arguments))
        except NotImplementedError:
            return Verdict(name, "not attempted", "replace the line that raises, then run again")
        except Exception as error:
            # The reader's code may raise anything; the notebook must run on and say what it was.
            return Verdict(name, "not yet", f"it raised {type(error).__name__}: {error}")
        if answer is ... or answer is None:
            return Verdict(name, "not attempted", "the function returns nothing yet")
        complaint = _difference(answer, expected, rtol, atol)
        if complaint:
            shown = ", ".join(_brief(argument) for argument in arguments)
            return Verdict(name, "not yet", f"on input {trial + 1} ({shown}): {complaint}")
    return Verdict(name, "correct", f"it agrees with the solution on {TRIALS} random inputs")


def _copies(arguments: tuple) -> tuple:
    """Fresh arguments for each call, so that an attempt that works in place changes nothing."""
    return tuple(
        a.clone() if hasattr(a, "clone") else a.copy() if isinstance(a, np.ndarray) else a
        for a in arguments
    )


def _arrays(result: Any) -> list[np.ndarray]:
    """A result, or a tuple of results, as NumPy arrays; true and false count as 1 and 0."""
    parts = result if isinstance(result, tuple) else (result,)
    arrays = [np.asarray(p.detach().cpu() if hasattr(p, "detach") else p) for p in parts]
    return [a.astype(int) if a.dtype == bool else a for a in arrays]


def _difference(answer: Any, expected: list[np.ndarray], rtol: float, atol: float) -> str:
    """Say in words how an answer differs from the expected arrays; empty if it does not."""
    try:
        given = _arrays(answer)
    except (TypeError, ValueError, RuntimeError):  # a ragged list, a type that NumPy lacks
        return f"expected numbers, got {type(answer).__name__} that is no array of them"
    if len(given) != len(expected):
        return f"expected {len(expected)} result(s), got {len(given)}"
    for mine, right in zip(given, expected, strict=True):
        if mine.dtype == object or not np.issubdtype(mine.dtype, np.number):
            return f"expected numbers, got {type(answer).__name__}"
        if mine.shape != right.shape:
            return f"expected shape {right.shape}, got {mine.shape}"
        wrong = ~np.isclose(mine, right, rtol=rtol, atol=atol, equal_nan=False)
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            at = f" at {list(where)}" if where else ""
            return f"expected {right[where]:.5g}{at}, got {mine[where]:.5g}"
    return ""


def _brief(argument: Any) -> str:
    if getattr(argument, "ndim", 0):
        return f"array of shape {tuple(argument.shape)}"
    return f"{argument:.4g}" if isinstance(argument, Real) else repr(argument)[:60]
