"""fuse against the loop itself: the same bits in spikes and voltages, the same gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.spiking import events, fuse, series

snn = pytest.importorskip("snntorch")
from snntorch import surrogate, utils  # noqa: E402

num_steps = 4  # read as a global by Static below, in the style of notebooks


def spikes(T=6, B=3, n=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return 3.0 * (torch.rand(T, B, n, generator=draw) < 0.4)


class Loop(nn.Module):
    """Three layers in the style of snnTorch's tutorials."""

    def __init__(self, sizes=(7, 11, 9, 4), **options):
        super().__init__()
        torch.manual_seed(0)
        a, b, c, d = sizes
        self.fc1, self.fc2, self.fc3 = nn.Linear(a, b), nn.Linear(b, c), nn.Linear(c, d, bias=False)
        self.lif1 = snn.Leaky(0.9, **options)
        self.lif2 = snn.Leaky(0.8, threshold=0.5, **options)
        self.lif3 = snn.Leaky(0.7, **options)
        for layer in (self.fc2, self.fc3):
            nn.init.normal_(layer.weight)

    def forward(self, x):
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.reset_mem(), self.lif3.init_leaky()
        spk_rec, mem_rec = [], []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk3, mem3 = self.lif3(self.fc3(spk2), mem3)
            spk_rec.append(spk3)
            mem_rec.append(mem3)
        return torch.stack(spk_rec), torch.stack(mem_rec, dim=0)


