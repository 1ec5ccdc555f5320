"""The configuration files of checkpoints -> configurations; no torch.

Sources: `config.json` of the chat checkpoint, `config.json` or `cosyvoice3.yaml` of the detokenizer, `config.json` of
the speech tokenizer (docs/SEMANTICS.md, docs/REAL_CONFIG.md).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, RequestError
from .config import (
    AudioEncoderConfig,
    ChatConfig,
    DecoderConfig,
    FlowConfig,
    SpeechTokenizerConfig,
    VocoderConfig,
    refuse,
)
from .settings import PUBLISHED_SAMPLING, GenerationSettings


def existing(folder: Path | str) -> Path:
    """The folder as a path.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; a checkpoint folder (with config.json) is needed")
    return folder


def read_chat_config(folder: Path) -> ChatConfig:
    """Reads config.json (and generation_config.json for the eos ids) of a Fun-Audio-Chat checkpoint.

    Raises:
        CheckpointError: a file is missing or is no JSON, or a value is missing or impossible.
    """
    raw = read_json(folder / "config.json")
    try:
        audio, text = raw["audio_config"], raw["text_config"]
        return ChatConfig(
            text=_decoder(text),
            speech=_decoder({**audio["crq_transformer_config"], "vocab_size": 0}),
            audio=AudioEncoderConfig(
                d_model=audio["d_model"],
                num_layers=audio["encoder_layers"],
                num_heads=audio["encoder_attention_heads"],
                ffn_size=audio["encoder_ffn_dim"],
                num_mels=audio.get("num_mel_bins", 128),
                half_window_frames=audio.get("n_window", 100),
            ),
            group_size=audio["group_size"],
            codebook_size=audio["codebook_size"],
            speech_bos_id=audio["bos_token_id"],
            speech_eos_id=audio["eos_token_id"],
            speech_pad_id=audio["pad_token_id"],
            audio_token_id=raw["audio_token_index"],
            audio_bos_id=text["audio_bos_index"],
            audio_eos_id=text["audio_eos_index"],
            sil_id=text.get("sil_index", -1),
            eos_ids=_eos_ids(folder, text),
        )
    except KeyError as error:
        raise CheckpointError(
            f"{folder / 'config.json'} has no key {error}: it is no Fun-Audio-Chat checkpoint"
        ) from None


SAMPLING_KEY = "facrt_sampling"  # in generation_config.json; the published one cannot say what the speech head needs


def read_sampling(folder: Path) -> dict[str, Any]:
    """How a checkpoint wants to be sampled: upstream's published settings, changed by `facrt_sampling`.

    Raises:
        CheckpointError: generation_config.json is no JSON, or `facrt_sampling` holds unknown keys or values.
    """
    path = folder / "generation_config.json"
    given = read_json(path).get(SAMPLING_KEY, {}) if path.exists() else {}
    if not isinstance(given, dict) or set(given) - set(PUBLISHED_SAMPLING):
        raise CheckpointError(f"{path}: {SAMPLING_KEY} is {given}; allowed are {', '.join(PUBLISHED_SAMPLING)}")
    sampling = {**PUBLISHED_SAMPLING, **given}
    try:
        GenerationSettings(**sampling)
    except (RequestError, TypeError) as error:
        raise CheckpointError(f"{path}: {SAMPLING_KEY}: {error}") from None
    return sampling


def _eos_ids(folder: Path, text: dict[str, Any]) -> tuple[int, ...]:
    """generation_config.json first; else the tokenizer's eos_token (<|im_end|>); else the text model's own id."""
    generation = folder / "generation_config.json"
    value = read_json(generation).get("eos_token_id") if generation.exists() else None
    if value is None:
        value = _tokenizer_eos_id(folder)
    if value is None:
        value = text.get("eos_token_id")
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _tokenizer_eos_id(folder: Path) -> int | None:
    settings, vocabulary = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (settings.exists() and vocabulary.exists()):
        return None
    token = read_json(settings).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    ids = {entry["content"]: entry["id"] for entry in read_json(vocabulary).get("added_tokens", [])}
    return ids.get(token)


