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
# Notebooks for people who work where neuroscience meets machine learning. Each one tells a story,
# mostly about one to four papers, rebuilds their method at a size that a laptop can run, and
# **measures what they claim**: a statement becomes a number, held against a bound or against a
# baseline measured in the same run. Where a paper does not reproduce, the notebook says so.
#
# Open one and choose *Run → Run All Cells*. Nothing is downloaded. Every notebook ends in exercises
# with a hint, a check and a folded solution.

# %% [markdown]
# ## Where to begin
#
# Read in this order, if you want to know
#
# - **how few neurons it takes to see**, and know linear algebra and covariance:
#   [Beyond ℓ₁](sparse_coding/01_beyond_l1.ipynb),
#   [What the retina takes out](sparse_coding/03_what_the_retina_takes_out.ipynb),
#   [Turning the gain](sparse_coding/02_turning_the_gain.ipynb),
#   [What reconstruction misses](sparse_coding/09_what_reconstruction_misses.ipynb);
# - **what a network can see, and learns to see without labels**, and know how one is trained, the
#   Fourier transform and singular values:
#   [Which channel sees](sparse_coding/08_which_channel_sees.ipynb),
#   [Room for manifolds](sparse_coding/04_room_for_manifolds.ipynb),
#   [Learning to see from noise](sparse_coding/11_learning_to_see_from_noise.ipynb),
#   [Silent from the start](sparse_coding/06_silent_from_the_start.ipynb);
# - **how a few cells remember much**, and know probabilities:
#   [A handful of synapses](sparse_coding/05_a_handful_of_synapses.ipynb),
#   [Remembering at one look](sparse_coding/12_one_look_memory.ipynb),
#   [Many at once](associative_memory/01_many_at_once.ipynb);
# - **what a delay is good for**, and know convolutions and leaky integrate-and-fire neurons:
#   [Hearing in spikes](delays/01_hearing_in_spikes.ipynb),
#   [Learning when](delays/02_learning_delays.ipynb),
#   [Reading spoken digits](delays/08_reading_spoken_digits.ipynb),
#   [Adding spoken digits](delays/09_adding_spoken_digits.ipynb);
# - **whether a network can forget**, and know how a classifier is trained:
#   [Forgetting by dampening](unlearning/01_selective_dampening.ipynb),
#   [Who forgets best?](unlearning/02_who_forgets_best.ipynb),
#   [When a fifth of the poison is found](unlearning/03_corrective_unlearning.ipynb);
# - **who may learn from your pictures**, and know the same, and Bayes' rule:
#   [Pictures that nothing can be learned from](unlearning/05_unlearnable_examples.ipynb),
#   [Noise where it counts](unlearning/06_local_masks.ipynb),
#   [Privacy that speeds up learning](unlearning/07_privacy_that_speeds_learning.ipynb);
# - **how noise becomes a picture**, and know conditional expectations, Bayes' rule and how a
#   network is trained:
#   [From noise to digits](diffusion/01_from_noise_to_digits.ipynb),
#   [What a schedule hides](diffusion/02_what_a_schedule_hides.ipynb),
#   [Where to spend the noise](diffusion/03_where_to_spend_the_noise.ipynb),
#   [Is the noise level needed?](diffusion/06_is_the_noise_level_needed.ipynb);
# - **what a generator remembers, and makes up**, and have read
#   [From noise to digits](diffusion/01_from_noise_to_digits.ipynb):
#   [Between the modes](diffusion/09_between_the_modes.ipynb),
#   [Which weights memorise?](unlearning/09_which_weights_memorise.ipynb),
#   [When a prompt is poisoned](unlearning/10_poisoned_prompts.ipynb);
# - **how to make it fast, and to be sure of it**, and know PyTorch:
#   [How fast can it be?](kernels/01_how_fast.ipynb), [Sweeps](headless/01_sweeps.ipynb).

# %% [markdown]
# ## The notebooks

# %% jupyter={"source_hidden": true}
# NBVAL_CHECK_OUTPUT
from IPython.display import Markdown, display
from ipywidgets import Dropdown, Text, interact

from labkit import atlas
from labkit.headless import evidence, find_all, measured
from labkit.plots import table

found = find_all()
rows = measured.read()
papers = atlas.papers()


def entry(notebook):
    """Title, question, run time and papers of a notebook, beside its cover."""
    link = f"{notebook.name}.ipynb"
    cover = notebook.cover and f"[![{notebook.title}]({notebook.name}.png)]({link})"
    seconds = f"{measured.seconds_of(notebook, rows):.0f}"
    about = "; ".join(papers[paper].title for paper in notebook.papers) or "about the suite"
    text = f"[**{notebook.title}**]({link})<br>{notebook.question}<br>*{seconds} s · {about}*"
    return cover or "", text.replace("|", "\\|")


