"""For all tests: what must be in the environment before torch or Triton is imported."""

import os

# Several processes may share the cores, so that waiting threads must not spin. Read by OpenMP when
# torch is imported, here and in every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The GPU kernels run in Triton's interpreter, on CPU tensors: keep their shapes tiny. Triton reads
# this when it is first imported, by whomever.
os.environ["TRITON_INTERPRET"] = "1"
