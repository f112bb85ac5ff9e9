"""Our kernels against whatever peers are installed: equality first, then medians of one run.

    for case in CASES:
        row = measure(case, device="cpu", threads=1)

Shapes are declared once, in `cases/`. Peers are optional packages; what is missing is named.
"""

from labkit.bench.measure import Case, Disagreement, Row, Trial, measure, peak_memory

__all__ = ["Case", "Disagreement", "Row", "Trial", "measure", "peak_memory"]
