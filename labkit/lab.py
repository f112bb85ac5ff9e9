"""Where `labkit lab` opens notebooks: in place in a checkout, in a copy from an installed wheel."""

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from labkit import atlas
from labkit.headless.usage import UsageError

_SKIPPED = {".ipynb_checkpoints", "__pycache__"}


def folder(chosen: Path | None) -> tuple[Path, str]:
    """The folder to serve, and what was done to it, in words (empty if nothing).

    Raises
    ------
    UsageError
        if the copy cannot be written there.
    """
    source = atlas.notebooks_dir()
    if chosen is None and source != atlas.installed_notebooks():
        return source, ""
    target = (chosen or Path("labkit-notebooks")).absolute()
    try:
        new, kept = copy_missing(source, target)
    except OSError as error:
        raise UsageError(f"cannot copy the notebooks to {target}: {error.strerror}") from None
    return target, f"notebooks in {target}: {new} files copied, {kept} of yours kept"


def copy_missing(source: Path, target: Path) -> tuple[int, int]:
    """Copy each file that the reader does not have yet; count the new ones and those left alone."""
    new = kept = 0
    for file in sorted(source.rglob("*")):
        relative = file.relative_to(source)
        if file.is_dir() or _SKIPPED.intersection(relative.parts):
            continue
        copy = target / relative
        if copy.exists():
            kept += 1
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)  # not its mode: site-packages may be read-only
        new += 1
    return new, kept


def command(root: Path, name: str, extra: list[str]) -> list[str]:
    """The command that starts JupyterLab at a notebook of that folder.

    Raises
    ------
    UsageError
        if this environment has no JupyterLab.
    """
    if find_spec("jupyterlab") is None:
        raise UsageError('this environment has no JupyterLab: pip install "jupyterlab>=4.2,<5"')
    page = quote(f"{name}.ipynb")
    return [
        *(sys.executable, "-m", "jupyterlab"),
        f"--ServerApp.root_dir={root}",
        # Unlike a file argument, this also stands in the address that --no-browser prints.
        f"--LabApp.default_url=/lab/tree/{page}",
        *extra,
    ]


def start(command: list[str]) -> int:
    """Run JupyterLab in the place of this process; on Windows below it, and return its exit code.

    There, exec would leave the console to two processes.
    """
    if os.name == "nt":
        # Ctrl-C reaches both: the server ends its kernels, and this process waits for that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return subprocess.call(command)
        finally:
            signal.signal(signal.SIGINT, before)
    os.execv(command[0], command)
