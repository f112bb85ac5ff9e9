"""Every case of `labkit bench`, by kernel."""

from labkit.bench.cases import delays, diffusion, scans, sparse, spiking, unlearning

CASES = [
    *spiking.CASES,
    *delays.CASES,
    *sparse.CASES,
    *scans.CASES,
    *unlearning.CASES,
    *diffusion.CASES,
]
