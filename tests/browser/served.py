"""JupyterLab, serving a clone to a user who has set nothing up."""

import json
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import psutil

ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):\d+/\S*token=\w+")
USER_SETTINGS = {
    # By default a cell off the screen is not in the page at all, and nothing could be asked of it.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    # No question about news over the notebook.
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}


def make_newer(folder, suffix):
    """Date one half of every pair an hour after the other; a checkout may do either."""
    now = time.time()
    for path in [*folder.rglob("*.ipynb"), *folder.rglob("*.py")]:
        stamp = now if path.suffix == suffix else now - 3600
        os.utime(path, (stamp, stamp))


@dataclass
class Server:
    """A running JupyterLab; `address` is the one that it prints for its user."""

    process: psutil.Process
    address: str

    def get(self, path):
        """Status and JSON answer of the server's HTTP interface."""
        parts = urlsplit(self.address)
        request = urllib.request.Request(
            f"{parts.scheme}://{parts.netloc}/{path}",
            headers={"Authorization": f"token {parse_qs(parts.query)['token'][0]}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def page(self, path):
        """The address of another notebook, for the browser."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}/lab/tree/{path}?{parts.query}"


@contextmanager
def serve(command, folder, home, clone):
    """Run a command that starts JupyterLab; afterwards neither it nor a kernel is left."""
    for name, settings in USER_SETTINGS.items():
        file = home / "config" / "lab" / "user-settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", *command, "--no-browser", f"--port={_free_port()}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    log = home / "server.log"
    with log.open("w") as sink:
        started = psutil.Popen(
            command, cwd=folder, env=_environment(home, clone), stdout=sink, stderr=sink
        )
    try:
        yield Server(started, _wait_for_address(started, log))
    finally:
        family = [started, *started.children(recursive=True)] if started.is_running() else []
        if family:
            started.terminate()  # the server ends its kernels
        survivors = psutil.wait_procs(family, timeout=20)[1]
        for process in survivors:
            process.kill()
        assert not survivors, f"the server left {survivors}"


def _environment(home, clone):
    """The environment of a user who has set nothing up, with labkit imported from the clone."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "LABKIT"))}
    return kept | {
        "PYTHONPATH": str(clone),  # ahead of an editable install of the checkout under test
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),  # no kernel that the developer registered
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "OMP_WAIT_POLICY": "passive",  # idle threads that spin would starve the browser
    }


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_address(process, log, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.is_running():
        if (found := ADDRESS.search(log.read_text())) and _answers(found[0]):
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


def _answers(address):
    """The address is printed a moment before the server listens."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def pictured(page, path):
    """Save what the page shows when something fails, and say where."""
    try:
        yield
    except BaseException as error:
        page.screenshot(path=path)
        error.add_note(f"what the browser showed: {path}")
        raise
