"""The tables of a sweep as counts and pictures; what its `summary.ipynb` calls.

    results, claims = report.read("sweeps/sparse_coding/01_beyond_l1")
    report.pass_rates(claims)
    report.draw_verdicts(claims)

It needs pandas, and is slow to import: the command itself stays clear of it.
"""

import textwrap
from collections.abc import Iterable
from math import ceil, sqrt
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.markers import TICKDOWN, TICKUP
from matplotlib.ticker import MaxNLocator

from labkit.headless.tables import ABOUT, CLAIM, COST, TABLES

HOLDS, FAILS, ABSENT, BOUND = "#1a7f37", "#d4711b", "#e4e7ea", "#57606a"
MOST_LABELS = 24  # ticks that an axis of runs can name
MOST_NAMES = 10  # values of a parameter that stand side by side instead of to scale


def read(folder: Path | str = ".") -> tuple[pd.DataFrame, pd.DataFrame]:
    """`results.csv` (one row a run) and `claims.csv` (one row a run and claim) of a sweep."""
    # An id may look like a number, and a text like "None": only an empty field means no value.
    texts = {"run": str, "error": str, "missing": str, "unit": str, "statement": str}
    results, claims = (
        pd.read_csv(Path(folder) / name, dtype=texts, keep_default_na=False, na_values=[""])
        for name in TABLES
    )
    claims["unit"] = claims["unit"].fillna("")
    return results, claims


def parameters(table: pd.DataFrame) -> list[str]:
    """The parameters of a table that take more than one value in it, the seed last."""
    ours = {*ABOUT, *COST, *CLAIM}
    names = [n for n in table.columns if n not in ours and ": " not in n]
    varied = [name for name in names if table[name].nunique(dropna=False) > 1]
    return sorted(varied, key=lambda name: name == "seed")  # a stable sort


