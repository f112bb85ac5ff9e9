# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   labkit:
#     minutes: 1
# ---

# %% [markdown]
# # Ten bits per second
#
# **Question.** A million fibres leave each eye. How much of what they carry do we turn into
# something that we *do*, and how does one measure that?
#
# ![Rates of information on a logarithmic scale, from what people do, about ten bits per second, to
# what an eye takes in, about a billion](10_ten_bits_per_second.png)
#
# **Reading** 15 minutes. **Running** under 15 seconds on two CPU cores, under 0.5 GB of memory.
#
# **Paper** `ten-bits-per-second`: J. Zheng and M. Meister, *The unbearable slowness of being: Why
# do we live at 10 bits/s?*, Neuron 113, 2025, [arXiv:2408.10234](https://arxiv.org/abs/2408.10234).
#
# You need logarithms and probabilities. The paper is a survey: it has no method of its own, but a
# way of counting, which we follow, and test on observers whose information we know. Numbers that
# are *measured* below stand on the green cards. The people in it are the paper's, the observers and
# the photoreceptors are simulated.

# %% tags=["parameters"]
seed: int = 0  # of every random draw below
n_characters: int = 120_000  # of English text to predict
order: int = 5  # longest context, in characters
alternatives: list[int] = [2, 4, 8, 16, 32]  # keys to choose from
trials: int = 3000  # of each choice experiment
drift: float = 3.5  # evidence of the simulated observer, per root of a second
certainty: float = 0.95  # posterior at which it answers
non_decision: float = 0.2  # seconds to see and to move, added to each decision
bandwidth: float = 60.0  # Hz, of a cone
snr: float = 22.0  # ratio of power of signal to noise of a cone
cones: int = 6_000_000  # of an eye
cone_seconds: int = 400  # of simulated recording

# %%
import re
from math import factorial, log2
from pydoc_data import topics

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import FloatSlider, interact
from scipy.signal import coherence
from scipy.stats import linregress
from tqdm.auto import tqdm

from labkit import claim, metric
from labkit.claims import summary
from labkit.exercises import check
from labkit.plots import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK, house_style

PAPER = "ten-bits-per-second"
if n_characters < 10_000:
    raise ValueError(f"n_characters must be at least 10,000, not {n_characters}")
if not 1 <= order <= 8:
    raise ValueError(f"order must lie from 1 to 8, not {order}")
if len(alternatives) < 3 or min(alternatives) < 2 or sorted(set(alternatives)) != alternatives:
    raise ValueError(
        f"alternatives must be three or more rising numbers from 2 on, not {alternatives}"
    )
if trials < 200 or cone_seconds < 20 or cones < 1:
    raise ValueError(
        f"need trials >= 200, cone_seconds >= 20, cones >= 1: not {trials}, {cone_seconds}, {cones}"
    )
if min(drift, bandwidth, snr) <= 0 or non_decision < 0:
    raise ValueError(
        f"drift, bandwidth, snr must be positive and non_decision not negative: {drift}, "
        f"{bandwidth}, {snr}, {non_decision}"
    )
if not 0.5 < certainty < 1:
    raise ValueError(f"certainty must lie between 0.5 and 1, not {certainty}")

house_style()
rng = np.random.default_rng(seed)

# %% [markdown]
# ## 1. How to count what somebody does
#
# Whoever could have done any of $N$ things, equally likely, and did one, has shown $\log_2 N$ bits;
# if some are likelier than others, the entropy of the source. Divide by the time it took. The paper
# takes records, where people did nothing else, and as fast as they could:
#
# - *A blindfolded speed cuber* looks at a scrambled cube for 5.5 seconds and then solves it with
#   closed eyes. He must have taken in which of all arrangements it was. Eight corners can be
#   permuted and twisted, twelve edges permuted and flipped, with three constraints:
#   $8!\,3^7 \cdot 12!\,2^{11} / 2$.
# - *Memory athletes* take in 1467 random binary digits in five minutes, or the order of 52 cards in
#   12.74 seconds.
# - *A typist* writes 120 words a minute, of five characters each. How many bits is a character?

