"""`labkit sweep` and `labkit verify`: read what is asked, show how it goes, print what came out."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from labkit import headless
from labkit.cli.console import Preset, Timeout, print_table, quoted, say, stop_signals
from labkit.headless import Run, RunResult, cluster, grid, measured
from labkit.headless.notebooks import require_checkout
from labkit.headless.runs import stored
from labkit.headless.summary import SUMMARY
from labkit.headless.sweeps import Results, by_folder, estimate, missing
from labkit.headless.tables import TABLES
from labkit.headless.usage import UsageError

Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes on this machine; if not given one a core, and 2 GiB of memory for each.",
        metavar="N",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Use the running Dask cluster at this address, of systems like this one: from Windows "
        "no cluster of Linux is reached.",
        metavar="tcp://HOST:PORT",
    ),
]
Retries = Annotated[int, typer.Option(min=0, help="Times that a run which errs is tried again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the runs and stop.")]


def sweep(
    name: Annotated[str, typer.Argument(help="A name from `labkit list`, or an .ipynb file.")],
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="K=V1,V2",
            help="Values of a parameter: listed, in quotes if they hold a comma, or as a range of "
            "whole numbers, 0:10 or 0:10:2. Repeatable; all combinations are run.",
        ),
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(help="Rows of parameters: CSV with a header, or a YAML list of mappings."),
    ] = None,
    preset: Preset = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for runs and tables.", show_default="sweeps/NAME"),
    ] = None,
    timeout: Timeout = None,
    retries: Retries = 1,
    dry_run: DryRun = False,
) -> None:
    """Execute one notebook with many values of its parameters, on several workers.

    Each run is kept in a folder of its own once it ends, and is never run again:
    the same command continues what was stopped, a wider one runs what is new.

    Made are results.csv (a row a run), claims.csv (a row a run and claim) and
    summary.ipynb (pass rates and pictures).

    Exit code: 0 all claims hold, 1 a run or a claim failed, 2 wrong use,
    130 interrupted.
    """
    notebook = headless.find(name)
    rows = grid.from_options(notebook.parameters, pairs or [])
    if params is not None:
        rows = grid.combine(grid.from_file(notebook.parameters, params), rows)
    rows = [notebook.preset(preset) | row for row in rows]
    runs = headless.plan(notebook, rows, out)
    if len(runs) < len(rows):
        say(f"{len(rows) - len(runs)} of the runs asked for are the same as others; each runs once")
    _go(runs, workers, scheduler, timeout, retries, dry_run)


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Topics or notebooks; all if none.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds, as `-p seed=` of a sweep takes them.", metavar="A:B")
    ] = "0:10",
    workers: Workers = None,
    scheduler: Scheduler = None,
    out: Annotated[Path, typer.Option(help="Folder; each notebook has one in it.")] = Path(
        "verify"
    ),
    publish: Annotated[
        bool,
        typer.Option(
            "--publish", help="For authors: put times and pass rates into the suite's measured.csv."
        ),
    ] = False,
    timeout: Timeout = None,
    retries: Retries = 1,
    dry_run: DryRun = False,
) -> None:
    """Hold the claims of notebooks against many seeds: one line a claim, k of n.

    A sweep over seeds for each notebook: runs are kept and not run again.

    Exit code: 0 all claims hold, 1 a run or a claim failed, 2 wrong use,
    130 interrupted.
    """
    if publish:
        require_checkout("times and pass rates")
    runs: list[Run] = []
    found = headless.find_all()
    topics = {n.topic for n in found}.intersection(names or [])
    named = [headless.find(name) for name in dict.fromkeys(names or []) if name not in topics]
    notebooks = [n for n in found if n.topic in topics and n not in named] + named or found
    for name, number in Counter(notebook.name for notebook in notebooks).items():
        if number > 1:
            raise UsageError(f"{number} of the notebooks are called {name}; verify them one by one")
    for notebook in notebooks:
        if any(parameter.name == "seed" for parameter in notebook.parameters):
            rows = grid.from_options(notebook.parameters, [f"seed={seeds}"])
            runs += headless.plan(notebook, rows, out / notebook.name)
        elif notebook in named:
            raise UsageError(f"{notebook.name} has no parameter named seed")
        else:
            say(f"{notebook.name} is passed over: it has no parameter named seed")
    if not runs:
        raise UsageError("none of the notebooks has a parameter named seed")
    _go(runs, workers, scheduler, timeout, retries, dry_run, publish)


def _go(
    runs: Sequence[Run],
    workers: int | None,
    scheduler: str | None,
    timeout: int | None,
    retries: int,
    dry_run: bool,
    publish: bool = False,
) -> None:
    if workers is not None and scheduler is not None:
        raise UsageError(
            "--workers counts processes of this machine; with --scheduler leave it out"
        )
    if dry_run:
        _print_plan(runs, workers)
        return
    with stop_signals() as stop, _progress() as on_progress:
        try:
            results = headless.sweep(
                runs,
                workers=workers,
                scheduler=scheduler,
                timeout=timeout,
                retries=retries,
                stop=stop.asked,
                on_progress=on_progress,
                on_end=_say_failure,
                on_wait=lambda folder: say(
                    f"another sweep is at work in {folder}; this one waits for it to end"
                ),
            )
        except headless.SweepError as error:
            say(f"labkit: {error}; finished runs are kept, and the same command goes on from there")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(stop.exit_code) from None
    _print_results(results)
    published = _publish(results) if publish else True
    if stop.told:
        say("stopped; finished runs are kept, and the same command goes on from there")
        raise typer.Exit(stop.exit_code)
    ok = all(result is not None and result.status == "ok" for result in results.values())
    raise typer.Exit(0 if ok and published else 1)


# ------------------------------------------------------------------ before


def _print_plan(runs: Sequence[Run], workers: int | None) -> None:
    workers = workers or cluster.default_workers(len(runs))
    results = {run: stored(run) for run in runs}
    todo = set(missing(results))
    rows = [(run.id, "to run" if run in todo else "finished", str(run)) for run in results]
    print_table("Runs", ("folder", "state", "notebook and parameters"), rows)
    workers = min(workers, max(1, len(todo)))
    seconds = estimate(results)
    unlike = len(todo) == len(runs) and any(set(run.asked) - {"seed"} for run in todo)
    print(
        f"{_count(len(runs), 'run')}: {len(runs) - len(todo)} finished, {len(todo)} to run; "
        + (
            "no estimate: the notebook states no run time"
            if seconds is None
            else f"about {_duration(seconds / workers)} with {_count(workers, 'worker')}"
            + (", if they take as long as with the default parameters" if unlike else "")
        )
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


# ------------------------------------------------------------------ meanwhile


@contextmanager
def _progress() -> Iterator[Callable[[headless.Progress], None]]:
    """A bar on standard error with what is done, failed and running; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting the workers", total=None)
        dashboards: set[str] = set()

        def on_progress(now: headless.Progress) -> None:
            if now.dashboard and now.dashboard not in dashboards:
                dashboards.add(now.dashboard)
                say(f"dashboard: {now.dashboard}")
            left = "" if now.seconds_left is None else f", about {_duration(now.seconds_left)} left"
            bar.update(
                task,
                total=now.total,
                completed=now.done + now.failed,
                description=f"{now.done} of {now.total} done, {now.failed} failed, "
                f"{now.running} running{left}",
            )

        yield on_progress


