"""`labkit bench`: which cases, how far it is, and the ratios in the end."""

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.console import Json, print_json, print_table, say
from labkit.headless.usage import UsageError

if TYPE_CHECKING:  # slow to import
    from labkit.bench import Case, Row


def bench(
    name: Annotated[str | None, typer.Argument(help="A kernel; all of them if not given.")] = None,
    threads: Annotated[
        str, typer.Option(help="Numbers of threads to measure with, on a CPU.", metavar="N,N")
    ] = "1,2",
    device: Annotated[
        str, typer.Option(help="cpu, or cuda for an NVIDIA GPU.", metavar="DEVICE")
    ] = "cpu",
    as_json: Json = False,
) -> None:
    """Time our kernels against installed peers: equality first, then medians of one run.

    A ratio above 1 says how many times longer a peer takes. The floor is what
    no implementation can avoid; each case says what it is.

    Exit code 1 if a kernel differs from its reference or a peer: it is not
    timed then.
    """
    counts = _counts(threads)
    # Threads that spin while they wait slow everything down as soon as a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from labkit.bench.cases import CASES
    from labkit.bench.measure import machine, measure

    cases = _chosen(name, device, CASES)
    say(f"labkit bench on {machine(device)}")
    rows = []
    for case in cases:
        for count in counts if device == "cpu" else [1]:
            say(f"  {case.kernel}: {case.name}, {count} {'thread' if count == 1 else 'threads'}")
            try:
                rows.append(measure(case, device, count))
            except ModuleNotFoundError as error:
                say(f"    left out: {error}")
                break
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        _print(rows)
    for row in rows:
        if row.error:
            say(f"labkit: {row.kernel} ({row.case}) is wrong, and was not timed: {row.error}")
    sys.exit(1 if any(row.error for row in rows) else 0)


def _counts(threads: str) -> list[int]:
    try:
        counts = [int(word) for word in threads.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UsageError(f"--threads {threads}: expected whole numbers from 1 on, such as 1,2")
    return counts


def _chosen(name: str | None, device: str, cases: "list[Case]") -> "list[Case]":
    import torch

    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no NVIDIA GPU is at hand, or this PyTorch has no CUDA")
    kernels = list(dict.fromkeys(case.kernel for case in cases))
    if name is not None and name not in kernels:
        raise UsageError(f"no kernel {name!r}; expected one of {', '.join(kernels)}")
    chosen = [c for c in cases if name in (None, c.kernel) and device in c.devices]
    if not chosen:
        raise UsageError(f"{name} has no case for --device {device}")
    return chosen


def _print(rows: "list[Row]") -> None:
    lines = []
    for row in rows:
        ours = row.ours_ms
        if ours is None:
            lines.append((row.kernel, row.case, str(row.threads), "wrong", "", ""))
            continue
        peers = [f"{ms / ours:.3g} x  {peer}" for peer, ms in row.peers.items()]
        peers += [f"not installed: {peer}" for peer in row.missing]
        floor = f"{ours / row.floor_ms:.2f} x  {row.floor}"
        lines.append(
            (row.kernel, row.case, str(row.threads), f"{ours:.3g} ms", "\n".join(peers), floor)
        )
    headings = ("kernel", "case", "threads", "ours", "peers take", "we take, of the floor")
    print_table("", headings, lines)
