"""Draws that follow from explicit generators alone."""

import pytest
import torch
from torch import Generator

from labkit.seeding import seeded, spawn, streams


def test_each_stream_of_each_seed_has_draws_of_its_own():
    first = [torch.rand((), generator=streams(s)(i)).item() for s in range(5) for i in (0, 1, 999)]
    again = [torch.rand((), generator=streams(s)(i)).item() for s in range(5) for i in (0, 1, 999)]
    assert first == again
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("number", [-1, 1000])
def test_a_stream_of_another_seed_is_refused(number):
    with pytest.raises(ValueError, match=f"from 0 to 999, not {number}"):
        streams(3)(number)


def test_within_seeded_torch_follows_the_generator_and_is_left_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    inside = []
    for _ in range(2):
        with seeded(Generator().manual_seed(1)):
            inside.append(torch.rand(3))
    assert torch.equal(*inside)
    assert torch.equal(torch.rand(3), expected)


def test_spawned_generators_differ():
    draws = [torch.rand((), generator=g).item() for g in spawn(Generator().manual_seed(0), 4)]
    assert len(set(draws)) == 4
