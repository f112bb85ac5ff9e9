"""A papermill engine: this interpreter's kernel, word of the cell in work, no kernel left behind.

Import it only when a notebook is about to run: papermill takes about two seconds to load.
"""

import asyncio
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

import nbformat
import papermill
import psutil
import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from labkit.headless.evidence import first_line
from labkit.headless.notebooks import tags_of

KERNEL = "python3"
# As a script: not every notebook needs labkit. -P: this folder must not shadow installed packages.
SCRIPT = Path(__file__).with_name("jupyter_kernel.py")
COMMAND = [sys.executable, "-P", str(SCRIPT), "-f", "{connection_file}"]
LAST_WORDS = 100  # lines of a kernel that died
TIMEOUT = "CellTimeoutError"
STOPPED = ("KeyboardInterrupt", "the run was stopped here")
DIED = ("DeadKernelError", "the kernel died: out of memory, os._exit or a crash in native code")
LOG = logging.getLogger(__name__)  # of nbclient; what it says of failures is told by their cells
LOG.addHandler(logging.NullHandler())
LOG.propagate = False
# Parameters are checked before a run; papermill would warn of a Literal, unknown to it, and of a
# comment with an equals sign.
logging.getLogger("papermill").addFilter(lambda record: "unknown parameter" not in record.msg)
logging.getLogger("papermill.translators").addFilter(lambda record: "Unable to" not in record.msg)
PATIENCE = 5  # seconds for an interrupted cell to end before its kernel is killed

# Called as each cell starts: its number from 1, the number of cells, and a few words of it.
OnCell = Callable[[int, int, str], None]


@dataclass
class Session:
    """One run: what the engine needs beyond papermill's arguments, and what it leaves behind."""

    folder: Path
    on_cell: OnCell | None
    timeout: int | None
    stop: Event
    notebook: NotebookNode | None = None
    cell: NotebookNode | None = None  # the code cell in work
    interrupted: bool = False
    peak_memory: int | None = None  # of the kernel, bytes


def execute(
    notebook: NotebookNode, parameters: dict[str, Any], session: Session, name: str
) -> NotebookNode:
    """Execute a notebook; return it with its outputs, also where it stopped at an error.

    An error, a dead kernel, a cell over its time and an interrupt alike stay in the notebook as an
    error output of the cell in work; `session.interrupted` tells the last one apart.
    """
    # An executed notebook may be run again: its earlier injection must not outlive this run.
    notebook.metadata.pop("papermill", None)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in tags_of(cell)]
    # The error stands in the outputs, and papermill has put its markers: nothing to raise again.
    with own_event_loop(), suppress(PapermillExecutionError):
        papermill.execute_notebook(
            notebook,
            None,  # papermill would write the whole file twice per cell, and not atomically
            parameters,
            engine_name="labkit",
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            session=session,
        )
    executed = session.notebook
    assert executed is not None, "papermill did not call the engine"
    executed.metadata.papermill.update(input_path=f"{name}.ipynb", output_path=f"{name}.ipynb")
    return executed


@contextmanager
def own_event_loop() -> Iterator[None]:
    """Close the event loop that `run_sync` opens, one in each thread, and in each task of Dask.

    Left to the garbage collector, a loop now and then complains that its socket was closed before.
    """
    try:
        yield
    finally:
        loop = ensure_event_loop()
        if not loop.is_running():  # that of a Jupyter kernel, in whose cell this is called
            loop.close()


@contextmanager
def this_interpreter_kernel() -> Iterator[AsyncKernelManager]:
    """A kernel manager for the Python that runs this, whatever other `python3` a user registered.

    Left by an exception, the kernel is killed at once, also if it was interrupted while it started.
    Otherwise it is asked to end, and has some seconds for its exit handlers while the caller goes
    on; the interpreter waits for that, and a kernel never outlives it.
    """
    # Threads that spin while they wait make torch ten times slower as soon as a core is taken.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Without folders to search, the one specification left is ipykernel's own.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name=KERNEL, kernel_spec_manager=specs)
    assert manager.kernel_spec is not None, "ipykernel brings its own"
    manager.kernel_spec.argv = COMMAND
    # Other users of a shared machine can listen on its TCP ports; older clients cannot encrypt.
    if hasattr(manager, "transport_encryption") and zmq.has("curve"):
        manager.transport_encryption = "auto"
    try:
        yield manager
    except BaseException:
        if manager.has_kernel:
            run_sync(manager.shutdown_kernel)(now=True)
        raise
    Thread(target=_see_off, args=(manager,), name="end of a kernel").start()


@own_event_loop()
def _see_off(manager: AsyncKernelManager) -> None:
    """Ask a kernel to end, and kill it where that takes too long.

    Not by the client's own clean-up: that interrupts the kernel first, which now and then swallows
    the request and costs three seconds.
    """
    with suppress(psutil.Error, TimeoutError):
        client = manager.blocking_client()
        client.start_channels(shell=False, iopub=False, stdin=False, hb=False, control=True)
        with closing(client.control_channel):
            client.shutdown(reply=True, timeout=PATIENCE)
        psutil.Process(_pid(manager)).wait(PATIENCE)

    run_sync(manager.shutdown_kernel)(now=True)


def _pid(manager: KernelManager) -> int:
    return manager.provisioner.pid  # type: ignore[union-attr]  # a process of this machine


