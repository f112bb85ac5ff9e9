# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   labkit:
#     minutes: 0.1
# ---

# %% [markdown]
# # Labkit: start here
#
# Notebooks for people who work where neuroscience meets machine learning. Each one tells a story
# about one to four papers, rebuilds their method at a size that a laptop can run, and **measures
# what they claim**: a statement becomes a number, held against a bound or against a baseline
# measured in the same run. Where a paper does not reproduce, the notebook says so.
#
# Open a notebook below and choose *Run → Run All Cells*. Nothing is downloaded.

# %% [markdown]
# ## The notebooks
#
# ### Sparse coding
#
# [**Beyond ℓ₁: how few neurons does it take to see?**](sparse_coding/01_beyond_l1.ipynb)
#
# ![A photograph rebuilt by two sparse codes](sparse_coding/01_beyond_l1.png)
#
# Four prices for an active neuron, compared on photographs at equal quality: paying for the
# *number* of active neurons takes a third of those that paying for the *sum* of activities takes.
# 15 minutes to read, under a minute to run.
#
# [**A handful of synapses**](sparse_coding/05_a_handful_of_synapses.ipynb)
#
# ![A stored pattern, the same damaged, and another
# one](sparse_coding/05_a_handful_of_synapses.png)
#
# Twenty synapses tell one sparse pattern from all the rest: the arithmetic, counted against
# simulations, and what photographs do to it. 15 minutes to read, under half a minute to run.
#
# [**A sparse spectrum from a few noisy samples**](sparse_coding/07_a_sparse_spectrum.ipynb)
#
# ![Bins while coefficients are found and peeled away](sparse_coding/07_a_sparse_spectrum.png)
#
# Sixty-four Walsh coefficients among a quarter of a million, from six per cent of noisy values; and
# a decision tree read by asking it. 15 minutes to read, about half a minute to run.
#
# [**Ten bits per second**](sparse_coding/10_ten_bits_per_second.ipynb)
#
# ![Rates of what people do and what an eye takes
# in](sparse_coding/10_ten_bits_per_second.png)
#
# How to count what somebody does: a cube, a typist, a choice between keys, against what a million
# fibres bring in. 15 minutes to read, under half a minute to run.
#
# ### Delays
#
# [**Hearing in spikes: from a spoken word to 700 spike
# trains**](delays/01_hearing_in_spikes.ipynb)
#
# ![A spoken word, and the spikes of 700 nerve cells](delays/01_hearing_in_spikes.png)
#
# A synthesiser says a digit, a model of the inner ear hears it: travelling wave, hair cells, nerve
# fibres, bushy cells. Listen, look, and ask whether the word is in *how many* spikes or in *when*.
# 15 minutes to read, under a minute to run.
#
# [**Learning when: synapses with delays**](delays/02_learning_delays.ipynb)
#
# ![Spikes that leave apart and arrive together](delays/02_learning_delays.png)
#
# How a delay gets a gradient, what a network finds with it that weights alone cannot, and what is
# lost when delays are rounded. 15 minutes to read, under a minute to run.
#
# [**Learnable spacings: a kernel that decides where to look**](delays/03_learnable_spacings.ipynb)
#
# ![Four kernels of 25 parameters, and a photograph cleaned by
# them](delays/03_learnable_spacings.png)
#
# Kernels that learn *where* their taps lie, in one dimension and two, against regular ones of
# equal size. 15 minutes to read, under a minute to run.
#
# [**Seeing motion: what a neuron can do with delays**](delays/04_seeing_motion.ipynb)
#
# ![Events of a moving photograph, and arrows along the detected
# motion](delays/04_seeing_motion.png)
#
# An event camera, a layer of delay-tuned detectors, and how few of its synapses are enough. 20
# minutes to read, under a minute to run.
#
# [**Travelling waves: a memory that moves**](delays/05_travelling_waves.ipynb)
#
# ![Diagonal traces in space and time](delays/05_travelling_waves.png)
#
# A wave on a ring of units remembers when something happened; take away the movement and the
# memory is gone. 15 minutes to read, under a minute to run.
#
# [**The expressive leaky memory: how much neuron fits into twenty
# numbers?**](delays/06_expressive_leaky_memory.ipynb)
#
# ![The voltage of a dendritic neuron, and two models that predict
# it](delays/06_expressive_leaky_memory.png)
#
# Which parts of a small model does it take to predict a neuron with active dendrites? 15 minutes
# to read, under a minute to run.
#
# [**A dilation for every pixel**](delays/07_adaptive_dilation.ipynb)
#
# ![A picture of stripes and the dilation chosen at each pixel](delays/07_adaptive_dilation.png)
#
# Coarse where a picture is coarse, fine where it is fine: each pixel chooses how far it looks. 10
# minutes to read, under a minute to run.
#
# [**Reading spoken digits: delays against their controls**](delays/08_reading_spoken_digits.ipynb)
#
# ![Accuracy on unknown voices with learned delays and six
# controls](delays/08_reading_spoken_digits.png)
#
# Words by voices that no network has heard, read with learned delays, with random ones, and with
# none. 10 minutes to read, under a minute to run.
#
# [**Adding spoken digits: one word must wait for the
# other**](delays/09_adding_spoken_digits.ipynb)
#
# ![Sums of two spoken digits read by one neuron and by an LSTM](delays/09_adding_spoken_digits.png)
#
# "Three", then "eight": a single expressive neuron keeps the first word while it hears the second,
# next to an LSTM of equal size. 10 minutes to read, under a minute to run.
#
# ### Unlearning
#
# [**Forgetting by dampening**](unlearning/01_selective_dampening.ipynb)
#
# ![What is left of a forgotten digit](unlearning/01_selective_dampening.png)
#
# Forget a digit without training: which weights matter to it, how far the method's constant may
# go before it selects nothing, and how the result compares with networks that never saw the digit.
# 20 minutes to read, under a minute to run.
#
# [**Who forgets best?**](unlearning/02_who_forgets_best.ipynb)
#
# ![Scores of thirteen methods for eight kinds of request](unlearning/02_who_forgets_best.png)
#
# Thirteen methods, eight kinds of request, and ten retrained networks for each as the yardstick;
# then an attacker who looks closer. 20 minutes to read, about a minute to run.
#
# [**When a fifth of the poison is found**](unlearning/03_corrective_unlearning.ipynb)
#
# ![What six methods make of partly known poison](unlearning/03_corrective_unlearning.png)
#
# Somebody tampered with the data, and not all of it is known: retraining is no gold standard then,
# and dampening is, for a reason that a pair of scissors explains. 15 minutes to read, under a
# minute to run.
#
# [**Forgetting while learning**](unlearning/04_forgetting_while_learning.ipynb)
#
# ![Digits, each with the history of its training](unlearning/04_forgetting_while_learning.png)
#
# Which pictures a network learns once and never loses, which it never learns, and what that tells
# about wrong labels and about pictures that can be left out. 12 minutes to read, under a minute to
# run.
#
# [**Pictures that nothing can be learned from**](unlearning/05_unlearnable_examples.ipynb)
#
# ![Patches of photographs, their noise, and what networks learn from
# them](unlearning/05_unlearnable_examples.png)
#
# Noise that tells a network there is nothing to learn, plain patterns that do nearly as well, and
# three remedies. 15 minutes to read, about a minute to run.
#
# [**Noise where it counts**](unlearning/06_local_masks.ipynb)
#
# ![A scan, where a network looks, and the noise that protects it](unlearning/06_local_masks.png)
#
# Protect a medical scan by changing only the pixels that a network looks at, and ask whether it
# takes a network to find them. 10 minutes to read, about a minute to run.
#
# [**Privacy that speeds up learning**](unlearning/07_privacy_that_speeds_learning.ipynb)
#
# ![Belief in the truth with and without privacy](unlearning/07_privacy_that_speeds_learning.png)
#
# People who decide one after the other learn faster when they add the right kind of noise to what
# they do. 15 minutes to read, under a minute to run.
#
# [**A learner that lives off what it
# recognises**](unlearning/08_homeostatic_learners.ipynb)
#
# ![Accuracy and learning rates while labels are swapped](unlearning/08_homeostatic_learners.png)
#
# A network whose learning rate depends on what it takes in, in a world that keeps renaming things.
# 15 minutes to read, under a minute to run.
#
# ### Diffusion
#
# [**From noise to digits**](diffusion/01_from_noise_to_digits.ipynb)
#
# ![Paths from noise to two modes, and digits that emerge](diffusion/01_from_noise_to_digits.png)
#
# Iterative deblending, the diffusion model that needs only a mean: samplers held against exact
# answers on a line, then moons into a spiral, then digits. 20 minutes to read, about a minute to
# run.
#
# [**What a schedule hides**](diffusion/02_what_a_schedule_hides.ipynb)
#
# ![Pictures sorted by brightness](diffusion/02_what_a_schedule_hides.png)
#
# Why a famous schedule of noise paints every picture grey, the four fixes, and one more step for
# models that cannot be trained again. 20 minutes to read, about a minute to run.
#
# [**Is the noise level needed?**](diffusion/06_is_the_noise_level_needed.ipynb)
#
# ![Digits drawn with and without the noise level](diffusion/06_is_the_noise_level_needed.png)
#
# Denoisers that are not told how noisy their input is: exact blind ones, on digits and from 2 to
# 768 dimensions, and trained ones. Why flow matching hardly minds and DDIM fails. 15 minutes to
# read, about half a minute to run.
#
# [**Chains that forget their start**](diffusion/07_chains_that_forget_their_start.ipynb)
#
# ![A chain with little, much and falling noise](diffusion/07_chains_that_forget_their_start.png)
#
# A story told, misheard and told again converges to what its listeners believe, whatever the noise;
# and any such chain follows a differential equation. 20 minutes to read, under a minute to run.
#
# [**What a noisy image is worth**](diffusion/08_what_a_noisy_image_is_worth.ipynb)
#
# ![A blurred mixture, errors of its means, and the price of a clean
# sample](diffusion/08_what_a_noisy_image_is_worth.png)
#
# Few clean examples and many noisy ones: how to learn from both without learning the noise, the
# trap that the training loss hides, and the price of a clean example. 15 minutes to read, under a
# minute to run.
#
# [**Denoising with spikes**](diffusion/10_denoising_with_spikes.ipynb)
#
# ![A noisy digit, the spikes it causes at four steps, and the digit made of
# them](diffusion/10_denoising_with_spikes.png)
#
# A U-Net whose neurons fire or do not, four times for each guess: what it costs in error and saves
# in energy, synapses that change over time, one threshold for all neurons, and a conversion that
# needs no training with spikes. 15 minutes to read, about a minute to run.
#
# ### Headless
#
# [**Sweeps: does a result hold, or did it hold once?**](headless/01_sweeps.ipynb)
#
# ![A claim at several seeds and settings, and its pass rates](headless/01_sweeps.png)
#
# A claim that holds at its author's seed fails at every third other one. Run a notebook over a grid
# of parameters, read the tables, say what *k* of *n* is worth, and kill a worker in the middle.
# 15 minutes to read, a minute to run.
#
# ### Kernels
#
# [**How fast can it be? Kernels and the roofline**](kernels/01_how_fast.ipynb)
#
# ![Kernels below the two lines that no program can cross](kernels/01_how_fast.png)
#
# What the machine can do at most, what a loop must do at least, and how much lies between: spiking
# neurons, synaptic delays and linear recurrences against the same loops in PyTorch. 15 minutes to
# read, under a minute to run.

