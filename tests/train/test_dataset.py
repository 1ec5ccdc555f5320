"""The dataset format: what is written is read again, every way to break a line is named, and making data resumes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Facrt
from facrt.errors import DatasetError, FacrtError, RequestError
from facrt.train import make, speak
from facrt.train.dataset import Conversation, SpokenMessage, read_dataset, write_lines
from facrt.train.intents import Split, example_at
from facrt.train.labels import label_path, read_labels
from facrt.train.make import DataRequest, make_dataset
from facrt.train.timing import Sound


def row() -> dict[str, Any]:
    return {
        "id": "one",
        "messages": [
            {"role": "system", "text": "Be brief."},
            {"role": "user", "text": "Turn on the lamp.", "audio": "q.wav"},
            {"role": "assistant", "text": "Done.", "audio": "a.wav", "tool_call": {"name": "lamp", "arguments": {}}},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with good and bad audio, without data.jsonl."""
    noise = np.random.default_rng(0).standard_normal(16_000) * 0.1
    soundfile.write(tmp_path / "q.wav", noise, 16_000)
    soundfile.write(tmp_path / "a.wav", noise, 24_000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([noise, noise], 1), 16_000)
    soundfile.write(tmp_path / "short.wav", noise[:100], 16_000)
    soundfile.write(tmp_path / "q.flac", noise, 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    return tmp_path


def test_round_trip(folder: Path) -> None:
    written = [
        Conversation("one", (SpokenMessage("user", None, folder / "q.wav"), SpokenMessage("assistant", "Grüß dich."))),
        Conversation(
            "two",
            (
                SpokenMessage("system", "Be brief."),
                SpokenMessage("user", "Lamp.", folder / "q.wav"),
                SpokenMessage("assistant", "On.", folder / "a.wav", {"name": "lamp", "arguments": {"on": True}}),
                SpokenMessage("user", "Thanks."),
                SpokenMessage("assistant", "You are welcome."),
            ),
            "lamp",
        ),
    ]
    write_lines(folder / "data.jsonl", written)
    assert list(read_dataset(folder)) == written
    assert list(read_dataset(folder / "data.jsonl")) == written
    assert not list(folder.glob("*.partial"))


def user(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda row: row["messages"][1].update(fields)


def assistant(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda row: row["messages"][2].update(fields)


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no id": (lambda row: row.pop("id"), "id: missing"),
    "empty id": (lambda row: row.update(id=" "), 'id: " "; a text that is not empty'),
    "id no text": (lambda row: row.update(id=3), "id: 3;"),
    "unknown key": (lambda row: row.update(voice="x"), "voice: unknown; allowed here: id, messages, intent"),
    "intent no text": (lambda row: row.update(intent=None), "intent: null;"),
    "no messages": (lambda row: row.pop("messages"), "messages: a list"),
    "empty messages": (lambda row: row.update(messages=[]), "messages: a list"),
    "message no object": (lambda row: row["messages"].insert(0, "hi"), 'messages[0]: "hi" is no JSON object'),
    "no role": (lambda row: row["messages"][1].pop("role"), "messages[1].role: None is none of system"),
    "unknown role": (user(role="robot"), "messages[1].role: 'robot' is none of system, user, assistant"),
    "list role": (user(role=["user"]), "messages[1].role: ['user'] is none of"),
    "two users": (assistant(role="user"), "messages[2].tool_call: unknown; allowed here: role, text, audio"),
    "no answer": (lambda row: row["messages"].pop(), "messages: the last message is the user's"),
    "only system": (lambda row: row.update(messages=row["messages"][:1]), "messages: the last message is the system's"),
    "assistant first": (lambda row: row["messages"].pop(1), "messages[1].role: 'assistant' where 'user' is due"),
    "late system": (lambda row: row["messages"].append(row["messages"][0]), "messages[3].role: 'system' where 'user'"),
    "unknown message key": (user(speed=1), "messages[1].speed: unknown; allowed here: role, text, audio"),
    "system audio": (lambda row: row["messages"][0].update(audio="q.wav"), "messages[0].audio: unknown"),
    "user without all": (lambda row: (row["messages"][1].pop("text"), row["messages"][1].pop("audio")), "[1]: neither"),
    "empty text": (user(text=""), 'messages[1].text: ""; a text'),
    "assistant without text": (lambda row: row["messages"][2].pop("text"), "messages[2].text: missing"),
    "audio no path": (user(audio=3), "messages[1].audio: 3 is no path"),
    "audio missing": (user(audio="no.wav"), "no.wav is missing"),
    "audio above": (user(audio="../q.wav"), "messages[1].audio: ../q.wav leaves the dataset's folder"),
    "audio absolute": (user(audio="/q.wav"), "messages[1].audio: /q.wav leaves the dataset's folder"),
    "audio broken": (user(audio="broken.wav"), "broken.wav is no readable WAV"),
    "audio flac": (user(audio="q.flac"), "q.flac is FLAC; WAV is needed"),
    "audio stereo": (assistant(audio="stereo.wav"), "messages[2].audio"),
    "audio short": (user(audio="short.wav"), "short.wav lasts 0.01 s; 0.04 to 300"),
    "call no object": (assistant(tool_call="lamp"), 'messages[2].tool_call: "lamp" is no JSON object'),
    "call without name": (assistant(tool_call={"arguments": {}}), "messages[2].tool_call.name: missing"),
    "call without arguments": (assistant(tool_call={"name": "x"}), "messages[2].tool_call.arguments: a JSON object"),
    "call with more": (assistant(tool_call={"name": "x", "arguments": {}, "id": 1}), "tool_call.id: unknown"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_lines_are_named(folder: Path, name: str) -> None:
    change, reason = BROKEN[name]
    broken = {**row(), "id": "two"}
    change(broken)
    path = folder / "data.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(broken) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        list(read_dataset(path))
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2, ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "line 2: no JSON in UTF-8"),
        (b"\xff", "line 2: no JSON in UTF-8"),
        (b"[1]", "line 2: [1] is no JSON object"),
        (b"[" * 100_000, "line 2: no JSON in UTF-8"),
        (b'{"id": NaN}', "line 2: no JSON in UTF-8"),
        (b"  ", "line 2: the line is empty"),
        (json.dumps(row()).encode(), "line 2, id: 'one' is also that of line 1"),
    ],
)
def test_lines_that_are_no_conversations(folder: Path, line: bytes, reason: str) -> None:
    (folder / "data.jsonl").write_bytes(json.dumps(row()).encode() + b"\n" + line + b"\n")
    with pytest.raises(DatasetError) as caught:
        list(read_dataset(folder))
    assert reason in str(caught.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing: a JSON lines file"):
        list(read_dataset(tmp_path))
    (tmp_path / "data.jsonl").touch()
    with pytest.raises(DatasetError, match="is empty: one conversation per line"):
        list(read_dataset(tmp_path))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lab")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def toneless(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Speech replaced by seeded noise, so that making data needs no espeak-ng; what was spoken is listed."""
    spoken: list[str] = []

    def noise(text: str, condition: speak.Condition | None = None) -> np.ndarray:
        spoken.append(text)
        seed = int.from_bytes(hashlib.sha256(f"{text}{condition}".encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(9600).astype(np.float32) * 0.1

    monkeypatch.setattr(speak, "speak_question", noise)
    monkeypatch.setattr(speak, "speak_answer", noise)
    monkeypatch.setattr(speak, "sounds_of_question", lambda text, _: [Sound(0.0, "sil"), Sound(0.25, text[0], 0)])
    monkeypatch.setattr(speak, "sounds_of_answer", lambda text: [Sound(0.25, text[0], 0)])
    monkeypatch.setattr(speak, "espeak_version", lambda: "none")
    return spoken


def test_same_seed_same_bytes(tmp_path: Path, toneless: list[str]) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_dataset(DataRequest(tmp_path / name, Split.TRAIN, 30, seed))
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != digests(tmp_path / "c")


def test_dataset_holds_the_generator_s_conversations(tmp_path: Path, toneless: list[str]) -> None:
    files = make_dataset(DataRequest(tmp_path, Split.UNSEEN_PHRASINGS, 40, 2))
    found = list(read_dataset(tmp_path))
    assert len(found) == 40
    assert files == len(list(tmp_path.rglob("*.wav")))
    spoken = {message.audio for conversation in found for message in conversation.messages if message.audio}
    assert {label_path(path) for path in spoken} == set(tmp_path.rglob("*.lab"))
    for index, conversation in enumerate(found):
        example = example_at(Split.UNSEEN_PHRASINGS, 2, index)
        assert conversation.intent == example.intent
        assert [m.text for m in conversation.messages if m.role == "user"] == [t.user_text for t in example.turns]
        answers = [m for m in conversation.messages if m.role == "assistant"]
        for message, turn in zip(answers, example.turns, strict=True):
            assert message.text == turn.answer_text
            call = f"<tool_call>{json.dumps(message.tool_call)}</tool_call>" if message.tool_call else None
            assert call == turn.tool_call


def test_practice_is_read_aloud(tmp_path: Path, toneless: list[str]) -> None:
    make_dataset(DataRequest(tmp_path, Split.TRAIN, 20, 5))
    before = len(toneless)
    files = make_dataset(DataRequest(tmp_path, Split.TRAIN, 20, 5, read_aloud=40))
    found = list(read_dataset(tmp_path))
    assert [c.id for c in found[20:]] == [f"aloud-5-{index:07d}" for index in range(40)]
    users = [m for c in found[20:] for m in c.messages if m.role == "user"]
    assert all(m.text and m.audio is None for m in users)
    assert all(m.audio is not None for c in found for m in c.messages if m.role == "assistant")
    assert files - before == len(toneless) - before > 20
    with pytest.raises(RequestError, match="split validation has none"):
        DataRequest(tmp_path, Split.VALIDATION, 20, 5, read_aloud=1)
    with pytest.raises(RequestError, match="read_aloud is -1; 0 or more"):
        DataRequest(tmp_path, Split.TRAIN, 20, 5, read_aloud=-1)


def test_stopped_run_goes_on(tmp_path: Path, toneless: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    make_dataset(DataRequest(whole, Split.TRAIN, 30, 5))
    count = len(toneless)
    toneless.clear()

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(DataRequest(stopped, Split.TRAIN, 30, 5), stop)
    assert not (stopped / "data.jsonl").exists()
    (stopped / "audio" / ".x.wav.1.partial").touch()
    make_dataset(DataRequest(stopped, Split.TRAIN, 20, 5))
    make_dataset(DataRequest(stopped, Split.TRAIN, 30, 5))
    assert len(toneless) == count, "no file was made twice"
    assert digests(stopped) == digests(whole)


def test_other_data_is_not_mixed_in(tmp_path: Path, toneless: list[str]) -> None:
    make_dataset(DataRequest(tmp_path / "a", Split.TRAIN, 2, 5))
    with pytest.raises(RequestError, match=r"was made with .*'seed': 5.*choose another --out"):
        make_dataset(DataRequest(tmp_path / "a", Split.TRAIN, 2, 6))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(RequestError, match="holds something that this command did not make"):
        make_dataset(DataRequest(tmp_path / "b", Split.TRAIN, 2, 5))
    with pytest.raises(RequestError, match="count is 0 and workers is -1; 1 or more"):
        DataRequest(tmp_path, Split.TRAIN, 0, 0, -1)


def test_unwritable_folder_is_one_error(tmp_path: Path, toneless: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FacrtError, match="cannot be used"):
        make_dataset(DataRequest(tmp_path / "file" / "in", Split.TRAIN, 2, 5))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_two_processes_make_what_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facrt: Facrt) -> None:
    pytest.importorskip("pyworld", reason="pyworld is not installed (pip install 'facrt[train]')")
    shown = facrt.json("train", "data", "--out", tmp_path / "two", "--count", 12, "--seed", 1, "--workers", 2)
    assert shown["conversations"] == 12
    assert shown["audio_files"] == len(list((tmp_path / "two").rglob("*.wav"))) > make.JOBS_AT_ONCE
    make_dataset(DataRequest(tmp_path / "one", Split.TRAIN, 12, 1))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    for path in (tmp_path / "one").rglob("*.lab"):  # what the library said before moves its times a little
        first, second = (read_labels(tmp_path / name / path.relative_to(tmp_path / "one")) for name in ("one", "two"))
        assert [sound[1:] for sound in first] == [sound[1:] for sound in second]
        np.testing.assert_allclose([s.start_s for s in first], [s.start_s for s in second], atol=0.1)
    for conversation in read_dataset(tmp_path / "two"):
        for message in conversation.messages:
            assert message.audio is not None
            info = soundfile.info(message.audio)
            assert info.samplerate == (16_000 if message.role == "user" else 24_000)
            assert message.role == "user" or info.frames % 960 == 0


def test_command_refuses_unknown_split(tmp_path: Path, facrt: Facrt) -> None:
    assert "'all' is none of train" in facrt.refusal("train", "data", "--out", tmp_path / "x", "--split", "all")
