"""Synaptic operations, counted by hand."""

import pytest
import torch

from labkit.spiking import synaptic_operations


def test_every_spike_is_added_once_for_each_synapse():
    spikes = torch.zeros(5, 2, 3)
    spikes[0, 0, 0] = 2  # two in one step
    spikes[2, 1, 2] = 1
    weight = torch.tensor([[1.0, 2, 3], [1, 2, 0]])
    assert synaptic_operations(spikes, weight) == (2 + 2 + 1) / 2


@pytest.mark.parametrize(
    "spikes, weight, said",
    [
        (torch.zeros(5, 2, 3), torch.zeros(2, 4), r"\(5, 2, 3\) and \(2, 4\)"),
        (torch.zeros(5, 3), torch.zeros(2, 3), r"\(5, 3\)"),
        (torch.zeros(5, 0, 3), torch.zeros(2, 3), "at least one sample"),
        (torch.full((5, 2, 3), 0.5), torch.zeros(2, 3), "whole numbers"),
        (-torch.ones(5, 2, 3), torch.zeros(2, 3), "whole numbers"),
    ],
)
def test_what_is_no_spike_train_is_refused(spikes, weight, said):
    with pytest.raises(ValueError, match=said):
        synaptic_operations(spikes, weight)
