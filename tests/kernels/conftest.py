"""The GPU kernels run here in Triton's interpreter, on CPU tensors: keep their shapes tiny."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is first imported
