"""Streamed turns: the events of an answer, caches over turns, audio in chunks, interruption."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facrt.errors import AudioError, RequestError
from facrt.runtime.channel import Channel
from facrt.runtime.conversation import Conversation
from facrt.runtime.engine import Engine
from facrt.runtime.events import AudioChunk, TextDelta, TurnEnded
from facrt.runtime.flow_stream import BlockPlan
from facrt.runtime.metrics import PHASES
from facrt.runtime.prompt import Message
from goldens import waveforms
from hypothesis import given, settings
from hypothesis import strategies as st

SAY: dict[str, Any] = {"greedy": True, "max_steps": 14, "eos_token_id": -1}


def pcm(case: str, i: int = 0) -> np.ndarray:
    return waveforms(case)[i].astype(np.float32) / 32768


def fresh(engine: Engine, messages: list[Message], **options: Any) -> tuple[list[int], list[int]]:
    """What an engine with nothing in its caches answers, all audio heard anew."""
    engine.loop.forget()
    history = [Message(m.role, m.text, m.audio, m.speech_ids) for m in messages]
    reply = engine.answer(history, synthesize=False, **(SAY | options))
    engine.loop.forget()
    return reply.text_ids, reply.speech_ids


def ended(events: list[Any]) -> TurnEnded:
    assert [type(e) for e in events].count(TurnEnded) == 1
    assert isinstance(events[-1], TurnEnded)
    return events[-1]


def test_an_answers_events(talkative_engine: Engine) -> None:
    with talkative_engine.conversation() as talk:
        events = list(talk.stream(text="Hi.", **SAY))
        end = ended(events)
        assert [m.role for m in talk.messages] == ["system", "user", "assistant"]
        assert talk.messages[2].text == end.text
        wanted = fresh(talkative_engine, talk.messages[:2])
    assert (end.text_ids, end.speech_ids) == wanted
    assert end.reason == "done"
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == end.text
    chunks = [e for e in events if isinstance(e, AudioChunk)]
    assert len(chunks) > 1
    for a, b in pairwise(chunks):
        assert b.start_ms == pytest.approx(a.start_ms + a.duration_ms)
    assert talkative_engine.detokenizer is not None
    stream = talkative_engine.detokenizer.stream(talkative_engine.bundle.array("speakers")[0])
    whole = np.concatenate([stream.push(end.speech_ids), stream.finish()])
    np.testing.assert_allclose(np.concatenate([c.pcm for c in chunks]), whole, rtol=0, atol=1e-5)
    assert set(end.timings_ms) == set(PHASES)


def test_without_sound(golden_engine: Engine) -> None:
    events = list(golden_engine.conversation(speech=False).stream(text="Hi.", **SAY))
    assert {type(e) for e in events} == {TextDelta, TurnEnded}
    assert ended(events).speech_ids == []
    silent = list(golden_engine.conversation().stream(text="Hi.", synthesize=False, **SAY))
    assert not [e for e in silent if isinstance(e, AudioChunk)]
    assert ended(silent).speech_ids


def test_another_plan_changes_no_token(golden_engine: Engine) -> None:
    ends = [
        ended(list(golden_engine.conversation().stream(text="Hi.", plan=plan, **SAY)))
        for plan in (None, BlockPlan((), 5, 50))
    ]
    assert ends[0].speech_ids == ends[1].speech_ids


def test_a_slow_consumer_slows_the_producer_and_loses_nothing(talkative_engine: Engine) -> None:
    long = SAY | {"max_steps": 60}
    quick = list(talkative_engine.conversation().stream(text="Hi.", **long))
    talk, slow = talkative_engine.conversation(), []
    for event in talk.stream(text="Hi.", **long):
        slow.append(event)
        if len(slow) == 1:
            time.sleep(1.0)
            assert talk._answer is not None
            stuck = len(talk._answer.turn.text_ids)
            time.sleep(0.5)
            assert len(talk._answer.turn.text_ids) == stuck < 60
    assert ended(slow).speech_ids == ended(quick).speech_ids
    for kind in (AudioChunk, TextDelta):
        assert [type(e) for e in slow].count(kind) == [type(e) for e in quick].count(kind)


def test_a_turn_that_fails_is_not_remembered(golden_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = golden_engine.conversation()
    with pytest.raises(RequestError, match="nothing was fed"):
        list(talk.stream())
    with pytest.raises(RequestError, match="unknown"):
        list(talk.stream(text="Hi.", speaker="bob"))
    for part in ("speech_head", "detokenizer"):
        with monkeypatch.context() as patch:
            target = golden_engine.loop._speech_head if part == "speech_head" else golden_engine.detokenizer
            name = "group" if part == "speech_head" else "vocoder"
            patch.setattr(target, name, raising, raising=True)
            with pytest.raises(RuntimeError, match="broken"):
                list(talk.stream(text="Hi.", **SAY))
    assert len(talk.messages) == 1
    assert ended(list(talk.stream(text="Hi.", **SAY))).text_ids == fresh(golden_engine, talk.messages[:2])[0]


def raising(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


def watch_positions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many new positions each call of the backbone gets."""
    calls: list[int] = []
    backbone = engine.loop._backbone

    class Watched:
        capacity = backbone.capacity

        def __call__(self, x: np.ndarray) -> Any:
            calls.append(len(x))
            return backbone(x)

        def truncate(self, length: int) -> None:
            backbone.truncate(length)

    monkeypatch.setattr(engine.loop, "_backbone", Watched())
    return calls