# %%
cube_states = factorial(8) * 3**7 * factorial(12) * 2**11 // 2
deck_bits = log2(factorial(52))
characters_per_second = 120 * 5 / 60
BITS_PER_CHARACTER = 1.0  # Shannon's estimate for people who know English, used by the paper
rates = {
    "typing English": characters_per_second * BITS_PER_CHARACTER,
    "blindfolded cubing": log2(cube_states) / 5.5,
    "binary digits, memorised": 1467 / 300,
    "a deck of cards, memorised": deck_bits / 12.74,
}
PUBLISHED = dict(zip(rates, (10.0, 11.8, 4.9, 17.7)))
for name, rate in rates.items():
    print(f"{name:28} {rate:5.1f} bits/s   published {PUBLISHED[name]}")
print(f"{cube_states:.2e} arrangements of a cube, {log2(cube_states):.1f} bits")
metric(
    "rates from records against the published ones, largest relative deviation",
    max(abs(rates[name] / PUBLISHED[name] - 1) for name in rates),
)

# %% [markdown]
# ## 2. What a character is worth
#
# Counting $\log_2 27$ bits for each of 26 letters and the space would make the typist five times as
# informative, and is the trap of this subject: English is predictable, and what can be predicted
# tells nothing. How predictable? Let a program guess each character from those before it, and pay
# $-\log_2 p$ bits for the probability $p$ that it gave to what came. The sum is the length of a
# code that anyone could decode, so it is an upper bound on the entropy.
#
# Our predictor blends contexts of length $0$ to $k$. With $n$ visits to a context, in which $u$
# different characters followed and this one $c$ times, (Witten and Bell's *method C*)
#
# $$p_k = \frac{c + u\,p_{k-1}}{n + u}, \qquad p_{-1} = \frac{1}{27}.$$
#
# It learns while it reads: each character is paid for *before* it is counted. The text ships with
# Python, its own reference manual, without capitals and signs.

# %%
text = " ".join(topics.topics[key] for key in sorted(topics.topics))
text = re.sub(r"[^a-z]+", " ", text.lower())[:n_characters]
print(text[2000:2150], "…")


def code_lengths(text, k, symbols=27):
    """Bits (len(text),) that each character costs a predictor with contexts of 0 to k."""
    contexts = [{} for _ in range(k + 1)]
    bits = np.empty(len(text))
    for i, character in enumerate(tqdm(text, desc=f"order {k}", leave=False)):
        p, seen = 1 / symbols, []
        for length in range(min(k, i) + 1):
            followers = contexts[length].setdefault(text[i - length : i], {})
            seen.append(followers)
            n = sum(followers.values())
            if n:
                p = (followers.get(character, 0) + len(followers) * p) / (n + len(followers))
        bits[i] = -log2(p)
        for followers in seen:
            followers[character] = followers.get(character, 0) + 1
    return bits


costs = {k: code_lengths(text, k) for k in sorted({0, 1, 2, 3, order})}
entropy = {k: float(bits.mean()) for k, bits in costs.items()}
print("bits per character: " + ", ".join(f"order {k}: {e:.2f}" for k, e in entropy.items()))

shuffled = "".join(rng.permutation(list(text[:20_000])))
by_chance = code_lengths(shuffled, order).mean() / code_lengths(shuffled, 0).mean()

fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.3), layout="constrained")
styles = ("-", "--", "-.", ":", "-")
for (k, bits), colour, style in zip(costs.items(), (BLACK, PINK, AMBER, GREEN, BLUE), styles):
    read = np.arange(1, len(bits) + 1)
    axes[0].semilogx(
        read[99:], (bits.cumsum() / read)[99:], style, color=colour, label=f"order {k}"
    )
