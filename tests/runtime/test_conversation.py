"""Turns, sampling and sound: conversations, seeds, segments, the detokenizer and the voice tokenizer of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from facrt.errors import RequestError
from facrt.model.checkpoint import load_flow, load_vocoder
from facrt.runtime.detokenizer import segments
from facrt.runtime.engine import Engine
from facrt.runtime.prompt import Message
from goldens import DETOKENIZER, LM, S3, expected, inputs, waveforms
from tolerances import TOLERANCES

GREEDY: dict[str, Any] = {"greedy": True, "max_steps": 12}


def ids(reply: Any) -> tuple[list[int], list[int]]:
    return reply.text_ids, reply.speech_ids


def test_a_conversation_equals_its_messages(
    facrt: Any, golden_bundle: Path, golden_engine: Engine, golden_wavs: dict[str, list[Path]], tmp_path: Path
) -> None:
    first, second = golden_wavs["twoturn"]
    with golden_engine.conversation("Sing.") as talk:
        replies = [talk.respond(first, **GREEDY), talk.respond(second, text="And?", **GREEDY)]
        assert [message.role for message in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
        assert talk.messages[2].text == replies[0].text
    history = [
        {"role": "system", "text": "Sing."},
        {"role": "user", "audio": str(first)},
        {"role": "assistant", "text": replies[0].text},
        {"role": "user", "audio": str(second), "text": "And?"},
    ]
    (tmp_path / "m.json").write_text(json.dumps(history))
    arguments = ["run", golden_bundle, "--messages", "m.json", "--greedy", "--max-steps", 12]
    (turn,) = facrt.json(*arguments, cwd=tmp_path)["turns"]
    assert (turn["text_ids"], turn["speech_ids"]) == ids(replies[1])
    assert turn["text"] == replies[1].text
    assert ids(replies[0]) != ids(replies[1])


def test_two_files_are_two_turns_with_numbered_answers(
    facrt: Any, golden_bundle: Path, golden_engine: Engine, golden_wavs: dict[str, list[Path]], tmp_path: Path
) -> None:
    arguments = ["run", golden_bundle, *golden_wavs["twoturn"], "--greedy", "--max-steps", 12]
    turns = facrt.json(*arguments, "--out", "said/it.wav", cwd=tmp_path)["turns"]
    talk = golden_engine.conversation()
    for i, (turn, path) in enumerate(zip(turns, golden_wavs["twoturn"], strict=True), start=1):
        reply = talk.respond(path, **GREEDY)
        assert (turn["text_ids"], turn["speech_ids"]) == ids(reply)
        assert turn["audio"]["path"] == f"said/it-{i}.wav"
        pcm, rate = soundfile.read(tmp_path / "said" / f"it-{i}.wav")
        assert rate == turn["audio"]["sample_rate"] == reply.sample_rate == 24_000
        assert len(pcm) / rate == turn["audio"]["seconds"]
        assert reply.audio is not None
        np.testing.assert_allclose(pcm, reply.audio, atol=1 / 32768)
    assert {path.name for path in (tmp_path / "said").iterdir()} == {"it-1.wav", "it-2.wav"}


def test_a_failed_turn_is_not_remembered(golden_engine: Engine) -> None:
    talk = golden_engine.conversation()
    with pytest.raises(RequestError, match="mark of the model"):
        talk.respond(text="<|AUDIO|>")
    with pytest.raises(RequestError, match="unknown"):
        talk.respond(text="Hi.", speaker="bob")
    assert len(talk.messages) == 1


def test_the_command_line_prints_the_text_alone_and_no_control_characters(
    facrt: Any, golden_bundle: Path, golden_engine: Engine, tmp_path: Path
) -> None:
    result = facrt("run", golden_bundle, "--text", "Hi.", "--greedy", "--max-steps", 5, "--no-speech", cwd=tmp_path)
    assert result.returncode == 0
    reply = golden_engine.respond(text="Hi.", speech=False, greedy=True, max_steps=5)
    assert not reply.text.isprintable()
    assert result.stdout == "".join(c if c.isprintable() else "\ufffd" for c in reply.text) + "\n"
    assert "prefill" in result.stderr
    assert reply.speech_ids == []
    assert reply.audio is None
    assert not list(tmp_path.iterdir())


def test_seeds(golden_engine: Engine) -> None:
    def spoken(seed: int, **options: Any) -> tuple[list[int], list[int]]:
        return ids(golden_engine.respond(text="Hi.", seed=seed, max_steps=8, synthesize=False, **options))

    first = spoken(7)
    assert first[1]
    assert spoken(7) == first
    assert spoken(8)[1] != first[1]
    assert spoken(7, text_greedy=False) == spoken(7, text_greedy=False)
    assert spoken(7, text_greedy=False)[0] != first[0]


def test_the_same_seed_on_the_command_line(
    facrt: Any, golden_bundle: Path, golden_engine: Engine, tmp_path: Path
) -> None:
    arguments = ["run", golden_bundle, "--text", "Hi.", "--max-steps", 8, "--top-k", 5, "--temperature", 1.5]
    (turn,) = facrt.json(*arguments, "--seed", 3, cwd=tmp_path)["turns"]
    reply = golden_engine.respond(text="Hi.", max_steps=8, top_k=5, temperature=1.5, seed=3)
    assert (turn["text_ids"], turn["speech_ids"]) == ids(reply)


def test_top_k_of_one_is_greedy(golden_engine: Engine) -> None:
    options: dict[str, Any] = {"max_steps": 8, "synthesize": False, "repetition_penalty": 1.0}
    sampled = golden_engine.respond(text="Hi.", top_k=1, seed=5, **options)
    assert ids(sampled) == ids(golden_engine.respond(text="Hi.", greedy=True, **options))


def test_an_answer_leaves_no_trace_in_the_caches(golden_engine: Engine, golden_wavs: dict[str, list[Path]]) -> None:
    first = golden_engine.respond(golden_wavs["u2p0"][0], **GREEDY)
    golden_engine.respond(text="Something long in between, to fill the caches with other rows.", **GREEDY)
    again = golden_engine.respond(golden_wavs["u2p0"][0], **GREEDY)
    assert ids(again) == ids(first)
    assert first.audio is not None
    assert again.audio is not None
    np.testing.assert_array_equal(again.audio, first.audio)


def test_a_refused_prompt_leaves_the_engine_usable(golden_engine: Engine) -> None:
    first = golden_engine.respond(text="Hi.", **GREEDY)
    with pytest.raises(RequestError, match="the caches 512"):
        golden_engine.respond(text="word " * 600)
    assert ids(golden_engine.respond(text="Hi.", **GREEDY)) == ids(first)


def test_samples_and_files_are_heard_alike(golden_engine: Engine, golden_wavs: dict[str, list[Path]]) -> None:
    pcm = waveforms("u2p0")[0]
    wanted = ids(golden_engine.respond(golden_wavs["u2p0"][0], **GREEDY))
    for audio in (str(golden_wavs["u2p0"][0]), pcm, pcm.astype(np.float32) / 32768, pcm.astype(np.float64) / 32768):
        assert ids(golden_engine.respond(audio, **GREEDY)) == wanted


def test_a_message_needs_content() -> None:
    with pytest.raises(RequestError, match="neither text nor audio"):
        Message("user")
    with pytest.raises(RequestError, match="audio twice"):
        Message("user", None, np.zeros(800, np.float32), (1, 2))


@pytest.mark.parametrize(
    ("num_codes", "lengths"),
    [
        (0, []),
        (1, [1]),
        (49, [49]),
        (749, [749]),
        (750, [750]),
        (751, [375, 376]),
        (799, [399, 400]),
        (800, [750, 50]),
        (801, [750, 51]),
        (1499, [750, 749]),
        (1500, [750, 750]),
        (1501, [750, 375, 376]),
        (1549, [750, 399, 400]),
        (1550, [750, 750, 50]),
        (2249, [750, 750, 749]),
        (2290, [750, 750, 395, 395]),
    ],
)
def test_segments(num_codes: int, lengths: list[int]) -> None:
    codes = list(range(num_codes))
    parts = segments(codes)
    assert [len(part) for part in parts] == lengths
    assert [code for part in parts for code in part] == codes


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    return inputs(DETOKENIZER, "_flow")["token"][0].tolist()


def test_synthesize_equals_the_reference(golden_engine: Engine, tokens: list[int], speaker: np.ndarray) -> None:
    assert len(tokens) == 31
    wav = golden_engine.synthesize(tokens, speaker)
    assert wav.dtype == np.float32
    assert wav.shape == (31 * 960,)
    with torch.inference_mode():
        mel = load_flow(DETOKENIZER / "model")(torch.tensor([tokens]), torch.from_numpy(speaker)[None])
        wanted = load_vocoder(DETOKENIZER / "model")(mel)
    np.testing.assert_allclose(wav, wanted[0].numpy(), rtol=0, atol=TOLERANCES["waveform", "fp32"])
    assert np.abs(wav).max() <= 0.99
    assert np.sqrt((wav**2).mean()) > 1e-3


def test_specials_are_not_spoken(golden_engine: Engine, tokens: list[int], speaker: np.ndarray) -> None:
    wanted = golden_engine.synthesize(tokens[:9], speaker)
    mixed = [6561, *tokens[:4], 6562, 6563, 6564, *tokens[4:9], 6562, 6562, -1]
    np.testing.assert_array_equal(golden_engine.synthesize(mixed, speaker), wanted)


@pytest.mark.parametrize("nothing", [[], [6562] * 5])
def test_no_codes_are_an_empty_sound(golden_engine: Engine, nothing: list[int]) -> None:
    wav = golden_engine.synthesize(nothing)
    assert wav.shape == (0,)
    assert wav.dtype == np.float32


def test_long_answers_are_spoken_in_segments(golden_engine: Engine, tokens: list[int]) -> None:
    codes = (tokens * 30)[:760]
    wav = golden_engine.synthesize(codes)
    assert wav.shape == (760 * 960,)
    np.testing.assert_array_equal(wav[: 380 * 960], golden_engine.synthesize(codes[:380]))


def test_speakers(golden_engine: Engine, tokens: list[int], speaker: np.ndarray) -> None:
    default = golden_engine.synthesize(tokens[:6])
    np.testing.assert_array_equal(golden_engine.synthesize(tokens[:6], "neutral"), default)
    np.testing.assert_array_equal(golden_engine.synthesize(tokens[:6], np.zeros(192, np.float32)), default)
    other = golden_engine.synthesize(tokens[:6], speaker)
    np.testing.assert_array_equal(golden_engine.synthesize(tokens[:6], speaker[None]), other)
    np.testing.assert_array_equal(golden_engine.synthesize(tokens[:6], speaker.astype(np.float64)), other)
    assert np.abs(other - default).max() > 1e-3
    with pytest.raises(RequestError, match=r"speaker 'bob' is unknown; allowed: neutral"):
        golden_engine.synthesize(tokens[:6], "bob")
    with pytest.raises(RequestError, match=r"shape \[191\], \[192\] is needed"):
        golden_engine.synthesize(tokens[:6], speaker[:191])


@pytest.mark.parametrize("i", range(3))
def test_encode_voice(golden_engine: Engine, i: int, tmp_path: Path) -> None:
    pcm, wanted = inputs(S3)[f"wav{i}_int16"], expected(S3)[f"codes_single{i}"][0].tolist()
    assert golden_engine.encode_voice(pcm) == wanted
    soundfile.write(tmp_path / "voice.wav", pcm, 16_000, subtype="PCM_16")
    assert golden_engine.encode_voice(tmp_path / "voice.wav") == wanted


def test_encode_voice_over_30_s(golden_engine: Engine) -> None:
    pcm = inputs(LM, "_u31")["wav0_int16"]
    assert golden_engine.encode_voice(pcm) == expected(S3)["long_codes"][0].tolist()
