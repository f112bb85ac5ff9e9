"""Importing a kernel is cheap: compilers are loaded by the first call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import labkit.kernels

KERNELS = sorted(path.parent.name for path in Path(labkit.kernels.__path__[0]).glob("*/cpu.py"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_compilers_are_imported_only_when_they_compute(kernel):
    code = f"import sys, labkit.kernels.{kernel}; print({{'numba', 'triton'}} & {{*sys.modules}})"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert told.stdout.strip() == b"set()", told.stderr