axes[0].axhline(log2(27), color=GREY, ls="--", lw=1)
axes[0].text(110, log2(27) + 0.06, "log₂ 27", fontsize=9, color="#555555")
axes[0].set(xlabel="characters read", ylabel="bits per character", ylim=(1, 5.6))
axes[0].legend(fontsize=9, loc="lower left", ncols=3)
where = len(text) // 2
piece = text[where : where + 64]
cost = costs[order][where : where + 64]
axes[1].bar(range(64), cost, color=np.where(np.array(list(piece)) == " ", GREY, BLUE))
for i, character in enumerate(piece):
    axes[1].text(i, -0.9, character, ha="center", fontsize=9, family="monospace")
axes[1].set(xticks=[], ylabel="bits for this character", xlim=(-1, 64))
axes[1].set_title("surprise comes at the beginning of words", fontsize=10)
axes[1].spines["bottom"].set_visible(False)
plt.show()

claim(
    PAPER,
    f"text, adaptive model of order {order}: bits per character",
    entropy[order],
    at_most=2.8,
    unit="bits",
)
claim(
    PAPER,
    f"text, order {order} relative to order 0",
    entropy[order] / entropy[0],
    at_most=0.7,
)
claim(
    PAPER,
    "control, the characters of the text shuffled: long contexts do not help, ratio",
    by_chance,
    at_least=0.97,
)
metric("bits_per_character", entropy[order])
metric("typing_bits_per_second_by_model", characters_per_second * entropy[order])
print(f"typist, by this model: at most {characters_per_second * entropy[order]:.0f} bits/s")

# %% [markdown]
# (Right: surprise comes mostly at the beginning of words; here the ending of *continues* costs
# most.) A few thousand lines of a manual bring a simple program below two bits. People do better:
# Shannon had them guess and found about one bit, which the paper uses. By our program alone the
# typist would be at some twenty bits per second. The manual repeats its phrases, so for other texts
# expect more.
#
# ## 3. Choosing a key
#
# The oldest measurement is Hick's (1952). One of $n$ lamps lights up, and the observer presses its
# key. Reaction time grows as $a + b \log_2 n$. Is $1/b$ a rate of information?
#
# To answer we need an observer whose information is known, and simulate one. For each key, evidence
# $x_i$ is gathered: Brownian motion of unit variance per second, with drift $v$ for the right key
# and none for the others. The observer knows this and computes the posterior,
# $P_i \propto e^{v x_i}$. As soon as the largest reaches 0.95, it answers. (This is a race between
# drift-diffusion processes in its Bayesian form, the multi-hypothesis sequential test.)


# %%
def choose(n, dt=0.005, longest=6.0):
    """Right keys, answers, reaction times (s) of `trials` choices among n keys."""
    stimulus = rng.integers(n, size=trials)
    x, answer, time = np.zeros((trials, n)), np.zeros(trials, int), np.full(trials, longest)
    undecided = np.arange(trials)
    for step in range(1, round(longest / dt) + 1):
        x[undecided] += np.sqrt(dt) * rng.standard_normal((len(undecided), n))
        x[undecided, stimulus[undecided]] += drift * dt
        evidence = drift * x[undecided]
        best = evidence.max(axis=1, keepdims=True)
        posterior = 1 / np.exp(evidence - best).sum(axis=1)  # of the best
        done = undecided[posterior >= certainty] if step * dt < longest else undecided
        answer[done], time[done] = x[done].argmax(axis=1), step * dt
        undecided = np.setdiff1d(undecided, done, assume_unique=True)
        if not len(undecided):
            break
    return stimulus, answer, time + non_decision


def plug_in(stimulus, answer, n, corrected=True):
    """Mutual information in bits from a table of counts; Miller and Madow's correction of bias."""
    joint = np.zeros((n, n))
    np.add.at(joint, (stimulus, answer), 1)
    total = joint.sum()

    def H(counts):
        p = counts[counts > 0] / total
        bias = (len(p) - 1) / (2 * total * np.log(2)) if corrected else 0
        return -(p * np.log2(p)).sum() + bias

    return H(joint.sum(0)) + H(joint.sum(1)) - H(joint.ravel())


