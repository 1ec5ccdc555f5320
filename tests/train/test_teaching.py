"""What the chat stages teach is what the generation loop does: teacher forcing gives the loop's own tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from facrt.model.checkpoint import load_chat
from facrt.model.generate import ChatModel, Step, as_float_pcm
from facrt.model.settings import GenerationSettings
from facrt.model.turn import Turn
from facrt.train import encoder_stage
from facrt.train.chat_stage import DICTATION_WEIGHT, ChatStage
from facrt.train.collate import MISSPOKEN_SHARE, Collator
from facrt.train.encoder_stage import EncoderTraining, Spoken, placed_reading, reading, said_in
from facrt.train.questions import QuestionStore
from facrt.train.run import Run
from facrt.train.samples import Sample
from goldens import LM, inputs, waveforms
from tolerances import TOLERANCES

CASES = ("u3p7", "u2p0", "u31", "u0p3", "edge_extra", "edge_trunc", "twoturn")


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return load_chat(LM / "model")


def observed(chat: ChatModel, case: str) -> tuple[list[Step], Sample, list[Path]]:
    """One answer by the loop, and the sample that it would be taught by."""
    settings = {"text_greedy": True, "force_text_abos": True, "max_new_tokens": 14}
    steps: list[Step] = []
    prompt = inputs(LM, f"_{case}")["input_ids"]
    chat.generate(prompt, waveforms(case), observe=steps.append, **settings)
    turn, fed = Turn(chat.config, GenerationSettings(**settings)), []
    for step in steps:
        turn.advance(int(step.text_logits.argmax()), step.speech_tokens)
        fed.append(turn.feedback is not None)
    groups = torch.tensor([step.speech_tokens for step in steps])
    return (
        steps,
        Sample(torch.from_numpy(prompt).flatten(), (), torch.tensor(turn.text_ids), groups, torch.tensor(fed)),
        [],
    )


def store_of(case: str, folder: Path, num_mels: int) -> tuple[QuestionStore, tuple[Path, ...]]:
    paths = []
    for i, wave in enumerate(waveforms(case)):
        paths.append(folder / f"{case}_{i}.wav")
        soundfile.write(paths[-1], as_float_pcm(wave).numpy(), 16_000, subtype="FLOAT")
    return QuestionStore(paths, folder / case, num_mels), tuple(paths)


def test_packed_predictions_equal_the_loop(chat: ChatModel, tmp_path: Path) -> None:
    samples, wanted_text, wanted_speech, paths = [], [], [], []
    for case in CASES:
        steps, sample, _ = observed(chat, case)
        _, audios = store_of(case, tmp_path, chat.config.audio.num_mels)
        paths += audios
        samples.append(Sample(sample.prompt, audios, sample.text, sample.groups, sample.is_fed))
        wanted_text += [step.text_logits for step in steps]
        wanted_speech += [row for step in steps for row in step.speech_logits]
    questions = QuestionStore(paths, tmp_path / "all", chat.config.audio.num_mels)
    stage = ChatStage("test", chat, questions, lambda draw: samples)
    with torch.inference_mode():
        out = stage.predict(samples)
    # the store keeps log-mels as float16
    torch.testing.assert_close(out.text_logits, torch.stack(wanted_text), rtol=0, atol=2e-2)
    torch.testing.assert_close(out.speech_logits, torch.stack(wanted_speech), rtol=0, atol=5e-2)
    assert torch.equal(out.text_labels, torch.cat([s.text for s in samples]))


def test_samples_without_audio_are_exact(chat: ChatModel) -> None:
    steps, sample, _ = observed(chat, "textonly")
    stage = ChatStage("test", chat, None, lambda draw: [sample])
    with torch.inference_mode():
        out = stage.predict([sample, sample])
    text = torch.stack([step.text_logits for step in steps])
    speech = torch.stack([row for step in steps for row in step.speech_logits])
    torch.testing.assert_close(out.text_logits, torch.cat([text, text]), rtol=0, atol=TOLERANCES["text_logits", "fp32"])
    torch.testing.assert_close(
        out.speech_logits, torch.cat([speech, speech]), rtol=0, atol=TOLERANCES["speech_logits", "fp32"]
    )


def test_text_only_and_spoken_samples_mix(chat: ChatModel) -> None:
    _, sample, _ = observed(chat, "textonly")
    silent = Sample(sample.prompt, (), sample.text, None, None)
    stage = ChatStage("test", chat, None, lambda draw: [silent])
    with torch.inference_mode():
        mixed = stage.predict([silent, sample, silent])
        alone = stage.predict([sample])
    torch.testing.assert_close(mixed.speech_logits, alone.speech_logits, rtol=0, atol=1e-4)
    size = len(sample.text)
    torch.testing.assert_close(mixed.text_logits[size : 2 * size], alone.text_logits, rtol=0, atol=1e-4)
    assert np.isfinite(float(stage.loss(0, torch.Generator())[0]))


PAUSE = 5


def test_dictation_is_right_where_rows_lie_at_the_embeddings_of_what_was_said(chat: ChatModel) -> None:
    module = EncoderTraining(chat, 3)
    said = torch.tensor([7, 3, PAUSE, 11, 7])
    dictation = module.dictation([Spoken(Path("a"), (), said, PAUSE)])
    unlabelled = torch.zeros(2, module.table.shape[1])
    both = dictation.said_in([Path("unlabelled"), Path("a")], [2, len(said)])
    assert both is not None
    loss, figures = dictation.loss(torch.cat([unlabelled, module.table[said]]), both)
    assert float(figures["ids_right"]) == 1.0
    alone = dictation.said_in([Path("a")], [len(said)])
    assert alone is not None
    assert float(dictation.loss(module.table[said], alone)[0]) == pytest.approx(float(loss))
    later = torch.tensor([7, 7, 3, 11, 7])  # the same in order, two of them elsewhere, one twice
    moved, figures = dictation.loss(module.table[later], alone)
    assert float(figures["ids_right"]) == 1.0
    far, figures = dictation.loss(module.table[said.flip(0)], alone)
    assert float(loss) < float(far)
    assert float(moved) < float(far)
    assert float(figures["ids_right"]) < 1.0
    assert dictation.said_in([Path("unlabelled")], [2]) is None


def test_a_word_is_not_read_off_the_question_beside() -> None:
    items = [Spoken(Path("a"), (), torch.tensor([PAUSE, 7]), PAUSE), Spoken(Path("b"), (), torch.tensor([3, 3]), PAUSE)]
    said, table = said_in(items, [2, 2]), torch.eye(12)
    assert said is not None
    _, figures = reading(table[torch.tensor([PAUSE, PAUSE, 7, 3])], said, table)  # the 7 is heard in the second one
    assert float(figures["ids_right"]) == pytest.approx(2 / 3)


def test_ids_are_wanted_at_their_places_at_first_and_then_in_their_order() -> None:
    """Of two readings, both in order, the placed loss takes the one at the ids' places; CTC takes either."""
    item = Spoken(Path("a"), (), torch.tensor([PAUSE, 7, PAUSE, 3]), PAUSE)
    table = torch.eye(12)
    there, beside = (table[torch.tensor(ids)] for ids in ([5, 7, 5, 3], [7, 5, 3, 5]))
    said = said_in([item], [4])
    assert said is not None
    placed, in_order = (
        [float(loss(rows, said, table)[0]) for rows in (there, beside)] for loss in (placed_reading, reading)
    )
    assert placed[1] > placed[0] + 1
    assert in_order[1] == pytest.approx(in_order[0], abs=1e-4)
    assert in_order[0] < 0.1


