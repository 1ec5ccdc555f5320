"""What SOURCE names: a checkpoint folder or nano, the folders that belong to it, their configurations; no torch."""

from __future__ import annotations

from pathlib import Path

from ..model.components import ModelConfig
from ..model.config_files import existing, read_chat_config, read_detokenizer_config, read_speech_tokenizer_config

NANO = Path(__file__).parent.parent / "nano"  # the small trained model that ships with facrt


def checkpoint_folder(source: str) -> tuple[Path, str]:
    """The folder behind SOURCE, and the name that the bundle remembers."""
    return (NANO, "nano") if source == "nano" else (Path(source), Path(source).resolve().name)


def companions(
    folder: Path, detokenizer: Path | None, speech_tokenizer: Path | None
) -> tuple[Path | None, Path | None]:
    """What was named, else what lies in the checkpoint folder."""
    inside = [folder / name if (folder / name).is_dir() else None for name in ("detokenizer", "s3tokenizer")]
    return detokenizer or inside[0], speech_tokenizer or inside[1]


def read_config(folder: Path, detokenizer: Path | None, speech_tokenizer: Path | None) -> ModelConfig:
    """The configurations alone; no weight is touched.

    Raises:
        CheckpointError: a folder or its configuration is missing, or a value is impossible.
    """
    chat = read_chat_config(folder)
    flow, vocoder = read_detokenizer_config(existing(detokenizer)) if detokenizer else (None, None)
    voice = read_speech_tokenizer_config(existing(speech_tokenizer)) if speech_tokenizer else None
    return ModelConfig(chat, flow, vocoder, voice)
