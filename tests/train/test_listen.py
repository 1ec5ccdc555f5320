"""Listening: the right sentence is found among minimal pairs, another one is not, and silence is none of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed (pip install 'facrt[judge]')")
pytest.importorskip("dtaidistance", reason="dtaidistance is not installed (pip install 'facrt[judge]')")
pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (pip install 'facrt[judge]')")
pytest.importorskip("pyworld", reason="pyworld is not installed (pip install 'facrt[judge]')")

from facrt.errors import RequestError
from facrt.train import listen, speak
from facrt.train.intents import Split, example_at

TEXTS = ("The volume is thirteen.", "The kitchen lamp is now on.", "Driving forward ten meters.")
CONFUSED = {"The volume is thirteen.": "The volume is thirty.", "The kitchen lamp is now on.":
            "The kitchen lamp is now off.", "Driving forward ten meters.": "Driving backward ten meters."}  # fmt: skip
CLEAN = speak.Condition("en-us", 160, 50, -20.0, 60.0, 1.0, 0.0, (0.1, 0.2), 7)
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> listen.Listener:
    """Three texts among twelve candidates, so that little has to be spoken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listen, "NUM_CANDIDATES", 12)
        return listen.Listener(TEXTS, 0, tmp_path_factory.mktemp("candidates"))


@needs_espeak
class TestListener:
    def test_originals_are_found_among_minimal_pairs(self, small: listen.Listener) -> None:
        for index, text in enumerate(TEXTS):
            heard = small.listen(index, small.original(index))
            assert heard.says(text) == (True, True)
            assert heard.retrieval.margin > 0.9

    def test_another_speech_of_the_text_is_found(self, small: listen.Listener) -> None:
        """Slower, at espeak-ng's own pitch, through another synthesis."""
        for index, text in enumerate(TEXTS):
            heard = small.listen(index, speak.speak_question(text, replace(CLEAN, speed_wpm=145)))
            assert heard.retrieval.found == text
            assert 0.05 < heard.retrieval.margin < 0.9

    def test_its_minimal_pair_is_told_from_it(self, small: listen.Listener) -> None:
        for index, text in enumerate(TEXTS):
            wrong = speak.speak_question(CONFUSED[text], CLEAN)
            heard = small.listen(index, wrong)
            assert heard.retrieval.found == CONFUSED[text]
            assert heard.retrieval.margin < 0
            assert heard.recognized == CONFUSED[text]

    def test_silence_and_noise_are_not_found(self, small: listen.Listener) -> None:
        noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) * 0.1
        for pcm in (np.zeros(1600, np.float32), np.zeros(640, np.float32), noise):
            says = [small.listen(index, pcm).says(text) for index, text in enumerate(TEXTS)]
            assert not any(recognized for _, recognized in says)
            assert sum(nearest for nearest, _ in says) <= 1

    def test_recognizing_depends_on_nothing_before(self, small: listen.Listener) -> None:
        first = [small.listen(index, small.original(index)) for index in range(len(TEXTS))]
        assert [small.listen(index, small.original(index)) for index in reversed(range(len(TEXTS)))] == first[::-1]

    def test_candidates_are_spoken_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spoken: list[str] = []
        monkeypatch.setattr(speak, "speak_answer", lambda text: spoken.append(text) or np.zeros(960, np.float32))
        paths = listen.speak_candidates(["a", "b"], tmp_path, lambda *_: None)
        assert listen.speak_candidates(["b", "a", "c"], tmp_path, lambda *_: None).items() >= paths.items()
        assert spoken == ["a", "b", "c"]


def test_answers_hold_what_the_generator_says() -> None:
    answers = set(listen.every_answer())
    assert len(answers) > 5000
    for split in Split:
        drawn = (turn for index in range(40) for turn in example_at(split, 3, index).turns)
        assert {turn.answer_text for turn in drawn} <= answers


def test_minimal_pairs_are_the_easily_confused_ones() -> None:
    for text, confused in CONFUSED.items():
        pairs = listen.minimal_pairs(text, listen.every_answer(), listen.NUM_PAIRS)
        assert confused in pairs
        assert text not in pairs
        assert len(pairs) == listen.NUM_PAIRS


@pytest.mark.parametrize("count", [1, 40])
def test_each_text_is_among_a_hundred_candidates(count: int) -> None:
    texts = [example_at(Split.UNSEEN_SLOTS, 1, index).turns[0].answer_text for index in range(count)]
    sets = listen.candidate_sets(texts, 0)
    assert sets == listen.candidate_sets(texts, 0)
    for text, candidates in zip(texts, sets, strict=True):
        assert text in candidates
        assert len({listen.spoken_words(candidate) for candidate in candidates}) == listen.NUM_CANDIDATES
        assert set(listen.minimal_pairs(text, listen.every_answer(), listen.NUM_PAIRS)) <= set(candidates)


def test_grammar_is_of_whole_sentences() -> None:
    assert listen.grammar(["It is three o'clock.", "Yes, it is!"]) == (
        "#JSGF V1.0;\ngrammar answers;\npublic <answer> = it is three o'clock | yes it is;\n"
    )


def test_recognizer_can_pronounce_all_that_the_generator_says() -> None:
    recognizer = listen.Recognizer()
    silence = np.zeros(3200, np.float32)
    assert recognizer.recognize(silence, (*listen.every_answer()[::10], "Three lemonades cost twelve euros.")) is None
    words = {word for answer in listen.every_answer() for word in listen.spoken_words(answer).split()}
    assert recognizer.unknown_words(words) == []
    with pytest.raises(RequestError, match="does not know xyzzy"):
        recognizer.recognize(silence, ["xyzzy"])
