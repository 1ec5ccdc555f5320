"""One Protocol, three speech heads: the reference, ONNX Runtime and native give the same tokens and logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facrt.errors import BundleError, RequestError
from facrt.export.native_file import smallest_exact
from facrt.export.native_head import EMBEDDING_DTYPES, write_native_head
from facrt.export.pipeline import ExportRequest, export
from facrt.model.checkpoint import load_chat
from facrt.model.generate import ChatModel
from facrt.model.settings import GenerationSettings
from facrt.model.speech_head import Pick, RefinementLoop
from facrt.quant.packing import PACKINGS
from facrt.runtime import _native
from facrt.runtime.backend import Array, SpeechHead
from facrt.runtime.bundle import open_bundle
from facrt.runtime.engine import FORMS, load
from facrt.runtime.native_speech_head import NativeSpeechHead
from facrt.runtime.sampling import SpeechSampling
from goldens import LM
from tolerances import TOLERANCES

CAPACITY = 64
GREEDY = GenerationSettings(repetition_penalty=1.2)
SAMPLED = GenerationSettings(do_sample=True, temperature=0.8, top_p=0.9, repetition_penalty=1.2, seed=3)


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return load_chat(LM / "model")


@pytest.fixture(scope="module")
def u() -> Array:
    return np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32)


class ReferenceSpeechHead:
    """The reference's loop behind the runtime's Protocol."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat
        self.reset()

    def reset(self) -> None:
        self._loop = RefinementLoop(self._chat.speech_head, self._chat.config)
        self._fed: list[tuple[Array, int]] = []  # per position its u, and the token that its group ended with

    def truncate(self, position: int) -> None:
        bos = self._chat.config.speech_bos_id
        del self._fed[position:]
        self._loop.attend.truncate(position * self._chat.config.group_size)
        token = self._fed[-1][1] if self._fed else bos
        self._loop._previous = self._chat.speech_head.head.weight[token]

    def prefill(self, u: Array, sampling: SpeechSampling) -> list[int]:
        group = self._run(self._loop.prefill, u, sampling)
        bos = self._chat.config.speech_bos_id
        self._fed += [(row, bos) for row in u[:-1]] + [(u[-1], group[-1])]
        return group

    def group(self, u: Array, sampling: SpeechSampling) -> list[int]:
        group = self._run(self._loop.group, u[None], sampling)
        self._fed.append((u, group[-1]))
        return group

    def group_logits(self) -> list[Array]:
        return [row.numpy() for row in self._loop.last_logits]

    @staticmethod
    def _run(call: Callable[[torch.Tensor, Pick], list[int]], u: Array, sampling: SpeechSampling) -> list[int]:
        with torch.inference_mode():
            return call(torch.from_numpy(u), lambda logits, group: sampling.pick(logits.numpy(), group))


@pytest.fixture(scope="module", params=["reference", *FORMS])
def head(request: pytest.FixtureRequest, golden_bundle: Path, chat: ChatModel) -> SpeechHead:
    if request.param == "reference":
        return ReferenceSpeechHead(chat)
    return load(golden_bundle, max_positions=CAPACITY, speech_head=request.param).speech_head


def answer(head: SpeechHead, u: Array, num_prompt: int, settings: GenerationSettings) -> tuple[list[int], Array]:
    """A prompt and a group for each position after it: the tokens and the logits, all of them."""
    sampling = SpeechSampling(settings)
    tokens, logits = head.prefill(u[:num_prompt], sampling), head.group_logits()
    for row in u[num_prompt:]:
        group = head.group(row, sampling)
        sampling.remember(group)
        tokens += group
        logits += head.group_logits()
    return tokens, np.stack(logits)


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("num_prompt", [1, 2, 33])
def test_equals_the_reference(head: SpeechHead, chat: ChatModel, u: Array, num_prompt: int, settings: object) -> None:
    assert isinstance(settings, GenerationSettings)
    wanted, wanted_logits = answer(ReferenceSpeechHead(chat), u, num_prompt, settings)
    head.reset()
    found, logits = answer(head, u, num_prompt, settings)
    assert found == wanted
    np.testing.assert_allclose(logits, wanted_logits, rtol=0, atol=TOLERANCES["speech_logits", "fp32"])


