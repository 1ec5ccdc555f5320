"""Which of many sentences a recording says: the nearest by DTW over mel-cepstra, and a recognizer with a grammar."""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pocketsphinx
from dtaidistance import dtw_ndim
from numpy.typing import NDArray
from scipy.fft import dct

from ..errors import RequestError
from ..runtime import _native
from ..runtime.audio import read_audio, write_wav
from . import speak
from .intent import Call, Pattern
from .intents import INTENTS

NUM_CANDIDATES, NUM_PAIRS = 100, 6
NUM_MELS, NUM_CEPSTRA = 80, 20
TRIM = 1.0  # of the log-mel's scale, 40 dB: edges further below the loudest frame are silence
PRONUNCIATIONS = {"lemonades": "L EH M AH N EY D Z"}  # of the generator's words, what the recognizer's dictionary lacks

Array = NDArray[np.float32]
Cepstra = NDArray[np.float64]  # [T, 20], 50 frames/s


def spoken_words(text: str) -> str:
    """What is heard of a text: lower case, no punctuation."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


@cache
def every_answer() -> tuple[str, ...]:
    """All that the generator's assistant ever says, in order."""
    answers: set[str] = set()
    for intent in INTENTS:
        for pattern in intent.patterns:
            decisive = {tuple(slots[name] for name in pattern.depends_on): slots for slots in intent.combinations}
            answers.update(_words(pattern, slots) for slots in decisive.values())
    return tuple(sorted(answers))


def _words(pattern: Pattern, slots: Mapping[str, object]) -> str:
    answer = pattern.respond(slots)
    return answer.words if isinstance(answer, Call) else answer


def minimal_pairs(text: str, answers: Iterable[str], count: int) -> list[str]:
    """The answers most easily taken for `text`: of as many words, fewest of them other ones, and those spelt alike.

    The places that can differ take turns: "forward" is told from "backward" too where many numbers are more alike.
    """
    own = spoken_words(text).split()
    others: list[tuple[tuple[int, ...], list[str], str]] = []
    for answer in answers:
        words = spoken_words(answer).split()
        if len(words) == len(own) and words != own:
            others.append((tuple(i for i, word in enumerate(words) if word != own[i]), words, answer))
    most = max((len(places) for places, _, _ in sorted(others, key=lambda other: len(other[0]))[:count]), default=0)
    groups: dict[tuple[int, ...], list[tuple[float, str]]] = defaultdict(list)
    for places, words, answer in others:
        if len(places) <= most:
            alike = sum(SequenceMatcher(None, own[i], words[i]).ratio() for i in places)
            groups[places].append((-alike, answer))
    rows = [(len(places), turn, *one) for places, group in groups.items() for turn, one in enumerate(sorted(group))]
    return [answer for *_, answer in sorted(rows)[:count]]


def candidate_sets(texts: Sequence[str], seed: int) -> list[list[str]]:
    """For each text 100 sentences to choose from: itself, its minimal pairs, and others at random.

    The others are of the same run as far as there are enough, so that little has to be spoken for it.
    """
    pairs = {text: minimal_pairs(text, every_answer(), NUM_PAIRS) for text in dict.fromkeys(texts)}
    draw = random.Random(f"candidates/{seed}")
    pool = list(dict.fromkeys([*pairs, *(pair for near in pairs.values() for pair in near)]))
    if len(pool) < NUM_CANDIDATES:
        others = sorted(set(every_answer()) - set(pool))
        pool += draw.sample(others, NUM_CANDIDATES - len(pool))
    sets = []
    for text in texts:
        chosen = [text, *pairs[text]]
        others = [answer for answer in pool if answer not in chosen]
        sets.append(chosen + draw.sample(others, NUM_CANDIDATES - len(chosen)))
    return sets


