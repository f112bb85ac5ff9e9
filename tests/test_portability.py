"""What can be told here of machines that are not here: no Triton, no fork, Windows, macOS."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
# Extras, a GPU's compiler, and what Windows has not.
ABSENT = ["triton", "distributed", "pandas", "snntorch", "diffusers", "norse", "spikingjelly"]
POSIX_MODULES = ["fcntl", "termios", "tty", "pty", "grp", "resource"]  # pwd finds the home here
POSIX_NAMES = {
    "os": ["fork", "forkpty", "killpg", "setsid", "getpgid", "sched_getaffinity"],
    "signal": ["SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT"],
}

BARE = f"""
import asyncio, os, pkgutil, signal, subprocess, importlib, sys
import numpy, scipy.signal, sklearn, skimage, torch, psutil, IPython, matplotlib.pyplot, nbclient
import multiprocessing.context, typer, rich.console, h5py, filelock, platformdirs, papermill
for name in {ABSENT + POSIX_MODULES!r}:
    sys.modules[name] = None  # importing it raises ImportError
for module, names in {POSIX_NAMES!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
import labkit
"""


def bare(code, *options):
    done = subprocess.run(
        [sys.executable, *options, "-c", BARE + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_letters_that_a_pipe_lacks_are_replaced():
    # A pipe on Windows, and a cluster without a locale, have a code page without these letters.
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "list"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"Beyond ?" in done.stdout


def test_every_room_is_reached_from_the_package():
    code = """
import pkgutil, labkit
for room in pkgutil.iter_modules(labkit.__path__):
    if room.name not in ("__main__", "cli", "jit", "lab", "doctor"):
        getattr(labkit, room.name)
print(labkit.unlearning.fisher_diagonal.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fisher_diagonal\n", done.stderr[-2000:]


def test_every_module_but_those_of_extras_imports_on_a_bare_machine():
    told = bare("""
for found in pkgutil.walk_packages(labkit.__path__, "labkit."):
    extra = found.name.startswith(("labkit.bench.cases.", "labkit.headless.report"))
    if extra or found.name.endswith((".gpu", ".__main__")):
        continue
    importlib.import_module(found.name)
    print(found.name)
""")
    assert len(told.splitlines()) > 60


def test_kernels_fall_back_where_nothing_compiles():
    told = bare("""
sys.modules["numba"] = None
from labkit.kernels import lif_scan, linear_scan, hadamard_transform
g = torch.Generator().manual_seed(0)
x = torch.randn(5, 3, generator=g)
torch.testing.assert_close(lif_scan(x, 0.5), lif_scan(x, 0.5, backend="reference"))
torch.testing.assert_close(linear_scan(x, x), linear_scan(x, x, backend="reference"))
print(hadamard_transform(torch.eye(4)).shape)
""")
    assert "torch.Size([4, 4])" in told


def test_the_command_answers_on_a_bare_machine_and_names_the_encoding_of_every_file():
    # Windows reads text in a code page unless told otherwise.
    told = bare(
        """
import warnings
from pathlib import Path
warnings.filterwarnings("error", category=EncodingWarning, module="labkit")
from typer.testing import CliRunner
from labkit.cli import app
for words in (["list", "--json"], ["atlas", "--json"], ["doctor", "--json"], ["build", "--check"]):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output[-2000:], done.exception)
    print(words[0])
""",
        *("-X", "warn_default_encoding"),
    )
    assert told.split() == ["list", "atlas", "doctor", "build"]


def _spikes(queue):
    from labkit.kernels import lif_scan

    x = torch.linspace(0, 2, 60).reshape(20, 3)
    queue.put(lif_scan(x, 0.9).sum().item())


def test_kernels_work_in_a_process_that_is_spawned_not_forked():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_spikes, args=(queue,))
    child.start()
    there = queue.get(timeout=120)
    child.join()
    _spikes(here := multiprocessing.get_context("spawn").Queue())
    assert child.exitcode == 0 and there == here.get(timeout=10) > 0


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no checkout")
    return done.stdout.splitlines()


def test_a_clone_on_windows_has_the_ends_of_lines_that_are_stored():
    # Git for Windows turns \n into \r\n unless told otherwise; bash then stumbles over .ci/run, and
    # what is hashed, such as the source of labkit, is another thing than here.
    names = tracked()
    ask = ["git", "check-attr", "-z", "--stdin", "text", "eol"]
    told = subprocess.run(ask, cwd=ROOT, input="\0".join(names), capture_output=True, text=True)
    words = told.stdout.split("\0")
    attributes = dict(zip(zip(words[::3], words[1::3], strict=False), words[2::3], strict=True))
    for name in names:
        if name.endswith(".png"):
            assert attributes[name, "text"] == "unset", name
        else:
            assert (attributes[name, "text"], attributes[name, "eol"]) == ("auto", "lf"), name


def test_every_file_may_lie_on_a_disk_of_windows_or_macos():
    names = tracked()
    assert [name for name in names if set(name) & set('<>:"|?*\\')] == []
    assert len({name.lower() for name in names}) == len(names)
    assert [name for name in names if len(name) > 150] == []
    reserved = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10))}
    parts = {part for name in names for part in Path(name).parts}
    assert {part for part in parts if part.split(".")[0].lower() in reserved} == set()
    assert {part for part in parts if part.endswith((".", " "))} == set()