def test_starts_again_from_any_position(head: SpeechHead, u: Array) -> None:
    sampling = SpeechSampling(GREEDY)
    head.reset()
    wanted = [head.prefill(u[:4], sampling), *(head.group(row, sampling) for row in u[4:9])]
    for position in (6, 4, 8):
        head.truncate(position)
        assert [head.group(row, sampling) for row in u[position:9]] == wanted[position - 3 :]
    head.truncate(100)
    head.reset()
    assert head.prefill(u[:4], sampling) == wanted[0]


@pytest.mark.parametrize("kind", FORMS)
def test_a_full_cache(golden_bundle: Path, u: Array, kind: str) -> None:
    head = load(golden_bundle, max_positions=4, speech_head=kind).speech_head
    sampling = SpeechSampling(GREEDY)
    with pytest.raises(RequestError, match=r"do not fit the cache of \d+; load the bundle with a larger max_positions"):
        head.prefill(u[:5], sampling)
    head.prefill(u[:4], sampling)
    with pytest.raises(RequestError, match=r"do not fit the cache of"):
        head.group(u[4], sampling)


@pytest.mark.parametrize(("cache", "limit"), [("fp16", 2e-3), ("int8", 3e-2)])
def test_a_smaller_cache_is_close(golden_bundle: Path, u: Array, cache: str, limit: float) -> None:
    whole = load(golden_bundle, max_positions=CAPACITY).speech_head
    smaller = load(golden_bundle, max_positions=CAPACITY, speech_cache=cache).speech_head
    assert isinstance(whole, NativeSpeechHead)
    assert isinstance(smaller, NativeSpeechHead)
    assert smaller.loop.cache_bytes_per_position < whole.loop.cache_bytes_per_position
    for head in (whole, smaller):
        head.prefill(u[:33], SpeechSampling(GREEDY))
    wanted, found = whole.loop.logits(0), smaller.loop.logits(0)
    assert 0 < np.linalg.norm(found - wanted) < limit * np.linalg.norm(wanted)


def test_the_choice_of_cache(golden_bundle: Path) -> None:
    with pytest.raises(RequestError, match="speech cache 'int2' is unknown; allowed: fp32, fp16, int8"):
        load(golden_bundle, speech_cache="int2")
    with pytest.raises(RequestError, match="speech cache 'int8' needs the native speech head"):
        load(golden_bundle, speech_head="onnx", speech_cache="int8")


def test_a_damaged_weight_file(golden_bundle: Path, chat: ChatModel, tmp_path: Path) -> None:
    whole = (golden_bundle / "speech_head.bin").read_bytes()
    (tmp_path / "head").write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=r"no usable speech head file \(.*\); export the bundle again"):
        NativeSpeechHead(tmp_path / "head", chat.config, CAPACITY, 1)


class RoundedLoop(RefinementLoop):
    """The reference over rounded weights: matrices as a packing stores them, the embedding as the file does."""

    embedding: torch.Tensor

    def _group(self, pieces: list[torch.Tensor], pick: Pick) -> list[int]:
        tokens: list[int] = []
        for piece in pieces:
            logits = self.head(piece + self._previous, self.attend)
            tokens.append(pick(logits, tokens))
            self._previous = self.embedding[tokens[-1]]
        return tokens


