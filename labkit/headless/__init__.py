"""Notebooks without a browser: find them, run one, sweep over many runs, read the claims back.

    from labkit import headless
    result = headless.run("sparse_coding/01_beyond_l1", {"seed": 3}, out="runs")
    result.status, result.claims
    runs = headless.plan(headless.find("sparse_coding/01_beyond_l1"), [{"seed": 1}, {"seed": 2}])
    results = headless.sweep(runs, workers=2)

It knows nothing of any topic. Importing it is cheap: papermill is loaded by the first run, Dask by
the first sweep.
"""

from labkit.headless.execute import NotWrittenError, RunResult, run
from labkit.headless.notebooks import Notebook, find, find_all
from labkit.headless.runs import Run, plan
from labkit.headless.sweeps import Progress, SweepError, sweep
from labkit.headless.usage import UsageError

__all__ = [
    "NotWrittenError",
    "Notebook",
    "Progress",
    "Run",
    "RunResult",
    "SweepError",
    "UsageError",
    "find",
    "find_all",
    "plan",
    "run",
    "sweep",
]
