"""The flow against every golden run, and what its parts promise."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facrt.errors import RequestError
from facrt.model import weights
from facrt.model.checkpoint import load_flow
from facrt.model.config import FlowConfig
from facrt.model.flow import Flow, euler_times, flow_layout, flow_noise, visible_in_blocks, visible_in_chunks
from goldens import DETOKENIZER, expected, inputs, meta
from safetensors.torch import save_file
from tolerances import TOLERANCES

RUNS = tuple(run for run in meta(DETOKENIZER)["runs"] if not run.startswith("t2w_"))
ESTIMATOR_ARGUMENTS = ("x", "mu", "t", "spks", "cond")
TINY = FlowConfig(
    vocab_size=11,
    dim=24,
    depth=3,
    num_heads=2,
    head_dim=6,
    ff_mult=3,
    pre_channels=7,
    pre_lookahead=2,
    chunk_frames=6,
    num_mels=5,
    speaker_dim=9,
    token_mel_ratio=3,
    num_steps=4,
    guidance_rate=0.3,
    position_kernel=5,
    position_groups=4,
    time_embedding_dim=12,
)


@pytest.fixture(scope="module")
def flow() -> Flow:
    return load_flow(DETOKENIZER / "model")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    return random_flow(TINY, tmp_path_factory.mktemp("tiny"))


def random_flow(config: FlowConfig, folder: Path) -> Flow:
    generator, layout = torch.Generator().manual_seed(0), flow_layout(config)
    parts = [part for weight in layout.values() for part in weight.parts]
    save_file({p.name: torch.randn(p.shape, generator=generator) * 0.2 for p in parts}, folder / "flow.safetensors")
    source = weights.SafetensorsSource(folder, "flow")
    weights.check(layout, source)
    with torch.device("meta"):
        module = Flow(config)
    weights.load(module, layout, source)
    return module


def arguments(run: str) -> dict[str, Any]:
    params, given = meta(DETOKENIZER)["runs"][run], inputs(DETOKENIZER, "_flow")
    prompt = {"prompt_tokens": given["prompt_token"], "prompt_mel": given["prompt_feat"]} if params["prompt"] else {}
    return {
        "tokens": given["token"][:, : params["n_tokens"]],
        "speaker": given["embedding"],
        "streaming": params["streaming"],
        "finalize": params["finalize"],
        **prompt,
    }


def close(actual: torch.Tensor, wanted: np.ndarray, component: str) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(wanted), rtol=0, atol=TOLERANCES[component, "fp32"])


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("own_noise", [False, True])
def test_mel(flow: Flow, run: str, own_noise: bool) -> None:
    noise = None if own_noise else inputs(DETOKENIZER, "_flow")["rand_noise"]
    close(flow(**arguments(run), noise=noise), expected(DETOKENIZER, "_flow")[f"{run}__mel"], "flow_mel")


@pytest.mark.parametrize("run", RUNS)
def test_front(flow: Flow, run: str) -> None:
    given, wanted = arguments(run), expected(DETOKENIZER, "_flow")
    tokens = np.concatenate([given.get("prompt_tokens", given["tokens"][:, :0]), given["tokens"]], axis=1)
    mu, spk = flow.front(torch.from_numpy(tokens).long(), torch.from_numpy(given["speaker"]))
    h = wanted[f"{run}__h"]
    ratio = flow.config.token_mel_ratio
    assert mu.shape[2] == ratio * tokens.shape[1]
    assert h.shape[1] == tokens.shape[1] - (0 if given["finalize"] else flow.config.pre_lookahead)
    for i in range(ratio):
        close(mu[:, :, i::ratio].transpose(1, 2)[:, : h.shape[1]], h, "flow")
    close(spk, wanted["spk_projected"], "flow")


def recorded_steps() -> list[tuple[str, int]]:
    names = [name.split("__") for name in expected(DETOKENIZER, "_flow") if name.endswith("_out")]
    return [(run, int(name.removeprefix("est").removesuffix("_out"))) for run, name in names]


@pytest.mark.parametrize(("run", "step"), recorded_steps())
def test_estimator(flow: Flow, run: str, step: int) -> None:
    wanted = expected(DETOKENIZER, "_flow")
    given = {name: torch.from_numpy(wanted[f"{run}__est{step}_{name}"]) for name in ("mask", *ESTIMATOR_ARGUMENTS)}
    assert given["mask"].eq(1).all()
    streaming = meta(DETOKENIZER)["runs"][run]["streaming"]
    num_frames = given["x"].shape[2]
    visible = visible_in_chunks(num_frames, flow.config.chunk_frames if streaming else num_frames)
    velocity = flow.estimator(*(given[name] for name in ESTIMATOR_ARGUMENTS), visible)
    close(velocity, wanted[f"{run}__est{step}_out"], "flow")


@pytest.mark.parametrize("run", sorted({run for run, _ in recorded_steps()}))
def test_what_the_estimator_is_given(flow: Flow, run: str) -> None:
    calls: list[tuple[torch.Tensor, ...]] = []
    hook = flow.estimator.register_forward_pre_hook(lambda _, given: calls.append(given))
    flow(**arguments(run))
    hook.remove()
    wanted = expected(DETOKENIZER, "_flow")
    times = torch.stack([call[2][0] for call in calls])
    np.testing.assert_array_equal(times.numpy(), wanted[f"{run}__t_per_step"])
    for step in (step for name, step in recorded_steps() if name == run):
        for i, name in enumerate(ESTIMATOR_ARGUMENTS):
            close(calls[step][i], wanted[f"{run}__est{step}_{name}"], "flow_mel")


def test_noise_is_upstreams_and_leaves_the_global_generator_alone() -> None:
    real = json.loads((DETOKENIZER / "real_noise.json").read_text())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    flow_noise.cache_clear()
    noise = flow_noise()
    assert torch.equal(torch.get_rng_state(), before)
    assert noise.shape == (1, 80, 15_000)
    assert noise.flatten()[:8].tolist() == real["rand_noise_first8"]
    assert hashlib.sha256(noise.numpy().tobytes()).hexdigest() == real["sha256_rand_noise"]


def test_times_run_from_0_to_1() -> None:
    times = euler_times(10)
    assert times.shape == (11,)
    assert times[0] == 0
    assert times[-1].item() == pytest.approx(1)


@pytest.mark.parametrize("num_tokens", [5, 8, 13])
def test_masked_pieces_equal_the_masked_whole(tiny: Flow, num_tokens: int) -> None:
    tokens, speaker = torch.arange(16) % 11, torch.randn(1, 9, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 5, 48, generator=torch.Generator().manual_seed(2))
    whole = tiny(tokens, speaker, noise, streaming=True)
    piece = tiny(tokens[:num_tokens], speaker, noise, streaming=True, finalize=False)
    frames = (num_tokens - 2) * 3
    assert whole.shape == (1, 5, 48)
    assert piece.shape == (1, 5, frames)
    complete = frames // TINY.chunk_frames * TINY.chunk_frames  # frames whose attention chunk is complete
    torch.testing.assert_close(piece[:, :, :complete], whole[:, :, :complete], rtol=0, atol=1e-5)


def test_prompt_frames_are_not_returned(tiny: Flow) -> None:
    noise, speaker = torch.zeros(1, 5, 60), np.ones((1, 9), np.float32)
    mel = tiny([1, 2, 3, 4], speaker, noise, prompt_tokens=[5, 6], prompt_mel=np.ones((1, 6, 5), np.float32))
    assert mel.shape == (1, 5, 12)


def test_a_row_does_not_depend_on_its_neighbour(tiny: Flow) -> None:
    generator = torch.Generator().manual_seed(3)
    x, mu, cond = (torch.randn(3, 5, 10, generator=generator) for _ in range(3))
    t, spk = torch.rand(3, generator=generator), torch.randn(3, 5, generator=generator)
    visible = visible_in_chunks(10, 4)
    together = tiny.estimator(x, mu, t, spk, cond, visible)
    alone = [tiny.estimator(*(v[i : i + 1] for v in (x, mu, t, spk, cond)), visible) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("ends", [(10,), (1, 10), (3, 4, 9, 10), tuple(range(1, 11))])
@pytest.mark.parametrize("left_frames", [0, 2, 10])
def test_blocks_with_caches_equal_the_masked_whole(tiny: Flow, ends: tuple[int, ...], left_frames: int) -> None:
    generator, c = torch.Generator().manual_seed(4), TINY
    x, mu, cond = (torch.randn(2, 5, 10, generator=generator) for _ in range(3))
    t, spk = torch.rand(2, generator=generator), torch.randn(2, 5, generator=generator)
    whole = tiny.estimator(x, mu, t, spk, cond, visible_in_blocks(ends, left_frames))
    tails = [torch.zeros(2, c.dim, c.position_kernel - 1)] * 2
    rows = [torch.zeros(0, 2 * c.num_heads, c.head_dim)] * 2 * c.depth
    pieces = []
    for begin, end in zip((0, *ends), ends, strict=False):
        frames = slice(begin, end)
        piece, *states = tiny.estimator.step(
            x[:, :, frames], mu[:, :, frames], t, spk, cond[:, :, frames], torch.tensor([begin]), [*tails, *rows]
        )
        pieces.append(piece)
        tails = states[:2]
        joined = [torch.cat(pair) for pair in zip(rows, states[2:], strict=True)]
        rows = [row[max(0, len(row) - left_frames) :] for row in joined]
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole, rtol=0, atol=1e-5)


def test_chunks_are_equal_blocks() -> None:
    assert torch.equal(visible_in_chunks(10, 4), visible_in_blocks((4, 8, 10), 10))


def test_negative_tokens_count_as_zero(tiny: Flow) -> None:
    speaker = torch.ones(1, 9)
    assert torch.equal(tiny.front(torch.tensor([[-1, 3]]), speaker)[0], tiny.front(torch.tensor([[0, 3]]), speaker)[0])


def test_only_the_speakers_direction_counts(tiny: Flow) -> None:
    tokens, speaker = torch.tensor([[1]]), torch.arange(1.0, 10)[None]
    torch.testing.assert_close(tiny.front(tokens, speaker)[1], tiny.front(tokens, 12 * speaker)[1])


def test_refuses_what_it_has_no_noise_for(tiny: Flow) -> None:
    with pytest.raises(RequestError, match="9 mel frames are asked for, there is noise for 8"):
        tiny([1, 2, 3], np.ones((1, 9)), np.zeros((1, 5, 8)))


def test_refuses_tokens_that_are_context_only(tiny: Flow) -> None:
    with pytest.raises(RequestError, match="0 mel frames are left"):
        tiny([1, 2], np.ones((1, 9)), finalize=False)


def test_odd_number_of_heads_and_another_depth(tmp_path: Path) -> None:
    config = replace(TINY, num_heads=5, depth=1, head_dim=4)
    mel = random_flow(config, tmp_path)(np.arange(4), np.ones((1, 9)))
    assert mel.shape == (1, 5, 12)
    assert mel.isfinite().all()
