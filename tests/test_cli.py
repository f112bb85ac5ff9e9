"""The command as a user types it: what it prints where, and its exit codes."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace

import pytest

from labkit import atlas, cli, doctor, headless, lab
from labkit.claims import Claim
from labkit.cli import console
from labkit.cli.console import stop_signals
from labkit.headless.evidence import Failure

HEAVY = (
    "torch",
    "jupyter",
    "nbformat",
    "nbclient",
    "papermill",
    "IPython",
    "jupytext",
    "matplotlib",
)


@pytest.fixture
def labkit(monkeypatch, capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def labkit(*arguments):
        monkeypatch.setattr(sys, "argv", ["labkit", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return labkit


@pytest.fixture
def own_suite(tmp_path, monkeypatch):
    """A suite with one notebook, which declares a list: its type is no markup to rich."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# A [title]"},
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": "sizes: list[int] = [1]\nseed: int = 0",
            "outputs": [],
            "execution_count": None,
        },
    ]
    folder = tmp_path / "suite"
    (folder / "apples").mkdir(parents=True)
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    (folder / "apples/01_one.ipynb").write_text(json.dumps(notebook))
    (folder / "atlas.yaml").write_text(
        "papers:\n"
        "- {id: paper-a, title: A, topic: apples, notebook: apples/01_one}\n"
        "- {id: paper-b, title: B, topic: pears, notebook: null}\n"
    )
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


# ------------------------------------------------------------------ cost


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["atlas"], ["--help"]])
def test_looking_around_loads_nothing_heavy(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['labkit', *{arguments}]\n"
        "from labkit import cli\n"
        "try: cli.main()\n"
        "except SystemExit as left: assert not left.code\n"
        f"print(sorted({{m.split('.')[0] for m in sys.modules}} & set({HEAVY})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_wrong_use_is_told_at_once(tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "run", "no/such"], capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 2 and time.monotonic() - started < 10


# ------------------------------------------------------------------ list, atlas


def test_list_json_is_the_contract(labkit, own_suite):
    code, out, err = labkit("list", "--json")
    assert (code, err) == (0, "")
    parameter = {"name": "sizes", "type": "list[int]", "default": [1], "help": ""}
    assert json.loads(out) == [
        {
            "name": "apples/01_one",
            "title": "A [title]",
            "papers": ["paper-a"],
            "minutes": None,
            "parameters": [parameter, {"name": "seed", "type": "int", "default": 0, "help": ""}],
        }
    ]


def test_list_shows_types_that_look_like_markup(labkit, own_suite):
    code, out, _ = labkit("list")
    assert code == 0 and "sizes: list[int] = [1]" in out and "A [title]" in out


def test_list_takes_topics_and_notebooks(labkit, own_suite):
    for chosen in ("apples", "apples/01_one"):
        code, out, _ = labkit("list", chosen)
        assert code == 0 and out.startswith("apples/01_one\n    A [title]\n    paper-a\n")
    code, out, err = labkit("list", "appels")
    assert (code, out) == (2, "") and "did you mean apples" in err


def test_list_keeps_a_name_whole_in_a_narrow_terminal(labkit, own_suite, monkeypatch):
    long = "01_one_with_a_name_that_is_rather_long"
    (own_suite / "apples/01_one.ipynb").rename(own_suite / f"apples/{long}.ipynb")
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = labkit("list")
    assert code == 0 and f"apples/{long}" in out and "…" not in out


def test_atlas_json_is_the_contract(labkit, own_suite):
    code, out, err = labkit("atlas", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [
        {
            "id": "paper-a",
            "title": "A",
            "topic": "apples",
            "notebook": "apples/01_one",
            "status": "no claims",
        },
        {"id": "paper-b", "title": "B", "topic": "pears", "notebook": None, "status": "planned"},
    ]


def test_atlas_chooses_a_topic_or_names_the_nearest(labkit, own_suite):
    code, out, _ = labkit("atlas", "--topic", "pears", "--json")
    assert code == 0 and [paper["id"] for paper in json.loads(out)] == ["paper-b"]
    code, out, err = labkit("atlas", "--topic", "pear")
    assert (code, out) == (2, "") and "did you mean pears?" in err and err.count("\n") == 1
    code, out, _ = labkit("atlas")
    assert code == 0 and "2 papers" in out and "paper-a" in out and "paper-b" not in out


# ------------------------------------------------------------------ run


def result(**changes):
    fields = {
        "notebook": "apples/01_one",
        "parameters": {"sizes": [1], "seed": 0},
        "status": "ok",
        "seconds": 1.25,
        "output": Path("runs/an apple.ipynb"),
        "claims": [Claim("paper-a", "a [red] one", 2.0, 1.0, None, "kg", True)],
        "metrics": {"weight": 2.0},
        "missing": [],
        "error": None,
        "peak_memory_mb": 61.5,
    }
    return headless.RunResult(**fields | changes)


@pytest.fixture
def finish_with(monkeypatch):
    """Let the next run end with a result, and tell what it was called with."""

    def finish_with(**changes):
        calls = []

        def run(name, given, **options):
            calls.append((name, given, options))
            return result(**changes)

        monkeypatch.setattr(headless, "run", run)
        return calls

    return finish_with


POOR = Claim(
    "paper-a", "a statement that is far longer than any narrow table is " * 2, 1, 2, None, "", False
)
ERROR = Failure(3, "divide", "ZeroDivisionError", "division by zero", ["line one\nline two"])


def test_a_preset_sets_parameters_and_p_goes_before_it(labkit, own_suite, finish_with):
    path = own_suite / "apples/01_one.ipynb"
    presets = {"full": {"sizes": [1, 2], "seed": 7}}
    content = json.loads(path.read_text()) | {"metadata": {"labkit": {"presets": presets}}}
    path.write_text(json.dumps(content))
    calls = finish_with()
    code, _, _ = labkit("run", "apples/01_one", "--preset", "full", "-p", "seed=3")
    assert code == 0 and calls[0][1] == {"sizes": [1, 2], "seed": 3}
    code, out, _ = labkit("list")
    assert code == 0 and "--preset full" in out
    for command in ("run", "sweep"):
        code, out, err = labkit(command, "apples/01_one", "--preset", "fll")
        assert (code, out) == (2, "") and "did you mean full?" in err
    code, out, _ = labkit(
        "sweep", "apples/01_one", "--preset", "full", "-p", "seed=1,2", "--dry-run"
    )
    assert code == 0 and "sizes=[1, 2]" in out and "seed=2" in out and len(calls) == 1


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, 0),
        ({"status": "claims-failed", "claims": [POOR]}, 1),
        ({"status": "claims-failed", "missing": ["paper-a"]}, 1),
        ({"status": "error", "error": ERROR}, 1),
        ({"status": "interrupted", "error": ERROR}, 130),
    ],
)
def test_run_json_is_the_contract_whatever_the_outcome(
    labkit, own_suite, finish_with, changes, expected
):
    calls = finish_with(**changes)
    code, out, err = labkit("run", "apples/01_one", "-p", "sizes=[2]", "--out", "o", "--json")
    assert (code, err) == (expected, "")
    document = json.loads(out)
    keys = ["notebook", "parameters", "status", "seconds", "output", "claims", "metrics", "missing"]
    keys += ["peak_memory_mb"]
    assert [key for key in document if key != "error"] == keys
    assert ("error" in document) == ("error" in changes)
    assert document["output"] == "runs/an apple.ipynb"
    assert document["peak_memory_mb"] == 61.5
    [(name, given, options)] = calls
    assert (name, given, options["out"]) == ("apples/01_one", {"sizes": [2]}, Path("o"))
    assert options["on_cell"] is None


