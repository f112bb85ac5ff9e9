"""A linear layer of sparse spikes on the CPU: the cost follows the spikes, not the inputs.

The sum of an output runs over the inputs in their order, and meets the bias at its end. So does
BLAS as long as it need not divide the sum, and then the bits agree: a product with a spike, 0 or 1,
does not round.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from labkit.jit import jit
from labkit.kernels.dispatch import split

DENSEST = 1 / 8  # share of ones up to which counting them pays
LEAST = 2**16  # elements that are worth a thread

_compiled = jit()


class Events(NamedTuple):
    """Where the ones are: row r has them at `index[starts[r] : starts[r + 1]]`."""

    starts: Tensor
    index: Tensor


def find(x: Tensor, densest: float) -> Events | None:
    """The ones of x (rows, n); nothing if it holds other numbers than 0, or a larger share."""
    count = torch.empty(len(x), dtype=torch.int64)
    split(_count, len(x), x.detach().numpy(), count.numpy(), least=1 + LEAST // max(1, x.shape[1]))
    if (count < 0).any() or count.sum() > densest * x.numel():
        return None
    starts = torch.zeros(len(x) + 1, dtype=torch.int64)
    torch.cumsum(count, 0, out=starts[1:])
    index = torch.empty(int(starts[-1]), dtype=torch.int32)
    arrays = x.detach().numpy(), starts.numpy(), index.detach().numpy()
    split(_gather, len(x), *arrays, least=1 + LEAST // max(1, x.shape[1]))
    return Events(starts, index)


def linear(events: Events, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product x W^T + b, (rows, out), for weight (out, in) and the events of x (rows, in)."""
    rows, outputs = len(events.starts) - 1, len(weight)
    y = weight.new_empty(rows, outputs)
    b = weight.new_zeros(outputs) if bias is None else bias
    arrays = [q.detach().contiguous().numpy() for q in (*events, weight.T, b)]
    split(_add_rows, rows, *arrays, y.numpy(), least=1 + LEAST // max(1, outputs))
    return y


def weight_gradient(events: Events, g: Tensor, inputs: int) -> Tensor:
    """g^T x, (out, in), for g (rows, out) and the events of x (rows, in)."""
    gradient = g.new_zeros(inputs, g.shape[1])
    arrays = [q.numpy() for q in (*events, g.contiguous(), gradient)]
    split(_add_gradients, g.shape[1], *arrays, least=64)  # outputs: sums stay whole in a thread
    return gradient.T.contiguous()


@_compiled
def _count(first, last, x, count):  # noqa: ANN001, ANN202
    for r in range(first, last):
        ones = zeros = 0
        for j in range(x.shape[1]):
            ones += x[r, j] == 1
            zeros += x[r, j] == 0
        count[r] = ones if ones + zeros == x.shape[1] else -1


@_compiled
def _gather(first, last, x, starts, index):  # noqa: ANN001, ANN202
    for r in range(first, last):
        k, j = starts[r], 0
        while k < starts[r + 1]:
            index[k] = j
            k += x[r, j] != 0
            j += 1


@_compiled
def _add_rows(first, last, starts, index, weight, bias, y):  # noqa: ANN001, ANN202
    for r in range(first, last):
        y_ = y[r]
        y_[:] = 0
        k, end = starts[r], starts[r + 1]
        while k + 4 <= end:  # four at once, added in their order
            w0, w1 = weight[index[k]], weight[index[k + 1]]
            w2, w3 = weight[index[k + 2]], weight[index[k + 3]]
            for o in range(len(y_)):
                y_[o] = (((y_[o] + w0[o]) + w1[o]) + w2[o]) + w3[o]
            k += 4
        for i in range(k, end):
            w0 = weight[index[i]]
            for o in range(len(y_)):
                y_[o] += w0[o]
        for o in range(len(y_)):
            y_[o] += bias[o]


@_compiled
def _add_gradients(first, last, starts, index, g, gradient):  # noqa: ANN001, ANN202
    for r in range(len(starts) - 1):
        g_ = g[r, first:last]
        for k in range(starts[r], starts[r + 1]):
            sum_ = gradient[index[k], first:last]
            for o in range(len(g_)):
                sum_[o] += g_[o]
