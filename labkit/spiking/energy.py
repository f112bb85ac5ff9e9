"""What a spiking network costs on hardware that works only where there are spikes."""

from torch import Tensor


def synaptic_operations(spikes: Tensor, weight: Tensor) -> float:
    """Synaptic operations of one sample: each spike is added once for every synapse it reaches.

    A delay costs no operation more: a spike arrives once, later. Multiplied by the energy of an
    addition (some 0.9 pJ for float32 in 45 nm, Horowitz 2014) it estimates the energy of a layer;
    a dense layer pays a multiplication for every synapse and step instead.

    Parameters
    ----------
    spikes : (T, B, in), spikes of each step: whole numbers, more than 1 where steps are long
    weight : (out, in); synapses whose weight is 0 are not there

    Returns
    -------
    The mean number of operations over the samples of the batch.

    Raises
    ------
    ValueError
        for shapes that do not fit, an empty batch, or inputs that are no spikes.
    """
    if spikes.ndim != 3 or weight.ndim != 2 or spikes.shape[2] != weight.shape[1]:
        raise ValueError(
            f"spikes must be (T, B, in) and weight (out, in), not {tuple(spikes.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if spikes.shape[1] == 0:
        raise ValueError("spikes must hold at least one sample")
    if not ((spikes >= 0) & (spikes == spikes.round())).all():
        raise ValueError("spikes must be whole numbers, 0 or more")
    fan_out = (weight != 0).sum(0)
    return float((spikes.sum((0, 1)).double() @ fan_out.double()) / spikes.shape[1])
