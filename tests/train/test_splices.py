"""Sentences of pieces of answers: every word is where it is said, and the codes are of just these pieces."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from facrt.train.answers import Answer
from facrt.train.labels import label_path, write_labels
from facrt.train.mixing import SpokenMix
from facrt.train.run import Run
from facrt.train.splices import Word, dictated, proper_words, splice, words_of_answer
from facrt.train.timing import Sound

TEXT = "Hello, Anna is here."
SOUNDS = [
    Sound(0.013, "h", 0), Sound(0.21, "l"), Sound(0.34, "sil"), Sound(0.42, "a", 7), Sound(0.71, "I", 12),
    Sound(0.82, "h", 15), Sound(1.2, "sil"),
]  # fmt: skip


def test_words_begin_on_whole_tokens() -> None:
    """Spans of 13, 327, 80, 290, 110, 380 ms last 1, 8, 2, 7, 3, 10 tokens of 40 ms; the last pause is the rest."""
    assert words_of_answer(TEXT, SOUNDS, 35) == [
        Word("Hello,", 0, 9, 11), Word("Anna", 11, 18, 18), Word("is", 18, 21, 21), Word("here.", 21, 31, 35),
    ]  # fmt: skip


def test_a_word_beyond_the_end_of_the_answer_is_none() -> None:
    assert [word.text for word in words_of_answer(TEXT, SOUNDS, 20)] == ["Hello,", "Anna", "is here."]


def answers() -> tuple[list[Answer], list[list[Word]]]:
    """Three answers whose mel rows are their own numbers: 1000 * answer + frame."""
    words = [
        words_of_answer(TEXT, SOUNDS, 35),
        [Word("The", 0, 3, 3), Word("lamp.", 3, 9, 12)],
        [Word("Yes.", 0, 5, 8)],
    ]
    made = []
    for i, said in enumerate(words):
        size = said[-1].over
        mel = (1000 * i + torch.arange(4 * size)).expand(128, -1).half()
        made.append(Answer(TEXT, torch.zeros(960 * size), torch.zeros(80, 2 * size), mel, torch.zeros(2 * size)))
    return made, words


def test_a_splice_is_its_pieces() -> None:
    made, words = answers()
    proper = proper_words(words)
    assert proper == {"Anna"}
    seen = set()
    for seed in range(200):
        one = splice(words, proper, seed)
        assert one == splice(words, proper, seed)
        seen.add(one.text)
        heard = one.heard(made)[0].tolist()
        wanted = [1000 * i + frame for i, begin, end in one.pieces for frame in range(4 * begin, 4 * end)]
        assert heard == torch.tensor(wanted).half().tolist()
        assert one.text[0].isupper()
        assert one.text.endswith(".")
        assert not any(sign in one.text[:-1] for sign in ".?!"), "a sentence ends once"
        assert " anna" not in one.text
        assert " The" not in one.text
        *_, (last, begin, end) = one.pieces
        assert (begin, end) == (words[last][-1].end, words[last][-1].over), "a pause at the end"
    assert len(seen) > 100


def test_a_dictated_text_is_asked_for_in_full() -> None:
    user, answer = dictated("The lamp is Anna.").messages
    assert user.text is not None
    assert user.text.endswith("The lamp is Anna.")
    assert (answer.text, answer.audio) == ("The lamp is Anna.", None)


def test_answers_with_labels_are_spliced(trained_run: Run, tiny_data: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_data, data)
    shutil.copytree(trained_run.folder, folder, ignore=shutil.ignore_patterns("questions*", "answers.pt"))
    recipe = replace(trained_run.recipe, data={**trained_run.recipe.data, "splices": 12})
    assert Run(recipe, folder, data).splices == {}
    write_labels(label_path(data / "a1.wav"), [Sound(0.0, "t", 0), Sound(0.2, "l", 4), Sound(0.4, "sil")], 0.44)
    run = Run(recipe, folder, data)
    assert run.splices
    assert all(set(text.lower().rstrip(".").split()) <= {"the", "lamp", "is", "on"} for text in run.splices)
    assert all(len(ids) for ids in run.splices.values())
    again = Run(recipe, folder, data).splices
    assert all(torch.equal(ids, again[text]) for text, ids in run.splices.items())
    assert set(run.splices) <= set(run.speech)
    stage = run.stage("cocktail2")
    loss, _ = stage.loss(0, torch.Generator().manual_seed(1))
    assert torch.isfinite(loss)


def test_reading_aloud_is_drawn_from_the_splices(trained_run: Run) -> None:
    texts = ["The lamp is Anna.", "Hello hello."]
    ids = torch.arange(10)
    maker = trained_run.maker({**trained_run.speech, **dict.fromkeys(texts, ids)})
    aloud = [dictated(text) for text in texts]
    mix = SpokenMix(maker, trained_run.conversations, {"read_aloud": 1.0}, aloud)
    samples = mix.batch(8, torch.Generator().manual_seed(3))
    assert all(s.groups is not None and not s.audios for s in samples)
    assert {tuple(s.text.tolist()) for s in samples} <= {
        tuple(maker.make(c, 0, False, True).text.tolist()) for c in aloud
    }
    instead = SpokenMix(maker, trained_run.conversations, {"read_aloud": 1.0}).batch(
        8, torch.Generator().manual_seed(3)
    )
    assert all(s.groups is not None and not s.audios for s in instead)