def known_information(right, n):
    """log2 n - equivocation, of errors with probability 1 - right that fall on all keys alike."""
    wrong = 1 - right
    equivocation = -right * log2(right) - (wrong * log2(wrong / (n - 1)) if wrong > 0 else 0)
    return log2(n) - equivocation


choices = {n: choose(n) for n in tqdm(alternatives, desc="choices", leave=False)}
means = {n: float(time.mean()) for n, (_, _, time) in choices.items()}
right = {n: float((s == r).mean()) for n, (s, r, _) in choices.items()}
information = {n: plug_in(s, r, n) for n, (s, r, _) in choices.items()}
known = {n: known_information(right[n], n) for n in alternatives}
law = linregress(np.log2(alternatives), list(means.values()))
print("keys   right   reaction time   information   known   bits/s")
for n in alternatives:
    print(
        f"{n:4} {right[n]:7.1%} {means[n]:13.2f} s {information[n]:11.2f} {known[n]:9.2f} "
        f"{information[n] / means[n]:7.1f}"
    )
print(f"1 / slope: {1 / law.slope:.1f} bits/s")

# the bias of information that is not there
guess_trials = np.array([50, 100, 200, 400, 800, 1600])
nothing = {
    fix: [
        np.mean(
            [plug_in(rng.integers(8, size=m), rng.integers(8, size=m), 8, fix) for _ in range(40)]
        )
        for m in guess_trials
    ]
    for fix in (False, True)
}

fig, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
levels = np.log2(alternatives)
axes[0].plot(levels, list(means.values()), "o", color=BLUE)
axes[0].plot(levels, law.intercept + law.slope * levels, color=BLUE, lw=1)
axes[0].set(xlabel="log₂ of the number of keys", ylabel="mean reaction time (s)", ylim=(0, None))
axes[0].set_title(f"slope {1000 * law.slope:.0f} ms per bit", fontsize=10)
axes[1].plot(levels, levels, ":", color=GREY, label="never an error")
axes[1].plot(levels, list(known.values()), color=BLACK, lw=1, label="known")
axes[1].plot(levels, list(information.values()), "o", color=ORANGE, label="estimated from counts")
axes[1].set(xlabel="log₂ of the number of keys", ylabel="information (bits)")
axes[1].legend(loc="upper left")
axes[2].loglog(guess_trials, nothing[False], "o-", color=PINK, label="as counted")
axes[2].loglog(guess_trials, np.abs(nothing[True]), "s-", color=GREEN, label="corrected (size)")
axes[2].set(xlabel="trials", ylabel="information found (bits)")
axes[2].set_title("8 keys pressed at random: truth 0", fontsize=10)
axes[2].legend(loc="lower left")
plt.show()

claim(
    PAPER,
    "simulated choices: mutual information from counts relative to log2(n) minus equivocation, "
    "largest deviation over the numbers of keys",
    max(abs(information[n] / known[n] - 1) for n in alternatives),
    at_most=0.1,
)
claim(
    PAPER,
    "Hick's law: R² of mean reaction time on log2 of the number of keys",
    law.rvalue**2,
    at_least=0.95,
)
claim(
    PAPER,
    "random keys, 400 trials: information found with correction of bias relative to without, size",
    abs(nothing[True][3] / nothing[False][3]),
    at_most=0.5,
)
metric("bits_per_second_choice", 1 / law.slope)

