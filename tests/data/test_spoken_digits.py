"""Spoken digits: the events, the files of SHD, and a cache that survives what happens to caches."""

import gzip
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np
import pytest

from labkit.data import SpokenDigits, speech, spoken_digits

# The function of the same name hides its module.
module = importlib.import_module("labkit.data.spoken_digits")
PATCH = {"PER_SHARD": 1, "CHANNELS": 35}  # small and fast


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of small shards: one utterance of each digit, 35 channels."""
    for name, value in PATCH.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    return tmp_path


def english(split="train", n_per_class=1, seed=0):
    return spoken_digits(split, languages=("english",), n_per_class=n_per_class, seed=seed)


def few(N=4, seed=0):
    """A small set with random events, the first utterance silent."""
    rng = np.random.default_rng(seed)
    sizes = [0, *rng.integers(1, 50, N - 1)]
    return SpokenDigits(
        labels=rng.integers(0, 20, N),
        speakers=rng.integers(0, 22, N),
        times=np.concatenate([np.sort(rng.uniform(0, 1.2, n)) for n in sizes]).astype("f4"),
        units=rng.integers(0, 700, sum(sizes)).astype("i4"),
        offsets=np.cumsum([0, *sizes]),
        keys=module.KEYS,
    )


def same(a, b):
    fields = ("labels", "speakers", "times", "units", "offsets")
    return a.keys == b.keys and all(
        np.array_equal(getattr(a, f), getattr(b, f)) and getattr(a, f).dtype == getattr(b, f).dtype
        for f in fields
    )


# Events and bins


def test_bins_count_events():
    digits = few()
    counts = digits.binned(step=0.05, channels=20, duration=0.8)
    assert counts.shape == (4, 16, 20)
    assert counts.dtype == np.float32
    expected = np.zeros(counts.shape)
    for i in range(len(digits)):
        for t, unit in zip(*digits.events(i), strict=True):
            if t < 0.8:
                expected[i, int(float(t) / 0.05), unit // 35] += 1
    assert np.array_equal(counts, expected)
    assert digits.binned(duration=2.0).sum() == len(digits.times)


def test_events_of_one_utterance():
    digits = few()
    assert len(digits) == 4
    assert [len(digits.events(i)[0]) for i in range(4)] == np.diff(digits.offsets).tolist()
    times, units = digits.events(-1)
    assert times.dtype == np.float32
    assert np.array_equal(units, digits.units[digits.offsets[3] :])
    with pytest.raises(IndexError, match="utterance 4 of 4"):
        digits.events(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 150}, "divide 700, not 150"),
        ({"channels": 0}, "divide 700, not 0"),
        ({"step": 0.0}, "no time bin"),
        ({"step": np.nan}, "no time bin"),
        ({"duration": -1.0}, "no time bin"),
        ({"step": 1.0, "duration": 0.1}, "no time bin"),
    ],
)
def test_binned_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        few().binned(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "not 'valid'"),
        ({"languages": "english"}, "takes a list"),
        ({"languages": ()}, "takes a list"),
        ({"languages": ("french",)}, "french"),
        ({"n_per_class": 0}, "not 0"),
        ({"seed": -1}, "-1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        spoken_digits(**arguments)


# Files


def shd_file(path, *, speaker=True, **replaced):
    """A file as SHD has it: half-precision times, 16-bit integers, keys as bytes."""
    times = [np.array([0.0, 0.25, 0.5]), np.array([0.125]), np.array([])]
    fields = {
        "spikes/times": times,
        "spikes/units": [np.array([3, 699, 0]), np.array([12]), np.array([])],
        "labels": np.array([0, 19, 7], np.uint16),
        "extra/keys": np.array([k.encode() for k in module.KEYS]),
        "extra/speaker": np.array([4, 0, 11], np.uint16),
    } | replaced
    kinds = {"spikes/times": np.float16, "spikes/units": np.uint16}
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is None or (name == "extra/speaker" and not speaker):
                continue
            if name in kinds:
                data = file.create_dataset(name, (len(value),), h5py.vlen_dtype(kinds[name]))
                for i, row in enumerate(value):
                    data[i] = row.astype(kinds[name])
            else:
                file[name] = value
    return path


def test_a_file_of_shd_drops_in(tmp_path):
    digits = spoken_digits(path=shd_file(tmp_path / "shd.h5"))
    assert digits.labels.tolist() == [0, 19, 7]
    assert digits.speakers.tolist() == [4, 0, 11]
    assert [digits.keys[label] for label in digits.labels] == ["zero", "neun", "seven"]
    assert digits.times.dtype == np.float32
    assert digits.events(0)[0].tolist() == [0, 0.25, 0.5]
    assert digits.events(0)[1].tolist() == [3, 699, 0]
    assert digits.binned(0.25, 10, 1.0).sum(axis=(1, 2)).tolist() == [3, 1, 0]


def test_a_file_without_speakers_drops_in(tmp_path):
    assert (spoken_digits(path=shd_file(tmp_path / "ssc.h5", speaker=False)).speakers == -1).all()


def test_writing_and_reading_changes_nothing(tmp_path):
    module.write(few(), tmp_path / "few.h5")
    assert same(module.read(tmp_path / "few.h5"), few())
    assert [path.name for path in tmp_path.iterdir()] == ["few.h5"]


def test_equally_long_utterances_are_written_too(tmp_path):
    digits = SpokenDigits(
        np.array([1, 2]), np.array([0, 0]), np.float32([0.1, 0.2, 0.3, 0.4]),
        np.int32([1, 2, 3, 4]), np.array([0, 2, 4]), module.KEYS,
    )  # fmt: skip
    module.write(digits, tmp_path / "two.h5")
    assert same(module.read(tmp_path / "two.h5"), digits)


def test_tonic_reads_what_we_write(tmp_path):
    hsd = pytest.importorskip("tonic.datasets.hsd", exc_type=ImportError)
    (tmp_path / "SHD").mkdir()
    module.write(few(), tmp_path / "SHD" / "shd_train.h5")
    (tmp_path / "SHD" / "shd_train.h5.zip").touch()  # tonic looks for the download
    read = hsd.SHD(str(tmp_path), train=True)
    assert len(read) == 4
    assert read.speaker.tolist() == few().speakers.tolist()
    for i in range(4):
        events, label = read[i]
        times, units = few().events(i)
        assert label == few().labels[i]
        assert np.array_equal(events["x"], units)
        assert np.abs(events["t"] - times.astype(np.float64) * 1e6).max(initial=0) <= 1


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"spikes/units": None}, "has no spikes/units"),
        ({"labels": None, "extra/keys": None}, "has no labels, extra/keys"),
        ({"labels": np.array([0, 1])}, "differ in length"),
        ({"labels": np.array([0, 1, 20])}, "outside its 20 keys"),
        ({"spikes/units": [np.array([700]), np.array([1]), np.array([])]}, "differ in number"),
        (
            {"spikes/units": [np.array([700, 1, 1]), np.array([1]), np.array([])]},
            "outside 0 to 699",
        ),
        (
            {"spikes/times": [np.array([-1, 0, 0]), np.array([1]), np.array([])]},
            "negative or not finite",
        ),
    ],
)
def test_a_foreign_file_is_refused_by_name(tmp_path, replaced, message):
    path = shd_file(tmp_path / "foreign.h5", **replaced)
    with pytest.raises(module.SpokenDigitsError, match=message) as error:
        spoken_digits(path=path)
    assert "foreign.h5" in str(error.value)


def test_files_that_are_no_hdf5_are_refused(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("not spikes")
    with pytest.raises(module.SpokenDigitsError, match=r"cannot be read as HDF5.*another file"):
        spoken_digits(path=text)
    packed = tmp_path / "shd_train.h5.gz"
    packed.write_bytes(gzip.compress(b"spikes"))
    with pytest.raises(module.SpokenDigitsError, match="unpack it first"):
        spoken_digits(path=packed)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5"):
        spoken_digits(path=tmp_path / "nowhere.h5")


def test_fixed_length_fields_are_refused(tmp_path):
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["spikes/times"] = file["spikes/units"] = np.zeros(3)
        file["labels"], file["extra/keys"] = np.zeros(3, int), np.array([b"zero"])
    with pytest.raises(module.SpokenDigitsError, match="differ in number"):
        spoken_digits(path=tmp_path / "flat.h5")


# Who says what


def test_no_voice_is_in_both_splits():
    heard = {
        split: {
            module.utterance(split, label, number, seed).speaker
            for label in range(20)
            for number in range(40)
            for seed in range(3)
        }
        for split in ("train", "test")
    }
    assert len(heard["train"]) == 16 and len(heard["test"]) == 6
    assert not heard["train"] & heard["test"]


def test_voices_take_turns():
    said = [module.utterance("train", 3, number, 0).speaker for number in range(32)]
    assert sorted(said[:16]) == sorted(said[16:]) == list(range(16))
    assert said[:16] != said[16:]


def test_utterances_differ_in_manner_and_seed():
    said = [module.utterance("train", label, 0, seed) for label in (3, 13) for seed in (0, 1)]
    assert len({(u.word.words_per_minute, u.onset, u.level) for u in said}) == 4
    assert {u.word.text for u in said} == {"three", "drei"}
    assert module.utterance("train", 3, 0, 0) == said[0]


# Making and keeping


def test_digits_are_made_once_and_alike(folder, monkeypatch):
    made = english(n_per_class=2)
    assert len(made) == 20
    assert made.labels.tolist() == [*range(10)] * 2
    assert len(made.times) > 20 * 50
    for i in range(20):
        times, units = made.events(i)
        assert (np.diff(times) >= 0).all() and 0.2 < times[-1] < 1.05
        assert units.min() >= 0 and units.max() < PATCH["CHANNELS"]
    files = sorted(folder.glob("*.h5"))
    assert [f.name for f in files] == ["train-english-0-000.h5", "train-english-0-001.h5"]

    monkeypatch.setattr(module, "_hear", None)  # nothing is made again
    assert same(english(n_per_class=2), made)
    first = english(n_per_class=1)
    assert np.array_equal(first.events(9)[0], made.events(9)[0])
    monkeypatch.undo()

    for name, value in PATCH.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "cache_folder", lambda: folder / "other")
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)  # threads change nothing
    assert same(english(n_per_class=2), made)
    different = english(n_per_class=1, seed=1)
    assert not np.array_equal(different.times, first.times)


def test_where_the_cache_cannot_be_made_it_says_how_to_choose_another(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setattr(module, "cache_folder", lambda: folder / "file" / "below")
    with pytest.raises(module.SpokenDigitsError, match=r"below.*Not a dir.*set XDG_CACHE_HOME"):
        english()


def test_languages_and_splits(folder):
    both = spoken_digits("test", n_per_class=1)
    assert both.labels.tolist() == list(range(20))
    german = spoken_digits("test", languages=["german"], n_per_class=1)
    assert german.labels.tolist() == list(range(10, 20))
    assert np.array_equal(german.events(0)[0], both.events(10)[0])
    assert both.speakers.min() >= 16


@pytest.mark.parametrize("damage", ["truncated", "text", "swapped", "changed"])
def test_a_damaged_cache_rebuilds_itself(folder, damage):
    made = english()
    (file,) = folder.glob("*.h5")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "text":
        file.write_text("nothing")
    elif damage == "swapped":
        module.write(few(), file)
    else:
        with h5py.File(file, "r+") as content:
            content["labels"][0] = 5
    with pytest.warns(UserWarning, match="is damaged; it is made anew"):
        assert same(english(), made)
    assert same(english(), made)


def test_an_interrupt_keeps_what_is_done(folder, monkeypatch):
    hear, calls = module._hear, []

    def interrupted(shard, bar):
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return hear(shard, bar)

    monkeypatch.setattr(module, "_hear", interrupted)
    with pytest.raises(KeyboardInterrupt):
        english(n_per_class=3)
    assert [f.name for f in folder.glob("*.h5")] == ["train-english-0-000.h5"]
    assert len(english(n_per_class=3)) == 30
    assert [shard.block for shard in calls] == [0, 1, 1, 2]


def test_a_failure_while_writing_leaves_no_file(folder, monkeypatch):
    monkeypatch.setattr(module, "_checksum", lambda digits: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        english()
    assert not list(folder.glob("*.h5")) and not list(folder.glob("*.part"))


def test_an_error_in_one_ear_is_raised(folder, monkeypatch):
    def deaf(*arguments):
        raise ZeroDivisionError("ear")

    monkeypatch.setattr(module, "stimulus", deaf)
    with pytest.raises(ZeroDivisionError, match="ear"):
        english()


def test_processes_share_the_work(tmp_path):
    script = f"""