def test_caches_survive_from_turn_to_turn(golden_engine_with_head: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = golden_engine_with_head
    engine.loop.forget()
    calls = watch_positions(engine, monkeypatch)
    talk = engine.conversation("A system prompt that is read once and not again at later turns of a conversation.")
    questions = [{"audio": pcm("twoturn", 0)}, {"text": "And?"}, {"audio": pcm("twoturn", 1), "text": "So?"}]
    found, prompts, read = [], [], []
    for question in questions:
        del calls[:]
        end = ended(list(talk.stream(**question, **SAY)))
        found.append((end.text_ids, end.speech_ids))
        prompts.append(len(engine.prompter.encode(talk.messages[:-1])))
        read.append(calls[0])
    assert read[0] == prompts[0]
    for i in (1, 2):
        assert read[i] == prompts[i] - (prompts[i - 1] - 1)  # the newest position is always run again
    for i, wanted in enumerate(found):
        assert fresh(engine, talk.messages[: 2 * i + 2]) == wanted


def test_modes_take_turns_in_the_caches(golden_engine: Engine) -> None:
    spoken, written = golden_engine.conversation("Same."), golden_engine.conversation("Same.", speech=False)
    for talk in (spoken, written, spoken, written):
        end = ended(list(talk.stream(text="Hi, you.", **SAY)))
        speech = talk is spoken
        assert (end.text_ids, end.speech_ids) == fresh(golden_engine, talk.messages[:-1], speech=speech)


def fed(talk: Conversation, samples: np.ndarray, cuts: list[int], rate: int = 16_000) -> TurnEnded:
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    for a, b in pairwise(edges):
        talk.feed(samples[a:b], rate)
    return ended(list(talk.stream(synthesize=False, **SAY)))


@pytest.fixture(scope="module")
def long_question() -> np.ndarray:
    return pcm("u31")[: 7 * 16_000 + 1234]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_chunks_of_audio_are_heard_as_the_whole(
    golden_engine: Engine, long_question: np.ndarray, data: st.DataObject
) -> None:
    length = data.draw(st.sampled_from([640, 641, 2000, 32_000, 32_040, 40_000, 64_000, 96_001, len(long_question)]))
    loud_at = data.draw(st.none() | st.integers(0, length - 1))
    question = long_question[:length] * np.float32(0.05)
    question[: length // 3] = 0  # digital silence: the clamp cuts it
    if loud_at is not None:
        question[loud_at : loud_at + 400] += np.float32(0.8) * np.sin(np.arange(len(question[loud_at:][:400])))
    wanted = fresh(golden_engine, [*golden_engine.conversation().messages, Message("user", None, question)])
    cuts = data.draw(st.lists(st.integers(0, length), max_size=8))
    end = fed(golden_engine.conversation(), question, cuts)
    assert (end.text_ids, end.speech_ids) == wanted


@pytest.mark.parametrize("size", [1, 7, 400, 160_000])
def test_rows_of_chunks_equal_rows_of_the_whole(golden_engine: Engine, long_question: np.ndarray, size: int) -> None:
    question = long_question[: 3 * 16_000 if size < 100 else None]
    listener = golden_engine.listener()
    for i in range(0, len(question), size):
        listener.feed(question[i : i + size])
    rows = listener.finish()
    wanted = golden_engine.hearing.embed(Message("user", None, question))
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(listener.audio, question)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_other_rates(golden_engine: Engine, long_question: np.ndarray, rate: int) -> None:
    import soxr
    from facrt.runtime.audio import checked_pcm

    samples = soxr.resample(long_question[:48_000], 16_000, rate)
    wanted = checked_pcm(samples, rate, "it")
    listener = golden_engine.listener()
    for i in range(0, len(samples), 333):
        listener.feed(samples[i : i + 333], rate)
    listener.finish()
    np.testing.assert_array_equal(listener.audio, wanted)


def test_only_the_last_window_is_left_at_the_end(golden_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    question = pcm("u31")[: 10 * 16_000]
    question[3_000:3_400] = 0.9 * np.sin(np.arange(400))  # the loudest comes early
    talk = golden_engine.conversation()
    golden_engine.loop.forget()
    for i in range(0, len(question), 1600):
        talk.feed(question[i : i + 1600])
    assert talk._listener is not None
    assert talk._listener.num_encoded == 4
    assert talk.fed_ms == 10_000
    calls = watch_positions(golden_engine, monkeypatch)
    end = ended(list(talk.stream(synthesize=False, **SAY)))
    prompt = len(golden_engine.prompter.encode(talk.messages[:-1]))
    assert calls[0] == prompt - len(golden_engine.prompter.encode_open(talk.messages[:1], 40))
    assert (end.text_ids, end.speech_ids) == fresh(golden_engine, talk.messages[:-1])


def test_a_late_maximum_costs_work_and_changes_nothing(golden_engine: Engine) -> None:
    question = pcm("u31")[: 6 * 16_000] * np.float32(0.01)
    question[5_000:20_000] = 0
    question[90_000:90_400] = 0.9 * np.sin(np.arange(400))
    listener = golden_engine.listener()
    for i in range(0, len(question), 1600):
        listener.feed(question[i : i + 1600])
    early = listener.num_encoded
    rows = listener.finish()
    assert early >= 2
    wanted = golden_engine.hearing.embed(Message("user", None, question))
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-5)


def test_audio_that_cannot_be_fed(golden_engine: Engine) -> None:
    talk = golden_engine.conversation()
    with pytest.raises(AudioError, match="not finite"):
        talk.feed(np.full(10, np.nan, np.float32))
    with pytest.raises(AudioError, match="mono samples"):
        talk.feed(np.zeros((2, 4), np.float32))
    talk.feed(np.zeros(100, np.float32))
    with pytest.raises(AudioError, match="keep one rate"):
        talk.feed(np.zeros(100, np.float32), 24_000)
    with pytest.raises(AudioError, match=r"0\.006 s; 0\.04 s or more"):
        list(talk.stream())
    talk.feed(np.zeros(100, np.float32))
    talk.clear()
    with pytest.raises(RequestError, match="nothing was fed"):
        list(talk.stream())
    assert len(talk.messages) == 1


@pytest.mark.parametrize("played_ms", [0, 1, 199, 200, 201, 799, 1e9])
def test_the_history_keeps_what_was_heard(talkative_engine: Engine, played_ms: float) -> None:
    talk, chunks, last = talkative_engine.conversation(), 0, None
    for event in talk.stream(text="Hi.", **(SAY | {"max_steps": 40})):
        chunks += isinstance(event, AudioChunk)
        if chunks == 3:
            talk.interrupt(played_ms)
        last = event
    assert isinstance(last, TurnEnded)
    assert last.reason == "interrupted"
    groups = [last.speech_ids[i : i + 5] for i in range(0, len(last.speech_ids), 5)]
    begins = np.cumsum([0, *(40 * sum(0 <= i < 6561 for i in group) for group in groups)])[:-1]
    num_groups = sum(begin < played_ms for begin in begins)
    num_ids = 1 + num_groups if num_groups else 0  # the first id is <|audio_bos|>, and then one id a group
    assert talk.messages[-1].text == talkative_engine.prompter.decode(last.text_ids[:num_ids])
    end = ended(list(talk.stream(text="What?", **SAY)))
    assert (end.text_ids, end.speech_ids) == fresh(talkative_engine, talk.messages[:-1])


def test_interrupts_from_another_thread_at_many_moments(talkative_engine: Engine) -> None:
    random = np.random.default_rng(0)
    for wait in random.uniform(0, 0.4, 8):
        talk = talkative_engine.conversation()
        timer = threading.Timer(wait, talk.interrupt)
        timer.start()
        events = list(talk.stream(text="Hi.", **(SAY | {"max_steps": 120})))
        timer.join()
        assert threading.active_count() < 20
        last = events[-1]
        assert isinstance(last, TurnEnded)
        if last.reason == "interrupted":
            assert len(talk.messages) == 3
    end = ended(list(talk.stream(text="What?", **SAY)))
    assert (end.text_ids, end.speech_ids) == fresh(talkative_engine, talk.messages[:-1])


def test_leaving_early_is_an_interruption(talkative_engine: Engine) -> None:
    talk = talkative_engine.conversation()
    events: Iterator[Any] = talk.stream(text="Hi.", **(SAY | {"max_steps": 60}))
    while not isinstance(next(events), AudioChunk):
        pass
    events.close()  # type: ignore[attr-defined]
    assert [m.role for m in talk.messages] == ["system", "user", "assistant"]
    assert threading.active_count() < 20
    assert ended(list(talk.stream(text="What?", **SAY))).text_ids


def test_channel() -> None:
    channel: Channel[int] = Channel(2)
    seen: list[int] = []

    def produce() -> None:
        for i in range(20):
            channel.put(i)
        channel.finish()

    thread = threading.Thread(target=produce)
    thread.start()
    for item in channel:
        assert len(channel._items) <= 2
        seen.append(item)
    thread.join()
    assert seen == list(range(20))
    channel.close()
    assert not channel.put(1)
    failing: Channel[int] = Channel(2)
    failing.put(1)
    failing.finish(ValueError("late"))
    items = iter(failing)
    assert next(items) == 1
    with pytest.raises(ValueError, match="late"):
        next(items)


def test_truncation_after_the_end(talkative_engine: Engine) -> None:
    engine, talk = talkative_engine, talkative_engine.conversation()
    talk.truncate(100)
    end = ended(list(talk.stream(text="Hi.", **SAY)))
    whole = talk.messages[-1].text
    talk.truncate(1e9)
    assert talk.messages[-1].text == whole == engine.prompter.decode(end.text_ids)
    talk.truncate(250)
    assert talk.messages[-1].text == engine.prompter.decode(end.text_ids[:3])
    again = ended(list(talk.stream(text="What?", **SAY)))
    assert (again.text_ids, again.speech_ids) == fresh(engine, talk.messages[:-1])


def test_an_interruption_before_the_answer_began_counts(golden_engine: Engine) -> None:
    talk = golden_engine.conversation()
    before = talk.generation
    talk.interrupt()
    end = ended(list(talk.stream(text="Hi.", generation=before, **SAY)))
    assert end.reason == "interrupted"
    assert [m.text for m in talk.messages[1:]] == ["Hi.", ""]
    assert ended(list(talk.stream(text="Hi.", **SAY))).reason == "done"


def test_old_turns_are_forgotten(golden_engine: Engine) -> None:
    talk = golden_engine.conversation(max_turns=2)
    for text in ("a", "b", "c"):
        end = ended(list(talk.stream(text=text, **SAY)))
    assert [m.text for m in talk.messages if m.role == "user"] == ["b", "c"]
    assert [m.role for m in talk.messages] == ["system", *["user", "assistant"] * 2]
    assert end.text_ids
    with pytest.raises(RequestError, match="max_turns 0 is not at least 1"):
        golden_engine.conversation(max_turns=0)


def test_a_program_may_end_in_the_middle_of_an_answer(golden_bundle: Path) -> None:
    code = f"""
import facrt
talk = facrt.load({str(golden_bundle)!r}, check_hashes=False).conversation()
events = talk.stream(text="Hi.", greedy=True, max_steps=200, eos_token_id=-1)
next(events)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stderr) == (0, "")
