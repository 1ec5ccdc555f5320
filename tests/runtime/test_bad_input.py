"""Bad audio, messages and settings: one clear line, exit 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from facrt.errors import AudioError, RequestError
from facrt.export.parity import question
from facrt.runtime.audio import checked_pcm, read_audio, refuse_unwritable, write_wav
from facrt.runtime.engine import Engine, load
from facrt.runtime.messages import read_messages


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def refused(facrt: Any, folder: Path, *arguments: object) -> str:
    """The line of a `facrt run` that is refused and leaves `folder` as it was."""
    before = listing(folder)
    line: str = facrt.refusal("run", *arguments, cwd=folder)
    assert listing(folder) == before
    return line


def float_wav(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pcm = question(0.5)
        pcm[1000] = value
        soundfile.write(path, pcm, 16_000, subtype="FLOAT")

    return write


def wav_of(num_samples: int, sample_rate: int = 16_000) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, np.zeros(num_samples, np.int16), sample_rate, subtype="PCM_16")


def noise_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def cut_header(path: Path) -> None:
    wav_of(1600)(path)
    path.write_bytes(path.read_bytes()[:20])


def no_sample_rate(path: Path) -> None:
    wav_of(1600)(path)
    raw = bytearray(path.read_bytes())
    raw[24:28] = struct.pack("<I", 0)
    path.write_bytes(raw)


BAD_AUDIO: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "missing": (lambda path: None, ["is missing", "WAV, FLAC or Ogg"]),
    "folder": (lambda path: path.mkdir(), ["is missing", "WAV, FLAC or Ogg"]),
    "random bytes": (noise_bytes, ["no readable WAV, FLAC or Ogg file"]),
    "nothing in the file": (lambda path: path.touch(), ["no readable WAV, FLAC or Ogg file"]),
    "truncated header": (cut_header, ["no readable WAV, FLAC or Ogg file"]),
    "sample rate 0": (no_sample_rate, ["no readable WAV, FLAC or Ogg file"]),
    "no samples": (wav_of(0), ["is empty", "0.04 s"]),
    "0.01 s": (wav_of(160), ["lasts 0.010 s", "0.04 s or more"]),
    "10 minutes": (wav_of(600 * 8000, 8000), ["lasts 600.0 s", "at most 300 s", "cut it into turns"]),
    "NaN": (float_wav(float("nan")), ["not finite", "write it again"]),
    "infinity": (float_wav(float("-inf")), ["not finite", "write it again"]),
}


@pytest.mark.parametrize("fault", BAD_AUDIO)
def test_bad_audio(facrt: Any, golden_bundle: Path, tmp_path: Path, fault: str) -> None:
    write, words = BAD_AUDIO[fault]
    write(tmp_path / "in.wav")
    line = refused(facrt, tmp_path, golden_bundle, "in.wav")
    for word in ("in.wav", *words):
        assert word in line


def test_a_bad_second_turn_is_refused_before_the_first_is_answered(
    facrt: Any, golden_bundle: Path, golden_wavs: dict[str, list[Path]], tmp_path: Path
) -> None:
    assert "second.wav is missing" in refused(facrt, tmp_path, golden_bundle, golden_wavs["u2p0"][0], "second.wav")


@pytest.mark.parametrize("num_samples", [0, 639])
def test_bad_samples(num_samples: int) -> None:
    with pytest.raises(AudioError, match=r"0\.04 s"):
        checked_pcm(np.zeros(num_samples, np.float32), 16_000, "it")


def test_samples_of_two_channels_or_over_the_limit() -> None:
    with pytest.raises(AudioError, match=r"shape \(2, 700\); mono samples"):
        checked_pcm(np.zeros((2, 700)), 16_000, "it")
    with pytest.raises(AudioError, match=r"lasts 300\.1 s; at most 300 s"):
        checked_pcm(np.zeros(300 * 8000 + 800, np.int16), 8000, "it")


def test_the_limits_themselves_are_heard() -> None:
    assert len(checked_pcm(np.zeros(640), 16_000, "it")) == 640
    assert len(checked_pcm(np.zeros(300 * 8000, np.int16), 8000, "it")) == 300 * 16_000


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 2e-4), ("ogg", 3e-2)])
def test_stereo_44100_hz(facrt: Any, golden_bundle: Path, tmp_path: Path, suffix: str, tolerance: float) -> None:
    pcm = question(1.5, 44_100)
    side = 0.1 * np.sin(np.arange(len(pcm)) * 0.05).astype(np.float32)
    path = tmp_path / f"in.{suffix}"
    soundfile.write(path, np.stack([pcm + side, pcm - side], axis=1), 44_100)
    wanted = soxr.resample(pcm, 44_100, 16_000)
    heard = read_audio(path)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, wanted[: len(heard)], rtol=0, atol=tolerance)
    (turn,) = facrt.json("run", golden_bundle, path, "--max-steps", 4, cwd=tmp_path)["turns"]
    assert len(turn["text_ids"]) == 4
    assert (tmp_path / "answer.wav").exists() == (turn["audio"] is not None)


def user(**rest: Any) -> dict[str, Any]:
    return {"role": "user", **rest}


BAD_MESSAGES: dict[str, tuple[Any, list[str]]] = {
    "no JSON": ("[{", ["no readable JSON"]),
    "no list": ({"role": "user", "text": "Hi."}, ["no list of messages"]),
    "empty list": ([], ["no list of messages"]),
    "no object": (["Hi."], ["message 0", "role", "system, user, assistant"]),
    "unknown role": ([{"role": "robot", "text": "Hi."}], ["message 0", "system, user, assistant"]),
    "assistant last": ([user(text="Hi."), {"role": "assistant", "text": "Yes."}], ["last message is assistant's"]),
    "unknown keys": ([user(text="Hi.", image="a", mood="b")], ["message 0", "image, mood", "audio, role, "]),
    "assistant audio": (
        [user(text="Hi."), {"role": "assistant", "audio": "a.wav"}, user(text="So?")],
        ["message 1", "an assistant's turn takes text"],
    ),
    "neither text nor audio": ([user()], ["message 0", "neither text nor audio"]),
    "text is a number": ([user(text=3)], ["message 0", "text is no string"]),
    "speech ids are words": ([user(speech_ids=["a"])], ["message 0", "no list of ids"]),
    "audio is missing": ([user(audio="gone.wav")], ["gone.wav is missing"]),
    "holds <|AUDIO|>": ([user(text="a <|AUDIO|> b")], ["<|AUDIO|>", "user text", "remove it"]),
    "holds <|im_start|>": (
        [user(text="Hi."), {"role": "assistant", "text": "<|im_start|>"}, user(text="So?")],
        ["<|im_start|>", "assistant text", "remove it"],
    ),
    "both audio and speech ids": ([user(audio="ok.wav", speech_ids=[1])], ["audio twice"]),
    "a code that is none": ([user(speech_ids=[1, 999_999])], ["999999", "allowed: 0 .. 6564"]),
}


@pytest.mark.parametrize("fault", BAD_MESSAGES)
def test_bad_messages(facrt: Any, golden_bundle: Path, tmp_path: Path, fault: str) -> None:
    content, words = BAD_MESSAGES[fault]
    wav_of(1600)(tmp_path / "ok.wav")
    (tmp_path / "m.json").write_text(content if isinstance(content, str) else json.dumps(content))
    line = refused(facrt, tmp_path, golden_bundle, "--messages", "m.json")
    for word in words:
        assert word in line


def test_missing_messages(facrt: Any, golden_bundle: Path, tmp_path: Path) -> None:
    line = refused(facrt, tmp_path, golden_bundle, "--messages", "m.json")
    assert "m.json is missing; --messages names a JSON file" in line


def test_messages_that_are_bytes_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "m.json", tmp_path):
        with pytest.raises(RequestError, match="no readable JSON"):
            read_messages(path)


def test_audio_in_messages_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    wav_of(1600)(tmp_path / "deep" / "a.wav")
    (tmp_path / "deep" / "m.json").write_text(json.dumps([user(audio="a.wav", text="Hi.")]))
    (message,) = read_messages(tmp_path / "deep" / "m.json")
    assert message.audio is not None
    assert len(message.audio) == 1600


BAD_REQUESTS: dict[str, tuple[list[object], list[str]]] = {
    "no input at all": ([], ["nothing to answer", "IN.wav, --text T or --messages"]),
    "--text with --messages": (["--text", "a", "--messages", "m.json"], ["--messages already holds"]),
    "IN.wav with --messages": (["a.wav", "--messages", "m.json"], ["--messages already holds"]),
    "--max-steps 0": (["--text", "a", "--max-steps", 0], ["max_new_tokens 0", "at least 1"]),
    "--repetition-penalty 0": (["--text", "a", "--repetition-penalty", 0], ["repetition_penalty 0", "above 0"]),
    "--top-p 2": (["--text", "a", "--top-p", 2], ["top_p 2", "(0, 1]"]),
    "--top-k -1": (["--text", "a", "--top-k", -1], ["top_k -1", "at least 0"]),
    "--temperature 0": (["--text", "a", "--temperature", 0], ["temperature 0", "above 0", "--greedy"]),
    "--temperature nan": (["--text", "a", "--temperature", "nan"], ["temperature nan", "above 0"]),
    "--threads 0": (["--text", "a", "--threads", 0], ["num_threads 0", "at least 1"]),
    "unknown --speaker": (["--text", "a", "--speaker", "bob"], ["speaker 'bob'", "allowed: neutral"]),
    "text with a mark": (["--text", "a <|audio_bos|>"], ["<|audio_bos|>", "remove it"]),
    "system with a mark": (["--text", "a", "--system", "<|im_end|>"], ["<|im_end|>", "system text"]),
}


@pytest.mark.parametrize("fault", BAD_REQUESTS)
def test_bad_request(facrt: Any, golden_bundle: Path, tmp_path: Path, fault: str) -> None:
    arguments, words = BAD_REQUESTS[fault]
    line = refused(facrt, tmp_path, golden_bundle, *arguments)
    for word in words:
        assert word in line


def test_several_settings_out_of_range_are_listed_in_one_error(golden_engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"max_new_tokens 0.*temperature 0.*top_k -1.*top_p 2.*repetition_penalty 0"):
        golden_engine.respond(text="a", max_steps=0, temperature=0, top_k=-1, top_p=2, repetition_penalty=0)
    with pytest.raises(RequestError, match=r"unknown setting.*warmth"):
        golden_engine.respond(text="a", warmth=3)


def test_system_twice(facrt: Any, golden_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps([{"role": "system", "text": "Sing."}, user(text="Hi.")]))
    line = refused(facrt, tmp_path, golden_bundle, "--messages", "m.json", "--system", "Speak.")
    assert "give one of the two" in line


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_unwritable_out(facrt: Any, golden_bundle: Path, tmp_path: Path, json_option: list[str]) -> None:
    (tmp_path / "somefile").write_text("kept")
    line = refused(facrt, tmp_path, golden_bundle, "--text", "a", "--out", "somefile/x.wav", *json_option)
    assert "somefile/x.wav cannot be written" in line
    assert "choose another --out" in line
    assert (tmp_path / "somefile").read_text() == "kept"


def test_out_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="it is a folder"):
        refuse_unwritable(tmp_path)
    refuse_unwritable(tmp_path / "new" / "deeper" / "x.wav")
    assert listing(tmp_path) == set()


def test_a_failed_write_is_one_error_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "taken.wav").mkdir()
    for path in (tmp_path / "f" / "x.wav", tmp_path / "taken.wav"):
        with pytest.raises(AudioError, match="cannot be written"):
            write_wav(path, question(0.1), 24_000)
    assert listing(tmp_path) == {tmp_path / "f", tmp_path / "taken.wav"}


def test_a_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_text("old")
    write_wav(os.fspath(path), np.array([0.0, 2.0, -2.0, 0.5], np.float32), 24_000)
    pcm, rate = soundfile.read(path)
    assert rate == 24_000
    np.testing.assert_allclose(pcm, [0, 1, -1, 0.5], atol=1e-4)
    assert listing(tmp_path) == {path}


@pytest.fixture(scope="module")
def small_engine(golden_bundle: Path) -> Engine:
    return load(golden_bundle, max_positions=160, check_hashes=False)


def test_max_steps_beyond_the_caches_stops_there(golden_engine: Engine, small_engine: Engine) -> None:
    options: dict[str, Any] = {"greedy": True, "eos_token_id": -1, "synthesize": False}
    history = [*small_engine.conversation().messages]
    whole = golden_engine.respond(text="Hi.", max_steps=200, **options)
    cut = small_engine.respond(text="Hi.", max_steps=10_000, **options)
    history.append(type(history[0])("user", "Hi."))
    room = 160 - len(small_engine.prompter.encode(history))
    assert 0 < room < 200
    assert len(cut.text_ids) == room
    assert cut.text_ids == whole.text_ids[:room]
    assert cut.speech_ids == whole.speech_ids[: len(cut.speech_ids)]
    again = small_engine.respond(text="Hi.", max_steps=5, **options)
    assert again.text_ids == whole.text_ids[:5]


def test_prompt_longer_than_the_caches(small_engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"the prompt has \d+ positions and the caches 160; shorten it or load"):
        small_engine.respond(text="word " * 200)
    assert len(small_engine.respond(text="Hi.", max_steps=3).text_ids) == 3


def test_engine_of_no_positions(golden_bundle: Path) -> None:
    with pytest.raises(RequestError, match="max_positions 0 is not at least 1"):
        load(golden_bundle, max_positions=0, check_hashes=False)


def test_nothing_to_answer(golden_engine: Engine) -> None:
    talk = golden_engine.conversation()
    with pytest.raises(RequestError, match="a turn needs audio or text"):
        talk.respond()
    with pytest.raises(RequestError, match="nothing to answer"):
        golden_engine.answer(talk.messages)
    with pytest.raises(RequestError, match="nothing to answer"):
        golden_engine.answer([])