# %% [markdown]
# The law comes out though nobody put it in: to be equally certain among more rivals takes longer,
# and by the same amount for each doubling. Its slope is *nearly* a rate of information: the
# observer errs sometimes, so each answer carries less than $\log_2 n$. And the whole trial, with
# the time to see and to move, is slower than $1/b$. The drift was chosen such that slopes are like
# Hick's; the information is a result.
#
# The right picture is a warning for experiments. A table of 64 cells that is filled by 50 random
# answers looks like half a bit or more, and the correction takes only a part of it away, since it
# counts the cells that could be filled from those that were.
#
# ## 4. What an eye takes in
#
# A cone follows light up to a bandwidth $B$, and noise limits it. For a Gaussian channel Shannon
# found
#
# $$C = B \log_2 (1 + \mathrm{SNR}) .$$
#
# The paper's value is about 270 bits per second and cone. We take $B$ = 60 Hz and an SNR of 22,
# which give it; these two are our choice. Does the formula say what could be *measured*? Simulate a
# recording of light and response and estimate the information from their coherence $\gamma^2$,
# $-\int \log_2 (1 - \gamma^2(f))\, df$.

# %%
SAMPLING = 4 * bandwidth  # per second
count = int(cone_seconds * SAMPLING)
spectrum = np.fft.rfft(rng.standard_normal(count))
spectrum[np.fft.rfftfreq(count, 1 / SAMPLING) > bandwidth] = 0
light = np.fft.irfft(spectrum, count)
light /= light.std()
in_band = np.sqrt(0.5 * SAMPLING / bandwidth)  # of white noise, half of the power is above B
response = light + rng.standard_normal(count) / np.sqrt(snr) * in_band
f, gamma2 = coherence(light, response, SAMPLING, nperseg=256)
measured_cone = float(-np.log2(1 - gamma2[f < bandwidth]).mean() * bandwidth)
capacity_cone = bandwidth * log2(1 + snr)
eye = cones * measured_cone
print(f"one cone: formula {capacity_cone:.0f}, from the recording {measured_cone:.0f} bits/s")
print(f"{cones:.0e} cones: {eye:.1e} bits/s")
claim(
    PAPER,
    "information of a simulated cone, from its recording relative to Shannon's formula",
    measured_cone / capacity_cone,
    at_least=0.9,
    at_most=1.1,
)

# %% tags=["cover"]
behaviour = rates | {"choosing keys (simulated)": 1 / law.slope}
typical = float(np.exp(np.mean(np.log(list(behaviour.values())))))
senses = {
    "optic nerve (10⁶ fibres, paper)": 1e8,
    "all cones of an eye": eye,
    "one cone (simulated)": measured_cone,
}
bars = dict(sorted((behaviour | senses).items(), key=lambda item: item[1]))
colours = [BLUE if name in behaviour else ORANGE for name in bars]
fig, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
axis.barh(list(bars), list(bars.values()), color=colours)
axis.set_xscale("log")
for i, rate in enumerate(bars.values()):
    label = f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"
    if rate > 1e6:
        label = f"{rate / 1e6:.0f} million" if rate < 1e9 else f"{rate / 1e9:.1f} billion"
    box = {"fc": "white", "ec": "none", "pad": 0.5}  # over the dotted line
    axis.text(1.2 * rate, i, label, va="center", fontsize=9, bbox=box)
axis.axvline(typical, color=BLUE, ls=":", lw=1)
axis.set(xlabel="bits per second", xlim=(1, 3e10))
axis.tick_params(axis="y", length=0)
axis.set_title(
    "what people do (blue; dotted: their mean), what senses take in (orange)", fontsize=10
)
plt.show()

ratio = eye / typical
print(f"what people do, geometric mean: {typical:.1f} bits/s; sifting ratio {ratio:.1e}")
typing, choosing = characters_per_second * entropy[order], 1 / law.slope
ours = (typing * choosing) ** 0.5
print(f"typing by our program and simulated choices alone: {ours:.1f} bits/s; {eye / ours:.1e}")
claim(
    PAPER,
    "what simulated cones of an eye take in, relative to typing by our predictor and simulated "
    "choices (geometric mean)",
    eye / ours,
    at_least=1e7,
    at_most=1e9,
)
metric("sifting_number", ratio)

