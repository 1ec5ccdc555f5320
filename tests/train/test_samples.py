"""The timeline of an answer: what the loop would return for it, step by step (SEMANTICS.md 5)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facrt.model.config import ChatConfig
from facrt.model.config_files import read_chat_config
from facrt.model.settings import GenerationSettings
from facrt.model.turn import Turn
from facrt.runtime.prompt import Prompter
from facrt.train.dataset import Conversation, SpokenMessage
from facrt.train.recipe import read_recipe
from facrt.train.samples import Sample, SampleMaker, num_answers
from facrt.train.write import write_configs, write_text_tokenizer

WORDS = "The kitchen lamp is now on."
CALL = {"name": "lamp", "arguments": {"room": "kitchen", "on": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs")
    write_text_tokenizer(path, [WORDS, json.dumps(CALL), "Thanks."] * 20, 400)
    write_configs(path, read_recipe("nano").shapes)
    return path


@pytest.fixture(scope="module")
def config(folder: Path) -> ChatConfig:
    return read_chat_config(folder)


def maker(folder: Path, config: ChatConfig, num_tokens: int) -> SampleMaker:
    speech = {WORDS: torch.arange(num_tokens), "Welcome.": torch.arange(num_tokens)}
    return SampleMaker(Prompter(folder / "tokenizer.json", None, config), config, speech)


def conversation(call: bool = False) -> Conversation:
    answer = SpokenMessage("assistant", WORDS, None, CALL if call else None)
    return Conversation("", (SpokenMessage("user", "Light."), answer, SpokenMessage("user", "Thanks."),
                             SpokenMessage("assistant", "Welcome.")))  # fmt: skip


def replayed(sample: Sample, config: ChatConfig) -> Turn:
    """The runtime's own bookkeeping over the sample's tokens; checks what is fed back."""
    assert sample.groups is not None
    assert sample.is_fed is not None
    turn = Turn(config, GenerationSettings(force_text_abos=True))
    for token, group, fed in zip(sample.text.tolist(), sample.groups.tolist(), sample.is_fed.tolist(), strict=True):
        assert not turn.done
        turn.advance(token, group)
        assert (turn.feedback is not None) == fed
        if fed:
            assert turn.feedback == group
    return turn


@pytest.mark.parametrize("num_tokens", [1, 5, 8, 35, 60])
@pytest.mark.parametrize("call", [False, True])
def test_the_loop_would_return_it(folder: Path, config: ChatConfig, num_tokens: int, call: bool) -> None:
    made = maker(folder, config, num_tokens)
    sample = made.make(conversation(call), 0, spoken_question=False, spoken_answer=True)
    turn = replayed(sample, config)
    assert turn.done
    assert turn.text_ids == sample.text.tolist()
    assert turn.text_ids[0] == config.audio_bos_id
    assert turn.text_ids[-1] == config.eos_ids[0]
    codes = [i for i in turn.speech_ids if i < config.num_codes]
    assert codes[:num_tokens] == list(range(num_tokens))
    assert set(codes[num_tokens:]) <= {num_tokens - 1}, "a last group is filled with its last token"
    assert len(codes) == num_tokens + -num_tokens % config.group_size


def test_words_and_call_are_read_back(folder: Path, config: ChatConfig) -> None:
    prompter = Prompter(folder / "tokenizer.json", None, config)
    for num_tokens in (5, 60):  # speech shorter and longer than the words
        sample = maker(folder, config, num_tokens).make(conversation(True), 0, False, True)
        text = prompter.decode(sample.text.tolist())
        assert text == f"<tool_call>{json.dumps(CALL)}</tool_call>{WORDS}"


def test_text_only(folder: Path, config: ChatConfig) -> None:
    sample = maker(folder, config, 5).make(conversation(True), 0, False, False)
    assert sample.groups is None
    assert config.audio_bos_id not in sample.text.tolist()
    assert sample.text.tolist()[-1] == config.eos_ids[0]


def test_a_second_turn_stands_after_the_first_answer(folder: Path, config: ChatConfig) -> None:
    made = maker(folder, config, 5)
    prompter = Prompter(folder / "tokenizer.json", None, config)
    sample = made.make(conversation(True), 1, False, True)
    prompt = prompter.tokenizer.decode(sample.prompt.tolist(), skip_special_tokens=False)
    assert f"</tool_call>{WORDS}<|im_end|>" in prompt
    assert prompt.endswith("Thanks.<|im_end|>\n<|im_start|>assistant\n")
    assert prompter.decode(sample.text.tolist()) == "Welcome."
    assert num_answers(conversation()) == 2


@pytest.mark.parametrize("as_heard", [False, True])
def test_every_answer_of_a_written_conversation_is_taught(folder: Path, config: ChatConfig, as_heard: bool) -> None:
    made = maker(folder, config, 5)
    decode = Prompter(folder / "tokenizer.json", None, config).tokenizer.decode
    sample = made.make_written(conversation(True))
    if as_heard:
        sample = made.as_heard(sample, torch.Generator().manual_seed(1))
        assert config.audio_bos_id in sample.prompt.tolist()
    assert sample.taught is not None
    taught = decode(sample.prompt[sample.taught].tolist(), skip_special_tokens=False)
    assert taught == f"<tool_call>{json.dumps(CALL)}</tool_call>{WORDS}<|im_end|>"
    assert decode(sample.text.tolist(), skip_special_tokens=False) == "Welcome.<|im_end|>"
