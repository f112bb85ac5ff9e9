"""For all tests: several processes may share the cores, so that waiting threads must not spin."""

import os

# Read by OpenMP when torch is imported, here and in every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
