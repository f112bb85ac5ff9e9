"""Spoken digits as spikes of an inner ear, made on this machine, in the layout of SHD.

The set is ours: eSpeak NG says the words (`labkit.data.speech`; GPL, loaded at run time) and
a model of the inner ear hears them (`labkit.data.cochlea`). It is built like the Spiking Heidelberg
Digits (Cramer, Stradmann, Schemmel & Zenke 2022, CC BY 4.0), recordings of twelve people: twenty
classes, 700 channels, and files with the same fields. Whoever has the files of SHD or SSC can read
them with `path`. Synthetic voices are cleaner and more alike than people are, so accuracies on the
two sets cannot be compared.

Made once, the spikes are kept in the user's cache directory, in shards of some fifty utterances. A
shard is written under another name and renamed when complete, so that an interrupted run loses at
most the shard it was making; a lock keeps several processes from making the same one.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy import ndarray

from labkit.data import speech

# `labkit.data.cochlea` is imported where it is used: it brings the compiler, and seconds with it.

CHANNELS = 700
VERSION = 1  # of what is made from the same parameters; part of the name of the cache
PER_SHARD = 5  # utterances of each class

WORDS = {
    "english": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "german": (
        "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun",
    ),
}  # fmt: skip
KEYS = WORDS["english"] + WORDS["german"]

# Variants of eSpeak NG, low and high in turn. Of the held-out ones three resemble voices of the
# train split, the other three have formants or a synthesiser (edward) unlike all of them.
VOICES = {
    "train": (
        "m1", "f1", "m3", "f2", "m4", "f4", "m5", "Annie",
        "m7", "Andrea", "Alex", "linda", "boris", "shelby", "Gene", "grandma",
    ),
    "test": ("m2", "f3", "Michael", "aunty", "Lee", "edward"),
}  # fmt: skip
SPEAKERS = VOICES["train"] + VOICES["test"]
ACCENTS = {"english": ("en-us", "en-gb-x-rp", "en-gb-scotland"), "german": ("de",)}

# How utterances of one voice differ: uniform draws between these ends.
RANGES = {
    "words_per_minute": (115, 175),
    "pitch": (30, 70),
    "pitch_range": (25, 75),
    "level": (-3.0, 3.0),  # dB about the level at which the ear works
    "onset": (0.0, 0.05),  # s of silence before the word
}
AFTER = 0.04  # s for which the ear listens on after the word
LONGEST = 0.95  # s of a word


class SpokenDigitsError(RuntimeError):
    """A package is missing, or a file is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class SpokenDigits:
    """Utterances as spikes of 700 channels; events of all utterances lie one after the other.

    Attributes
    ----------
    labels : int64 (N,), the class of each utterance: 0 to 9 English, 10 to 19 German digits
    speakers : int64 (N,), the voice; -1 where a file does not say
    times : float32 (events,), seconds from the start of the utterance, ascending in each
    units : int32 (events,), channel of each spike: 0, the base, hears the highest tones
    offsets : int64 (N + 1,), utterance i has the events offsets[i] to offsets[i + 1]
    keys : the words, keys[label]
    channels : number of channels
    """

    labels: ndarray
    speakers: ndarray
    times: ndarray
    units: ndarray
    offsets: ndarray
    keys: tuple[str, ...]
    channels: int = CHANNELS

    def __len__(self) -> int:
        return len(self.labels)

    def events(self, i: int) -> tuple[ndarray, ndarray]:
        """Spikes of utterance i: times (events,) in seconds, float32, and units (events,), int32.

        Raises
        ------
        IndexError
            for an i outside -N to N - 1.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"utterance {i} of {len(self)}")
        i %= len(self)
        part = slice(self.offsets[i], self.offsets[i + 1])
        return self.times[part], self.units[part]

    def binned(self, step: float = 0.01, channels: int = 140, duration: float = 1.0) -> ndarray:
        """Spike counts, float32 (N, T, channels) with T = round(duration / step).

        Neighbouring units are summed, 700 / channels at a time; later spikes are left out.

        Parameters
        ----------
        step : width of a time bin, in seconds
        channels : a divisor of the number of channels
        duration : seconds from the start of each utterance

        Raises
        ------
        ValueError
            for channels that do not divide 700, or a step or duration that leaves no bin.
        """
        if channels < 1 or self.channels % channels:
            raise ValueError(f"channels must divide {self.channels}, not {channels}")
        if not (0 < step < np.inf and 0 < duration < np.inf) or round(duration / step) < 1:
            raise ValueError(f"step {step} and duration {duration} make no time bin")
        T = round(duration / step)
        counts = np.empty((len(self), T, channels), np.float32)
        for i in range(len(self)):
            times, units = self.events(i)
            bins = np.floor(times.astype(np.float64) / step).astype(np.int64)
            kept = bins < T
            cells = bins[kept] * channels + units[kept] // (self.channels // channels)
            counts[i] = np.bincount(cells, minlength=T * channels).reshape(T, channels)
        return counts


def spoken_digits(
    split: str = "train",
    *,
    languages: Sequence[str] = ("english", "german"),
    n_per_class: int = 30,
    seed: int = 0,
    path: str | Path | None = None,
) -> SpokenDigits:
    """Spoken digits as spikes: made on first use, about 0.1 s each on two cores, then cached.

    Six of 22 voices are heard only in the test split, in both languages. Rate, pitch, melody,
    level and onset vary. Utterance i of a class is the same whatever `n_per_class` is, and larger
    sets reuse what smaller ones have made. Utterances come one of each class at a time.

    Parameters
    ----------
    split : "train" or "test"
    languages : "english" (labels 0 to 9, zero to nine), "german" (10 to 19, null to neun) or both
    n_per_class : utterances of each class
    seed : of voices, manners of speaking and spikes
    path : a file in the layout of SHD or SSC, read whole instead; the other arguments do not apply

    Raises
    ------
    ValueError
        for an unknown split or language, n_per_class below 1, a negative seed.
    FileNotFoundError
        for a path where no file is.
    SpokenDigitsError
        for a file of another layout, without the package h5py, filelock or platformdirs, or where
        the folder that keeps the spikes cannot be made.
    labkit.data.speech.SpeechError
        where eSpeak NG is missing or does not work.
    """
    if path is not None:
        return read(path)
    if split not in VOICES:
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    if isinstance(languages, str) or not languages or not set(languages) <= set(WORDS):
        raise ValueError(f"languages takes a list from {tuple(WORDS)}, not {languages!r}")
    for name, value, least in (("n_per_class", n_per_class, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    wanted = [
        _Shard(split, language, seed, block)
        for language in WORDS
        if language in languages
        for block in range(-(-n_per_class // PER_SHARD))
    ]
    shards = _make(wanted)
    return _select(shards, n_per_class)


@dataclass(frozen=True)
class Utterance:
    """One utterance before it is spoken: who says what, and how."""

    label: int
    speaker: int  # index in `SPEAKERS`
    word: speech.Word
    level: float  # dB
    onset: float  # s
    ear: tuple[int, ...]  # seed of the spikes


@dataclass(frozen=True)
class _Shard:
    """`PER_SHARD` utterances of each digit of a language; the unit of making and keeping."""

    split: str
    language: str
    seed: int
    block: int

    @property
    def file(self) -> Path:
        return cache_folder() / f"{self.split}-{self.language}-{self.seed}-{self.block:03}.h5"

    def utterances(self) -> list[Utterance]:
        first = 10 * list(WORDS).index(self.language)
        numbers = range(self.block * PER_SHARD, (self.block + 1) * PER_SHARD)
        return [
            utterance(self.split, first + digit, number, self.seed)
            for number in numbers
            for digit in range(10)
        ]


def utterance(split: str, label: int, number: int, seed: int) -> Utterance:
    """How utterance `number` of a class is spoken; it depends on nothing but these four values."""
    voices, language = VOICES[split], "english" if label < 10 else "german"
    root = (VERSION, seed, list(VOICES).index(split), label)
    # Every voice says a word once before one says it again.
    turn, place = divmod(number, len(voices))
    voice = voices[np.random.default_rng((*root, 0, turn)).permutation(len(voices))[place]]
    speaker = SPEAKERS.index(voice)
    accents = ACCENTS[language]
    rng = np.random.default_rng((*root, 1, number))
    drawn = {name: rng.uniform(low, high) for name, (low, high) in RANGES.items()}
    word = speech.Word(
        KEYS[label],
        f"{accents[speaker % len(accents)]}+{voice}",
        round(drawn["words_per_minute"]),
        round(drawn["pitch"]),
        round(drawn["pitch_range"]),
    )
    return Utterance(label, speaker, word, drawn["level"], drawn["onset"], (*root, 2, number))


def stimulus(voice: ndarray, said: Utterance) -> ndarray:
    """What the ear hears of an utterance: float32 (samples,) at `speech.RATE`, silence included."""
    from labkit.data import cochlea

    word = cochlea.normalise(voice, speech.RATE, level=0.3 * 10 ** (said.level / 20))
    word = word[: round(LONGEST * speech.RATE)]
    before, after = round(said.onset * speech.RATE), round(AFTER * speech.RATE)
    return np.pad(word, (before, after))


@cache
def cache_folder() -> Path:
    """Where the spikes are kept; its name has a hash of everything they depend on."""
    from labkit.data import cochlea

    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise _missing("platformdirs", error) from None
    recipe = {
        "version": VERSION,
        "espeak": speech.espeak_version(),
        "per_shard": PER_SHARD,
        "words": WORDS,
        "voices": VOICES,
        "accents": ACCENTS,
        "ranges": RANGES,
        "after": AFTER,
        "longest": LONGEST,
        "rate": speech.RATE,
        "ear": {k: v for k, v in vars(cochlea).items() if k.isupper()},
    }
    name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return user_cache_path("labkit") / "spoken_digits" / name


def _missing(package: str, error: ImportError) -> SpokenDigitsError:
    return SpokenDigitsError(
        f"spoken_digits needs the package {package} ({error}); in a terminal of this environment: "
        f"pip install {package}"
    )


def _make(shards: list[_Shard]) -> list[SpokenDigits]:
    """Read shards from the cache, and make those that are missing; other processes may help."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise _missing("filelock", error) from None
    from tqdm.auto import tqdm

    from labkit.data import cochlea

    found = {shard: kept for shard in shards if (kept := _kept(shard)) is not None}
    waiting = [shard for shard in shards if shard not in found]
    if not waiting:
        return [found[shard] for shard in shards]
    speech.espeak_version()  # a missing package is noticed before any work
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpokenDigitsError(
            f"{cache_folder()}, where the spikes are kept, cannot be made ({error.strerror}); set "
            "XDG_CACHE_HOME to a folder that can be written to, and start Python again"
        ) from None
    total = 10 * PER_SHARD * len(waiting)
    with tqdm(total=total, desc="hearing digits", unit="word", leave=False) as bar:
        patience = 0.0  # first what nobody else is making, then wait for the rest
        while waiting:
            busy = []
            for shard in waiting:
                try:
                    with FileLock(shard.file.with_suffix(".lock"), timeout=patience):
                        found[shard] = _kept(shard, complain=True) or _hear(shard, bar)
                except Timeout:
                    busy.append(shard)
            waiting, patience = busy, 1.0
    cochlea.clear_tables()
    return [found[shard] for shard in shards]


