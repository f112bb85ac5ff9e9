"""Notebooks without a browser: find them, read their parameters, run one, read its claims back.

    from labkit import headless
    result = headless.run("sparse_coding/01_beyond_l1", {"seed": 3}, out="runs")
    result.status, result.claims

It knows nothing of any topic. Importing it is cheap: papermill is loaded by the first run.
"""

from labkit.headless.execute import RunResult, run
from labkit.headless.notebooks import Notebook, find, find_all
from labkit.headless.usage import UsageError

__all__ = ["Notebook", "RunResult", "UsageError", "find", "find_all", "run"]
