"""Ctrl-C and SIGTERM with real signals: the kernel goes, what ran stays."""

import json
import os
import signal
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

# It prints without pause: an interrupt that was raised as an exception would hit any line at all.
CHATTY = "from pathlib import Path\nPath('begun').touch()\nwhile True: print('x' * 40)"
QUIET = "from pathlib import Path\nimport time\nPath('begun').touch()\ntime.sleep(600)"


@pytest.mark.parametrize(
    "number, to_group, cell, code",
    [
        (signal.SIGINT, True, QUIET, 130),
        (signal.SIGINT, False, CHATTY, 130),
        (signal.SIGTERM, False, QUIET, 143),
    ],
)
def test_a_signal_stops_the_kernel_and_keeps_what_ran(
    number, to_group, cell, code, start, tmp_path, write_notebook
):
    write_notebook(tmp_path / "long.ipynb", "print('ran first')", cell, "print('never')")
    process = start("run", "long.ipynb", "--json", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    (os.killpg if to_group else os.kill)(process.pid, number)
    time.sleep(0.3)
    os.kill(process.pid, number)  # an impatient second one must not cut the clean-up short
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not [kernel for kernel in kernels if kernel.is_running()]
    result = json.loads(out)
    assert result["status"] == "interrupted" and result["error"]["cell"] == 2
    kept = (tmp_path / "runs/long.ipynb").read_text()
    assert "ran first" in kept and "KeyboardInterrupt" in kept
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["long.ipynb"]
