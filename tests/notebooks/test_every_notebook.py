"""Every notebook runs, proves its papers, and is stored as its source says.

The notebooks are found on disk, so that a new one is tested without a change here.
"""

import ast
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from labkit import atlas, headless
from labkit.data import spoken_digits
from labkit.headless import build, cluster, measured

ROOT = Path(__file__).parents[2]
FOLDER = atlas.notebooks_dir()
SOURCES = {p.relative_to(FOLDER).with_suffix("").as_posix(): p for p in build.sources([])}
TOPICAL = [name for name in SOURCES if "/" in name]  # all but the index

RUN_SECONDS = 150  # some 60 alone; here another test runs beside it, which costs CPU time, too
MEMORY_GB = 1.5  # Binder stops a session at 2
FILE_MB = 3

COST = re.compile(
    r"\*\*Running\*\* under (15 seconds|half a minute|a minute) on two CPU cores, "
    r"under ([\d.]+) GB of memory"
)
SECONDS = {"15 seconds": 15, "half a minute": 30, "a minute": 60}

every_notebook = pytest.mark.parametrize("name", SOURCES)
every_topical_notebook = pytest.mark.parametrize("name", TOPICAL)


def is_about_papers(name):
    """Whether a notebook re-implements papers; the others, of no topic, are about the suite."""
    return name.partition("/")[0] in atlas.topics()