def mel_cepstra(pcm: Array) -> Cepstra:
    """Mel-cepstra without loudness, silent edges and the utterance's mean: [T, 20], 50 frames/s.

    Args:
        pcm: [N] float32 at 16 kHz, N at least 320.
    """
    mel = _native.whisper_log_mel(pcm, NUM_MELS)  # [80, 100 frames/s]
    mel = mel[:, : mel.shape[1] // 2 * 2].reshape(NUM_MELS, -1, 2).mean(2)
    loudest = mel.max(0)
    (loud,) = np.nonzero(loudest > loudest.max() - TRIM)
    cepstra = dct(mel[:, loud[0] : loud[-1] + 1].astype(np.float64), axis=0, norm="ortho")[1 : NUM_CEPSTRA + 1].T
    return np.ascontiguousarray(cepstra - cepstra.mean(0))


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found among the candidates.

    `margin`: by how much the right one is nearer than the nearest wrong one, as a share of the latter's distance;
    negative where a wrong one is nearer.
    """

    found: str
    margin: float


def retrieve(heard: Cepstra, candidates: Mapping[str, Cepstra], right: str) -> Retrieval:
    """The nearest candidate by dynamic time warping; a distance is divided by both lengths."""
    distances = {
        text: dtw_ndim.distance_fast(heard, cepstra, inner_dist="euclidean") / (len(heard) + len(cepstra))
        for text, cepstra in candidates.items()
    }
    wrong = min(distance for text, distance in distances.items() if text != right)
    return Retrieval(min(distances, key=distances.__getitem__), 1 - distances[right] / max(wrong, 1e-12))


def grammar(sentences: Collection[str]) -> str:
    """A JSGF grammar of whole sentences."""
    choices = " | ".join(sorted({spoken_words(sentence) for sentence in sentences}))
    return f"#JSGF V1.0;\ngrammar answers;\npublic <answer> = {choices};\n"


class Recognizer:
    """PocketSphinx with the English acoustic model that it comes with; each recording is heard by itself."""

    def __init__(self) -> None:
        folder = pocketsphinx.get_model_path("en-us")
        self._decoder = pocketsphinx.Decoder(
            hmm=f"{folder}/en-us", dict=f"{folder}/cmudict-en-us.dict", lm=None, cmn="batch", loglevel="FATAL"
        )
        for word, phones in PRONUNCIATIONS.items():
            self._decoder.add_word(word, phones, True)

    def recognize(self, pcm: Array, sentences: Collection[str]) -> str | None:
        """Which of the sentences is heard in 16 kHz samples [N]; None: none of them.

        Raises:
            RequestError: a sentence has a word that the recognizer cannot pronounce.
        """
        unknown = self.unknown_words({word for sentence in sentences for word in spoken_words(sentence).split()})
        if unknown:
            raise RequestError(f"the recognizer does not know {', '.join(unknown)}; add it to PRONUNCIATIONS")
        self._decoder.add_jsgf_string("answers", grammar(sentences))
        self._decoder.activate_search("answers")
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        spoken = {spoken_words(sentence): sentence for sentence in sentences}
        return None if heard is None else spoken.get(heard.hypstr)

    def unknown_words(self, words: Iterable[str]) -> list[str]:
        """The words that it cannot pronounce."""
        return sorted(word for word in words if self._decoder.lookup_word(word) is None)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the two listeners make of one recording."""

    retrieval: Retrieval
    recognized: str | None

    def says(self, text: str) -> tuple[bool, bool]:
        """Whether the nearest candidate, and whether what was recognized, is the text."""
        return self.retrieval.found == text, self.recognized == text


class Listener:
    """Judges recordings of given texts, each among 100 candidates in the answers' voice.

    The candidates are spoken once and kept in a folder. One text is judged at a time, by its place in `texts`.
    """

    def __init__(
        self, texts: Sequence[str], seed: int, folder: Path, progress: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self.texts = list(texts)
        self._sets = candidate_sets(texts, seed)
        self._paths = speak_candidates(sorted(set(chain.from_iterable(self._sets))), folder, progress)
        self._cepstra = {text: mel_cepstra(read_audio(path)) for text, path in self._paths.items()}
        self._recognizer = Recognizer()

    def listen(self, index: int, pcm: Array) -> Heard:
        """What a recording [N], 16 kHz float32, of `texts[index]` says."""
        text, candidates = self.texts[index], self._sets[index]
        nearest = retrieve(mel_cepstra(pcm), {name: self._cepstra[name] for name in candidates}, text)
        return Heard(nearest, self._recognizer.recognize(pcm, candidates))

    def original(self, index: int) -> Array:
        """The right rendering, 16 kHz float32 [N]: what the recognizer can do at best."""
        return read_audio(self._paths[self.texts[index]])


def speak_candidates(texts: Sequence[str], folder: Path, progress: Callable[[int, int], None]) -> dict[str, Path]:
    """The texts as WAV files in the answers' voice; those that are there already are kept.

    Raises:
        FacrtError: espeak-ng is missing, or a file cannot be written.
    """
    paths = {text: folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.wav" for text in texts}
    for number, (text, path) in enumerate(paths.items(), start=1):
        if not path.exists():
            write_wav(path, speak.speak_answer(text), speak.ANSWER_RATE_HZ)
        progress(number, len(paths))
    return paths
