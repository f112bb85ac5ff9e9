"""What this machine has: versions, devices, back ends, and what to do about what is missing."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from labkit import __version__, atlas

DISTRIBUTION = "labkit-notebooks"


@dataclass(frozen=True)
class Finding:
    """One line of the table; `remedy` is empty where nothing is to be done."""

    what: str
    found: str
    ok: bool
    required: bool
    remedy: str = ""


def measure() -> list[Finding]:
    """Everything `labkit doctor` shows, in its order."""
    return [
        _python(),
        _notebooks(),
        *_requirements(),
        _pairing(),
        _devices(),
        _cores(),
        _memory(),
        _optional("distributed", "sweeps, on this machine or a cluster", "labkit-notebooks[sweep]"),
        _optional("pandas", "the summaries of sweeps", "labkit-notebooks[sweep]"),
        _optional("snntorch", "fuse and its benchmark", "labkit-notebooks[bench]"),
        _optional("triton", "fast kernels on a GPU (Linux with CUDA); not needed on a CPU"),
        _chromium(),
    ]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} at {sys.executable}"
    return Finding("Python", found, ok, True, "" if ok else "install Python 3.11 or newer")


def _notebooks() -> Finding:
    what = f"labkit {__version__} notebooks"
    try:
        return Finding(what, str(atlas.notebooks_dir()), True, True)
    except atlas.NoNotebooksError as error:
        return Finding(what, "none", False, True, str(error))


def _requirements() -> list[Finding]:
    """One finding per distribution that the installed package requires."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [Finding(DISTRIBUTION, "not installed", False, True, "pip install -e . (checkout)")]
    required = [Requirement(line) for line in lines]
    return [_required(r) for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]


def _required(requirement: Requirement) -> Finding:
    version = _version(requirement.name)
    accepted = f"{requirement.name}{requirement.specifier}"
    ok = version is not None and requirement.specifier.contains(version, prereleases=True)
    remedy = "" if ok else f'every notebook may need it: pip install "{accepted}"'
    return Finding(requirement.name, version or "missing", ok, True, remedy)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _pairing() -> Finding:
    """Whether JupyterLab will open the .py beside an .ipynb as its text half."""
    what = "jupytext in JupyterLab"
    if find_spec("jupytext") is None or find_spec("jupyter_core") is None:
        return Finding(what, "missing", False, True, "pip install jupytext")
    from jupyter_core.paths import jupyter_config_path

    folders = [Path(folder) / "jupyter_server_config.d" for folder in jupyter_config_path()]
    ok = any((folder / "jupytext.json").is_file() for folder in folders)
    remedy = "" if ok else "pip install --force-reinstall jupytext, in JupyterLab's environment"
    return Finding(what, "enabled" if ok else "server extension not enabled", ok, True, remedy)


def _devices() -> Finding:
    if find_spec("torch") is None:
        return Finding("devices", "unknown without torch", False, False, "pip install torch")
    import torch  # takes seconds, and only this line needs it

    devices = [f"CPU, {torch.get_num_threads()} threads"]
    devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple MPS")
    return Finding("torch devices", "; ".join(devices), True, False)


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("CPU cores", f"{usable} usable of {os.cpu_count()}", True, False)


def _memory() -> Finding:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return Finding("memory", "unknown on this system", True, False)
    ok = size >= 2**31
    remedy = "" if ok else "a notebook may take 1.5 GB: close other programs first"
    return Finding("memory", f"{size / 2**30:.1f} GiB", ok, False, remedy)


def _optional(name: str, purpose: str, source: str = "") -> Finding:
    version = _version(name)
    remedy = "" if version else f'{purpose}: pip install "{source or name}"'
    return Finding(name, version or "missing", version is not None, False, remedy)


def chromium() -> str | None:
    """The path of a Chromium that the browser tests can drive."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    installed = (path for path in map(shutil.which, names) if path)
    return os.environ.get("LABKIT_CHROMIUM") or next(installed, None)


def _chromium() -> Finding:
    found = chromium()
    remedy = "" if found else "only the browser tests need it: apt install chromium"
    return Finding("chromium", found or "missing", found is not None, False, remedy)