def _hear(shard: _Shard, bar) -> SpokenDigits:  # noqa: ANN001
    """Speak, hear and keep a shard, its utterances side by side in threads."""
    from labkit.data import cochlea

    said = shard.utterances()
    voices = speech.say([each.word for each in said])
    heard: list = [None] * len(said)

    def ear(i: int) -> int:
        rng = np.random.default_rng(said[i].ear)
        heard[i] = cochlea.hear(stimulus(voices[i], said[i]), speech.RATE, rng, channels=CHANNELS)
        return i

    threads = min(8, os.cpu_count() or 1)  # each takes some 100 MB
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(ear, i) for i in range(len(said))]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update()
        except BaseException:  # also an interrupt by the reader: do not start the others
            pool.shutdown(cancel_futures=True)
            raise
    made = _assemble(heard, [each.label for each in said], [each.speaker for each in said], KEYS)
    write(made, shard.file)
    return made


def _assemble(
    heard: Sequence[tuple[ndarray, ndarray]], labels: Sequence, speakers: Sequence, keys: Sequence
) -> SpokenDigits:
    none = [np.empty(0)]  # so that no utterance at all is no special case
    return SpokenDigits(
        labels=np.asarray(labels, dtype=np.int64),
        speakers=np.asarray(speakers, dtype=np.int64),
        times=np.concatenate([*(times for times, _ in heard), *none]).astype(np.float32),
        units=np.concatenate([*(units for _, units in heard), *none]).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(times) for times, _ in heard])]).astype("i8"),
        keys=tuple(keys),
    )


