"""What a headless kernel runs as: ipykernel, tied to the life of the process that started it.

ipykernel itself looks once a second whether its parent is gone. That is late, in a cell of native
code it does not look at all, and a parent that died before the first look is never missed.
"""

import ctypes
import faulthandler
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def main() -> None:
    """Start ipykernel, unless the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ["JPY_PARENT_PID"]):
            sys.exit("the process that wanted this kernel is gone")
    faulthandler.enable(os.dup(2))  # ipykernel redirects 2 itself into the cell's output
    from ipykernel import iostream, kernelapp

    # On leaving, one kernel in ten waits for a thread that has ended, ten seconds each for stdout
    # and stderr. What was printed stays in order whether or not a flush is awaited.
    iostream.OutStream.flush_timeout = 0.3  # type: ignore[assignment]
    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
