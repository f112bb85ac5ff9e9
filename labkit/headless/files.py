"""Write a file whole or not at all."""

import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write under a temporary name in the same folder, then rename over what was there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
