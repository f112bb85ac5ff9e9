"""JupyterLab in a real browser, as a reader meets it right after `git clone` and `labkit lab`."""

import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from served import make_newer, pictured, serve

from labkit.headless.notebooks import load, tags_of

NOTEBOOK = "sparse_coding/01_beyond_l1"
RUN_SECONDS = 300  # on a busy machine; alone it takes about 60
FIGURES = 6  # at the least

# The tab in front; others stay in the page, hidden.
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
ERRORS = (
    '[data-mime-type="application/vnd.jupyter.error"]',
    '.jp-OutputArea-output:has-text("Traceback (most recent call last)")',
    ':text("Error displaying widget")',
    ':text("Loading widget...")',
    ".jp-RenderedLatex .MathJax_Error, mjx-merror",
)


@pytest.fixture(scope="module")
def lab(clone, tmp_path_factory):
    """The server that `labkit lab` starts in the clone."""
    with serve(["labkit", "lab"], clone, tmp_path_factory.mktemp("home"), clone) as server:
        yield server


# ------------------------------------------------------------------ modification times and folders


# jupytext looks for jupytext.toml no higher than the folder that is served: from a topic folder the
# notebooks open as well, but alone, without their .py. `labkit lab` serves notebooks/.
@pytest.mark.parametrize(
    ("root", "paired"), [(".", True), ("notebooks", True), ("notebooks/sparse_coding", False)]
)
def test_every_notebook_opens_from_every_folder(root, paired, clone, tmp_path):
    folder = clone / root
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb")]
    assert names
    with serve(["jupyterlab", f"--ServerApp.root_dir={folder}"], folder, tmp_path, clone) as server:
        for newer in (".ipynb", ".py"):
            make_newer(clone / "notebooks", newer)
            for name in names:
                cells = read_notebook(server, name)
                assert any(cell.get("outputs") for cell in cells), name
        with edited_source(clone / "notebooks" / f"{NOTEBOOK}.py") as addition:
            # Where the halves differ JupyterLab answers 400 for an older .py, unless it finds a
            # jupytext.toml whose margin is a number.
            make_newer(clone / "notebooks", ".ipynb")
            (name,) = (name for name in names if name.endswith(f"{Path(NOTEBOOK).name}.ipynb"))
            cells = read_notebook(server, name)
            assert (cells[-1]["source"] == addition) == paired
            assert any(cell.get("outputs") for cell in cells)  # these come from the .ipynb


def read_notebook(server, name):
    """The cells of a notebook as JupyterLab gets them."""
    status, answer = server.get(f"api/contents/{name}?type=notebook&content=1")
    assert status == 200, answer
    assert answer["type"] == "notebook"
    return answer["content"]["cells"]


@contextmanager
def edited_source(path):
    """A .py that somebody changed in an editor, or pulled, while its .ipynb stayed as it was."""
    before, addition = path.read_text("utf-8"), "An afterthought."
    path.write_text(f"{before}\n# %% [markdown]\n# {addition}\n", "utf-8")
    try:
        yield addition
    finally:
        path.write_text(before, "utf-8")


# ------------------------------------------------------------------ reading, running, saving


def test_a_reader_opens_runs_and_saves_the_first_notebook(lab, clone, page, tmp_path):
    make_newer(clone / "notebooks", ".ipynb")  # the order that JupyterLab would refuse
    with pictured(page, tmp_path / "failure.png"):
        open_from_index(page, lab)
        see_stored_outputs(page, clone)
        run_all_cells(page)
        see_results(page)
        move_slider(page)
        save(page, clone / "notebooks" / NOTEBOOK)
        kernels_are_ours(lab)


def test_a_notebook_opens_at_its_own_address(lab, clone, page, tmp_path):
    make_newer(clone / "notebooks", ".py")
    with pictured(page, tmp_path / "failure.png"):
        page.goto(lab.page(f"{NOTEBOOK}.ipynb"))
        wait_for_notebook(page, NOTEBOOK)


def wait_for_notebook(page, name):
    """A notebook is in front, with cells in it and no dialog over it."""
    tab = f'.lm-TabBar-tab.lm-mod-current:has-text("{Path(name).name}.ipynb")'
    page.wait_for_selector(tab, timeout=60_000)
    page.wait_for_selector(f"{PANEL} .jp-MarkdownCell .jp-RenderedMarkdown h1", timeout=60_000)
    page.wait_for_selector(f'{PANEL} .jp-Notebook-ExecutionIndicator[data-status="idle"]')
    no_dialog(page)


def no_dialog(page):
    dialogs = page.locator(".jp-Dialog").all_inner_texts()
    assert not dialogs, dialogs