def _decoder(raw: dict[str, Any]) -> DecoderConfig:
    rope = raw.get("rope_parameters") or {}
    scaling = raw.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    faults = []
    if scaling and scaling.get("rope_type", scaling.get("type", "default")) != "default":
        faults.append(f"rope_scaling {scaling} is not supported (allowed: none)")
    if raw.get("model_type", "qwen3") not in ("qwen3", "qwen3_moe"):
        faults.append(f"model_type {raw['model_type']!r} is not supported (allowed: qwen3, qwen3_moe)")
    if raw.get("use_sliding_window"):
        faults.append("use_sliding_window is not supported (allowed: false)")
    if raw.get("hidden_act", "silu") != "silu":
        faults.append(f"hidden_act {raw['hidden_act']!r} is not supported (allowed: silu)")
    refuse(faults, "decoder configuration")
    sparse = raw.get("model_type") == "qwen3_moe"
    return DecoderConfig(
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw["num_key_value_heads"],
        head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta", 1e6)),
        attention_bias=raw.get("attention_bias", False),
        vocab_size=raw.get("vocab_size", 0),
        tie_word_embeddings=raw.get("tie_word_embeddings", False),
        num_experts=raw["num_experts"] if sparse else 0,
        num_experts_per_token=raw["num_experts_per_tok"] if sparse else 0,
        expert_intermediate_size=raw["moe_intermediate_size"] if sparse else 0,
        norm_expert_weights=raw.get("norm_topk_prob", False) if sparse else True,
        sparse_step=raw.get("decoder_sparse_step", 1) if sparse else 1,
        dense_layers=tuple(raw.get("mlp_only_layers") or ()) if sparse else (),
    )


def read_detokenizer_config(folder: Path) -> tuple[FlowConfig, VocoderConfig]:
    """Reads `config.json` (flow and hift), or the released form's `cosyvoice3.yaml`.

    Raises:
        CheckpointError: neither file is there, or a value is missing or impossible.
    """
    path = folder / "config.json"
    if path.exists():
        raw = read_json(path)
        convert_flow, convert_vocoder = _flow_from_json, _vocoder_from_json
    else:
        path = folder / "cosyvoice3.yaml"
        if not path.exists():
            raise CheckpointError(f"{folder} has neither config.json nor cosyvoice3.yaml: it is no detokenizer folder")
        raw = read_hyperpyyaml(path)
        convert_flow, convert_vocoder = _flow_from_yaml, _vocoder_from_yaml
    try:
        return convert_flow(raw["flow"]), convert_vocoder(raw["hift"])
    except KeyError as error:
        raise CheckpointError(f"{path} has no key {error}: it is no CosyVoice3 detokenizer") from None


def _flow_from_json(raw: dict[str, Any]) -> FlowConfig:
    return FlowConfig(
        vocab_size=raw["vocab_size"],
        dim=raw["dim"],
        depth=raw["depth"],
        num_heads=raw["heads"],
        head_dim=raw["dim_head"],
        ff_mult=raw["ff_mult"],
        pre_channels=raw["pre_channels"],
        pre_lookahead=raw["pre_lookahead_len"],
        chunk_frames=raw["static_chunk_size"],
        num_mels=raw["output_size"],
        speaker_dim=raw["spk_embed_dim"],
        token_mel_ratio=raw["token_mel_ratio"],
        num_steps=raw.get("n_timesteps", 10),
        guidance_rate=raw["cfm"]["inference_cfg_rate"],
        position_kernel=raw.get("conv_pos_kernel", 31),
        position_groups=raw.get("conv_pos_groups", 16),
        time_embedding_dim=raw.get("freq_embed_dim", 256),
    )


def _flow_from_yaml(raw: dict[str, Any]) -> FlowConfig:
    decoder, estimator = raw["decoder"], raw["decoder"]["estimator"]
    cfm = decoder["cfm_params"].get("content", decoder["cfm_params"])
    return FlowConfig(
        vocab_size=raw["vocab_size"],
        dim=estimator["dim"],
        depth=estimator["depth"],
        num_heads=estimator["heads"],
        head_dim=estimator["dim_head"],
        ff_mult=estimator["ff_mult"],
        pre_channels=raw["pre_lookahead_layer"]["channels"],
        pre_lookahead=raw["pre_lookahead_len"],
        chunk_frames=estimator["static_chunk_size"],
        num_mels=raw["output_size"],
        speaker_dim=raw["spk_embed_dim"],
        token_mel_ratio=raw["token_mel_ratio"],
        guidance_rate=cfm["inference_cfg_rate"],
    )