def wilson(holds: int, of: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a pass rate (Wilson 1927).

    It stays within 0 and 1, and is no point where every run passed. As scipy.stats.binomtest gives
    it, which takes a second to import, as long as all the rest of a summary.
    """
    z = 1.959964  # 97.5 % quantile of the normal distribution
    centre = (holds + z**2 / 2) / (of + z**2)
    half = z / (of + z**2) * sqrt(holds * (of - holds) / of + z**2 / 4)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def pass_rates(claims: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: in how many runs it holds, with a Wilson interval, and what was measured."""
    rows = []
    for (paper, statement), rows_of in claims.groupby(["paper", "statement"], sort=False):
        verdicts = rows_of.groupby("run")["holds"].all()  # a run may make a statement twice
        holds, of = int(verdicts.sum()), len(verdicts)
        low, high = wilson(holds, of)
        rows.append(
            {
                "paper": paper,
                "statement": statement,
                "holds": holds,
                "of": of,
                "rate": holds / of,
                "low": low,
                "high": high,
                "smallest": rows_of["value"].min(),
                "median": rows_of["value"].median(),
                "largest": rows_of["value"].max(),
                "at least": rows_of["at_least"].max(),
                "at most": rows_of["at_most"].min(),
            }
        )
    return pd.DataFrame(rows)


def draw_verdicts(claims: pd.DataFrame) -> Figure:
    """Every claim in every run, and its pass rate with the Wilson interval."""
    rates = pass_rates(claims)
    runs = claims.drop_duplicates("run")
    holds = claims.groupby(["paper", "statement", "run"])["holds"].all().unstack("run")
    verdicts = holds.reindex(index=list(_keys(rates)), columns=runs["run"]).to_numpy(object)
    shades = np.select([verdicts == True, verdicts == False], [1, 2], 0)  # noqa: E712  # NaN: neither

    height = 1.3 + 0.42 * len(rates)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, height), width_ratios=(3, 1), sharey=True, layout="constrained"
    )
    palette = ListedColormap([ABSENT, HOLDS, FAILS])
    left.imshow(shades, cmap=palette, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
    for edge in range(1, len(runs) if len(runs) <= 100 else 1):
        left.axvline(edge - 0.5, color="white", lw=1)
    for edge in range(1, len(rates)):
        left.axhline(edge - 0.5, color="white", lw=2)
    left.plot(*np.nonzero(shades == 2)[::-1], "X", color="white", ms=5)  # not by colour alone
    left.set_yticks(range(len(rates)), [textwrap.fill(s, 44) for s in rates["statement"]])
    left.tick_params(length=0)
    _name_runs(left, runs)
    left.set_title("claims by run", loc="left")

    errors = [rates["rate"] - rates["low"], rates["high"] - rates["rate"]]
    right.errorbar(
        rates["rate"],
        range(len(rates)),
        xerr=np.clip(errors, 0, None),
        fmt="o",
        color="#1f2328",
        clip_on=False,
    )
    for y, row in enumerate(rates.itertuples()):
        right.annotate(
            f"{row.holds} of {row.of}", (1.06, y), va="center", annotation_clip=False, fontsize=9
        )
    right.set(xlim=(-0.02, 1.02), xticks=(0, 0.5, 1), xticklabels=("0", "½", "1"))
    right.set_xlabel("pass rate, 95 % Wilson interval")
    right.spines[["top", "right", "left"]].set_visible(False)
    right.tick_params(axis="y", length=0)
    left.spines[:].set_visible(False)
    meanings = {
        1: ("s", HOLDS, "holds"),
        2: ("X", FAILS, "does not hold"),
        0: ("s", ABSENT, "not measured"),
    }
    _draw_legend(figure, [meaning for shade, meaning in meanings.items() if shade in shades])
    return figure


def draw_values(claims: pd.DataFrame, by: str | None = None, columns: int = 3) -> Figure:
    """What each claim measured, run by run, beside its bound.

    Parameters
    ----------
    claims : of `read`
    by : the parameter of the horizontal axis; the first that varies if None
    columns : panels side by side
    """
    varied = parameters(claims)
    by = by or (varied[0] if varied else "run")
    keys = list(_keys(pass_rates(claims)))
    rows = ceil(len(keys) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(11, 2.5 * rows), squeeze=False, layout="constrained"
    )
    for axis, key in zip(axes.flat, keys, strict=False):
        mine = claims[(claims["paper"] == key[0]) & (claims["statement"] == key[1])]
        _draw_claim(axis, mine, by)
        axis.set_title(textwrap.fill(key[1], 42), fontsize=10, loc="left")
    for axis in axes.flat[len(keys) :]:
        axis.set_visible(False)
    marks = ((r"$\bot$", BOUND, "claimed at least"), (r"$\top$", BOUND, "claimed at most"))
    verdicts = (("o", HOLDS, "holds"), ("X", FAILS, "does not hold"))
    _draw_legend(figure, [*marks, *verdicts])
    return figure


def _draw_claim(axis: Axes, claim: pd.DataFrame, by: str) -> None:
    x, names = _positions(claim[by])
    if len(claim) > len(set(x)):  # several runs share a place: side by side in a fixed order
        width = 0.5 * min(np.diff(sorted(set(x))), default=1.0)
        turn = claim.groupby(by, dropna=False).cumcount()
        x = x + width * (turn / max(turn.max(), 1) - 0.5)
    for bound, side in (("at_least", TICKUP), ("at_most", TICKDOWN)):  # the side that is claimed
        axis.plot(x, claim[bound], "_", color=BOUND, ms=9, mew=1.6)
        axis.plot(x, claim[bound], ls="", marker=side, color=BOUND, ms=5)
    holds = claim["holds"].astype(bool)
    for verdict, colour, marker in ((True, HOLDS, "o"), (False, FAILS, "X")):
        chosen = (holds == verdict).to_numpy()
        axis.plot(x[chosen], claim["value"][chosen], marker, color=colour, ms=5)
    if names is not None:
        axis.set_xticks(range(len(names)), names)
    elif pd.api.types.is_integer_dtype(claim[by]):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(by)
    axis.set_ylabel(claim["unit"].iloc[0])
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_legend(figure: Figure, entries: Iterable[tuple[str, str, str]]) -> None:
    """Marker, colour and words of each entry, above the panels."""
    handles = [plt.Line2D([], [], marker=m, ls="", color=c, label=words) for m, c, words in entries]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)


def _positions(column: pd.Series) -> tuple[np.ndarray, list[str] | None]:
    """Where the values of a parameter stand on an axis, with names where they are few or words."""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric and column.nunique() > MOST_NAMES:
        return column.to_numpy(dtype=float), None
    words = column.map(_word)
    names = list(dict.fromkeys(words[column.sort_values().index] if numeric else words))
    return words.map(names.index).to_numpy(dtype=float), names


def _word(value: object) -> str:
    return "None" if value is None or value != value else str(value)  # NaN differs from itself


def _keys(rates: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return zip(rates["paper"], rates["statement"], strict=True)


def _name_runs(axis: Axes, runs: pd.DataFrame) -> None:
    """Name the columns by what varies between them, as many as there is room for."""
    varied = parameters(runs)
    words = [", ".join(map(_word, row)) for row in runs[varied].itertuples(index=False)]
    step = ceil(len(words) / MOST_LABELS)
    long = max(map(len, words), default=0) > 3
    axis.set_xticks(range(0, len(words), step), words[::step], rotation=90 if long else 0)
    axis.set_xlabel(", ".join(varied) or "run")
