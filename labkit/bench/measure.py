"""How a case is measured: the equality gate, then everything in turn, and medians."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], Any]

ROUNDS = 15  # at most; 3 at least
SECONDS = 4.0  # a case may take for its rounds
SLOW = 0.5  # seconds; a call that takes longer runs in every third round


class Disagreement(Exception):
    """A kernel differs from its reference or from a peer: its speed means nothing."""


@dataclass(frozen=True)
class Trial:
    """One case on one device, ready to be timed."""

    ours: Call
    check: Call  # raises Disagreement
    floor: Call  # moves the bytes, or does the multiplications, that no implementation can avoid
    peers: Mapping[str, Call] = field(default_factory=dict)
    missing: Sequence[str] = ()  # peers that are not installed


@dataclass(frozen=True)
class Case:
    """A kernel at one size. `build(device)` draws the inputs and imports the peers."""

    kernel: str
    name: str
    floor: str  # what the floor is, in words
    build: Callable[[str], Trial]
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds; None where the equality gate failed."""

    kernel: str
    case: str
    threads: int
    device: str
    ours_ms: float | None
    peers: dict[str, float]
    floor_ms: float | None
    floor: str
    missing: tuple[str, ...]
    error: str
    machine: str
    date: str


def measure(case: Case, device: str, threads: int) -> Row:
    """Time one case with a number of threads; a case that fails its gate is not timed."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            trial = case.build(device)
            error = ""
            try:
                trial.check()
            except Disagreement as disagreement:
                error = str(disagreement)
            calls = {"": trial.ours, " floor": trial.floor, **trial.peers}
            times = {} if error else _medians(calls, device)
    finally:
        torch.set_num_threads(before)
    return Row(
        kernel=case.kernel,
        case=case.name,
        threads=threads,
        device=device,
        ours_ms=times.pop("", None),
        floor_ms=times.pop(" floor", None),
        peers=times,
        floor=case.floor,
        missing=tuple(trial.missing),
        error=error,
        machine=machine(device),
        date=date.today().isoformat(),
    )


def _medians(calls: Mapping[str, Call], device: str) -> dict[str, float]:
    """Medians in milliseconds, the calls taking turns: what slows the machine slows them all.

    Each is called twice in its turn and timed the second time, so that memory and caches are as its
    own kind of work leaves them, not as the one before did.
    """
    taken: dict[str, list[float]] = {}
    for name, call in calls.items():
        call()  # compiles
        taken[name] = [_seconds(call, device)]
    slow = {name for name in calls if taken[name][0] > SLOW}
    started = perf_counter()
    for i in range(1, ROUNDS):
        if i >= 3 and perf_counter() - started > SECONDS:
            break
        for name, call in calls.items():
            if name not in slow or i % 3 == 2:
                taken[name].append(_seconds(call, device))
    return {name: round(1e3 * median(seconds), 4) for name, seconds in taken.items()}


def _seconds(call: Call, device: str) -> float:
    """Of the second of two calls; a slow one is not worth repeating, nor is its start a matter."""
    first = _once(call, device)
    return first if first > SLOW else _once(call, device)


def _once(call: Call, device: str) -> float:
    started = perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - started


def peak_memory(call: Call) -> int:
    """The most bytes of CPU tensors that a call holds at once, of those it allocates itself.

    What it frees of earlier calls does not count: the profiler knows the size of such a block only
    if it watched when the block was made, or another one at the same address.
    """
    call()
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    return most_held(
        (event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size)
        for event in _all_below(seen.profiler.kineto_results.experimental_event_tree())
        if event.name == "[memory]"
    )


def most_held(changes: Iterable[tuple[int, int, int]]) -> int:
    """The most bytes at once, from times, addresses and sizes (negative where memory is freed)."""
    held: dict[int, int] = {}  # bytes of each address
    now = most = 0
    for _, address, size in sorted(changes, key=lambda change: change[0]):
        now -= held.pop(address, 0)
        if size > 0:
            held[address] = size
            now += size
        most = max(most, now)
    return most


def _all_below(events: Sequence[Any]) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _all_below(event.children)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Without what native code prints there: the profiler announces itself."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def machine(device: str) -> str:
    """The processor or GPU, and the versions that matter."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    waits = "" if passive or device == "cuda" else ", threads spin while they wait"
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}{waits}"


def _processor() -> str:
    try:
        names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        names = None
    return names[1] if names else platform.processor() or platform.machine()


# ------------------------------------------------------------------ for the cases


def generator(device: str) -> torch.Generator:
    """A generator of its own for each case, seeded alike."""
    return torch.Generator(device).manual_seed(0)


def agree(other: str, ours: Tensor, theirs: Tensor, tolerance: float = 0.0) -> None:
    """Raise a Disagreement unless two results are equal, or differ by little for their size."""
    if ours.shape != theirs.shape:
        raise Disagreement(f"shape {tuple(ours.shape)}, {other} {tuple(theirs.shape)}")
    far = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
    if not far <= tolerance:
        raise Disagreement(f"differs from {other} by {far:.1e} of its largest value")


def moved(count: int, device: str) -> Call:
    """A copy that moves so many bytes, half of them read."""
    source = torch.ones(count // 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def multiplied(products: int, device: str, size: int = 256) -> Call:
    """A dense matrix product of so many multiplications."""
    a = torch.ones(max(1, products // size**2), size, device=device)
    b = torch.ones(size, size, device=device)
    return lambda: a @ b