def stored(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def source_of(cell):
    return "".join(cell["source"])


def tags_of(cell):
    return cell["metadata"].get("tags", [])


def code_cells(name):
    return [cell for cell in stored(name)["cells"] if cell["cell_type"] == "code"]


def test_there_is_an_index_and_something_to_read():
    assert "index" in SOURCES and TOPICAL


# ------------------------------------------------------------------ running


def cpu_seconds_of_children():
    """CPU time of all descendants that have ended."""
    ended = psutil.Process().cpu_times()
    return ended.children_user + ended.children_system


@contextmanager
def peak_memory_of_children(seconds=0.1):
    """Sample the resident memory of this process's descendants; [bytes], filled on leaving."""
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(seconds):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended between the two calls
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


@pytest.fixture(scope="module")
def spoken_words():
    """Made before the clock starts: each machine makes them once, notebooks read them from then."""
    for split, n_per_class in (("train", 80), ("test", 40)):
        spoken_digits(split, languages=["english"], n_per_class=n_per_class)


@pytest.fixture
def share_of_the_cores(monkeypatch):
    """As in a sweep: where two tests share two cores, second threads only wait for the first."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for name in cluster.THREADS:
        monkeypatch.setenv(name, str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.mark.usefixtures("spoken_words", "share_of_the_cores")
@every_topical_notebook
def test_runs_headless_and_every_claim_holds(name, tmp_path):
    started, used = time.monotonic(), cpu_seconds_of_children()
    with peak_memory_of_children() as peak:
        result = headless.run(name, {"seed": 1}, out=tmp_path, timeout=600)  # nbval runs seed 0
        for thread in threading.enumerate():
            if thread.name == "end of a kernel":  # until then its CPU time is not counted
                thread.join()
    seconds, gigabytes = time.monotonic() - started, peak[0] / 1e9
    cpu_seconds = cpu_seconds_of_children() - used
    print(f"{name}: {seconds:.1f} s, {cpu_seconds:.1f} CPU s, peak memory {gigabytes:.2f} GB")

    assert result.error is None, result.error
    assert [str(claim) for claim in result.claims if not claim.holds] == []
    papers = set(atlas.papers_of(name))
    assert papers <= {claim.paper for claim in result.claims}
    assert result.claims and bool(papers) == is_about_papers(name)
    assert result.status == "ok"
    # A busy machine stretches the one, a second thread the other; a quiet reader sees the smaller.
    assert min(seconds, cpu_seconds) < RUN_SECONDS
    assert 0.05 < gigabytes < MEMORY_GB  # a kernel takes more than 50 MB, or none was seen


@pytest.mark.usefixtures("share_of_the_cores")
@every_notebook
def test_nbval_finds_the_stored_outputs_again(name):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env"),
            *("-p", "no:cacheprovider", "-q", FOLDER / f"{name}.ipynb"),
        ],
        cwd=ROOT,
        # nbval reads a cell's messages when the cell is done, and all but a thousand are lost: a
        # minute of progress bars would drown the one that says so.
        env=os.environ | {"TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert f"{len(code_cells(name))} passed" in done.stdout, done.stdout[-2000:]


@every_topical_notebook
def test_the_closing_summary_is_what_nbval_compares(name):
    # nbval compares only marked cells. It sees no mark behind code on the same line, and passes
    # over a cell without a stored output.
    last = code_cells(name)[-1]
    assert "# NBVAL_CHECK_OUTPUT" in source_of(last).splitlines()
    text = "".join("".join(output.get("text", [])) for output in last["outputs"])
    held = re.fullmatch(r"(\d+) of (\d+) claims hold\n", text)
    assert held and held[1] == held[2] != "0", text


# ------------------------------------------------------------------ what is stored


@every_notebook
def test_the_two_halves_agree(name):
    # By content: after a checkout modification times say nothing.
    assert build.pair_differences(SOURCES[name]) == []


@every_notebook
def test_no_cell_is_raw(name):
    # jupytext makes one of header lines that it does not know: they belong under `jupyter:`.
    assert {cell["cell_type"] for cell in stored(name)["cells"]} <= {"code", "markdown"}


@every_topical_notebook
def test_one_cell_declares_the_parameters(name):
    tagged = [cell for cell in code_cells(name) if "parameters" in tags_of(cell)]
    assert len(tagged) == 1
    assert re.search(r"^seed: int = 0\b", source_of(tagged[0]), re.MULTILINE)
    assert all(parameter.help for parameter in headless.find(name).parameters)


@every_notebook
def test_stored_cells_ran_in_order_without_error(name):
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []


MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:root|home|tmp|work|Users)/[\w.-]+|[A-Za-z]:\\+Users\b|"
    + "|".join(re.escape(str(path)) for path in (Path(sys.prefix), ROOT, Path.home()))
)


def texts(node):
    """All text within outputs or metadata but pictures, whose base64 may spell anything."""
    if isinstance(node, str):
        yield re.sub(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+", "", node)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "image/svg+xml" or not key.startswith("image/"):
                yield from texts(value)
    elif isinstance(node, list):
        if all(isinstance(value, str) for value in node):
            node = ["".join(node)]  # lines of one text
        for value in node:
            yield from texts(value)


@every_notebook
def test_nothing_stored_names_a_path_of_the_machine(name):
    notebook = stored(name)
    places = [notebook["metadata"]]
    for cell in notebook["cells"]:
        places += [cell["metadata"], cell.get("outputs", []), cell.get("attachments", {})]
    found = [match[0] for text in texts(places) for match in MACHINE_PATH.finditer(text)]
    assert found == []


@every_notebook
def test_the_file_is_small(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < FILE_MB * 1e6


# ------------------------------------------------------------------ atlas and links


def test_atlas_lists_every_paper_once():
    # Read here, not by labkit.atlas: its dictionary would hide an id that occurs twice.
    entries = yaml.safe_load((FOLDER / "atlas.yaml").read_text(encoding="utf-8"))["papers"]
    ids = [entry["id"] for entry in entries]
    assert len(ids) == len(set(ids)) == 298
    assert len({entry["topic"] for entry in entries}) == 32


def test_atlas_and_folder_name_the_same_notebooks():
    named = {notebook for paper in atlas.papers().values() for notebook in paper.notebooks}
    assert named == {name for name in TOPICAL if is_about_papers(name)}


LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|(?:src|href)=["']([^"']+)""")


def local_links(text):
    """Targets of links and pictures within the repository, without their anchors."""
    found = [match[1] or match[2] for match in LINK.finditer(text)]
    elsewhere = re.compile(r"[a-z][a-z0-9+.-]*:|#")
    return [target.partition("#")[0] for target in found if not elsewhere.match(target)]


