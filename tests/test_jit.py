"""Compiled loops that are kept on disk: whoever compiles beside whom, each loads its own."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from numba.core.caching import CacheImpl, IndexDataCacheFile

from labkit.jit import jit

SOURCE = """\
def total(x):
    sum = x[0]
    for i in range(1, x.size):
        sum += x[i]
    return sum
"""
SINGLE, DOUBLE = np.ones(3, np.float32), np.ones(5)


def written(path, source):
    """The function of a source file, which is written first."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("loop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.total


@pytest.fixture
def loop(tmp_path):
    return written(tmp_path / "loop.py", SOURCE)


def test_two_that_compile_at_once_do_not_take_each_others_code(loop, monkeypatch):
    # Each call of `jit` stands for a process. Both have seen an empty cache, and the second
    # compiles while the first is about to write: Numba's own cache then has the index of the one
    # and the code of the other.
    one, other = jit()(loop), jit()(loop)
    save = IndexDataCacheFile._save_data

    def slow(self, name, data):
        if not other.signatures:
            other(DOUBLE)
        save(self, name, data)

    monkeypatch.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
    monkeypatch.setattr(IndexDataCacheFile, "_save_data", slow)
    assert one(SINGLE) == 3
    monkeypatch.undo()
    third = jit()(loop)
    assert third(DOUBLE) == 5
    assert third(SINGLE) == 3
    assert sum(third.stats.cache_hits.values()) == 2


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    (tmp_path / "loop.py").write_text(SOURCE)
    code = (
        "import numpy as np; from labkit.jit import jit; import loop; f = jit()(loop.total); "
        "f(np.ones(3)); print(sum(f.stats.cache_hits.values()))"
    )
    hits = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert hits == ["0", "1"]


def test_changed_source_is_compiled_anew(loop, tmp_path):
    assert jit()(loop)(DOUBLE) == 5
    changed = written(tmp_path / "loop.py", SOURCE.replace("+= x[i]", "+= 2 * x[i]"))
    assert jit()(changed)(DOUBLE) == 9


def test_where_nothing_can_be_kept_it_compiles_all_the_same(loop, monkeypatch):
    # What Numba finds where the package and the user's cache are read-only: no place at all.
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    made = jit()(loop)
    assert made(DOUBLE) == 5 and made.signatures
