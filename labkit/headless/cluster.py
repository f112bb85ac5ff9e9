"""The engine of a sweep: Dask distributed, with processes of this machine or a running cluster.

A worker executes a notebook and returns it; it writes nothing. Whoever started the sweep writes
the results, so that no shared file system is needed and every file has one writer.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from labkit.headless.evidence import Failure
from labkit.headless.execute import RunResult, execute
from labkit.headless.notebooks import load
from labkit.headless.runs import Run, labkit_identity
from labkit.headless.usage import UsageError

if TYPE_CHECKING:  # slow to import, and an extra
    import distributed

EXTRA = f'{sys.executable} -m pip install "labkit-notebooks[sweep]"'
PATIENCE = 2  # seconds for a scheduler to answer at the start
LOST = 30  # seconds without a scheduler until a sweep gives up
NOTEBOOK_MEMORY = 2 * 2**30  # bytes of this machine that a local worker should find
STARTS = 5  # tries to start the workers
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# Dask looks after itself many times a second, for tasks of milliseconds. Ours take a minute, and a
# tenth of a core is worth more to them.
CALM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.work-stealing-interval": "1s",
    "distributed.worker.memory.monitor-interval": "5s",
}

# What a worker returns: the executed notebook and its result.
Executed = tuple[str | None, RunResult]


class ClusterError(RuntimeError):
    """The cluster is gone or cannot be had; what is finished is kept."""


# ------------------------------------------------------------------ on the side of the sweep


def require() -> ModuleType:
    """Dask distributed, or a UsageError that says how to install it."""
    if find_spec("distributed") is None:
        raise UsageError(f"a sweep runs on Dask, which is not installed: {EXTRA}")
    import distributed

    return distributed


def default_workers(runs: int) -> int:
    """One worker a core, but not more than runs, nor than this machine's memory holds."""
    require()
    from dask.system import CPU_COUNT  # these two heed the limits of a container
    from distributed.system import MEMORY_LIMIT

    return max(1, min(runs, CPU_COUNT, MEMORY_LIMIT // NOTEBOOK_MEMORY))


@contextmanager
def local(workers: int) -> Iterator["distributed.Client"]:
    """A cluster of single-threaded processes on this machine; they share its cores fairly."""
    distributed = require()
    import dask.config
    from dask.system import CPU_COUNT

    share = max(1, CPU_COUNT // workers)
    environ = {name: os.environ.get(name, share) for name in THREADS}
    # Not nanny.environ: libraries read these when they are loaded.
    with (
        dask.config.set(CALM | {"distributed.nanny.pre-spawn-environ": environ}),
        _started(workers) as cluster,
        _replenished(cluster, workers),
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(_deaf_to_interrupts())
        yield client


def _started(workers: int) -> "distributed.LocalCluster":
    """A local cluster; a worker that is killed while it starts would take the cluster with it."""
    from distributed import LocalCluster

    for _ in range(STARTS):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=None,  # the memory goes to the kernels, which Dask does not see
                dashboard_address="127.0.0.1:0",  # any free port, and nobody else's
                silence_logs=logging.CRITICAL,  # a lost worker is dealt with here
            )
        except RuntimeError as error:
            reason = error
    raise ClusterError(f"the workers do not start: {reason}") from reason


@contextmanager
def _replenished(cluster: "distributed.LocalCluster", workers: int) -> Iterator[None]:
    """Replace what Dask does not: a worker that is killed again while it restarts is given up."""
    from distributed import Status

    alive = (Status.init, Status.starting, Status.running)

    def look() -> None:
        lost = workers - sum(worker.status in alive for worker in cluster.workers.values())
        if lost > 0:
            cluster.scale(len(cluster.worker_spec) + lost)

    with _every(1, look):
        yield


@contextmanager
def _every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call a function again and again in a thread of its own, until left."""
    left = Event()

    def watch() -> None:
        while not left.wait(seconds):
            look()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _deaf_to_interrupts() -> "distributed.WorkerPlugin":
    """Ctrl-C reaches every process of a terminal; the sweep alone answers it."""
    from distributed import Worker, WorkerPlugin

    class Deaf(WorkerPlugin):
        def setup(self, worker: Worker) -> None:
            # Not SIG_IGN, which kernels would inherit: they are interrupted with this signal.
            signal.signal(signal.SIGINT, lambda number, frame: None)

    return Deaf()


@contextmanager
def running(address: str) -> Iterator["distributed.Client"]:
    """A client of a cluster that runs already.

    Raises
    ------
    UsageError
        if no scheduler answers there, or its workers have another labkit.
    """
    distributed = require()
    for name in ("distributed", "distributed.client"):  # a scheduler that is gone is told of here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        try:
            client = stack.enter_context(distributed.Client(address, timeout=PATIENCE))
            identities = client.run(labkit_identity)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"--scheduler {address}: no Dask scheduler answers there ({reason}); "
                "expected an address such as tcp://127.0.0.1:8786"
            ) from None
        except ImportError as error:
            raise UsageError(
                f"--scheduler {address}: its workers lack labkit ({error}); install there what is "
                "installed here"
            ) from None
        for worker, identity in identities.items():
            if identity != labkit_identity():
                raise UsageError(_other_labkit(worker, identity, labkit_identity()))
        yield client


def _other_labkit(worker: str, theirs: str, ours: str) -> str:
    return f"worker {worker} has labkit {theirs}, this sweep {ours}: install the same on both"


def dashboard(client: "distributed.Client") -> str | None:
    """Where a browser sees what the workers do; None without bokeh, which draws it."""
    return client.dashboard_link if find_spec("bokeh") else None


def outcomes(
    client: "distributed.Client",
    runs: Sequence[Run],
    *,
    timeout: int | None,
    retries: int,
) -> Generator[tuple[Run, Executed] | None]:
    """Execute runs; yield each as it ends, and None at least once a second.

    Closing the iterator stops what still runs.

    Raises
    ------
    ClusterError
        if the scheduler is gone.
    """
    from distributed.scheduler import KilledWorker

    # Read once: a notebook that is edited meanwhile is another one, with runs of its own.
    paths = {run.notebook.path for run in runs}
    packed = {path: zlib.compress(_bare(path).encode()) for path in paths}
    options = {"timeout": timeout, "attempts": retries + 1, "identity": labkit_identity()}
    suspects = []
    for ended in _ended(client, runs, packed, options):
        if ended is not None and isinstance(ended[1], KilledWorker):
            suspects.append(ended[0])
        else:
            yield ended and (ended[0], _outcome(*ended))
    # Dask blames every run that waited at a worker when it died; alone, the innocent ones pass.
    for run in suspects:
        for ended in _ended(client, [run], packed, options):
            yield ended and (ended[0], _outcome(*ended))


def _ended(
    client: "distributed.Client",
    runs: Sequence[Run],
    packed: Mapping[Path, bytes],
    options: Mapping[str, Any],
) -> Generator[tuple[Run, Executed | BaseException] | None]:
    """Submit runs; yield each with what came of it as it ends, and None at least once a second.

    No future is kept any longer than that: Dask computes anew what it still has to keep, finished
    or not, when the worker dies that holds it.
    """
    ended: Queue = Queue()
    name = f"run-{uuid4().hex[:12]}"
    futures = client.map(
        _execute,
        runs,
        # With every run, not shared by them: Dask would put most of them where the shared content
        # lies, and scattered content would be lost for good with the worker that holds it.
        [packed[run.notebook.path] for run in runs],
        # Tuples make one group of these tasks: Dask then queues them on the scheduler, and a worker
        # that dies takes no queue along.
        key=[(name, i) for i in range(len(runs))],
        **options,
    )
    pending = dict(zip(futures, runs, strict=True))
    for future in futures:
        future.add_done_callback(ended.put)
    del futures, future
    seen = monotonic()
    try:
        while pending:
            try:
                future = ended.get(timeout=0.5)
            except Empty:
                seen = monotonic() if client.status == "running" else seen
                if monotonic() - seen > LOST:
                    raise ClusterError("the Dask scheduler is gone") from None
                yield None
                continue
            if future.status in ("cancelled", "lost"):
                raise ClusterError("the Dask scheduler is gone")
            run = pending.pop(future)
            came = future.exception() or future.result()
            del future
            yield run, came
    finally:
        if client.status == "running":
            client.cancel(list(pending))


def _bare(path: Path) -> str:
    """A notebook without its outputs, as text: a few kilobytes instead of megabytes."""
    notebook = load(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    notebook["metadata"].pop("widgets", None)
    return json.dumps(notebook)


def _outcome(run: Run, came: Executed | BaseException) -> Executed:
    return (None, _failed(run, came)) if isinstance(came, BaseException) else came


def _failed(run: Run, error: BaseException) -> RunResult:
    """A run of which no notebook came back."""
    from distributed.scheduler import KilledWorker

    message, told = str(error), traceback.format_exception(error)
    if isinstance(error, KilledWorker):
        deaths = error.allowed_failures + 1
        message, told = f"{deaths} workers died while they ran it: killed, or out of memory", []
    return RunResult(
        notebook=run.notebook.name,
        parameters=run.parameters,
        status="error",
        seconds=0.0,
        output=run.output,
        claims=[],
        metrics={},
        missing=run.notebook.papers,
        error=Failure(None, "a worker", type(error).__name__, message, told),
        peak_memory_mb=None,
    )


# ------------------------------------------------------------------ on the side of a worker


def _execute(
    run: Run, content: bytes, timeout: int | None, attempts: int, identity: str
) -> Executed:
    """One run, tried again if it errs; left to another worker if this one closes."""
    from distributed import Reschedule, get_worker

    worker = get_worker()
    if identity != labkit_identity():
        raise RuntimeError(_other_labkit(worker.address, labkit_identity(), identity))
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_if_unwanted(worker, worker.get_current_task()))
        notebook = run.notebook
        if not notebook.path.parent.is_dir():  # another machine
            # A file that is still open cannot be deleted on Windows, nor from NFS at once.
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            notebook = replace(notebook, path=Path(folder) / notebook.path.name)
        for _ in range(attempts):
            try:
                executed, result = execute(
                    notebook,
                    zlib.decompress(content).decode(),
                    run.parameters,
                    run.output,
                    timeout=timeout,
                    stop=stop,
                )
            except KeyboardInterrupt:
                raise Reschedule from None
            if result.status == "interrupted":
                raise Reschedule
            if result.status != "error":
                break
        return executed, result


@contextmanager
def _stop_if_unwanted(worker: "distributed.Worker", key: object) -> Iterator[Event]:
    """An event that is set when the task in work is cancelled, or when its worker closes.

    Dask does not end a task that runs, also not if the client died: its kernel would live on.
    """
    from distributed import Status

    stop = Event()

    def look() -> None:
        tasks: Mapping = worker.state.tasks
        closing = worker.status in (Status.closing, Status.closed, Status.failed)
        if closing or key not in tasks or tasks[key].state == "cancelled":
            stop.set()

    with _every(0.5, look):
        yield stop
