"""Imports point one way: topics -> spiking, data, plots -> kernels -> checks, jit."""

import ast
from pathlib import Path

import pytest

LABKIT = Path(__file__).parent.parent / "labkit"
FOLDERS = {path.parent.name for path in LABKIT.glob("*/__init__.py")}

BASE = {"checks", "jit"}
SHARED = BASE | {"kernels"}
TOPICS = FOLDERS - {"bench", "cli", "data", "headless", "kernels", "spiking"}
ACCEPTED = {
    "kernels": BASE,
    "data": SHARED,
    "spiking": SHARED,
    **dict.fromkeys(TOPICS, SHARED | {"data", "plots", "seeding", "spiking", "training"}),
    "headless": {path.stem for path in LABKIT.glob("*.py")},  # no folder: it knows of no topic
}


def imported(source):
    """What of labkit a source imports, anywhere in it: "kernels" for labkit.kernels.lif_scan."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("labkit.")}


@pytest.mark.parametrize("folder", sorted(ACCEPTED))
def test_imports_point_one_way(folder):
    for path in (LABKIT / folder).rglob("*.py"):
        wrong = imported(path.read_text(encoding="utf-8")) - ACCEPTED[folder] - {folder}
        assert not wrong, f"{path.relative_to(LABKIT)} imports {wrong}"


@pytest.mark.parametrize("module", ["checks", "jit", "seeding", "plots", "training"])
def test_what_all_import_imports_nothing_of_ours(module):
    assert not imported((LABKIT / f"{module}.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    ["import labkit.data", "from labkit import data", "from labkit.data.digits import digits"],
)
def test_an_import_in_a_function_counts(line):
    assert imported(f"import torch\ndef f():\n    {line}\n") == {"data"}
