"""Compile a loop for the CPU with Numba, and keep what was compiled between processes.

Numba's own cache has an index for each function, in which two processes that compile the same
function for different types at the same time overwrite each other: one of them then loads the code
of the other, which raises "can't unbox array", again and again until the cache is emptied. Parallel
tests, sweeps and jobs on a shared home directory do just that. Here each compiled signature has a
file of its own, named after all that it depends on, so there is no index to disagree with.
"""

from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from typing import Any

import numba
from numba.core.caching import IndexDataCacheFile


class _OneFileEach(IndexDataCacheFile):
    """A cache without an index; a file is written under another name, then renamed."""

    def save(self, key: Any, data: Any) -> None:
        self._save_data(self._name(key), data)

    def load(self, key: Any) -> Any:
        try:
            return self._load_data(self._name(key))
        except OSError:  # none yet
            return None

    def _name(self, key: Any) -> str:
        depends_on = repr((self._version, self._source_stamp, key)).encode()
        return f"{self._index_name.removesuffix('.nbi')}.{sha256(depends_on).hexdigest()[:16]}.nbc"


def jit(fastmath: Iterable[str] = ()) -> Callable[[Callable], Callable]:
    """A decorator: `numba.njit` without the GIL, with NumPy's division, cached on disk.

    `fastmath` names the liberties that LLVM may take, such as "contract" for fused multiply-adds.
    Where neither the package's folder nor the user's cache can be written to, as in a container,
    every process compiles for itself.
    """
    compiled = partial(numba.njit, nogil=True, error_model="numpy", fastmath=set(fastmath))

    def decorate(function: Callable) -> Callable:
        try:
            made = compiled(cache=True)(function)
        except RuntimeError:  # "cannot cache function: no locator available"
            return compiled()(function)
        # No public way leads there. Where a later Numba keeps it elsewhere, its own cache is used.
        kept = getattr(getattr(made, "_cache", None), "_cache_file", None)
        if type(kept) is IndexDataCacheFile:
            kept.__class__ = _OneFileEach
        return made

    return decorate
