"""The released detokenizer's files (`flow.pt`, `hift.pt`, `cosyvoice3.yaml`, `spk2info.pt`) and the fixtures' form."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facrt.errors import CheckpointError
from facrt.export.pipeline import _speakers
from facrt.model import weights
from facrt.model.checkpoint import load_flow, load_speakers, load_vocoder, open_flow, open_vocoder
from facrt.model.config_files import read_detokenizer_config, read_hyperpyyaml
from goldens import DETOKENIZER, inputs
from safetensors.torch import load_file, save_file

FIXTURE = DETOKENIZER / "model"
YAML = """\
# set random seed, so that you may reproduce your result.
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:torch.manual_seed [1986]

sample_rate: 24000
llm_input_size: 896
spk_embed_dim: 192
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2
chunk_size: 10 # streaming inference chunk size, in token
num_decoding_left_chunks: -1

llm: !new:cosyvoice.llm.llm.CosyVoice3LM
    llm_input_size: !ref <llm_input_size>
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
    input_size: 80
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: 729
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: 3
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        in_channels: 80
        channels: 96
        pre_lookahead_len: 3
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: 0.7
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.DiT.dit.DiT
            dim: 64
            depth: 2
            heads: 3
            dim_head: 16
            ff_mult: 2
            mel_dim: 80
            mu_dim: 80
            spk_dim: 80
            out_channels: 80
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>

hift: !new:cosyvoice.hifigan.generator.CausalHiFTGenerator
    in_channels: 80
    base_channels: 48
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    conv_pre_look_right: 4
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.CausalConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: 24

parquet_opener: !name:cosyvoice.dataset.processor.parquet_opener
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
data_pipeline: [
    !ref <parquet_opener>,
    !ref <get_tokenizer>,
]
"""


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The golden detokenizer in the files of the released one."""
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "cosyvoice3.yaml").write_text(YAML)
    torch.save(load_file(FIXTURE / "flow.safetensors"), folder / "flow.pt")
    hift = load_file(FIXTURE / "hift.safetensors")
    torch.save({f"generator.{name}": tensor for name, tensor in hift.items()}, folder / "hift.pt")
    return folder


def test_the_configurations_are_equal(released: Path) -> None:
    assert read_detokenizer_config(released) == read_detokenizer_config(FIXTURE)


def test_the_outputs_are_equal(released: Path) -> None:
    given = inputs(DETOKENIZER, "_flow")
    tokens, speaker, noise = given["token"][:, :9], given["embedding"], given["rand_noise"]
    flows = [aligned(load_flow(folder)) for folder in (FIXTURE, released)]
    mels = [flow(tokens, speaker, noise, streaming=True) for flow in flows]
    assert torch.equal(*mels)
    assert mels[0].shape == (1, 80, 18)
    wavs = [aligned(load_vocoder(folder))(mels[0]) for folder in (FIXTURE, released)]
    assert torch.equal(*wavs)


def aligned(module: torch.nn.Module) -> torch.nn.Module:
    """With weights in memory of their own: a product's last bit depends on where a mapped file puts them."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


def test_a_vocoder_without_the_prefix(released: Path) -> None:
    torch.save(load_file(FIXTURE / "hift.safetensors"), released / "hift.pt")
    wanted = load_vocoder(FIXTURE).state_dict()
    found = load_vocoder(released).state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("open_", "load"), [(open_flow, load_flow), (open_vocoder, load_vocoder)])
def test_weights_left_on_disk_are_the_same(
    released: Path,
    open_: Callable[[Path], Any],
    load: Callable[[Path], torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "LAZY_ELEMENTS", 1000)
    module, readers = open_(released)
    assert len(readers) > 10
    wanted = dict(load(FIXTURE).named_parameters())
    for name, parameter in module.named_parameters():
        found = readers[id(parameter)]() if id(parameter) in readers else parameter
        assert torch.equal(found, wanted[name]), name


def test_missing_files(released: Path) -> None:
    (released / "flow.pt").unlink()
    with pytest.raises(CheckpointError, match=r"neither flow\.safetensors nor"):
        load_flow(released)
    (released / "cosyvoice3.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"neither config\.json nor cosyvoice3\.yaml"):
        load_vocoder(released)


class Trap:
    """A pickle that would write a file if it were trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_runs_code_is_refused(released: Path) -> None:
    sprung = released.parent / "sprung"
    torch.save({"x": Trap(sprung), **load_file(FIXTURE / "flow.safetensors")}, released / "flow.pt")
    with pytest.raises(CheckpointError, match=r"flow\.pt is no readable PyTorch state dict") as caught:
        load_flow(released)
    assert "\n" not in str(caught.value)
    torch.save({"ann": {"embedding": Trap(sprung)}}, released / "spk2info.pt")
    with pytest.raises(CheckpointError, match=r"spk2info\.pt holds no speaker embeddings"):
        load_speakers(released)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut"])
