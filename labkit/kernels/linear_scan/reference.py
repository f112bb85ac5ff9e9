"""First-order linear recurrence in plain PyTorch: what `labkit.kernels.linear_scan` means.

    h_t = a_t h_{t-1} + b_t,   t = 1 ... T

The recurrence of leaky traces, of the diagonal state space models (S5: Smith et al. 2023;
LRU: Orvieto et al. 2023, with complex gates) and of the gated linear recurrent networks
(Martin & Cundy 2018). It is associative (Blelloch 1990, section 1.4): steps compose as

    (a, b) then (a', b')  =  (a' a, a' b + b')

so that chunks of time can be computed apart and joined. Dividing by cumulative products would join
them too, h_t = P_t sum_s b_s / P_s, but P_t underflows after some hundred steps of a leaky gate,
and one gate of 0 makes it NaN.

The gradient is the same recurrence in reversed time. With G_t the gradient with respect to b_t and
conj the complex conjugate (PyTorch's convention for complex gradients):

    G_t = dL/dh_t + conj(a_{t+1}) G_{t+1},   dL/da_t = G_t conj(h_{t-1}),   dL/dh_0 = conj(a_1) G_1
"""

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """States h (T, ...) of gates a (T or 1, ...), inputs b (T, ...) and first state h0 (...).

    Half precision is computed in float32.
    """
    half = b.dtype in (torch.float16, torch.bfloat16)
    if half:
        return linear_scan(a.float(), b.float(), h0.float()).to(b.dtype)
    h, states = h0, []
    for a_t, b_t in zip(a.expand_as(b), b, strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states)