@pytest.mark.parametrize("precision", PACKINGS)
def test_every_precision_equals_the_reference_with_its_weights(precision: str, u: Array, tmp_path: Path) -> None:
    chat = load_chat(LM / "model")
    write_native_head(chat.speech_head, chat.config, {}, precision, tmp_path / "head")
    head = NativeSpeechHead(tmp_path / "head", chat.config, CAPACITY, 2)
    assert head.loop.format == precision
    embedding = chat.speech_head.head.weight.clone()
    for parameter in chat.speech_head.parameters():
        if parameter.dim() == 2:
            parameter.data = PACKINGS[precision].round(parameter.data)
    loop = RoundedLoop(chat.speech_head, chat.config)
    loop.embedding = embedding.to(EMBEDDING_DTYPES.get(precision, torch.bfloat16)).float()
    loop._previous = loop.embedding[chat.config.speech_bos_id]

    # the reference is fed the native tokens, so that one token on the other side of a tie does not end the comparison
    sampling = SpeechSampling(GREEDY)
    errors, norm, equal = 0.0, 0.0, []
    for i in range(29, 40):
        rows = u[:30] if i == 29 else u[i : i + 1]
        found = head.prefill(rows, sampling) if i == 29 else head.group(rows[0], sampling)
        logits = iter(head.group_logits())

        def follow(wanted: torch.Tensor, group: list[int], found: list[int] = found, logits: object = logits) -> int:
            nonlocal errors, norm
            row = next(logits)  # type: ignore[call-overload]
            errors += float(((wanted.numpy() - row) ** 2).sum())
            norm += float((wanted**2).sum())
            equal.append(sampling.pick(wanted.numpy(), group) == found[len(group)])
            return found[len(group)]

        with torch.inference_mode():
            (loop.prefill if i == 29 else loop.group)(torch.from_numpy(rows), follow)
    # integer precisions round activations to 1 / 127 of the largest of 32: about 0.4 % of a value's size
    limit = 3e-2 if precision.startswith("int") else 1e-5
    assert (errors / norm) ** 0.5 < limit
    if limit < 1e-3:
        assert all(equal)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_are_stored_as_small_as_is_exact(chat: ChatModel, u: Array, dtype: torch.dtype, tmp_path: Path) -> None:
    head = copy.deepcopy(chat.speech_head)
    for parameter in head.parameters():
        parameter.data = parameter.data.to(dtype).float()
    stored = smallest_exact(head, {})
    assert stored == {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    loops = []
    for precision in ("fp32", stored):
        write_native_head(head, chat.config, {}, precision, tmp_path / precision)
        loops.append(_native.SpeechHeadLoop(tmp_path / precision, num_threads=1, max_positions=CAPACITY))
    tokens = [loop.prefill(u[:30], _native.Sampler(0), greedy=True) for loop in loops]
    assert tokens[0] == tokens[1]
    for i in range(chat.config.group_size):
        np.testing.assert_array_equal(loops[0].logits(i), loops[1].logits(i))


def test_a_cached_beginning_changes_nothing(golden_bundle: Path, u: Array) -> None:
    loop = _native.SpeechHeadLoop(golden_bundle / "speech_head.bin", num_threads=2, max_positions=CAPACITY)
    sampler = _native.Sampler(0)
    whole = loop.prefill(u[:9], sampler, greedy=True), loop.logits(4)
    loop.truncate(0)
    loop.extend(u[:7])
    for _ in range(2):
        loop.truncate(7)
        assert loop.prefill(u[7:9], sampler, greedy=True) == whole[0]
        np.testing.assert_array_equal(loop.logits(4), whole[1])


def test_an_export_with_another_native_precision(golden_bundle: Path, tmp_path: Path) -> None:
    manifest = export(ExportRequest(str(LM / "model"), tmp_path / "bundle", native="int8"))
    rows = {row["stage"]: row for row in manifest.parity["rows"]}
    assert manifest.parity["ok"]
    assert rows["speech_logits"]["relative_error"] < 5e-4 < rows["native_speech_logits"]["relative_error"]
    whole = open_bundle(golden_bundle).manifest.files["speech_head.bin"].size_bytes
    assert manifest.files["speech_head.bin"].size_bytes < 0.5 * whole
    head = load(tmp_path / "bundle", max_positions=4).speech_head
    assert isinstance(head, NativeSpeechHead)
    assert head.loop.format == "int8"


def test_the_command_line_chooses_the_head(facrt: Any, golden_bundle: Path, tmp_path: Path) -> None:
    question = ["run", golden_bundle, "--text", "What?", "--greedy", "--max-steps", "4"]
    answers = [
        facrt.json(*question, *choice, cwd=tmp_path)["turns"][0]["speech_ids"]
        for choice in ([], ["--speech-head", "native"], ["--speech-head", "onnx"])
    ]
    assert answers[0] == answers[1] == answers[2] != []
    assert "speech head 'abacus' is unknown" in facrt.refusal(*question, "--speech-head", "abacus", cwd=tmp_path)
