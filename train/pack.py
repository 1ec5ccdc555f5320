"""What a run has trained -> a checkpoint folder: chat model, `detokenizer/`, `s3tokenizer/`; all of it float16."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_file

from ..model.checkpoint import chat_layout
from ..model.flow import flow_layout
from ..model.speech_tokenizer import speech_tokenizer_layout
from ..model.vocoder import vocoder_layout
from ..staging import staged
from .loop import load_trained
from .run import Run
from .write import SPEAKER, speaker_embedding, write_weights


def pack(run: Run, chat_stage: str, out: Path) -> int:
    """Writes the checkpoint folder; it appears whole or not at all, in the place of what stood there.

    Args:
        run: its stages `tokenizer`, `flow`, `vocoder` and `pitch` have been run.
        chat_stage: the stage whose chat model is taken.
        out: the checkpoint folder.

    Returns:
        Its bytes.

    Raises:
        RequestError: a stage has not been run.
        FacrtError: the folder cannot be written.
    """
    chat, tokenizer, flow, vocoder = (
        run.trained_chat(chat_stage),
        run.trained_tokenizer().tokenizer,
        run.new_flow(),
        run.new_vocoder(),
    )
    load_trained(run.folder / "flow", flow)
    load_trained(run.folder / "vocoder", vocoder)
    load_trained(run.folder / "pitch", vocoder.source.pitch)
    with staged(out) as folder:
        shutil.copytree(run.configs, folder, dirs_exist_ok=True)
        write_weights(folder / "model.safetensors", chat, chat_layout(chat.config))
        detokenizer = folder / "detokenizer"
        write_weights(detokenizer / "flow.safetensors", flow, flow_layout(flow.config))
        write_weights(detokenizer / "hift.safetensors", vocoder, vocoder_layout(vocoder.config))
        save_file({SPEAKER: speaker_embedding(flow.config.speaker_dim)}, detokenizer / "speakers.safetensors")
        layout = speech_tokenizer_layout(tokenizer.config)
        write_weights(folder / "s3tokenizer" / "model.safetensors", tokenizer, layout)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