def peak_memory(process: psutil.Process) -> int:
    """The largest resident memory of a process so far, in bytes; now, where no system tells."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()  # Linux
    except OSError:
        memory = process.memory_info()
        return getattr(memory, "peak_wset", memory.rss)  # Windows, others
    kilobytes = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes[1]) * 1024 if kilobytes else 0  # a process that just ended has none


class _Output(OutputWidget):
    """Records what `interact` shows, without sending it back to the kernel.

    The kernel has it already. And that message, sent over the socket on which the client awaits the
    end of the cell, sometimes swallows the wake-up of that wait: one run in ten hung for ever.
    """

    def sync_state(self) -> None:
        pass


def record_widgets(client: NotebookClient) -> None:
    """Let a client keep what widgets show, in the notebook's metadata."""
    client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": _Output}}


class _Ended(Exception):
    """The run ends at a cell, though not by the cell's own error; the reason is recorded there."""


class _Client(PapermillNotebookClient):
    """Stops when asked, and leaves in the cell in work the reason why the run ended there."""

    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        session: Session,
        said: IO[bytes],
        **options: Any,
    ) -> None:
        super().__init__(nb_man, **options)
        record_widgets(self)
        self.session = session
        self.said = said  # by the kernel past its own capture: logs, and where it crashed
        self.done = False  # every cell came to its end

    def papermill_execute_cells(self) -> None:
        try:
            super().papermill_execute_cells()
            self.done = True
        finally:
            self._note_memory()

    def _note_memory(self) -> None:
        assert self.km is not None
        with suppress(psutil.Error):  # it died: what was noted before stays
            seen = peak_memory(psutil.Process(_pid(self.km)))
            self.session.peak_memory = max(self.session.peak_memory or 0, seen)

    def execute_cell(self, cell: NotebookNode, cell_index: int) -> NotebookNode:
        if cell.cell_type != "code":
            return super().execute_cell(cell, cell_index)
        self._note_memory()  # at each cell, for a kernel that dies tells nothing any more
        stop = self.session.stop
        if stop.is_set():
            raise _ended(cell, *STOPPED)
        self.session.cell = cell
        try:
            return run_sync(self._execute_cell)(cell, cell_index)
        except (CellControlSignal, DeadKernelError) as error:
            if stop.is_set():
                raise _ended(cell, *STOPPED) from None
            if isinstance(error, DeadKernelError):
                raise _ended(cell, *DIED, self.last_words()) from None
            if isinstance(error, CellTimeoutError) or getattr(error, "ename", "") == TIMEOUT:
                raise _ended(cell, TIMEOUT, f"the cell took over {self.timeout} s") from None
            raise

    def last_words(self) -> list[str]:
        """What the kernel said past its own capture: a crash in native code tells where it was."""
        self.said.seek(0)
        return self.said.read().decode(errors="replace").splitlines()[-LAST_WORDS:]

    async def _execute_cell(self, cell: NotebookNode, cell_index: int) -> NotebookNode:
        watch = asyncio.ensure_future(self._interrupt_when_asked())
        try:
            return await self.async_execute_cell(cell, cell_index)
        finally:
            watch.cancel()

    async def _interrupt_when_asked(self) -> None:
        """Once asked to stop, interrupt the kernel, and kill it if it does not heed that.

        The cell then ends as a cell does: with what it printed, and where it was.
        """
        while not self.session.stop.is_set():
            await asyncio.sleep(0.1)
        for _ in range(PATIENCE):
            await self.km.interrupt_kernel()
            await asyncio.sleep(1)
        await self.km.shutdown_kernel(now=True)


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        session: Session,
        **_: Any,
    ) -> None:
        session.notebook = nb_man.nb

        def announce(cell: NotebookNode, cell_index: int) -> None:
            if session.on_cell is not None:
                session.on_cell(cell_index + 1, len(nb_man.nb.cells), first_line(cell.source))

        with tempfile.TemporaryFile() as said:
            client = _Client(
                nb_man,
                session,
                said,
                log=LOG,
                timeout=session.timeout,
                interrupt_on_timeout=True,
                error_on_timeout={"ename": TIMEOUT, "evalue": "", "traceback": []},
                # The kernel's folder, not chdir: several runs may share this process.
                resources={"metadata": {"path": str(session.folder)}},
                on_cell_start=announce,
            )
            try:
                with this_interpreter_kernel() as client.km:
                    # Not to the terminal: a kernel that is interrupted complains of that at length.
                    client.execute(cleanup_kc=False, stdout=said, stderr=said)
            except _Ended:
                session.interrupted = session.stop.is_set()
            except RuntimeError as error:
                if client.done:  # the kernel died later, which takes nothing back
                    client.set_widgets_metadata()
                else:  # no kernel came up
                    code = [cell for cell in nb_man.nb.cells if cell.cell_type == "code"]
                    for cell in [session.cell] if session.cell else code[:1]:
                        _ended(cell, "RuntimeError", first_line(str(error)), client.last_words())
            finally:
                if client.kc is not None:
                    client.kc.stop_channels()


def _ended(cell: NotebookNode, name: str, message: str, words: Sequence[str] = ()) -> _Ended:
    """Put a reason into a cell as an error output; papermill then treats it as any failed cell.

    The kernel may have told where it was when it was stopped: that traceback is kept.
    """
    told = [output for output in cell.outputs if output.output_type == "error"]
    traceback = told[-1].traceback if told else list(words)
    reason = nbformat.v4.new_output("error", ename=name, evalue=message, traceback=traceback)
    cell.outputs = [output for output in cell.outputs if output.output_type != "error"] + [reason]
    cell.metadata.papermill.update(status=NotebookExecutionManager.FAILED, exception=True)
    return _Ended(message)


papermill_engines.register("labkit", _Engine)
