"""Binder's environment stays in step with pyproject.toml, and its build fails loudly.

Whether the image builds can only be seen on Binder; that conda-forge's names and ranges are those
of the package can be seen here.
"""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
BINDER = ROOT / "binder"
# conda-forge calls these differently; a package whose names agree is not listed.
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
PIP_ONLY = {"espeakng-loader"}  # not on conda-forge

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SWEEPS = PYPROJECT["project"]["optional-dependencies"]["sweep"]  # a notebook needs them
ALL_REQUIREMENTS = [Requirement(line) for line in PYPROJECT["project"]["dependencies"] + SWEEPS]
REQUIREMENTS = [r for r in ALL_REQUIREMENTS if r.name not in PIP_ONLY]
BUILD_REQUIREMENTS = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((BINDER / "environment.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def conda_packages(environment):
    """Name -> version range of every package of the environment."""
    specs = [re.fullmatch(r"([\w.-]+)\s*(.*)", text) for text in environment["dependencies"]]
    assert all(specs), "every dependency is a plain conda package; pip sections install unseen"
    return {spec[1]: spec[2] for spec in specs}


@pytest.mark.parametrize("requirement", REQUIREMENTS + BUILD_REQUIREMENTS, ids=lambda r: r.name)
def test_every_requirement_has_the_same_range(requirement, conda_packages):
    name = CONDA_NAMES.get(requirement.name, requirement.name)
    assert name in conda_packages, f"binder/environment.yml lacks {name}"
    assert SpecifierSet(conda_packages[name]) == requirement.specifier


@pytest.mark.parametrize(
    "requirement", [r for r in ALL_REQUIREMENTS if r.name in PIP_ONLY], ids=lambda r: r.name
)
def test_what_conda_lacks_comes_by_pip_in_the_same_range(requirement):
    script = (BINDER / "postBuild").read_text(encoding="utf-8")
    found = re.search(rf'pip install .*"({re.escape(requirement.name)}[^"]*)"', script)
    assert found and Requirement(found[1]) == requirement


def test_nothing_else_is_installed(conda_packages):
    known = {CONDA_NAMES.get(r.name, r.name) for r in REQUIREMENTS + BUILD_REQUIREMENTS}
    assert set(conda_packages) - known == {"python", "pip"}


def test_python_is_pinned_and_accepted_by_the_package(conda_packages):
    version = conda_packages["python"]
    assert re.fullmatch(r"=3\.\d+", version), "conda needs one minor version, such as python=3.12"
    assert version.removeprefix("=") in SpecifierSet(PYPROJECT["project"]["requires-python"])


def test_only_conda_forge_is_asked(environment):
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_binder_reads_this_folder_and_no_other():
    assert not (ROOT / ".binder").exists(), "repo2docker refuses two folders"
    names = {path.name for path in BINDER.iterdir()}
    assert names == {"environment.yml", "postBuild"}


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no executable bit")
def test_post_build_is_a_sound_script():
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK), "repo2docker runs only an executable postBuild"
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="bash")
def test_post_build_ends_at_the_first_failure(tmp_path):
    # The script itself, with a python that fails: nothing after it may run.
    for name, body in {"python": "exit 7", "labkit": f"touch {tmp_path / 'went-on'}"}.items():
        fake = tmp_path / name
        fake.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([BINDER / "postBuild"], cwd=tmp_path, env=os.environ | {"PATH": path})
    assert done.returncode == 7
    assert not (tmp_path / "went-on").exists()
