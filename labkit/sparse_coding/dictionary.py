"""Dictionaries learned from examples, and what became of each atom.

Sources
-------
Mairal, Bach, Ponce & Sapiro (2010), JMLR 11:19 -- online learning from sufficient statistics
(algorithm 1), block coordinate descent on the atoms (algorithm 2), replacement of unused ones
(section 3.4).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from labkit.checks import check_count, check_finite
from labkit.kernels import sparse_code
from labkit.kernels.sparse_code.reference import penalty_value

_DEAD = 1e-3  # an atom used this much less than the mean one is dead, and replaced
_LOOK_EVERY = 10  # batches between two looks for dead atoms: statistics need time to gather
_EPS = 1e-12
_BLOCK = 32  # atoms whose slopes are computed at once


@dataclass(frozen=True, eq=False)
class LearnedDictionary:
    """What `learn_dictionary` returns.

    Attributes
    ----------
    atoms : (n, K) of unit norm, dtype of the examples.
    usage : (K,) mean square activity of each atom at the end, in units of the examples squared.
    objective : (n_steps,) 1/2 ||x - D a||^2 + lam C(a), mean over each batch before its update.
    n_replaced : dead atoms that were replaced by an example, in all.
    """

    atoms: Tensor
    usage: Tensor
    objective: Tensor
    n_replaced: int


def learn_dictionary(
    x: Tensor,
    n_atoms: int,
    lam: float,
    *,
    penalty: str = "soft",
    n_steps: int = 200,
    batch_size: int = 256,
    max_iter: int = 200,
    tol: float = 1e-2,
    init: Tensor | None = None,
    generator: Generator,
    progress: bool = True,
) -> LearnedDictionary:
    """Minimise the mean of 1/2 ||x - D a||^2 + lam sum_i C(a_i) over D with unit-norm columns.

    Each step codes a mini-batch and adds it to the statistics A = sum a a^T and B = sum x a^T, in
    which older batches, coded with poorer dictionaries, fade as (1 - 1/t)^2. Each atom in turn then
    goes to its minimum given the others, d_j = (b_j - D a_j) / A_jj + d_j, and is normalised.

    An atom whose mean square activity is below a thousandth of the average is dead: it becomes the
    example of the batch that is reconstructed worst, and its statistics are forgotten.

    Parameters
    ----------
    x : (N, n) examples on the CPU or GPU, float32 or float64; whitened, or of zero mean
    n_atoms : K
    lam, penalty : of `labkit.kernels.sparse_code`; "hard" and "cel0" are coded from a start at zero
    n_steps, batch_size : mini-batches and the examples in each, drawn with replacement
    max_iter, tol : of the codes; 1e-2 is enough to learn from
    init : (n, K) first atoms, normalised here; by default random examples that are not constant
    generator : of the examples drawn, on the device of x
    progress : show a bar

    Raises
    ------
    TypeError
        for examples that are not float32 or float64.
    ValueError
        for no examples or none that differs from zero, NaN, sizes below 1, an `init` of another
        shape or with a zero atom, fewer examples than atoms without an `init`, or anything
        that `sparse_code` refuses, such as lam <= 0.
    """
    D = _first_atoms(x, n_atoms, init, generator, n_steps=n_steps, batch_size=batch_size)
    K, n = n_atoms, x.shape[1]
    A, B = x.new_zeros(K, K), x.new_zeros(n, K)
    objective, n_replaced, weight = x.new_empty(n_steps), 0, 0.0
    for t in tqdm(range(1, n_steps + 1), desc="learning", leave=False, disable=not progress):
        batch = x[_draw(len(x), batch_size, generator)]
        a = sparse_code(batch, D, lam, penalty=penalty, max_iter=max_iter, tol=tol)
        residual = batch - a @ D.T
        objective[t - 1] = (
            residual.square().sum(1) / 2 + penalty_value(a, lam, penalty).sum(1)
        ).mean()
        fade = (1 - 1 / t) ** 2
        weight = fade * weight + 1
        A.mul_(fade).addmm_(a.T, a, alpha=1 / batch_size)
        B.mul_(fade).addmm_(batch.T, a, alpha=1 / batch_size)
        _descend(D, A, B)
        if t % _LOOK_EVERY == 0 and t < n_steps:
            n_replaced += _replace_dead(D, A, B, batch, residual)
    return LearnedDictionary(D, A.diagonal() / weight, objective, n_replaced)


def _descend(D: Tensor, A: Tensor, B: Tensor) -> None:
    """One sweep over the atoms, each to its minimum given the others (algorithm 2), in place.

    The slopes B - D A come as one product for a block of atoms, and each atom that moves corrects
    those of its block: the same numbers as atom by atom, in a tenth of the time.
    """
    usage = A.diagonal()
    used = (usage > _EPS * usage.max()).tolist()
    scale = usage.clamp(min=torch.finfo(A.dtype).tiny)
    for start in range(0, D.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        among = A[block, block] / scale[block]
        steps = (B[:, block] - D @ A[:, block]) / scale[block]
        for i in range(steps.shape[1]):
            if used[start + i]:
                old = D[:, start + i]
                d = old + steps[:, i]
                norm = d.norm()
                if norm > _EPS:
                    d /= norm
                    steps.addr_(d - old, among[i], alpha=-1)
                    D[:, start + i] = d


def _replace_dead(D: Tensor, A: Tensor, B: Tensor, batch: Tensor, residual: Tensor) -> int:
    """Put the worst reconstructed examples of the batch where atoms are dead; how many."""
    usage = A.diagonal()
    dead = (usage < _DEAD * usage.mean()).nonzero()[:, 0]
    worst = residual.square().sum(1).argsort(descending=True)
    worst = worst[batch[worst].norm(dim=1) > _EPS][: len(dead)]
    dead = dead[: len(worst)]
    D[:, dead] = torch.nn.functional.normalize(batch[worst].T, dim=0)
    A[dead], A[:, dead], B[:, dead] = 0.0, 0.0, 0.0
    return len(dead)


def _draw(count: int, size: int, generator: Generator) -> Tensor:
    return torch.randint(count, (size,), generator=generator, device=generator.device)


def _first_atoms(
    x: Tensor, n_atoms: int, init: Tensor | None, generator: Generator, **sizes: int
) -> Tensor:
    """Checked arguments' first dictionary (n, K), of unit norm."""
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, not {x.dtype}")
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"x must be (N, n), at least one example, not {tuple(x.shape)}")
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinity")
    check_count(n_atoms=n_atoms, **sizes)
    if init is not None:
        if init.shape != (x.shape[1], n_atoms):
            raise ValueError(
                f"init must be (n, K) = {(x.shape[1], n_atoms)}, not {tuple(init.shape)}"
            )
        check_finite("init", init)
        norms = init.norm(dim=0)
        if not (norms > 0).all():
            raise ValueError(f"atom {int((norms == 0).nonzero()[0])} of init is zero")
        return (init / norms).to(x.dtype)
    varied = (x.norm(dim=1) > _EPS).nonzero()[:, 0]
    if len(varied) < n_atoms:
        raise ValueError(
            f"{n_atoms} atoms start from as many examples that are not zero, and x has "
            f"{len(varied)}: pass init"
        )
    order = torch.randperm(len(varied), generator=generator, device=generator.device)
    return torch.nn.functional.normalize(x[varied[order[:n_atoms]]].T, dim=0).contiguous()