def test_run_shows_claims_metrics_and_how_to_open(labkit, own_suite, finish_with):
    finish_with()
    code, out, err = labkit("run", "apples/01_one")
    assert (code, err) == (0, "")
    for shown in ("a [red] one", "2 kg", "≥ 1 kg", "holds", "weight", "1 of 1 claims hold"):
        assert shown in out
    assert "open it with: jupyter lab 'runs/an apple.ipynb'\n" in out


def test_a_path_is_one_word_for_the_shell_of_its_system(monkeypatch):
    path = PureWindowsPath("C:/my runs/an apple.ipynb")
    monkeypatch.setattr(console, "os", SimpleNamespace(name="nt"))
    assert console.quoted(path) == '"C:\\my runs\\an apple.ipynb"'  # cmd.exe knows no single quotes
    assert console.quoted(PureWindowsPath("C:/runs/apple.ipynb")) == "C:\\runs\\apple.ipynb"
    monkeypatch.setattr(console, "os", SimpleNamespace(name="posix"))
    assert console.quoted(PurePosixPath("runs/an apple.ipynb")) == "'runs/an apple.ipynb'"


def test_no_remedy_is_in_single_quotes():
    # cmd.exe would hand them to pip, and take > and < for redirections.
    sources = Path(cli.__file__).parents[1].rglob("*.py")
    assert [path for path in sources if "pip install '" in path.read_text(encoding="utf-8")] == []