def _select(shards: list[SpokenDigits], n_per_class: int) -> SpokenDigits:
    """The first utterances of each class: all first ones, then all second ones, and so on."""
    rows, seen = [], dict.fromkeys(range(len(KEYS)), 0)
    for shard in shards:
        for i, label in enumerate(shard.labels.tolist()):
            rows.append((seen[label], label, shard, i))
            seen[label] += 1
    rows = [row for row in rows if row[0] < n_per_class]
    rows.sort(key=lambda row: row[:2])
    return _assemble(
        [shard.events(i) for _, _, shard, i in rows],
        [label for _, label, _, _ in rows],
        [shard.speakers[i] for _, _, shard, i in rows],
        KEYS,
    )


def _kept(shard: _Shard, *, complain: bool = False) -> SpokenDigits | None:
    """A shard from the cache, or None if it is missing or damaged and has to be made."""
    if not shard.file.exists():
        return None
    try:
        kept = read(shard.file)
        right = _checksum(kept) == _attribute(shard.file, "sha256")
        right = right and len(kept) == 10 * PER_SHARD
    except (SpokenDigitsError, OSError):
        right = False
    if right:
        return kept
    if complain:
        warnings.warn(f"{shard.file} is damaged; it is made anew", stacklevel=2)
    return None


def _checksum(digits: SpokenDigits) -> str:
    parts = digits.labels, digits.speakers, digits.times, digits.units, digits.offsets
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def _attribute(path: Path, name: str) -> str:
    with _h5py().File(path, "r") as file:
        return str(file.attrs.get(name, ""))


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise _missing("h5py", error) from None
    return h5py


