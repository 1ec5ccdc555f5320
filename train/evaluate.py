"""How often an answer is exactly right, from batches under teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.generate import ChatModel
from .chat_stage import ChatStage
from .questions import QuestionStore
from .samples import Sample

BATCH = 16


@torch.inference_mode()
def exact_answers(model: ChatModel, samples: Sequence[Sample], questions: QuestionStore | None = None) -> list[bool]:
    """Whether each sample's text is what greedy generation writes.

    Greedy generation is right exactly where every id is the best one after the right ids before it; a spoken answer's
    text is judged after the right speech.
    """
    stage = ChatStage("evaluation", model, questions, lambda _: [], disturb=False)
    right: list[bool] = []
    for start in range(0, len(samples), BATCH):
        batch = list(samples[start : start + BATCH])
        out = stage.predict(batch)
        hits = out.text_logits.argmax(-1) == out.text_labels
        right += [bool(part.all()) for part in hits.split([len(s.text) for s in batch])]
    return right
