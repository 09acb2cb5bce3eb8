"""Find speech in a sound: Silero's ONNX model on fastconv.

The package silero-vad asks its model every 32 ms how likely it is that somebody speaks, and makes
segments of the answers. Its code stays as it is; the session that it makes is fastconv's in the
place of ONNX Runtime's. A sound with two voices is synthesised here; a WAV file can be named:

    pip install -e '.[examples]'
    python examples/voice_activity.py [SOUND.wav] [--runtime onnxruntime]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
import silero_vad
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly

import fastconv.onnx

#: Samples a second that the model wants.
RATE = 16_000
#: The first three resonances of a voice tract that says a vowel, in Hz.
FORMANTS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}


def load_model(runtime: str = "fastconv") -> Any:
    """Return Silero's model, on the session of fastconv or of ONNX Runtime."""
    if runtime != "fastconv":
        return silero_vad.load_silero_vad(onnx=True)
    with patch.object(onnxruntime, "InferenceSession", fastconv.onnx.InferenceSession):
        return silero_vad.load_silero_vad(onnx=True)


def probabilities(model: Any, sound: np.ndarray) -> list[float]:
    """Return how likely it is that there is speech, for every 512 samples of a sound."""
    chances = model.audio_forward(torch.from_numpy(sound), RATE)
    return [float(each) for each in chances[0]]


def segments(chances: list[float], samples: int) -> list[tuple[float, float]]:
    """Return where speech begins and ends, in seconds."""
    found = silero_vad.get_speech_timestamps_from_probs(
        chances, sampling_rate=RATE, audio_length_samples=samples
    )
    return [(each["start"] / RATE, each["end"] / RATE) for each in found]


def two_voices() -> np.ndarray:
    """Return a low voice and a high one with noise before, between and behind them."""
    pause = np.zeros(RATE * 4 // 5)
    sound = np.concatenate([pause, vowels("aieoua", 120), pause, vowels("oaiue", 190), pause])
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(sound))
    return (sound + noise).astype(np.float32)


def vowels(word: str, pitch: float, seconds: float = 0.22) -> np.ndarray:
    """Return a voice that glides from vowel to vowel: harmonics, as loud as formants make them."""
    time = np.arange(int(len(word) * seconds * RATE)) / RATE
    place, length = time / seconds - 0.5, time[-1]
    frequency = pitch * (1.1 - 0.25 * time / length + 0.03 * np.sin(2 * np.pi * 5 * time))
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    tracks = [np.interp(place, range(len(word)), each)
              for each in zip(*(FORMANTS[vowel] for vowel in word), strict=True)]  # fmt: skip
    voice = np.zeros(len(time))
    for number in range(1, int(4000 / pitch)):
        loudness = sum(
            gain / (1 + ((number * frequency - track) / width) ** 2)
            for track, gain, width in zip(tracks, (1, 0.6, 0.3), (60, 90, 120), strict=True)
        )
        voice += loudness / np.sqrt(number) * np.sin(number * phase)
    syllables = 0.25 + 0.75 * np.abs(np.sin(np.pi * time / seconds))
    fade = np.minimum(1, np.minimum(time, length - time) / 0.03)
    voice *= syllables * fade
    return 0.5 * voice / np.abs(voice).max()


def read_sound(path: Path) -> np.ndarray:
    """Return the samples of a WAV file, its channels mixed, at the model's rate."""
    rate, samples = wavfile.read(path)
    if samples.dtype.kind in "iu":
        lowest, highest = np.iinfo(samples.dtype).min, np.iinfo(samples.dtype).max
        half = (highest - lowest + 1) / 2
        samples = (samples - (lowest + half)) / half
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    return resample_poly(samples, RATE, rate).astype(np.float32)


def drawn(chances: list[float]) -> str:
    """Return a line of text that is high where there is speech: a letter for 64 ms."""
    levels = " .:-=+*#%@"
    return "".join(levels[min(9, int(10 * max(chances[at : at + 2])))]
                   for at in range(0, len(chances), 2))  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Find the speech in a sound and print where it is."""
    parser = argparse.ArgumentParser(description="Find speech in a sound with Silero's model.")
    parser.add_argument("sound", nargs="?", type=Path, help="a WAV file; else two synthetic voices")
    parser.add_argument("--runtime", choices=("fastconv", "onnxruntime"), default="fastconv")
    arguments = parser.parse_args(argv)
    sound = read_sound(arguments.sound) if arguments.sound else two_voices()
    chances = probabilities(load_model(arguments.runtime), sound)
    print(f"{len(sound) / RATE:.2f} s of sound, a letter for 64 ms:\n[{drawn(chances)}]")
    for start, end in segments(chances, len(sound)):
        print(f"speech from {start:.2f} s to {end:.2f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