@every_notebook
def test_relative_links_lead_to_files(name):
    cells = [cell for cell in stored(name)["cells"] if cell["cell_type"] == "markdown"]
    links = [link for cell in cells for link in local_links(source_of(cell))]
    here = (FOLDER / name).parent
    assert [link for link in links if not (here / link).exists()] == []


def test_index_leads_to_every_notebook():
    # Its links may stand in markdown or in what its cells display.
    links = local_links("\n".join(texts(stored("index")["cells"])))
    assert {f"{name}.ipynb" for name in TOPICAL} <= set(links)


def test_the_start_page_can_show_what_each_notebook_asks_and_its_cover():
    found = headless.find_all()
    assert [n.name for n in found if len(n.question.split()) < 10 or n.cover is None] == []


def test_the_published_table_is_about_the_code_that_is_here():
    assert measured.stale() == [], "hold them against seeds again: labkit verify NAME --publish"


@every_topical_notebook
def test_the_stated_cost_is_not_below_the_published_one(name):
    text = " ".join(source_of(stored(name)["cells"][0]).split())
    assert (stated := COST.search(text)), f"no cost of this form: {COST.pattern}"
    row = measured.read().get(name)
    if row is not None:  # a new one has none yet, and is stale until then
        assert float(row["seconds"]) <= SECONDS[stated[1]]
        assert float(row["peak_memory_mb"]) <= 1000 * float(stated[2])


def test_every_notebook_was_held_against_ten_seeds_and_its_claims_held():
    rows = measured.read()
    assert [name for name, row in rows.items() if int(row["runs"]) < 10] == []
    assert [name for name, row in rows.items() if row["ok"] != row["runs"]] == []


# ------------------------------------------------------------------ exercises


def exercises_of(name):
    """(prompt, stub, solution, check) of each exercise: four cells in a row."""
    cells = stored(name)["cells"]
    places = [at for at, cell in enumerate(cells) if "exercise" in tags_of(cell)]
    return [cells[at - 1 : at + 3] for at in places]


@every_topical_notebook
def test_exercises_have_hint_stub_folded_solution_and_check(name):
    found = exercises_of(name)
    assert 2 <= len(found) <= 4
    for prompt, stub, solution, check in found:
        assert prompt["cell_type"] == "markdown" and "<details>" in source_of(prompt)
        (function,) = ast.parse(source_of(stub)).body
        assert "solution" in tags_of(solution)
        assert solution["metadata"].get("jupyter") == {"source_hidden": True}
        assert f"def {function.name}_solution(" in source_of(solution)
        assert f"{function.name}_solution" in source_of(check)


def run_alone(name):
    """A namespace with the notebook's parameters and imports; nothing else has run."""
    namespace = {}
    for cell in code_cells(name):
        body = ast.parse(source_of(cell)).body
        if "parameters" not in tags_of(cell):
            body = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(body, []), name, "exec"), namespace)
    return namespace


def verdict(check, namespace):
    """Run a check cell; its last line is the verdict that the reader sees."""
    *body, last = ast.parse(source_of(check)).body
    exec(compile(ast.Module(body, []), "check", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "check", "eval"), namespace).status


@every_topical_notebook
def test_exercises_tell_right_from_wrong(name):
    namespace = run_alone(name)
    for _, stub, solution, check in exercises_of(name):
        exec(source_of(stub), namespace)
        exec(source_of(solution), namespace)
        (function,) = ast.parse(source_of(stub)).body
        right = namespace[f"{function.name}_solution"]

        def nearly_right(*arguments, right=right):
            answer = right(*arguments)
            off = [part * 1.01 + 0.01 for part in (answer if type(answer) is tuple else [answer])]
            return tuple(off) if type(answer) is tuple else off[0]

        assert verdict(check, namespace) == "not attempted", function.name
        namespace[function.name] = right
        assert verdict(check, namespace) == "correct", function.name
        namespace[function.name] = nearly_right
        assert verdict(check, namespace) == "not yet", function.name