def _say_failure(run: Run, result: RunResult) -> None:
    """Tell of a failure as it happens; the last lines of a long sweep would tell hours later."""
    if result.error is not None:
        say(f"{run}: {result.error}")
    broken = [claim.statement for claim in result.claims if not claim.holds]
    broken += [f"no claim of {paper} ran" for paper in result.missing if result.error is None]
    if broken:
        say(f"{run}: does not hold: {'; '.join(broken)}")


# ------------------------------------------------------------------ after


def _print_results(results: Results) -> None:
    for folder, mine in by_folder(results).items():
        made = [result for result in mine.values() if result is not None]
        statuses = [result.status for result in made] + ["not run"] * (len(mine) - len(made))
        counts = ", ".join(f"{number} {status}" for status, number in Counter(statuses).items())
        print(f"{next(iter(mine)).notebook.name}: {_count(len(mine), 'run')}, {counts}")
        for line in _claim_lines(made, len(mine)):
            print(f"  {line}")
        for result in made:
            if result.status == "error" and result.output.exists():
                say(f"  see {quoted(result.output)}")
        written = [name for name in (*TABLES, SUMMARY) if (folder / name).exists()]
        print(f"  {quoted(folder / written[0])}, {', '.join(written[1:])}")


def _publish(results: Results) -> bool:
    """Whether the table could be written; which notebooks are in it is told."""
    try:
        published = measured.publish(results)
    except OSError as error:
        say(f"labkit: {measured.table()} cannot be written: {error.strerror}; runs are kept")
        return False
    if published:
        print(f"{measured.table()}: {', '.join(published)}")
    for name in {run.notebook.name: None for run in results}:
        if name not in published:
            say(
                f"{name} is not published: it is not of the suite, it or labkit was edited "
                "meanwhile, or not all of its runs ended"
            )
    return True


def _claim_lines(made: Sequence[RunResult], runs: int) -> list[str]:
    """One line a claim: in how many of the runs it holds, what was measured, what is claimed.

    It is open where it holds in all runs that there were, and some were not.
    """
    claims = [claim for result in made for claim in result.claims]
    lines = []
    for key in dict.fromkeys((claim.paper, claim.statement) for claim in claims):
        measured = [[c for c in r.claims if (c.paper, c.statement) == key] for r in made]
        holds = sum(all(claim.holds for claim in same) for same in measured if same)
        values = [claim.value for same in measured for claim in same]
        bounds = list(dict.fromkeys(claim.bound for same in measured for claim in same))
        untold = runs - len(made)
        mark = "FAILS" if holds + untold < runs else "open" if untold else "holds"
        lines.append(
            f"{mark} {holds} of {runs}  {': '.join(key)}: "
            f"{min(values):.4g} to {max(values):.4g} "
            f"(claimed {bounds[0]}{' and others' if len(bounds) > 1 else ''})"
        )
    return lines