def gradients(net, outputs, draw_seed=1):
    draw = torch.Generator().manual_seed(draw_seed)
    net.zero_grad()
    sum((q * torch.randn(q.shape, generator=draw)).sum() for q in outputs).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def assert_same(net, *inputs, active=True):
    """Fused and not: outputs to the bit, gradients up to rounding."""
    utils.reset(net)
    expected = net(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    theirs = gradients(net, expected)
    utils.reset(net)
    found = fuse(net)(*inputs)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert torch.equal(mine, other)
    if active:
        assert 0 < expected[0].mean() < 1
    mine = gradients(net, found)
    assert mine.keys() == theirs.keys() and mine
    for name, gradient in mine.items():
        scale = theirs[name].abs().max()
        assert (gradient - theirs[name]).abs().max() <= 1e-5 * scale + 1e-12, name


OPTIONS = [
    {},
    {"spike_grad": surrogate.atan(alpha=1.0)},
    {
        "spike_grad": surrogate.fast_sigmoid(slope=7),
        "reset_mechanism": "zero",
        "learn_beta": True,
        "learn_threshold": True,
    },
    {"spike_grad": surrogate.straight_through_estimator(), "reset_mechanism": "none"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_loop_inside(options):
    assert_same(Loop(**options), spikes())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (3, 33)])
def test_shapes_and_threads(shape, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # 1000 inputs and 10 outputs: with two threads BLAS sums those in another order
        assert_same(Loop((7, 1000, 10, 4)), spikes(*shape), active=shape[0] > 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(10, 1, 784), (6, 5, 37), (3, 4, 2, 600), (20, 64, 150), (2, 7)])
@pytest.mark.parametrize("kind", ["dense", "spikes", "silent", "all fire"])
def test_a_linear_layer_has_the_bits_of_the_loop(shape, kind, threads):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw)
    x = {"dense": x, "spikes": (x > 1.5).float(), "silent": 0 * x, "all fire": x**0}[kind]
    layer = nn.Linear(shape[-1], 67)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x.requires_grad_()
        y = series.linear(x, layer.weight, layer.bias)
        expected = torch.stack([layer(x_t) for x_t in x])
        assert torch.equal(y, expected)
        g = torch.randn(y.shape, generator=draw)
        inputs = (x, layer.weight, layer.bias)
        mine, theirs = (torch.autograd.grad(q, inputs, g) for q in (y, expected))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_events_are_where_the_ones_are(monkeypatch):
    empty = torch.empty

    def poisoned(*size, **options):
        tensor = empty(*size, **options)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -(2**30))

    monkeypatch.setattr(torch, "empty", poisoned)
    x = (torch.rand(300, 400, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    found = events.find(x, densest=1 / 8)
    assert torch.equal(found.index.long(), x.nonzero()[:, 1])
    assert torch.equal(found.starts.diff(), x.sum(1).long())
    assert events.find(x, densest=1 / 16) is None
    assert events.find(2 * x, densest=1) is None
    x[7, 8] = float("nan")
    assert events.find(x, densest=1) is None


def test_beta_per_neuron_and_out_of_range():
    net = Loop(learn_beta=True)
    net.lif1.beta = nn.Parameter(torch.linspace(-0.2, 1.2, 11))  # snnTorch clamps it
    net.lif2.threshold = torch.linspace(0.3, 1.0, 9)
    assert_same(net, spikes())
    assert (net.lif1.beta.grad[[0, -1]] == 0).all() and net.lif1.beta.grad[5] != 0


class Static(Loop):
    """One input for all steps; their number is a global, as in a notebook."""

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        rec = []
        for _ in range(num_steps):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec.append(spk2)
        return torch.stack(rec, dim=0)


def test_a_static_input_and_a_global_that_changes(monkeypatch):
    net, x = Static(), spikes()[0]
    assert_same(net, x)
    fused = fuse(net)
    assert len(fused(x)) == 4
    monkeypatch.setitem(globals(), "num_steps", 6)
    assert torch.equal(fused(x), net(x)) and len(fused(x)) == 6


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.lif1 = nn.Conv2d(1, 3, 3), snn.Leaky(0.5, threshold=0.3)
        self.conv2, self.lif2 = nn.Conv2d(3, 4, 2), snn.Leaky(0.5, threshold=0.1)
        self.norm = nn.BatchNorm2d(3)
        self.fc, self.lif3 = nn.Linear(4, 5), snn.Leaky(0.5, threshold=0.1)

    def forward(self, x):
        x = x.flatten(2).view(len(x), x.shape[1], 1, 8, 8)
        mem1, mem2, mem3 = (q.init_leaky() for q in (self.lif1, self.lif2, self.lif3))
        rec = []
        for x_t in x.transpose(0, 1):  # batch first
            cur1 = F.max_pool2d(self.norm(self.conv1(x_t)), 2)
            spk1, mem1 = self.lif1(cur1, mem1)
            spk2, mem2 = self.lif2(F.avg_pool2d(self.conv2(spk1), 2), mem2)
            spk3, mem3 = self.lif3(2 * self.fc(spk2.view(x.size(0), -1)) + 0.1, mem3)
            rec.append(spk3)
        return torch.stack(rec, dim=1), torch.stack(rec)[-1], mem3


def test_convolutions_pooling_views_and_batch_first():
    x = torch.rand(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    assert_same(Convolutional().eval(), x)
    net = Convolutional()  # training: statistics of every step, in turn
    other = copy.deepcopy(net)
    for mine, theirs in zip(fuse(net)(x), other(x), strict=True):
        assert torch.equal(mine, theirs)
    assert net.norm.num_batches_tracked == 5
    assert torch.equal(net.norm.running_mean, other.norm.running_mean)
    assert torch.equal(net.norm.running_var, other.norm.running_var)


def sequential(output=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(7, 11),
        snn.Leaky(0.9, init_hidden=True),
        nn.Linear(11, 4),
        snn.Leaky(0.8, threshold=0.3, init_hidden=True, output=output, learn_beta=True),
    )


@pytest.mark.parametrize("output", [True, False])
def test_a_loop_outside(output):
    net, x = sequential(output), spikes()
    utils.reset(net)
    steps = [net(x_t) for x_t in x]
    outputs = zip(*steps, strict=True) if output else [steps]
    expected = [torch.stack(list(q)) for q in outputs]
    theirs = gradients(net, expected)
    fused = fuse(net)
    utils.reset(fused)
    found = fused(x)
    found = found if output else (found,)
    for mine, other in zip(found, expected, strict=True):
        assert torch.equal(mine, other)
    for name, gradient in gradients(fused, found).items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)


def test_hidden_voltages_go_on_until_they_are_reset():
    net, x = sequential(False), spikes(T=8)
    fused = fuse(net)
    with torch.no_grad():
        utils.reset(net)
        whole = fused(x)
        utils.reset(net)
        assert torch.equal(torch.cat([fused(x[:3]), fused(x[3:])]), whole)
        utils.reset(net)
        assert torch.equal(torch.stack([net(x_t) for x_t in x]), whole)
        utils.reset(net)
        fused(x[:3])  # what the fused model leaves, the model itself goes on from
        assert torch.equal(torch.stack([net(x_t) for x_t in x[3:]]), whole[3:])


def test_a_view_of_the_model():
    net = Loop()
    fused = fuse(net)
    assert isinstance(fused, Loop) and fused.state_dict().keys() == net.state_dict().keys()
    assert all(p is q for p, q in zip(fused.parameters(), net.parameters(), strict=True))
    assert "forward" not in net.__dict__
    x = spikes()
    fused(x)
    optimizer = torch.optim.SGD(fused.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        fused(x)[1].square().sum().backward()
        optimizer.step()
        assert torch.equal(fused(x)[1], net(x)[1])
    changed = {name: q * 0.5 if "fc" in name else q for name, q in net.state_dict().items()}
    net.load_state_dict(changed, assign=True)
    assert torch.equal(fused(x)[1], net(x)[1])


def test_a_copy_has_its_own_parameters():
    fused, x = fuse(Loop()), spikes()
    with torch.no_grad():
        before = fused(x)[1]
        twin = copy.deepcopy(fused)
        for parameter in twin.parameters():
            parameter.mul_(2)
        assert torch.equal(fused(x)[1], before)
        assert not torch.equal(twin(x)[1], before)


def test_dropout_in_training_draws_for_every_step():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.lif = nn.Dropout(0.5), snn.Leaky(0.0, threshold=0.5)

        def forward(self, x):
            mem, rec = self.lif.init_leaky(), []
            for step in range(len(x)):
                spk, mem = self.lif(self.drop(x[step]), mem)
                rec.append(spk)
            return torch.stack(rec)

    net, x = Net(), torch.ones(50, 4, 25)
    torch.manual_seed(0)
    masks = fuse(net)(x)
    assert abs(masks.mean() - net(x).mean()) < 0.05
    assert len({tuple(q.flatten().tolist()) for q in masks}) == 50
    net.eval()
    assert torch.equal(fuse(net)(x), net(x))


def test_training_and_evaluation_have_their_own_plans():
    net = nn.Sequential(nn.Dropout(0.5), snn.Leaky(0.5, threshold=0.5, init_hidden=True))
    fused, x = fuse(net), torch.ones(6, 3, 20)
    assert fused(x).mean() < fused.eval()(x).mean()


class Custom(nn.Module):
    """One layer, with a loop given as a function."""

    def __init__(self, loop, **options):
        super().__init__()
        self.fc, self.rec, self.lif = nn.Linear(7, 7), nn.Linear(7, 7), snn.Leaky(0.9, **options)
        self.loop = loop

    def forward(self, x):
        return self.loop(self, x)


def feedback(net, x):
    mem, rec, spk = net.lif.init_leaky(), [], torch.zeros(x.shape[1:])
    for x_t in x:
        spk, mem = net.lif(net.fc(x_t) + net.rec(spk), mem)
        rec.append(spk)
    return torch.stack(rec)


def changed_mem(net, x):
    mem = net.lif.init_leaky()
    for x_t in x:
        spk, mem = net.lif(net.fc(x_t), 0.5 * mem)
    return spk


def in_place(net, x):
    mem, rec = net.lif.init_leaky(), torch.zeros(x.shape)
    for t in range(len(x)):
        rec[t], mem = net.lif(net.fc(x[t]), mem)
    return rec


def by_numbers(net, x):
    mem = net.lif.init_leaky()
    for x_t in x:
        spk, mem = net.lif(net.fc(x_t), mem)
        if spk.sum() > 3:
            break
    return spk


def new_noise(net, x):
    mem = net.lif.init_leaky()
    for _ in range(4):
        spk, mem = net.lif(net.fc(x[0]) + torch.randn(3, 7), mem)
    return spk


def no_gradients(net, x):
    mem = net.lif.init_leaky()
    with torch.no_grad():
        spk, mem = net.lif(net.fc(x[0]), mem)
    return spk


def kept_outside(net, x):
    net.state = net.lif.init_leaky()
    for x_t in x:
        spk, net.state = net.lif(net.fc(x_t), net.state)
    return spk


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (feedback, "input of lif at its step 1 is not computed as at its first"),
        (changed_mem, "lif is given a mem at step 0 which is not its own"),
        (in_place, "in place"),
        (by_numbers, "depends on the numbers"),
        (new_noise, "input of lif at its step 1"),
        (no_gradients, "gradients on or off"),
        (kept_outside, "attribute state"),
    ],
)
def test_loops_that_cannot_be_fused_are_refused(loop, message):
    net = Custom(loop)
    before, mem = dict(net.__dict__), net.lif.mem
    attributes = dict(net.lif.__dict__)
    with pytest.raises(ValueError, match=message):
        fuse(net)(spikes())
    assert net.__dict__ == before and net.lif.mem is mem
    assert net.lif.__dict__ == attributes
    net(spikes())  # still does what it did


def noise_before(net, x):
    mem, rec = net.lif.init_leaky(), []
    x = x + torch.randn_like(x)
    for step in range(x.shape[0]):
        spk, mem = net.lif(net.fc(x[step]), mem)
        rec.append(spk)
    return torch.stack(rec), sum(rec), rec[-2:]


def test_noise_is_drawn_at_every_call_and_lists_are_fine():
    net, x = Custom(noise_before), spikes()
    fused = fuse(net)
    torch.manual_seed(3)
    expected = [net(x), net(x)]
    torch.manual_seed(3)
    for theirs in expected:
        s, total, two = fused(x)
        assert torch.equal(s, theirs[0]) and torch.equal(total, theirs[1])
        assert torch.equal(torch.stack(two), torch.stack(theirs[2]))


def two_inputs(net, x):
    mem, rec = net.lif.init_leaky(), []
    weight = net.rec.weight.abs()  # from parameters alone: new at every call
    for t in range(x.shape[1]):
        spk, mem = net.lif(F.linear(x[:, t], weight) * 0.3 + x[..., t, :], mem)
        rec.append(spk)
    return torch.stack(rec, 1)


def test_values_from_parameters_follow_them():
    net, x = Custom(two_inputs), spikes().transpose(0, 1).contiguous()
    assert_same(net, x)
    fused = fuse(net)
    fused(x)
    with torch.no_grad():
        net.rec.weight.mul_(3)
    assert torch.equal(fused(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spike_grad": surrogate.sigmoid()}, r"lif \(Leaky\): spike_grad .* not sigmoid"),
        ({"spike_grad": surrogate.triangular()}, "not triangular"),
        ({"spike_grad": lambda u: (u > 0).float()}, "spike_grad must be one of"),
        ({"surrogate_disable": True}, "spike_grad must be one of"),
        ({"reset_delay": False}, "reset_delay must be True, not False"),
        ({"state_quant": lambda v: v}, "state_quant must be False"),
        ({"inhibition": True}, "inhibition must be False"),
        ({"graded_spikes_factor": 2.0}, "graded_spikes_factor must be 1"),
        ({"learn_graded_spikes_factor": True}, "graded_spikes_factor must be 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inhibition")
def test_options_that_are_not_accepted_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fuse(Custom(feedback, **options))


def test_models_that_are_not_accepted_are_named():
    with pytest.raises(ValueError, match=r"1 \(Synaptic\): only snntorch.Leaky"):
        fuse(nn.Sequential(nn.Linear(2, 2), snn.Synaptic(alpha=0.5, beta=0.5)))
    with pytest.raises(ValueError, match=r"Linear has no snntorch\.Leaky"):
        fuse(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="inplace=False"):
        fuse(nn.Sequential(nn.ReLU(inplace=True), snn.Leaky(0.5, init_hidden=True)))
    with pytest.raises(ValueError, match="init_hidden must be the same"):
        fuse(nn.Sequential(snn.Leaky(0.5), snn.Leaky(0.5, init_hidden=True)))
    with pytest.raises(ValueError, match=r"input of lif1 is torch\.float64\. Accepted: float32"):
        fuse(Loop().double())(spikes().double())
    with pytest.raises(ValueError, match="autocast"), torch.autocast("cpu"):
        fuse(Loop())(spikes())
    with pytest.raises(ValueError, match="at least one step"):
        fuse(sequential())(spikes(T=0))


def test_an_empty_batch():
    s, v = fuse(Loop())(spikes(B=0))
    assert s.shape == v.shape == (6, 0, 4)


def test_without_snntorch(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "snntorch", None)
    with pytest.raises(ImportError, match=r'pip install "labkit-notebooks\[bench\]"'):
        fuse(nn.Linear(2, 2))
