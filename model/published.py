"""The published configurations, for those who have no checkpoint at hand (docs/REAL_CONFIG.md); no torch."""

from __future__ import annotations

from .components import ModelConfig
from .config import AudioEncoderConfig, ChatConfig, DecoderConfig, FlowConfig, VocoderConfig

_TEXT_8B = DecoderConfig(4096, 12288, 36, 32, 8, 128, rope_theta=5e6, vocab_size=151_936)
_SPEECH = DecoderConfig(1024, 3072, 28, 16, 8, 128)
_AUDIO = AudioEncoderConfig(d_model=1280, num_layers=32, num_heads=20, ffn_size=5120)
_FLOW = FlowConfig(vocab_size=6561, dim=1024, depth=22, num_heads=16, head_dim=64, ff_mult=2, pre_channels=1024)

PUBLISHED = {
    "8b": ModelConfig(
        ChatConfig(
            _TEXT_8B, _SPEECH, _AUDIO, group_size=5, codebook_size=6565, speech_bos_id=6561, speech_eos_id=6562,
            speech_pad_id=6563, audio_token_id=151_669, audio_bos_id=151_670, audio_eos_id=151_671, sil_id=151_673,
            eos_ids=(151_645,),
        ),
        _FLOW,
        VocoderConfig(base_channels=512, f0_channels=512),
    )
}  # fmt: skip