def test_claims_are_told_also_where_the_notebook_cannot_be_written(labkit, own_suite, monkeypatch):
    def run(*_, **__):
        raise headless.NotWrittenError("runs/an apple.ipynb cannot be written: no space", result())

    monkeypatch.setattr(headless, "run", run)
    code, out, err = labkit("run", "apples/01_one")
    assert code == 1 and "1 of 1 claims hold" in out and "open it with" not in out
    assert err == "labkit: runs/an apple.ipynb cannot be written: no space\n"
    code, out, err = labkit("run", "apples/01_one", "--json")
    assert code == 1 and json.loads(out)["status"] == "ok" and "no space" in err


def test_run_names_what_failed_on_whole_lines(labkit, own_suite, finish_with):
    finish_with(status="claims-failed", claims=[POOR], missing=["paper-b"])
    code, _, err = labkit("run", "apples/01_one")
    assert code == 1
    assert f"paper-a: {POOR}" in err.splitlines()
    assert "paper-b: no claim of this paper ran" in err.splitlines()
    finish_with(status="error", error=ERROR)
    code, _, err = labkit("run", "apples/01_one")
    assert code == 1
    assert err.splitlines()[-1] == "cell 3 (divide) raised ZeroDivisionError: division by zero"
    assert "line two" in err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["apples/01_on"], "did you mean apples/01_one?"),
        (["apples/01_one", "-p", "sed=1"], "did you mean seed?"),
        (["apples/01_one", "-p", "seed=x"], "seed: int = 0"),
        (["apples/01_one", "-p", "seed"], "no pair"),
        (["apples/01_one", "-p", "seed=1", "-p", "seed=2"], "given twice"),
        (["apples/01_one", "--out", "suite/atlas.yaml"], "--out suite/atlas.yaml"),
        (["missing.ipynb"], "unknown notebook 'missing.ipynb'"),
    ],
)
@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_wrong_use_is_one_line_on_standard_error(
    labkit, own_suite, monkeypatch, arguments, said, json_
):
    monkeypatch.setitem(sys.modules, "labkit.headless.engine", None)  # no kernel may start
    code, out, err = labkit("run", *arguments, *json_)
    assert (code, out) == (2, "")
    assert err.startswith("labkit: ") and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "a", "--timeout", "0"], ["run", "a", "--bad"], ["nonsense"]]
)
def test_a_malformed_command_line_is_wrong_use(labkit, own_suite, arguments):
    code, out, err = labkit(*arguments)
    assert (code, out) == (2, "") and "Traceback" not in err


def test_a_run_leaves_only_json_on_standard_output(own_suite, tmp_path):
    notebook = json.loads((own_suite / "apples/01_one.ipynb").read_text())
    source = (
        "import atexit, os\nfrom labkit import claim\nos.write(1, b'raw')\nos.system('echo')\n"
        "atexit.register(os.write, 1, b'last words')\nclaim('paper-a', 's', len(sizes), at_least=2)"
    )
    cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": []}
    notebook["cells"].append(cell | {"execution_count": None})
    (own_suite / "apples/01_one.ipynb").write_text(json.dumps(notebook))
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "run", "apples/01_one", "-p", "sizes=[1, 2]", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == "ok" and document["parameters"] == {"sizes": [1, 2], "seed": 0}
    assert document["output"] == "runs/apples/01_one.ipynb"
    assert (tmp_path / document["output"]).is_file()


# ------------------------------------------------------------------ lab


