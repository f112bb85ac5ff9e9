"""Spiking neurons: the LIF scan against snnTorch and SpikingJelly, and `fuse` on a network."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from labkit.bench.measure import Case, Trial, agree, generator, moved
from labkit.kernels import lif_scan
from labkit.seeding import seeded

TAU = 10.0  # steps; both conventions of a decay are exact for it


def _lif(T: int, B: int, N: int, *, train: bool) -> Callable[[str], Trial]:
    def build(device: str) -> Trial:
        draw = generator(device)
        x = 0.5 * torch.randn(T, B, N, generator=draw, device=device)
        g = torch.randn(T, B, N, generator=draw, device=device)
        x.requires_grad_(train)

        def timed(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return _once(forward, x, g if train else None)

        peers, missing, same = {}, [], []
        if find_spec("spikingjelly") is None:
            missing.append("SpikingJelly")
        else:
            spikingjelly, options = _spikingjelly(x)
            peers["SpikingJelly"] = timed(spikingjelly)
            same.append(("SpikingJelly", spikingjelly, options))
        if find_spec("snntorch") is None:
            missing.append("snnTorch")
        else:
            snntorch = _snntorch(x, lambda: x)
            peers["snnTorch"] = timed(snntorch)
            if train:  # as one often reads it; backward then makes a gradient of all x each step
                peers["snnTorch, x[t]"] = timed(_snntorch(x, lambda: (x[t] for t in range(T))))
            same.append(("snnTorch", snntorch, {"reset_delay": True, "detach_reset": True}))

        def check() -> None:
            with torch.no_grad():
                reference = lif_scan(x, 1 - 1 / TAU, backend="reference")
                agree("its reference", lif_scan(x, 1 - 1 / TAU), reference)
                for name, theirs, options in same:
                    agree(name, lif_scan(x, 1 - 1 / TAU, **options), theirs())

        ours = timed(lambda: lif_scan(x, 1 - 1 / TAU))
        return Trial(ours, check, moved((20 if train else 8) * x.numel(), device), peers, missing)

    return build


def _once(forward: Callable[[], Tensor], x: Tensor, g: Tensor | None) -> Callable[[], Tensor]:
    """One evaluation, or one step of training if there is a gradient g of the spikes."""

    def call() -> Tensor:
        x.grad = None
        with torch.set_grad_enabled(g is not None):
            s = forward()
        if g is not None:
            s.backward(g)
        return s.detach()

    return call


def _spikingjelly(x: Tensor) -> tuple[Callable[[], Tensor], dict[str, str]]:
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        tau=TAU,
        decay_input=False,
        v_threshold=1.0,
        v_reset=None,
        surrogate_function=surrogate.ATan(),
        step_mode="m",
    ).to(x.device)

    def forward() -> Tensor:
        functional.reset_net(node)
        return node(x)

    return forward, {"leak": "subtract"}


def _snntorch(x: Tensor, steps: Callable[[], Iterable[Tensor]]) -> Callable[[], Tensor]:
    import snntorch

    leaky = snntorch.Leaky(beta=1 - 1 / TAU).to(x.device)

    def forward() -> Tensor:
        mem, spikes = leaky.init_leaky(), []
        for x_t in steps():
            s, mem = leaky(x_t, mem)
            spikes.append(s)
        return torch.stack(spikes)

    return forward


def _averaging(device: str) -> Trial:
    """Training of the neuron that Norse has: the leak averages, a spike resets to zero."""
    T, B, N = 100, 64, 512
    tau = 8.0  # a power of two: dividing by it and multiplying by its inverse are the same
    draw = generator(device)
    x = 2 * torch.randn(T, B, N, generator=draw, device=device)
    g = torch.randn(T, B, N, generator=draw, device=device)
    x.requires_grad_(True)

    def ours(**options: str) -> Tensor:
        kind = {"leak": "average", "reset": "zero", "surrogate": "fast_sigmoid"}
        return lif_scan(x, 1 - 1 / tau, **kind, **options)

    missing = () if find_spec("norse") else ("Norse",)
    peers = {} if missing else {"Norse": _norse(x, tau)}

    def check() -> None:
        with torch.no_grad():
            agree("its reference", ours(), ours(backend="reference"))
            for name, theirs in peers.items():
                agree(name, ours(), theirs())

    timed = {name: _once(theirs, x, g) for name, theirs in peers.items()}
    return Trial(_once(ours, x, g), check, moved(20 * x.numel(), device), timed, missing)


def _norse(x: Tensor, tau: float) -> Callable[[], Tensor]:
    from norse.torch import LIFBoxCell, LIFBoxParameters, Lift

    p = LIFBoxParameters(tau_mem_inv=torch.tensor(1 / tau), alpha=torch.tensor(25.0))
    lifted = Lift(LIFBoxCell(p, dt=1.0)).to(x.device)
    return lambda: lifted(x)[0]


def _network(device: str) -> Trial:
    """One training step of a three-layer network, as snnTorch's tutorials write it."""
    if find_spec("snntorch") is None:
        raise ModuleNotFoundError('fuse needs snnTorch: pip install "labkit-notebooks[bench]"')
    import snntorch

    from labkit.spiking import fuse

    T, B, sizes = 100, 64, (140, 256, 256, 20)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(*sizes[i : i + 2]) for i in range(3))
            self.neurons = nn.ModuleList(snntorch.Leaky(beta=0.9) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            mems = [neuron.init_leaky() for neuron in self.neurons]
            spikes = []
            for t in range(x.shape[0]):
                s = x[t]
                for i, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                    s, mems[i] = neuron(layer(s), mems[i])
                spikes.append(s)
            return torch.stack(spikes)

    with seeded(generator("cpu")):
        net = Net().to(device)
    draw = generator(device)
    x = (torch.rand(T, B, sizes[0], generator=draw, device=device) < 0.05).float()
    y = torch.randint(sizes[-1], (B,), generator=draw, device=device)
    fused = fuse(net)

    def step(model: nn.Module) -> Callable[[], Tensor]:
        def call() -> Tensor:
            model.zero_grad()
            spikes = model(x)
            nn.functional.cross_entropy(spikes.sum(0), y).backward()
            return spikes.detach()

        return call

    def layers() -> None:
        s = x.flatten(0, 1)
        for layer in net.layers:
            s = layer(s)
        s.sum().backward()

    return Trial(
        step(fused),
        lambda: agree("snnTorch", step(fused)(), step(net)()),
        layers,
        {"snnTorch": step(net)},
    )


def _sized(T: int, B: int, N: int, *, train: bool, devices: tuple[str, ...] = ("cpu",)) -> Case:
    what, floor = ("training", "20 bytes a step") if train else ("evaluation", "8 bytes a step")
    name = f"{what}, T {T}, B {B}, N {N}"
    return Case("lif_scan", name, floor, _lif(T, B, N, train=train), devices)


CASES = [
    _sized(100, 64, 512, train=True),
    _sized(100, 64, 512, train=False),
    _sized(500, 16, 512, train=True, devices=("cuda",)),
    _sized(500, 16, 16384, train=True, devices=("cuda",)),
    Case(
        "lif_scan",
        "training, averaging leak, T 100, B 64, N 512",
        "20 bytes a step",
        _averaging,
    ),
    Case(
        "fuse",
        "training step, 140-256-256-20, T 100, B 64",
        "its linear layers alone, all steps at once",
        _network,
    ),
]
