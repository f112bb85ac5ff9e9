"""The `labkit` command: it reads arguments and prints; all work is done elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from labkit import __version__, atlas, headless
from labkit.cli import benchmarks, sweeps
from labkit.cli.console import (
    Json,
    Preset,
    Timeout,
    print_items,
    print_json,
    print_table,
    quoted,
    say,
    stop_signals,
)
from labkit.headless import evidence, measured, parameters
from labkit.headless.usage import UsageError, nearest

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runnable notebooks between neuroscience and machine learning, every claim measured.",
    epilog="Example: labkit run sparse_coding/01_beyond_l1 -p seed=3",
)


def main() -> None:
    """Entry of the console command; what the user did wrong is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a pipe on Windows may lack the letters of a claim
            stream.reconfigure(errors="replace")
    try:
        app()
    except (UsageError, atlas.NoNotebooksError) as error:
        say(f"labkit: {error}")
        sys.exit(2)
    except KeyboardInterrupt:  # before a kernel was there to stop
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"labkit {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


# ------------------------------------------------------------------ list, atlas


@app.command("list", epilog="Example: labkit list sparse_coding")
def list_(
    names: Annotated[
        list[str] | None, typer.Argument(help="Topics or notebooks; all if none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List notebooks with their titles, papers, run times and parameters."""
    found = headless.find_all()
    known = {wanted for notebook in found for wanted in (notebook.topic, notebook.name)}
    for name in names or []:
        if name not in known:
            hint = nearest(name, sorted(known)) or "`labkit list` names them all"
            raise UsageError(f"unknown topic or notebook {name!r}: {hint}")
    chosen = [n for n in found if not names or {n.topic, n.name} & set(names)]
    if as_json:
        print_json([notebook.summary() for notebook in chosen])
        return
    rows = measured.read()
    for notebook in chosen:
        seconds = measured.seconds_of(notebook, rows)
        print(notebook.name + ("" if seconds is None else f"  ({seconds:.0f} s)"))
        print_items([notebook.title])
        print_items(notebook.papers)
        print_items([f"{p.name}: {p.type} = {p.default!r}" for p in notebook.parameters])
        print_items([f"--preset {name}" for name in notebook.presets])


@app.command("atlas", epilog="Example: labkit atlas --topic sparse_coding")
def atlas_(
    topic: Annotated[str | None, typer.Option(help="Only the papers of this topic.")] = None,
    as_json: Json = False,
) -> None:
    """Show the papers of the atlas: which have a notebook, and whether their claims hold."""
    topics = atlas.topics()
    if topic is not None and topic not in topics:
        hint = nearest(topic, topics) or f"known are {', '.join(topics)}"
        raise UsageError(f"unknown topic {topic!r}: {hint}")
    papers = evidence.survey(evidence.pages())
    chosen = [paper for paper in papers if topic in (None, paper["topic"])]
    if as_json:
        print_json(chosen)
        return
    if topic is None:
        count = [
            (name, [paper["status"] != "planned" for paper in papers if paper["topic"] == name])
            for name in topics
        ]
        counts = [(name, str(len(done)), str(sum(done) or "")) for name, done in count]
        print_table(f"{len(papers)} papers", ("topic", "papers", "with a notebook"), counts)
        chosen = [paper for paper in papers if paper["status"] != "planned"]
    rows = [(p["id"], p["title"], p["notebook"] or "", p["status"]) for p in chosen]
    print_table(topic or "With a notebook", ("id", "title", "notebook", "claims"), rows)


# ------------------------------------------------------------------ run


@app.command("run", epilog="Example: labkit run sparse_coding/01_beyond_l1 -p seed=3 --out runs")
def run_(
    name: Annotated[str, typer.Argument(help="A name from `labkit list`, or an .ipynb file.")],
    pairs: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="K=V", help="Set a parameter; repeatable."),
    ] = None,
    preset: Preset = None,
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook.")] = Path("runs"),
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Execute one notebook and print its claims.

    The executed notebook replaces that of an earlier run, whatever its status.

    Exit code: 0 all claims hold, 1 one fails or the notebook errs, 2 wrong use,
    130 interrupted.
    """
    notebook = headless.find(name)
    given = notebook.preset(preset) | parameters.from_text(notebook.parameters, pairs or [])
    with stop_signals() as stop, _progress(not as_json) as on_cell:
        try:
            result = headless.run(
                name, given, out=out, on_cell=on_cell, timeout=timeout, stop=stop.asked
            )
        except KeyboardInterrupt:
            raise typer.Exit(stop.exit_code) from None
        except headless.NotWrittenError as error:  # the claims took minutes: they are told anyway
            _tell(error.result, as_json)
            say(f"labkit: {error}")
            raise typer.Exit(1) from None
    _tell(result, as_json)
    if not as_json:
        print(f"open it with: jupyter lab {quoted(result.output)}")
    if result.status == "interrupted":
        raise typer.Exit(stop.exit_code)
    raise typer.Exit(0 if result.status == "ok" else 1)


def _tell(result: headless.RunResult, as_json: bool) -> None:
    if as_json:
        print_json(result.as_dict())
    else:
        _print_result(result)


@contextmanager
def _progress(wanted: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress bar on standard error that names the cell in work; none without a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("cell {task.completed:.0f} of {task.total:.0f}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting the kernel", total=1, completed=0)

        def on_cell(number: int, total: int, label: str) -> None:
            progress.update(task, completed=number, total=total, description=label[:60])

        yield on_cell


def _print_result(result: headless.RunResult) -> None:
    if result.claims:
        rows = [
            (
                "holds" if claim.holds else "DOES NOT HOLD",
                f"{claim.statement}\n{claim.paper}",
                f"{claim.value:.4g} {claim.unit}".strip(),
                claim.bound,
            )
            for claim in result.claims
        ]
        print_table(result.notebook, ("claim", "statement and paper", "measured", "claimed"), rows)
    if result.metrics:
        metrics = [(name, f"{value:.6g}") for name, value in result.metrics.items()]
        print_table("Metrics", ("metric", "value"), metrics)
    # Whole lines, which a narrow table would have wrapped: they are what one searches a log for.
    for claim in result.claims:
        if not claim.holds:
            say(f"{claim.paper}: {claim}")
    for paper in result.missing:
        say(f"{paper}: no claim of this paper ran")
    if result.error is not None:
        _say_error(result.error)
    held = sum(claim.holds for claim in result.claims)
    print(f"{held} of {len(result.claims)} claims hold; {result.status} in {result.seconds:.1f} s")


def _say_error(error: evidence.Failure) -> None:
    lines = "\n".join(error.traceback).splitlines()
    if lines:
        say("\n".join(lines[-12:]))
    say(str(error))


app.command("sweep", epilog="Example: labkit sweep sparse_coding/01_beyond_l1 -p seed=0:10")(
    sweeps.sweep
)
app.command("verify", epilog="Example: labkit verify --seeds 0:10")(sweeps.verify)
app.command("bench", epilog="Example: labkit bench lif_scan --threads 1")(benchmarks.bench)


# ------------------------------------------------------------------ lab, doctor, build


@app.command(
    "lab",
    epilog="Example: labkit lab sparse_coding/01_beyond_l1 --no-browser --port 8890",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def lab_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name from `labkit list`.")] = "index",
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Open a copy in this folder; files you have there are kept."),
    ] = None,
) -> None:
    """Open JupyterLab at the start page or at one notebook.

    A checkout is opened in place, an installed copy is copied to
    ./labkit-notebooks.

    Other options, such as --no-browser, --port and --ip, go to JupyterLab.
    """
    from labkit import lab

    extra = context.args
    if name.startswith("-"):  # `labkit lab --no-browser`: the first word was no name
        name, extra = "index", [name, *extra]
    if name != "index":
        notebook = headless.find(name)
        if notebook.path.parent.parent != atlas.notebooks_dir():
            raise UsageError(f"{name} is not of the suite; open it with: jupyter lab {name}")
        name = notebook.name
    root, done = lab.folder(folder)
    if done:
        say(done)
    raise typer.Exit(lab.start(lab.command(root, name, extra)))


@app.command("doctor", epilog="Example: labkit doctor")
def doctor_(as_json: Json = False) -> None:
    """Show what this machine has, and what to do about what is missing."""
    from labkit import doctor

    findings = doctor.measure()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        marks = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING"}
        rows = [(marks.get((f.ok, f.required), "-"), f.what, f.found, f.remedy) for f in findings]
        print_table("This machine", ("", "what", "found", "what to do"), rows)
    raise typer.Exit(any(f.required and not f.ok for f in findings))


@app.command(
    "new",
    epilog="Example: labkit new point_processes/01_when_and_what --paper time-mark-dependence",
)
def new_(
    name: Annotated[str, typer.Argument(help="topic/nn_story, such as diffusion/12_distillation.")],
    paper: Annotated[str, typer.Option(help="Id of its first paper; `labkit atlas` lists them.")],
) -> None:
    """For authors: begin a notebook from the template, as a pair that passes the tests.

    It is entered into the atlas and executed; what to do next is printed.
    """
    from labkit.headless import build
    from labkit.headless.new import new

    source = new(name, paper)
    try:
        build.build(source)
    except build.BuildError as error:
        say(str(error))
        say(f"labkit: {source} is written, not built: `labkit build {name}` once that is mended")
        raise typer.Exit(1) from None
    print(f"{source}: edit it, then")
    print(f"  labkit build {name}   store it with outputs")
    print(f"  labkit verify {name} --seeds 0:10 --publish   hold its claims against ten seeds")
    print("cite the paper in notebooks/references.bib, count it in the README, if the notebook")
    print('belongs on a path link it in notebooks/index.py under "Where to begin", then')
    print("  labkit build index   the start page shows what was measured")
    print(f"  ruff check . && ruff format . && pytest -k {source.stem}   then all of it")


@app.command("build", epilog="Example: labkit build sparse_coding/01_beyond_l1")
def build_(
    names: Annotated[list[str] | None, typer.Argument(help="Notebooks; all if none.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only see that each .py and .ipynb agree.")
    ] = False,
) -> None:
    """For authors: execute each .py and store it as .ipynb with its outputs."""
    from labkit.headless import build

    failed = False
    for source in build.sources(names or []):
        try:
            complaints = build.pair_differences(source) if check else []
            done = "agrees" if check else f"stored {build.build(source)}"
        except build.BuildError as error:
            complaints, done = [str(error)], ""
        for complaint in complaints:
            say(f"{source.name}: {complaint}" if check else complaint)
        failed = failed or bool(complaints)
        if not complaints:
            print(f"{source.name}: {done}")
    raise typer.Exit(failed)
