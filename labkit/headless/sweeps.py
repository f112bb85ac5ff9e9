"""Many runs, on many workers, resumable: lock the folder, execute what is missing, collect.

    runs = headless.plan(headless.find("sparse_coding/01_beyond_l1"), [{"seed": 1}, {"seed": 2}])
    results = headless.sweep(runs, workers=2)

Only this process writes into the folder. Killed at any moment, it leaves whole files: a run counts
once its record is there, and the tables are made anew from the records.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from labkit.headless import cluster, measured, summary, tables
from labkit.headless.execute import RunResult
from labkit.headless.runs import FINISHED, Run, store, stored
from labkit.headless.usage import UsageError

if TYPE_CHECKING:  # slow to import, and an extra
    import distributed

TABLE_SECONDS = 30  # between two writings of the tables while a sweep runs

# Every run of a sweep with its result; None where there is none yet.
Results = Mapping[Run, RunResult | None]


class SweepError(RuntimeError):
    """A sweep could not go on; what is finished is kept, and the same command continues."""


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands; `done` counts the runs that are finished, earlier ones too."""

    total: int
    done: int
    failed: int
    running: int
    seconds_left: float | None
    dashboard: str | None


def sweep(
    runs: Sequence[Run],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: int | None = None,
    retries: int = 1,
    stop: Event | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_end: Callable[[Run, RunResult], None] = lambda run, result: None,
    on_wait: Callable[[Path], None] = lambda folder: None,
) -> Results:
    """Execute the runs that are not finished, keep each as it ends, and write the tables.

    Parameters
    ----------
    runs :
        of one or more notebooks, from `plan`
    workers :
        processes on this machine; one a core if None
    scheduler :
        address of a running Dask scheduler to use instead; its machines have a system like this
        one, for a path of Windows cannot be read on Linux, nor the other way round
    timeout :
        seconds that one cell may take; None for no limit
    retries :
        how often a run that errs is tried again; one whose claims fail is not
    stop :
        set it to end the sweep early; what is finished is kept
    on_progress, on_end, on_wait :
        called about twice a second, for each run that ends, and when another sweep works in the
        same folder, which is waited for

    Raises
    ------
    UsageError
        before anything is written: Dask is missing, no scheduler answers, a folder cannot be
        written to, a parameter is called as a column of the tables is.
    SweepError
        if results cannot be written, the cluster is gone, or the summary fails.
    KeyboardInterrupt
        if it was stopped while it waited for another sweep.
    """
    stop = stop or Event()
    folders = {run.out for run in runs}
    cluster.require()
    tables.refuse_ambiguous(runs)
    for folder in folders:
        _refuse_unwritable(folder)
    with ExitStack() as stack:
        client = None if scheduler is None else stack.enter_context(cluster.running(scheduler))
        for folder in sorted(folders):  # in one order, or two sweeps could wait for each other
            stack.enter_context(_locked(folder, stop, on_wait))
        results = {run: stored(run) for run in runs}
        todo = missing(results)
        if todo and not stop.is_set():
            workers = workers or cluster.default_workers(len(todo))
            try:
                if client is None:
                    client = stack.enter_context(cluster.local(min(workers, len(todo))))
                outcomes = cluster.outcomes(client, todo, timeout=timeout, retries=retries)
                _keep(outcomes, results, client, stop, on_progress, on_end)
            except (cluster.ClusterError, OSError) as error:
                raise SweepError(str(error)) from error
        _write_tables(results)
        if not stop.is_set():
            _write_summaries(results)
    return results


def missing(results: Results) -> list[Run]:
    """The runs that are still to be run, or to be run again."""
    return [run for run, result in results.items() if not _finished(result)]


def _finished(result: RunResult | None) -> bool:
    return result is not None and result.status in FINISHED


def _keep(
    outcomes: Generator,
    results: dict[Run, RunResult | None],
    client: "distributed.Client",
    stop: Event,
    on_progress: Callable[[Progress], None],
    on_end: Callable[[Run, RunResult], None],
) -> None:
    """Store what the cluster delivers, until it is all there or the sweep is stopped."""
    started = written = monotonic()
    todo = set(missing(results))
    total = len(todo)
    failed = 0
    dashboard = cluster.dashboard(client)
    with closing(outcomes):
        for outcome in outcomes:
            if outcome is not None:
                run, (executed, result) = outcome
                try:
                    store(run, executed, result)
                except OSError as error:
                    raise SweepError(f"{run.folder} cannot be written: {error.strerror}") from error
                results[run] = result
                todo.discard(run)
                failed += not _finished(result)
                on_end(run, result)
                if monotonic() - written > TABLE_SECONDS:
                    with suppress(SweepError):  # open in Excel, which locks it; the last one counts
                        _write_tables(results)
                    written = monotonic()
            if stop.is_set():
                return
            ended = total - len(todo)
            on_progress(
                Progress(
                    total=len(results),
                    done=len(results) - len(todo) - failed,
                    failed=failed,
                    running=min(len(todo), sum(client.nthreads().values())),
                    seconds_left=(monotonic() - started) / ended * len(todo) if ended else None,
                    dashboard=dashboard,
                )
            )


def _write_tables(results: Results) -> None:
    for folder, mine in by_folder(results).items():
        try:
            tables.write(mine, folder)
        except OSError as error:
            raise SweepError(
                f"the tables in {folder} cannot be written: {error.strerror}"
            ) from error


def _write_summaries(results: Results) -> None:
    for folder, mine in by_folder(results).items():
        try:
            summary.write(folder, next(iter(mine)).notebook.name)
        except (OSError, RuntimeError) as error:
            raise SweepError(f"the summary in {folder} cannot be made: {error}") from error


def by_folder(results: Results) -> dict[Path, dict[Run, RunResult | None]]:
    """The results that belong into the tables of each folder."""
    folders: dict[Path, dict[Run, RunResult | None]] = {}
    for run, result in results.items():
        folders.setdefault(run.out, {})[run] = result
    return folders


def estimate(results: Results) -> float | None:
    """Seconds that the missing runs will take one after another; None if nothing tells.

    Each takes as long as finished runs of the same notebook did, else as one with its defaults.
    """
    total, rows = 0.0, measured.read()
    for mine in by_folder(results).values():
        todo = missing(mine)
        if not todo:
            continue
        seen = [result.seconds for result in mine.values() if result and _finished(result)]
        one = median(seen) if seen else measured.seconds_of(todo[0].notebook, rows)
        if one is None:
            return None
        total += len(todo) * one
    return total


# ------------------------------------------------------------------ the folder


def _refuse_unwritable(folder: Path) -> None:
    """Raise a UsageError for a folder that cannot be made or written to; write nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"--out {folder}: {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--out {folder} cannot be written to: no permission in {existing}")


@contextmanager
def _locked(folder: Path, stop: Event, on_wait: Callable[[Path], None]) -> Iterator[None]:
    """Hold a folder for one sweep; another one waits. The system frees it if this one is killed."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be written to: {error.strerror}") from None
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(folder)
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be locked: {error.strerror}") from None
    while not lock.is_locked:
        if stop.wait(0.2):
            raise KeyboardInterrupt
        with suppress(Timeout):
            lock.acquire(timeout=0)
    try:
        yield
    finally:
        lock.release()