def test_lab_opens_a_checkout_in_place(labkit, own_suite, monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(os, "execv", lambda path, command: started.append(command))
    assert labkit("lab", "--no-browser", "--port", "9999")[0] == 0
    assert labkit("lab", "apples/01_one", "--ip=0.0.0.0")[0] == 0
    index, one = started
    assert index[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={own_suite}" in index
    assert "--LabApp.default_url=/lab/tree/index.ipynb" in index
    assert index[-3:] == ["--no-browser", "--port", "9999"]
    assert "--LabApp.default_url=/lab/tree/apples/01_one.ipynb" in one and one[-1] == "--ip=0.0.0.0"
    assert [p.name for p in tmp_path.iterdir()] == ["suite"]


def test_lab_on_windows_waits_for_the_server_whatever_ctrl_c_does(labkit, own_suite, monkeypatch):
    def call(command):
        signal.raise_signal(signal.SIGINT)  # the console sends it to the server and to this process
        return 3

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(lab.subprocess, "call", call)
    monkeypatch.setattr(lab, "os", SimpleNamespace(name="nt"))
    assert labkit("lab")[0] == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_lab_copies_an_installed_suite_and_keeps_the_readers_files(
    labkit, own_suite, monkeypatch, tmp_path
):
    monkeypatch.setattr(os, "execv", lambda *_: None)
    monkeypatch.setattr(atlas, "installed_notebooks", lambda: own_suite)
    (own_suite / ".ipynb_checkpoints").mkdir()
    (own_suite / ".ipynb_checkpoints/x.ipynb").write_text("")
    mine = tmp_path / "labkit-notebooks/apples/01_one.ipynb"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    code, _, err = labkit("lab", "apples/01_one")
    assert code == 0 and f"{tmp_path / 'labkit-notebooks'}: 1 files copied, 1 of yours kept" in err
    assert mine.read_text() == "mine"
    assert (tmp_path / "labkit-notebooks/atlas.yaml").is_file()
    assert not (tmp_path / "labkit-notebooks/.ipynb_checkpoints").exists()
    assert labkit("lab", "--dir", "elsewhere")[0] == 0
    assert (tmp_path / "elsewhere/apples/01_one.ipynb").is_file()


def test_lab_refuses_what_it_cannot_open(labkit, own_suite, monkeypatch):
    Path("mine.ipynb").write_text(Path("suite/apples/01_one.ipynb").read_text())
    code, _, err = labkit("lab", "mine.ipynb")
    assert code == 2 and "open it with: jupyter lab mine.ipynb" in err
    code, _, err = labkit("lab", "apples/01_on")
    assert code == 2 and "did you mean apples/01_one" in err
    code, _, err = labkit("lab", "--dir", "suite/atlas.yaml")
    assert code == 2 and "cannot copy" in err
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    code, _, err = labkit("lab")
    assert code == 2 and 'pip install "jupyterlab' in err


# ------------------------------------------------------------------ doctor, build, help


def test_doctor_finds_what_the_tests_run_with(labkit):
    code, out, err = labkit("doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(out)}
    assert code == 0 and err == ""
    for what in ("torch", "jupyterlab", "papermill", "jupytext in JupyterLab", "torch devices"):
        assert found[what]["ok"], found[what]
    assert re.fullmatch(r"\d+\.\d GiB|unknown.*", found["memory"]["found"])
    assert {"distributed", "pandas", "snntorch", "triton", "chromium"} < found.keys()
    for finding in found.values():
        assert bool(finding["remedy"]) is not finding["ok"]


def test_doctor_says_how_to_get_what_is_required_and_missing(labkit, monkeypatch):
    requirements = ["nonexistent-thing>=2,<3", "rich<1", "other>=1; extra == 'test'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    code, out, _ = labkit("doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(out)}
    assert code == 1
    assert 'pip install "nonexistent-thing<3,>=2"' in found["nonexistent-thing"]["remedy"]
    assert not found["rich"]["ok"] and 'pip install "rich<1"' in found["rich"]["remedy"]
    assert "other" not in found
    code, out, _ = labkit("doctor")
    assert code == 1 and "MISSING" in out


def test_build_check_names_the_pair_that_differs(labkit, own_suite):
    source = own_suite / "apples/01_one.py"
    pair = (
        '# %% [markdown]\n# # A [title]\n\n# %% tags=["parameters"]\n'
        "sizes: list[int] = [1]\nseed: int = 0\n"
    )
    source.write_text(pair)
    assert labkit("build", "--check")[:2] == (0, "01_one.py: agrees\n")
    source.write_text(pair.replace("seed: int = 0", "seed: int = 1"))
    code, out, err = labkit("build", "--check", "apples/01_one")
    assert (code, out) == (1, "") and err.startswith("01_one.py: cell 2")
    assert labkit("build", "--check", "nope")[0] == 2


@pytest.mark.parametrize("command", ["list", "atlas", "run", "lab", "doctor", "build"])
def test_every_help_teaches_with_an_example(labkit, command):
    code, out, _ = labkit(command, "--help")
    assert code == 0 and f"Example: labkit {command}" in out


def test_help_fits_a_terminal_of_80_columns():
    # The lines of later paragraphs are printed as they are; a longer one is broken in its middle.
    for command in cli.app.registered_commands:
        later = inspect.getdoc(command.callback).splitlines()[2:]
        assert [line for line in later if len(line) > 78] == [], command.name


def test_alone_it_helps_and_it_knows_its_version(labkit):
    assert "Example: labkit run" in labkit()[1]
    assert labkit("--version")[:2] == (0, "labkit 0.1.0\n")


def test_no_suite_at_all_is_told_in_one_line(labkit, monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(tmp_path))
    code, out, err = labkit("list")
    assert (code, out) == (2, "") and "atlas.yaml" in err and err.count("\n") == 1


def test_a_signal_does_not_wait_for_the_lock_that_it_interrupts():
    with stop_signals() as stop:
        with stop.asked._cond:  # as the main thread holds it for a moment within `wait`
            signal.raise_signal(signal.SIGTERM)
        assert stop.asked.wait(10) and stop.exit_code == 143
