import json
import os
from pathlib import Path

import pytest

from labkit.headless import build

HEAD = """\
# ---
# jupyter:
#   labkit:
#     minutes: 2
# ---

# %% [markdown]
# # Built

# %% tags=["parameters"]
seed: int = 0  # seed

# %%
from labkit import claim
claim("paper-one", "seed is small", seed, at_most=1)
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Write the body of a source in a suite of its own."""
    (tmp_path / "apples").mkdir()
    (tmp_path / "atlas.yaml").write_text(
        "papers:\n- {id: paper-one, title: One, topic: apples, notebook: apples/01_built}\n"
    )
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(tmp_path))

    def write(body: str = "", head: str = HEAD) -> Path:
        path = tmp_path / "apples/01_built.py"
        path.write_text(f"{head}\n# %%\n{body or 'print(1)'}\n")
        return path

    return write


def test_a_source_becomes_an_executed_notebook_and_the_pair_agrees(source):
    path = source("import ipywidgets\nipywidgets.interact(lambda k: print(k), k=(0, 3));")
    target = build.build(path)
    notebook = json.loads(target.read_text())
    assert target.name == "01_built.ipynb"
    assert [cell["id"] for cell in notebook["cells"]] == ["c00", "c01", "c02", "c03"]
    assert [cell["metadata"] for cell in notebook["cells"]] == [
        {},
        {"tags": ["parameters"]},
        {},
        {},
    ]
    metadata = notebook["metadata"]
    assert metadata["kernelspec"]["name"] == "python3" and metadata["labkit"] == {"minutes": 2}
    assert set(metadata) == {"kernelspec", "labkit", "language_info", "widgets"}
    assert "IntSliderModel" in json.dumps(metadata["widgets"])
    assert "application/vnd.labkit.claim+json" in target.read_text()

    # Agreement is a matter of content: a checkout leaves arbitrary modification times.
    for older, newer in ((path, target), (target, path)):
        os.utime(older, (0, 0))
        os.utime(newer)
        assert build.pair_differences(path) == []
    text = path.read_text()
    path.write_text(text.replace("seed: int = 0", "seed: int = 1"))
    assert build.pair_differences(path) == ["cell 2 (seed: int = 1  # seed): source differs"]
    path.write_text(text.replace('["parameters"]', '["other"]'))
    assert build.pair_differences(path) == ["cell 2 (seed: int = 0  # seed): tags differs"]
    path.write_text(text.replace("minutes: 2", "minutes: 3"))
    assert build.pair_differences(path) == ["notebook metadata `labkit` differs"]
    path.write_text(text + "\n# %% [markdown]\n# more\n")
    assert build.pair_differences(path) == ["5 cells in .py, 4 in .ipynb"]
    target.unlink()
    assert build.pair_differences(path) == ["01_built.ipynb is missing"]


def test_the_cover_is_stored_and_a_closed_progress_bar_is_not(source):
    path = source(
        "from tqdm.auto import tqdm\nlist(tqdm(range(3), leave=False))\nprint('done')\n\n"
        '# %% tags=["cover"]\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()'
    )
    target = build.build(path)
    picture = path.with_suffix(".png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    outputs = json.loads(target.read_text())["cells"][3]["outputs"]
    assert [output["output_type"] for output in outputs] == ["stream"]
    assert build.pair_differences(path) == []
    picture.write_bytes(b"other")
    assert len(build.pair_differences(path)) == 1


@pytest.mark.parametrize(
    "head, body, said",
    [
        (HEAD, "1 / 0", "ZeroDivisionError"),
        (HEAD.replace("at_most=1", "at_most=-1"), "", "DOES NOT HOLD"),
        (HEAD.replace("claim(", "# "), "", "no claim of paper paper-one"),
        (HEAD, "import os; print('at', os.getcwd())", "names a path of this machine"),
        (
            HEAD,
            "import ipywidgets; ipywidgets.interact(lambda k: 1 / 0, k=(0, 3));",
            "a widget raised",
        ),
    ],
)
def test_what_must_not_be_stored_is_not(head, body, said, source):
    path = source(body, head)
    stored = path.with_suffix(".ipynb")
    stored.write_text("before")
    with pytest.raises(build.BuildError, match=said):
        build.build(path)
    assert stored.read_text() == "before"
    assert sorted(p.name for p in path.parent.iterdir()) == ["01_built.ipynb", "01_built.py"]


def test_a_picture_may_spell_a_path_and_a_warning_may_not():
    def complaints(data):
        cells = [{"outputs": [{"output_type": "display_data", "data": data}]}]
        return list(build._machine_paths(_Notebook(cells=cells, metadata={})))

    home = str(Path.home())
    assert complaints({"image/png": f"AAA{home}/AAA"}) == []
    assert complaints({"text/html": f'<img src="data:image/png;base64,AA{home}/A=">'}) == []
    assert complaints({"text/plain": f"{home}work and a{home}"}) == []
    for text in (f"{home}/x.py:3: UserWarning", f"in {home}", f'href="{home}/y"'):
        assert len(complaints({"text/html": text})) == 1


class _Notebook(dict):
    __getattr__ = dict.__getitem__


def test_sources_are_found_by_name(source):
    path = source()
    assert build.sources([]) == build.sources(["apples/01_built"]) == [path]
    with pytest.raises(build.UsageError, match="did you mean apples/01_built"):
        build.sources(["01_built"])