def _vocoder_from_json(raw: dict[str, Any]) -> VocoderConfig:
    return _vocoder(raw, f0_channels=raw["f0_channels"], istft_size=raw["istft_n_fft"], istft_hop=raw["istft_hop"])


def _vocoder_from_yaml(raw: dict[str, Any]) -> VocoderConfig:
    istft = raw["istft_params"]
    return _vocoder(raw, raw["f0_predictor"]["cond_channels"], istft_size=istft["n_fft"], istft_hop=istft["hop_len"])


def _vocoder(raw: dict[str, Any], f0_channels: int, istft_size: int, istft_hop: int) -> VocoderConfig:
    return VocoderConfig(
        base_channels=raw["base_channels"],
        f0_channels=f0_channels,
        num_mels=raw["in_channels"],
        num_harmonics=raw["nb_harmonics"],
        sample_rate=raw["sampling_rate"],
        sine_amplitude=raw["nsf_alpha"],
        noise_sigma=raw["nsf_sigma"],
        voiced_threshold_hz=raw["nsf_voiced_threshold"],
        upsample_rates=tuple(raw["upsample_rates"]),
        upsample_kernels=tuple(raw["upsample_kernel_sizes"]),
        istft_size=istft_size,
        istft_hop=istft_hop,
        resblock_kernels=tuple(raw["resblock_kernel_sizes"]),
        resblock_dilations=tuple(map(tuple, raw["resblock_dilation_sizes"])),
        source_resblock_kernels=tuple(raw["source_resblock_kernel_sizes"]),
        source_resblock_dilations=tuple(map(tuple, raw["source_resblock_dilation_sizes"])),
        leaky_slope=raw["lrelu_slope"],
        audio_limit=raw["audio_limit"],
        look_right=raw["conv_pre_look_right"],
    )


def read_speech_tokenizer_config(folder: Path) -> SpeechTokenizerConfig:
    """Reads config.json of an S3 tokenizer folder.

    Raises:
        CheckpointError: the file is missing or is no JSON, or a key is missing.
    """
    raw = read_json(folder / "config.json")
    try:
        return SpeechTokenizerConfig(
            d_model=raw["n_audio_state"],
            num_heads=raw["n_audio_head"],
            num_layers=raw["n_audio_layer"],
            num_mels=raw["n_mels"],
            fsmn_kernel=raw.get("fsmn_kernel", 31),
            num_codes=raw.get("n_codebook_size", 6561),
        )
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} has no key {error}: it is no S3 tokenizer") from None


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, is no JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, a JSON object is needed")
    return value


def read_hyperpyyaml(path: Path) -> dict[str, Any]:
    """Reads a HyperPyYAML file as plain data: `!new:` and its like become dicts, `!ref <a> * <b>` numbers.

    Nothing in the file is executed.

    Raises:
        CheckpointError: the file is no YAML, or a reference names nothing.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def plain(loader: Any, _tag: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return _Reference(node.value) if node.tag == "!ref" else loader.construct_scalar(node)

    Loader.add_multi_constructor("!", plain)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from None

    def resolve(value: Any) -> Any:
        if isinstance(value, _Reference):
            return value.evaluate(raw, path)
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [resolve(item) for item in value]
        return value

    resolved: dict[str, Any] = resolve(raw)
    return resolved


@dataclass(frozen=True, slots=True)
class _Reference:
    text: str  # "<name>" or a product of them

    def evaluate(self, raw: dict[str, Any], path: Path) -> Any:
        factors = []
        for factor in self.text.split("*"):
            name = re.fullmatch(r"\s*<(\w+)>\s*", factor)
            if name and name[1] in raw:
                value = raw[name[1]]
                factors.append(value.evaluate(raw, path) if isinstance(value, _Reference) else value)
            elif factor.strip().isdigit():
                factors.append(int(factor))
            else:
                raise CheckpointError(f"{path}: the reference {self.text!r} cannot be resolved")
        value = factors[0]
        for factor in factors[1:]:
            value *= factor
        return value
