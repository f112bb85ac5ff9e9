"""Random draws that follow from explicit generators alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Generator


@contextmanager
def seeded(generator: Generator) -> Iterator[None]:
    """Within, torch's own draws (initial weights, dropout) follow from the generator."""
    seed = _draw_seed(generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def spawn(generator: Generator, count: int) -> list[Generator]:
    """New independent generators, one per member of an ensemble."""
    device = generator.device
    return [Generator(device).manual_seed(_draw_seed(generator)) for _ in range(count)]


def streams(seed: int) -> Callable[[int], Generator]:
    """Numbered generators of one seed: each use has its own, so none shifts the draws of another.

    Numbers go from 0 to 999. The generators of neighbouring seeds are all different.
    """

    def stream(number: int) -> Generator:
        if not 0 <= number < 1000:
            raise ValueError(f"a stream has a number from 0 to 999, not {number}")
        return Generator().manual_seed(1000 * seed + number)

    return stream


def _draw_seed(generator: Generator) -> int:
    """A seed for another source of random numbers."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