def test_a_broken_state_dict(released: Path, content: bytes) -> None:
    (released / "hift.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"hift\.pt is no readable PyTorch state dict"):
        load_vocoder(released)


def test_a_truncated_state_dict(released: Path) -> None:
    raw = (released / "flow.pt").read_bytes()
    (released / "flow.pt").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CheckpointError, match=r"flow\.pt is no readable PyTorch state dict"):
        load_flow(released)


def test_wrong_tensors_are_listed(released: Path) -> None:
    tensors = load_file(FIXTURE / "flow.safetensors")
    tensors["nose.weight"] = tensors.pop("input_embedding.weight")
    torch.save(tensors, released / "flow.pt")
    with pytest.raises(CheckpointError, match=r"missing: input_embedding\.weight; extra: nose\.weight"):
        load_flow(released)
    torch.save([1, 2], released / "flow.pt")
    with pytest.raises(CheckpointError, match=r"missing: .*input_embedding\.weight"):
        load_flow(released)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("flow: !new", "flow: [!new", "no readable YAML"),
        ("<chunk_size> *", "<lunch_size> *", r"the reference '<lunch_size> \* <token_mel_ratio>' cannot be resolved"),
        ("<chunk_size> *", "open('x') *", "cannot be resolved"),
        ("            depth: 2\n", "", "no key 'depth'"),
        ("        cond_channels: 24\n", "", "no key 'cond_channels'"),
        ("dim: 64", "dim: 60", "dim 60 is no multiple of 16"),
    ],
)
def test_bad_yaml(released: Path, old: str, new: str, words: str) -> None:
    assert old in YAML
    (released / "cosyvoice3.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_detokenizer_config(released)
    assert "\n" not in str(caught.value)


def test_yaml_is_read_as_plain_data(released: Path) -> None:
    path = released / "cosyvoice3.yaml"
    path.write_text(YAML + f"trap: !apply:pathlib.Path.touch [{released / 'sprung'}]\ndouble: !ref <chunk_size> * 2\n")
    raw = read_hyperpyyaml(path)
    assert raw["double"] == 20
    assert raw["flow"]["decoder"]["estimator"]["static_chunk_size"] == 20
    assert not (released / "sprung").exists()


def test_speakers(released: Path) -> None:
    assert load_speakers(released) == {}
    names, rows = _speakers(released, 192)
    assert (list(names), rows.shape, rows.dtype, rows.any()) == (["neutral"], (1, 192), np.float32, False)
    voices = {name: torch.randn(1, 192) for name in ("zoe", "ann")}
    info = {name: {"embedding": voice, "speech_token": torch.zeros(1, 7)} for name, voice in voices.items()}
    torch.save(info, released / "spk2info.pt")
    names, rows = _speakers(released, 192)
    assert list(names) == ["zoe", "ann"]
    np.testing.assert_array_equal(rows, torch.cat(list(voices.values())).numpy())
    with pytest.raises(CheckpointError, match="speakers zoe, ann do not have 100 numbers"):
        _speakers(released, 100)
    save_file({"b": torch.ones(192), "a": torch.zeros(192)}, released / "speakers.safetensors")
    assert list(load_speakers(released)) == ["a", "b"]


@pytest.mark.parametrize("content", [{"ann": 3}, {"ann": {"name": 3}}, [1]])
def test_bad_speakers(released: Path, content: Any) -> None:
    torch.save(content, released / "spk2info.pt")
    with pytest.raises(CheckpointError, match=r"spk2info\.pt holds no speaker embeddings"):
        load_speakers(released)


def test_both_forms_in_one_folder(released: Path) -> None:
    shutil.copyfile(FIXTURE / "config.json", released / "config.json")
    assert load_flow(released).config == load_flow(FIXTURE).config
