import numpy as np
import pytest
import torch

from labkit.exercises import check


def shrink(x, lam):
    return np.sign(x) * np.maximum(np.abs(x) - lam, 0)


def inputs(rng):
    return rng.normal(size=5), 0.3


def status(attempt, solution=shrink, draw=inputs, **options):
    return check(attempt, solution, draw, **options).status


def untouched(x, lam):
    raise NotImplementedError


def raising(x, lam):
    return x[99]


def in_place(x, lam):
    x[:] = shrink(x, lam)
    return x


def test_an_untouched_stub_is_not_attempted():
    assert status(untouched) == "not attempted"
    assert status(lambda x, lam: ...) == "not attempted"
    assert status(lambda x, lam: None) == "not attempted"


@pytest.mark.parametrize(
    "attempt",
    [
        shrink,
        in_place,
        lambda x, lam: shrink(x, lam).tolist(),
        lambda x, lam: torch.tensor(shrink(x, lam), requires_grad=True),
        lambda x, lam: x - np.clip(x, -lam, lam),
    ],
)
def test_a_right_answer_is_correct_however_it_is_written(attempt):
    assert status(attempt) == "correct"


@pytest.mark.parametrize(
    "attempt, said",
    [
        (lambda x, lam: x, "expected"),
        (lambda x, lam: shrink(x, lam) + 1e-3, "expected"),
        (lambda x, lam: shrink(x, lam) * np.nan, "got nan"),
        (lambda x, lam: shrink(x, lam)[:3], "expected shape (5,), got (3,)"),
        (lambda x, lam: shrink(x, lam)[None], "expected shape (5,), got (1, 5)"),
        (lambda x, lam: 0.0, "expected shape (5,), got ()"),
        (lambda x, lam: (x, x), "expected 1 result(s), got 2"),
        (lambda x, lam: "text", "expected numbers"),
        (lambda x, lam: [1.0, [2.0, 3.0]], "expected numbers, got list"),
        (lambda x, lam: [torch.ones(2), torch.ones(3)], "expected numbers, got list"),
        (lambda x, lam: torch.ones(5, dtype=torch.bfloat16), "expected numbers, got Tensor"),
        (raising, "it raised IndexError"),
        (lambda x: x, "it raised TypeError"),
    ],
)
def test_a_wrong_answer_is_not_yet_and_says_how(attempt, said):
    verdict = check(attempt, shrink, inputs)
    assert verdict.status == "not yet" and said in verdict.detail


def test_true_and_false_are_compared_too():
    def positive(x, lam):
        return x > 0

    assert status(positive, lambda x, lam: x > 0) == "correct"
    assert status(positive, lambda x, lam: x <= 0) == "not yet"


def test_what_is_wrong_on_few_inputs_only_is_found():
    def careless(x):
        return -1.0 if x == 3 else float(x)

    assert status(careless, float, lambda rng: (int(rng.integers(5)),)) == "not yet"


def test_an_attempt_in_place_spoils_no_argument_of_the_solution():
    drawn = []

    def draw(rng):
        drawn.append(torch.tensor(rng.normal(size=3)))
        return (drawn[-1],)

    assert status(lambda x: x.zero_() + 1, lambda x: x * 0 + 1, draw) == "correct"
    assert all(x.abs().sum() > 0 for x in drawn)


def test_several_results_are_compared_one_by_one():
    def both(x, lam):
        return shrink(x, lam), x.mean()

    assert status(both, both) == "correct"
    assert status(lambda x, lam: (shrink(x, lam), 0.0), both) == "not yet"


def test_tolerances_and_the_seed_count():
    assert status(lambda x, lam: shrink(x, lam) * 1.01) == "not yet"
    assert status(lambda x, lam: shrink(x, lam) * 1.01, rtol=0.1) == "correct"
    drawn = []

    def draw(rng):
        drawn.append(float(rng.normal()))
        return (drawn[-1],)

    for seed in (0, 0, 1):
        check(float, float, draw, seed=seed)
    first, again, other = drawn[:20], drawn[20:40], drawn[40:]
    assert first == again != other


def test_a_verdict_shows_text_as_text():
    def broken(x, lam):
        raise ValueError("<b>")

    html = check(broken, shrink, inputs)._repr_html_()
    assert "&lt;b&gt;" in html and 'data-status="not yet"' in html