def open_from_index(page, lab):
    page.goto(lab.address)  # the one that `labkit lab` prints
    wait_for_notebook(page, "index")
    no_errors(page)
    page.locator(f'{PANEL} a[href*="{NOTEBOOK}.ipynb"]').first.click()
    wait_for_notebook(page, NOTEBOOK)


def see_stored_outputs(page, clone):
    """Before anything runs: figures and cards as stored, and the solutions folded."""
    assert page.locator(f"{PANEL} .labkit-claim").count() >= 3
    assert page.locator(f"{PANEL} .jp-OutputArea-output img").count() >= FIGURES
    cells = load(clone / "notebooks" / f"{NOTEBOOK}.ipynb")["cells"]
    solutions = sum("solution" in tags_of(cell) for cell in cells)
    assert page.locator(f"{PANEL} .jp-CodeCell .jp-InputPlaceholder").count() == solutions > 0
    no_errors(page)


def run_all_cells(page):
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    waiting = f'{PANEL} .jp-InputPrompt:text-is("[*]:")'
    page.wait_for_selector(waiting)  # all cells wait from the first moment
    page.wait_for_selector(waiting, state="detached", timeout=RUN_SECONDS * 1000)
    page.wait_for_selector(f'{PANEL} .jp-Notebook-ExecutionIndicator[data-status="idle"]')


def no_errors(page):
    for selector in ERRORS:
        found = page.locator(f"{PANEL} {selector}").all_inner_texts()
        assert not found, f"{selector}: {found}"


def see_results(page):
    no_dialog(page)
    no_errors(page)
    prompts = page.locator(f"{PANEL} .jp-CodeCell .jp-InputPrompt").all_text_contents()
    expected = [f"[{number}]:" for number in range(1, len(prompts) + 1)]
    shown = [pair for pair in zip(prompts, expected, strict=True) if pair[0]]  # folded cells: none
    assert all(prompt == number for prompt, number in shown), prompts

    images = page.locator(f"{PANEL} .jp-OutputArea-output img")
    widths = images.evaluate_all("nodes => nodes.map(node => node.naturalWidth)")
    assert len(widths) >= FIGURES and min(widths) > 0, widths
    pictures = page.locator(f"{PANEL} .jp-RenderedMarkdown img")
    assert all(pictures.evaluate_all("nodes => nodes.map(node => node.naturalWidth > 0)"))

    cards = page.locator(f"{PANEL} div.labkit-claim")
    assert cards.count() >= 3
    verdicts = cards.evaluate_all("nodes => nodes.map(node => node.dataset.holds)")
    assert verdicts == ["true"] * cards.count(), cards.all_inner_texts()
    summary = page.locator(f"{PANEL} .jp-CodeCell").last.inner_text()
    assert re.search(r"\b(\d+) of \1 claims hold", summary), summary

    exercises = page.locator(f"{PANEL} div.labkit-exercise")
    assert exercises.count() >= 1
    statuses = exercises.evaluate_all("nodes => nodes.map(node => node.dataset.status)")
    assert statuses == ["not attempted"] * exercises.count(), exercises.all_inner_texts()


def move_slider(page):
    """A key moves the slider, and the figure under it is drawn anew."""
    handle = page.locator(f"{PANEL} .jp-OutputArea .widget-slider [role=slider]").first
    figure = page.locator(f"{PANEL} .widget-interact img").first
    before, value = figure.get_attribute("src"), handle.get_attribute("aria-valuenow")
    assert before.startswith("data:image/")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([selector, before]) => { const now = document.querySelector(selector);"
        " return now && now.src !== before }",
        arg=[f"{PANEL} .widget-interact img", before],
    )
    assert handle.get_attribute("aria-valuenow") != value
    no_errors(page)


def save(page, notebook):
    """Ctrl-S writes both halves, and the source as the author wrote it."""
    halves = [notebook.with_suffix(suffix) for suffix in (".ipynb", ".py")]
    before, source = [half.stat().st_mtime_ns for half in halves], halves[1].read_text("utf-8")
    page.locator(f"{PANEL} .jp-MarkdownCell").first.click()
    page.keyboard.press("Control+s")
    for _ in range(100):
        if all(half.stat().st_mtime_ns != old for half, old in zip(halves, before, strict=True)):
            break
        page.wait_for_timeout(100)
    else:
        raise AssertionError(f"not both of {halves} were written")
    page.wait_for_timeout(500)  # for a dialog to show
    no_dialog(page)
    assert halves[1].read_text("utf-8") == source


def kernels_are_ours(lab):
    """No other `python3` that somebody registered on this machine."""
    assert lab.get("api/kernels")[1]
    kernels = [p for p in lab.process.children(recursive=True) if "ipykernel" in str(p.cmdline())]
    assert kernels
    assert {kernel.cmdline()[0] for kernel in kernels} == {sys.executable}