def test_rows_are_drawn_to_the_embeddings_that_they_are_read_as() -> None:
    """Ten times as long a row is read the same, and the surer; the base model would not know it."""
    item, table = Spoken(Path("a"), (), torch.tensor([PAUSE, 7, 3]), PAUSE), torch.eye(12)
    said = said_in([item], [3])
    assert said is not None
    for loss in (placed_reading, reading):
        (near, at), (far, away) = (loss(length * table[item.ids], said, table) for length in (1, 10))
        assert float(away["ids"]) <= float(at["ids"])
        assert float(at["distance"]) < 1e-3 < 80 < float(away["distance"])
        assert float(near) < float(far)


def test_the_encoder_stage_turns_to_order_after_its_placed_steps(
    trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = trained_run.stage("encoder")
    asked: list[str] = []
    for name in ("placed_reading", "reading"):
        real = getattr(encoder_stage, name)
        monkeypatch.setattr(encoder_stage, name, lambda *a, n=name, f=real: (asked.append(n), f(*a))[1])
    for step in range(3):
        stage.loss(step, torch.Generator().manual_seed(step))
    assert asked == ["placed_reading", "placed_reading", "reading"]  # placed_steps of the tiny recipe: 2


def test_a_stage_teaches_what_was_said_beside_the_answer(tmp_path: Path) -> None:
    chat = load_chat(LM / "model").requires_grad_(True)
    _, sample, _ = observed(chat, "u2p0")
    questions, audios = store_of("u2p0", tmp_path, chat.config.audio.num_mels)
    asked = Sample(sample.prompt, audios, sample.text, None, None)
    groups = int((sample.prompt == chat.config.audio_token_id).sum())
    dictation = EncoderTraining(load_chat(LM / "model"), 3).dictation(
        [Spoken(audios[0], (), torch.arange(1, groups + 1), 0)]
    )
    draw = lambda _: [asked]  # noqa: E731
    alone, _ = ChatStage("test", chat, questions, draw, disturb=False).loss(0, torch.Generator())
    both, figures = ChatStage("test", chat, questions, draw, disturb=False, dictation=dictation).loss(
        0, torch.Generator()
    )
    torch.testing.assert_close(both - alone, DICTATION_WEIGHT * (figures["ids"] + figures["distance"]))
    (gradient,) = torch.autograd.grad(both - alone, [chat.grouping.continuous.weight])
    assert float(gradient.abs().sum()) > 0


def test_some_of_the_speech_fed_back_in_training_is_wrong_but_none_of_the_labels(chat: ChatModel) -> None:
    _, sample, _ = observed(chat, "u3p7")
    assert sample.groups is not None
    stage, size = ChatStage("test", chat, None, lambda _: [sample]), chat.config.group_size
    codes = torch.randint(chat.config.num_codes, (200, size), generator=torch.Generator().manual_seed(0))
    codes[-1] = chat.config.speech_pad_id
    fed = Collator(chat.config, None, True, None)._misspoken(codes, torch.Generator().manual_seed(1))
    wrong = fed != codes
    assert 0.5 * MISSPOKEN_SHARE < float(wrong.float().mean()) < 1.5 * MISSPOKEN_SHARE
    assert not wrong[-1].any()
    assert set(fed[wrong].tolist()) <= set(codes[:-1].flatten().tolist())
    silent = Sample(sample.prompt, (), sample.text, sample.groups, sample.is_fed)
    with torch.inference_mode():
        clean = stage.predict([silent] * 4)
        taught = stage.predict([silent] * 4, torch.Generator().manual_seed(1))
    assert torch.equal(taught.speech_labels, clean.speech_labels)
    assert not torch.equal(taught.speech_logits, clean.speech_logits)


def test_the_spoken_stages_leave_the_rows_of_words_to_the_base_model(trained_run: Run) -> None:
    marks = trained_run._text_maker.mark_ids
    base, trained = (
        trained_run.trained_chat(name).backbone.embedding.weight.detach() for name in ("text", "cocktail2")
    )
    is_mark = torch.zeros(len(base), dtype=torch.bool).index_fill(0, torch.tensor(marks), True)
    moved = (trained - base).abs().amax(1)
    assert 8 < len(marks) < len(base) / 4
    torch.testing.assert_close(trained[~is_mark], base[~is_mark], rtol=1e-3, atol=0)  # but for weight decay
    assert int((moved[is_mark] > 1e-4).sum()) > len(marks) / 2


def test_the_words_learn_where_the_recipe_says_so(trained_run: Run) -> None:
    gradients = []
    for held in (True, False):
        run = replace(trained_run, recipe=replace(trained_run.recipe, words_held=held))
        stage = run.stage("cocktail1")
        stage.loss(0, torch.Generator().manual_seed(1))[0].backward()
        gradients.append(stage.module.get_parameter("backbone.embedding.weight").grad)
    held, free = gradients
    assert held is not None
    assert free is not None
    marks = torch.tensor(trained_run._text_maker.mark_ids)
    assert torch.equal(held[marks], free[marks])
    words = free.index_fill(0, marks, 0)
    assert torch.equal(free - held, words)
    assert int((words.abs().amax(1) > 0).sum()) > len(marks)