def write(digits: SpokenDigits, path: str | Path) -> None:
    """Write a set in the layout of SHD: under another name first, so that it is whole or not there.

    ``spikes/times`` and ``spikes/units`` hold one array per utterance, ``labels`` and
    ``extra/speaker`` one number, ``extra/keys`` the words and ``extra/meta_info/voice`` our voices.
    Times are float32, where SHD's own float16 rounds to half a millisecond.
    """
    h5py = _h5py()
    path = Path(path)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        with h5py.File(part, "w") as file:
            N = len(digits)
            times = file.create_dataset("spikes/times", (N,), h5py.vlen_dtype(np.float32))
            units = file.create_dataset("spikes/units", (N,), h5py.vlen_dtype(np.uint16))
            for i in range(N):
                times[i], units[i] = digits.events(i)
            file["labels"] = digits.labels.astype(np.uint16)
            file["extra/speaker"] = digits.speakers.astype(np.int16)
            text = h5py.string_dtype()
            file.create_dataset("extra/keys", data=list(digits.keys), dtype=text)
            file.create_dataset("extra/meta_info/voice", data=list(SPEAKERS), dtype=text)
            file.attrs["sha256"] = _checksum(digits)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def read(path: str | Path) -> SpokenDigits:
    """Read a whole file in the layout of SHD or SSC (see `write`).

    Raises
    ------
    FileNotFoundError
        where no file is.
    SpokenDigitsError
        for a file that is no HDF5, lacks a field, or contradicts itself.
    """
    h5py = _h5py()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; SHD and SSC are at https://zenkelab.org/datasets")
    try:
        with h5py.File(path, "r") as file:
            absent = [
                name
                for name in ("spikes/times", "spikes/units", "labels", "extra/keys")
                if name not in file
            ]
            if absent:
                raise SpokenDigitsError(
                    f"{path} is not in the layout of SHD: it has no {', '.join(absent)}"
                )
            labels = file["labels"][:].astype(np.int64)
            times, units = file["spikes/times"][:], file["spikes/units"][:]
            keys = [
                key.decode() if isinstance(key, bytes) else str(key) for key in file["extra/keys"]
            ]
            known = "extra/speaker" in file
            speakers = file["extra/speaker"][:] if known else np.full(len(labels), -1)
    except SpokenDigitsError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError, UnicodeDecodeError) as error:
        # Downloads of SHD are packed; HDF5 only says that it finds no signature.
        with path.open("rb") as file:
            packed = file.read(2) in (b"\x1f\x8b", b"PK")
        hint = "unpack it first" if packed else "download it again, or choose another file"
        raise SpokenDigitsError(f"{path} cannot be read as HDF5 ({error}): {hint}") from None
    heard = list(zip(times, units, strict=False))
    if not len(times) == len(units) == len(labels) == len(speakers):
        problem = "its fields differ in length"
    elif any(np.ndim(t) != 1 or np.shape(t) != np.shape(u) for t, u in heard):
        problem = "times and units of an utterance differ in number"
    elif any(len(u) and not 0 <= np.min(u) <= np.max(u) < CHANNELS for _, u in heard):
        problem = f"it has units outside 0 to {CHANNELS - 1}"
    elif any(len(t) and not (np.isfinite(t).all() and np.min(t) >= 0) for t, _ in heard):
        problem = "it has times that are negative or not finite"
    elif len(labels) and not 0 <= labels.min() <= labels.max() < len(keys):
        problem = f"it has labels outside its {len(keys)} keys"
    else:
        return _assemble(heard, labels, speakers, keys)
    raise SpokenDigitsError(f"{path} is not in the layout of SHD: {problem}")
