"""Write a file whole or not at all."""

from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write under a temporary name in the same folder, then rename over what was there."""
    # Not the process id alone: two machines may share the folder.
    part = path.with_name(f".{path.name}.{uuid4().hex[:12]}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