import importlib, pathlib, sys
module = importlib.import_module("labkit.data.spoken_digits")
for name, value in {PATCH}.items():
    setattr(module, name, value)
module.cache_folder = lambda: pathlib.Path({str(tmp_path)!r})
hear = module._hear
def counted(shard, bar):
    print("made", shard.block)
    return hear(shard, bar)
module._hear = counted
digits = module.spoken_digits("train", languages=("english",), n_per_class=4)
print("sum", digits.times.sum(dtype="f8"), len(digits))
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [worker.communicate(timeout=120)[0].split("\n") for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    made = [line for lines in said for line in lines if line.startswith("made")]
    assert sorted(made) == ["made 0", "made 1", "made 2", "made 3"]
    assert len({line for lines in said for line in lines if line.startswith("sum")}) == 1


def test_the_name_of_the_cache_depends_on_the_recipe(monkeypatch):
    before = module.cache_folder.__wrapped__()
    monkeypatch.setattr(module, "VERSION", 99)
    assert module.cache_folder.__wrapped__() != before


# What may be missing


def test_without_espeak_the_reader_learns_what_to_install(folder, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(speech.SpeechError, match="pip install espeakng-loader"):
        english()


@pytest.mark.parametrize("package", ["h5py", "filelock"])
def test_without_a_package_the_reader_learns_what_to_install(folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(module.SpokenDigitsError, match=f"pip install {package}"):
        english()


def test_a_library_that_does_not_load(monkeypatch, tmp_path):
    import espeakng_loader

    broken = tmp_path / "libespeak-ng.so"
    broken.write_text("no library")
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
    with pytest.raises(speech.SpeechError, match="--force-reinstall espeakng-loader"):
        speech.say([speech.Word("one", "en-us")])


def test_the_same_list_of_words_sounds_the_same():
    words = [
        speech.Word(text, f"{language}+{voice}", 140)
        for language, text in (("en-us", "seven"), ("de", "fünf"))
        for voice in ("f2", "edward")  # one breathes at random, one is a Klatt synthesiser
    ]
    first, second = speech.say(words), speech.say(words)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    for sound in first:
        assert sound.dtype == np.float32
        assert 0.2 < len(sound) / speech.RATE < 1.2
        assert 0.1 < np.abs(sound).max() <= 1


def test_words_that_cannot_be_said():
    with pytest.raises(speech.SpeechError, match=r"unknown voice 'xx\+f1'"):
        speech.say([speech.Word("one", "xx+f1")])
    with pytest.raises(ValueError, match="pitch must be 0 to 99, not 120"):
        speech.say([speech.Word("one", "en-us", pitch=120)])


def test_every_voice_exists_in_every_language():
    words = [
        speech.Word("a", f"{accent}+{voice}")
        for accents in module.ACCENTS.values()
        for accent in accents
        for voice in module.SPEAKERS
    ]
    assert len(speech.say(words)) == len(words)
    variants = Path(__import__("espeakng_loader").get_data_path()) / "voices" / "!v"
    assert all((variants / voice).is_file() for voice in module.SPEAKERS)