# %% [markdown]
# A hundred million to one, also on the card, which does without the paper's records and takes what
# our own program needs for a character. This is the paper's riddle: it is not explained by noise of
# neurons, for a single cone carries more than a person does. Note what is compared: *capacity* of
# the input, which nature's slow and smooth pictures hardly use, with *entropy* of the output. A
# movie of the world is so redundant that video codecs need a few megabits per second. This takes
# two or three of the eight orders of magnitude, and leaves five.
#
# ## 5. One thing at a time
#
# The paper asks why we do one thing at a time, with so many neurons at hand. That we do so is an
# old finding: if a second stimulus comes before the answer to the first, its answer is late, by as
# much as the first decision still takes (the *psychological refractory period*). Our observer can
# show how this tells a single server from two. Decisions take what those among four keys took
# above.

# %%
decisions = choices[alternatives[1]][2] - non_decision
SEE = non_decision / 2  # seconds before the decision, and as many to move after it


def second_reaction(soa, serial):
    """Mean reaction time to a second stimulus, `soa` seconds after the first."""
    first, second = rng.choice(decisions, (2, 4000))
    free = SEE + first if serial else 0.0  # when the server is free again
    begins = np.maximum(soa + SEE, free)
    return float((begins + second + SEE - soa).mean())


soas = np.linspace(0, 1.5, 16)
curves = {serial: [second_reaction(soa, serial) for soa in soas] for serial in (True, False)}
alone, waiting = float(decisions.mean() + 2 * SEE), float(decisions.mean())
slope_serial = (curves[True][1] - curves[True][0]) / (soas[1] - soas[0])
fig, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
axis.plot(1000 * soas, curves[True], "o-", ms=4, color=ORANGE, label="one server")
axis.plot(1000 * soas, curves[False], "s-", ms=4, color=GREEN, label="two servers")
axis.axhline(alone, color=GREY, lw=1, ls="--")
axis.text(1500, alone - 0.03, "alone", ha="right", va="top", fontsize=9, color="#555555")
axis.set(xlabel="time between the two stimuli (ms)", ylabel="second reaction time (s)")
axis.set(ylim=(0, None))
axis.legend()
plt.show()
claim(
    PAPER,
    "one server, both stimuli at once: delay of the second answer relative to the first decision",
    (curves[True][0] - alone) / waiting,
    at_least=0.9,
    at_most=1.1,
)
claim(
    PAPER,
    "two servers, both stimuli at once: delay of the second answer relative to the first decision",
    abs(curves[False][0] - alone) / waiting,
    at_most=0.1,
)
metric("slope_at_short_intervals", slope_serial)

# %% [markdown]
# With one server the second answer comes one decision late, and gains a millisecond for each
# millisecond of waiting: the line falls with slope $-1$ at first, as in people. Latencies add up.
#
# How does the sifting ratio depend on what one believes of the cone? Move the two:


# %%
def sifting(cone_snr=22.0, cone_bandwidth=60.0):
    """The ratio, for a cone of this quality."""
    total = cones * cone_bandwidth * log2(1 + cone_snr)
    _, axis = plt.subplots(figsize=(7, 1.6), layout="constrained")
    axis.barh([0, 1], [typical, total], color=[BLUE, ORANGE])
    axis.set(xscale="log", xlim=(1, 1e11), yticks=[0, 1], yticklabels=["doing", "seeing"])
    axis.set_xlabel("bits per second")
    axis.set_title(f"{total:.1e} : {typical:.1f} = {total / typical:.1e}", fontsize=10)
    plt.show()


_ = interact(
    sifting,
    cone_snr=FloatSlider(22.0, min=0.1, max=100, continuous_update=False),
    cone_bandwidth=FloatSlider(60.0, min=5, max=200, continuous_update=False),
)

# %%
sifting(1.0, 10.0)  # a bad cone; the same without the slider, for those who read this on paper