# %%
from IPython.display import Markdown

from labkit import atlas
from labkit.headless import find_all
from labkit.headless.evidence import survey

status = {row["id"]: row["status"] for row in survey()}


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


table(
    ["notebook", "papers", "minutes to run", "claims"],
    [
        [
            f"[{notebook.title}]({notebook.name}.ipynb)",
            ", ".join(atlas.paper(paper).title for paper in notebook.papers) or "about the suite",
            f"{notebook.minutes:g}",
            ", ".join(sorted({status[paper] for paper in notebook.papers})),
        ]
        for notebook in find_all()
    ],
)

# %% [markdown]
# ## The atlas
#
# The suite sets out to re-implement 298 papers in 32 topics. These are the topics, and how far we
# are; `labkit atlas --topic sparse_coding` lists the papers of one.

# %%
papers = atlas.papers().values()
table(
    ["topic", "papers", "done"],
    [
        [
            topic.replace("_", " "),
            sum(paper.topic == topic for paper in papers),
            sum(paper.topic == topic and paper.notebook is not None for paper in papers),
        ]
        for topic in atlas.topics()
    ],
)

# %% [markdown]
# ## Three ways to use it
#
# - **Read and play** in JupyterLab: `labkit lab` opens this page, `labkit lab
#   sparse_coding/01_beyond_l1` a notebook. Notebooks are paired with plain Python files beside
#   them; edit either.
# - **Learn**: every notebook ends in exercises with a hint, a check and a folded solution.
# - **Run headless** with other parameters, and read the claims:
#   `labkit run sparse_coding/01_beyond_l1 -p seed=1 -p patch_size=12`.
#
# `labkit doctor` says what your machine has and what to do about what is missing.