rooms = {topic: [n for n in found if n.topic == topic] for topic in atlas.topics()}
rooms["the suite itself"] = [notebook for notebook in found if not notebook.papers]
for topic, mine in rooms.items():
    if mine:
        display(Markdown(f"### {topic.replace('_', ' ').capitalize()}"))
        display(table(["", ""], map(entry, mine)))

# %% [markdown]
# ## The atlas
#
# The suite sets out to re-implement 298 papers in 32 topics. Search them here, by a word of the
# title or an id; the links lead to the section that measures a paper. (The table answers once this
# notebook has been run.)

# %% jupyter={"source_hidden": true}
pages = evidence.pages()
status = {row["id"]: row["status"] for row in evidence.survey(pages)}
headings = {name: evidence.sections(page) for name, page in pages.items()}
ORDERS = {
    "as listed": lambda paper: 0,
    "title": lambda paper: paper.title.lower(),
    "topic": lambda paper: paper.topic,
    "claims": lambda paper: status[paper.id],
}


def sections(paper):
    """Links to where each of its notebooks measures a paper."""
    for name in paper.notebooks:
        heading = headings[name].get(paper.id)
        place = f"#cell-id={heading['id']}" if heading else ""
        yield f"[{name}]({name}.ipynb{place})"


def search(words="", topic="all topics", show="done", order="as listed"):
    """The papers whose title or id has all the words."""
    chosen = [
        paper
        for paper in sorted(papers.values(), key=ORDERS[order])
        if all(word in f"{paper.title} {paper.id}".lower() for word in words.lower().split())
        and topic in ("all topics", paper.topic)
        and show in ("all", "done" if paper.notebook else "planned")
    ]
    lines = [
        (
            f"{paper.title}<br>`{paper.id}`",
            paper.topic,
            "<br>".join(sections(paper)),
            status[paper.id],
        )
        for paper in chosen
    ]
    display(Markdown(f"{len(chosen)} of {len(papers)} papers"))
    display(table(["paper", "topic", "measured in", "claims"], lines))


_ = interact(
    search,
    words=Text(description="words", placeholder="all papers", continuous_update=False),
    topic=Dropdown(options=["all topics", *atlas.topics()], description="topic"),
    show=Dropdown(options=["done", "planned", "all"], description="show"),
    order=Dropdown(options=list(ORDERS), description="sort by"),
)
# %% jupyter={"source_hidden": true}
# NBVAL_CHECK_OUTPUT
counts = {
    topic: [paper.notebook is not None for paper in papers.values() if paper.topic == topic]
    for topic in atlas.topics()
}
told = [f"{topic.replace('_', ' ')} ({sum(done)} of {len(done)})" for topic, done in counts.items()]
Markdown(f"{sum(map(sum, counts.values()))} of {len(papers)} papers are done: {', '.join(told)}.")

# %% [markdown]
# ## What it costs, and how often it holds
#
# Every notebook was run headless with ten seeds, as many at a time as the machine has cores.
# Seconds are the median of these runs. Memory is the largest that the notebook's own process held;
# what it starts beside itself is not in it. A run counts as good if every one of its claims holds.
# `labkit verify --publish` makes this table. The tests see to it that no row is older than the code
# in its notebook; when `labkit` changes beneath it, they run it at two seeds.

# %% jupyter={"source_hidden": true}
# NBVAL_CHECK_OUTPUT
table(
    ["notebook", "seconds", "memory in MB", "runs", "all claims hold in", "measured"],
    [
        [
            f"[{row['notebook']}]({row['notebook']}.ipynb)",
            *(row[column] for column in ("seconds", "peak_memory_mb", "runs", "ok")),
            f"{row['date']}, {row['cores']} cores",
        ]
        for row in rows.values()
    ],
)

# %% [markdown]
# ## Three ways to use it
#
# - **Read and play** in JupyterLab: `labkit lab` opens this page, `labkit lab
#   sparse_coding/01_beyond_l1` a notebook. Notebooks are paired with plain Python files beside
#   them; edit either.
# - **Learn**: do the exercises.
# - **Run headless** with other parameters, and read the claims:
#   `labkit run sparse_coding/01_beyond_l1 -p seed=1 -p patch_size=12`.
#
# `labkit doctor` says what your machine has and what to do about what is missing.