# %% [markdown]
# A cone that is six times slower, its signal no stronger than its noise (22 times less), carries 10
# bits per second instead of 271. This takes a factor of 27 off the ratio. Six million to one are
# left, less than the lower bound of the card above, but still a riddle. This is why rough numbers
# are good enough here.
#
# ## 6. Exercises
#
# Replace the line that raises, run the cell, then run the check below the folded solution.
#
# ### Exercise 1: twenty questions
#
# Twenty answers of yes or no tell apart $2^{20}$ things. A player finds the thing among `things`
# equally likely ones in `seconds`. Return the rate in bits per second.
#
# <details><summary>Hint</summary>
#
# Only how many things there were counts, and not how many questions were needed.
#
# </details>


# %% tags=["exercise"]
def guessing_rate(things, seconds):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def guessing_rate_solution(things, seconds):
    return np.log2(things) / seconds


# %% tags=["check"]
check(
    guessing_rate,
    guessing_rate_solution,
    lambda rng: (int(rng.integers(2, 2**20)), rng.uniform(1, 100)),
)

# %% [markdown]
# ### Exercise 2: entropy of a source
#
# Return the entropy, in bits, of a source with probabilities `p` (an array that sums to one and may
# hold zeros).
#
# <details><summary>Hint</summary>
#
# $0 \log 0 = 0$: leave these terms out.
#
# </details>


# %% tags=["exercise"]
def entropy_of(p):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def entropy_of_solution(p):
    p = p[p > 0]
    return -(p * np.log2(p)).sum()


# %% tags=["check"]
check(
    entropy_of,
    entropy_of_solution,
    lambda rng: ((q := rng.integers(0, 4, 6) + np.eye(6)[0]) / q.sum(),),
)

# %% [markdown]
# ### Exercise 3: one server
#
# Stimuli arrive at the rising times `arrivals`. A single server works on them in order, `service`
# seconds each. Return the time at which each is done (an array).
#
# <details><summary>Hint</summary>
#
# Each begins when it has arrived *and* the one before it is done.
#
# </details>


# %% tags=["exercise"]
def finished(arrivals, service):
    raise NotImplementedError  # your code here


# %% jupyter={"source_hidden": true} tags=["solution"]
def finished_solution(arrivals, service):
    done, free = [], -np.inf
    for arrival in arrivals:
        free = max(arrival, free) + service
        done.append(free)
    return np.array(done)


# %% tags=["check"]
check(
    finished,
    finished_solution,
    lambda rng: (np.sort(rng.uniform(0, 5, 8)), rng.uniform(0.1, 1.0)),
)

# %% [markdown]
# ## 7. What did not reproduce, and what to keep in mind
#
# The numbers follow from what they are said to follow from. What one makes of them is another
# matter.
#
# - **One bit per character is people's, not our program's.** Ours needs nearly twice as many, on a
#   manual that repeats itself. With it, typing would be level with the fastest rate, that of cards.
# - **Capacity against entropy.** The input is counted at capacity, for independent and white light,
#   the output at entropy. Natural input is far from its capacity (section 4).
# - **Records are of one kind.** They count what a task asks for. How somebody typed, moved or
#   smiled meanwhile is not counted; the paper argues that it adds little.
# - **The cone is a band-limited Gaussian channel** and nothing else; bandwidth and SNR were chosen
#   to give the paper's capacity. A real cone adapts, and its noise is that of photons.
#
# Simulated: the observer, the cone, the server. Not treated: the paper's discussion of why, its
# comparison across animals and its survey of brain areas.
#
# **Next.** Shannon, [*Prediction and entropy of printed
# English*](https://doi.org/10.1002/j.1538-7305.1951.tb01366.x) (1951); Hick, *On the rate of gain
# of information* (1952); Pashler, *Dual-task interference in simple tasks* (1994); Miller, *Note on
# the bias of information estimates* (1955).

# %%
# NBVAL_CHECK_OUTPUT
summary()
