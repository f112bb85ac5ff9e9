"""Words spoken by eSpeak NG, from the wheel ``espeakng-loader``.

eSpeak NG (https://github.com/espeak-ng/espeak-ng) is a formant synthesiser for some hundred
languages, under the GPL, version 3 or later. Nothing of it is part of this package: the wheel
carries library and data, and they are loaded at run time, in a process of their own. That process
is this very file, run as a script. It ends with each list of words because eSpeak NG keeps the
phase of its random flutter between words and offers no way to reset it: only in a fresh process
does the same list sound the same, sample by sample.
"""

import ctypes
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the script below needs only the standard library, and starts at once
    from numpy import ndarray

RATE = 22_050  # Hz, the rate of eSpeak NG's formant voices
LIMITS = {"words_per_minute": (80, 450), "pitch": (0, 99), "pitch_range": (0, 99)}


@dataclass(frozen=True)
class Word:
    """One word and how to say it."""

    text: str
    voice: str  # language and variant, e.g. "en-us+f1"
    words_per_minute: int = 175
    pitch: int = 50  # 0 to 99, 50 is the voice's own
    pitch_range: int = 50  # 0 monotone, 99 lively


class SpeechError(RuntimeError):
    """eSpeak NG is missing, or could not say what it was asked to."""


def espeak_version() -> str:
    """The version of the wheel that brings eSpeak NG.

    Raises
    ------
    SpeechError
        where it is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("espeakng-loader")
    except PackageNotFoundError:
        raise SpeechError(
            "the speech synthesiser eSpeak NG is not installed; in a terminal of this environment: "
            "pip install espeakng-loader"
        ) from None


def say(words: Sequence[Word]) -> "list[ndarray]":
    """Speak words one after the other.

    Parameters
    ----------
    words : what to say; the same list gives the same samples, while a word alone may differ in
        the phase of its flutter from the same word after others

    Returns
    -------
    One float32 array per word: sound pressure from -1 to 1 at `RATE` samples per second.

    Raises
    ------
    ValueError
        for a rate, pitch or range outside `LIMITS`.
    SpeechError
        where eSpeak NG is missing, does not load, or does not know a voice.
    """
    import numpy as np

    for word in words:
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(word, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(word, name)}")
    espeak_version()
    import espeakng_loader

    order = {
        "library": str(espeakng_loader.get_library_path()),
        "data": str(espeakng_loader.get_data_path()),
        "words": [astuple(word) for word in words],
    }
    done = subprocess.run(
        [sys.executable, "-I", __file__], input=json.dumps(order).encode(), capture_output=True
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise SpeechError(
            f"eSpeak NG could not speak: {said.splitlines()[-1]}. If it does not load, install it "
            "anew: pip install --force-reinstall espeakng-loader"
        )
    return [np.frombuffer(pcm, "<i2").astype(np.float32) / 2**15 for pcm in _parts(done.stdout)]


def _parts(stream: bytes) -> Iterator[bytes]:
    """Split what the script wrote: each word as its number of bytes, then these bytes."""
    position = 0
    while position < len(stream):
        (size,) = struct.unpack_from("<q", stream, position)
        position += 8
        yield stream[position : position + size]
        position += size


def _speak(library: str, data: str, words: list[list]) -> Iterator[bytes]:
    """The samples of each word as 16-bit little-endian PCM; runs in its own process."""
    # From speak_lib.h: samples are handed to a callback, parameters are numbered.
    synchronous, utf8, rate, pitch, pitch_range = 2, 1, 1, 3, 4
    espeak = ctypes.CDLL(library)
    chunks: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.c_void_p)
    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    if espeak.espeak_Initialize(synchronous, 0, data.encode(), 0) != RATE:
        raise OSError(f"no voices at {RATE} Hz in {data}")
    espeak.espeak_SetSynthCallback(collect)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of breath; by default the time of day
    for text, voice, words_per_minute, height, liveliness in words:
        if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"unknown voice {voice!r}")
        espeak.espeak_SetParameter(rate, words_per_minute, 0)
        espeak.espeak_SetParameter(pitch, height, 0)
        espeak.espeak_SetParameter(pitch_range, liveliness, 0)
        encoded = text.encode() + b"\0"
        chunks.clear()
        if espeak.espeak_Synth(encoded, len(encoded), 0, 1, 0, utf8, None, None) != 0:
            raise ValueError(f"cannot say {text!r}")
        espeak.espeak_Synchronize()
        yield b"".join(chunks)


if __name__ == "__main__":
    for part in _speak(**json.load(sys.stdin)):
        sys.stdout.buffer.write(struct.pack("<q", len(part)) + part)
