"""The phases of a turn, each named once, and when they were reached."""

from __future__ import annotations

import time

PHASES = {
    "heard": "the user's audio is encoded and grouped",
    "prefill": "backbone and speech head have read the prompt",
    "first_text": "the first words are out",
    "first_group": "the first speech group is generated",
    "first_audio": "the first samples are out",
    "done": "the answer is over",
}


class Waterfall:
    """Milliseconds from the end of the user's turn to each phase."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.ms: dict[str, float] = {}

    def reach(self, phase: str) -> None:
        """Notes the time where the phase has not been reached before."""
        assert phase in PHASES
        self.ms.setdefault(phase, (time.perf_counter() - self._started) * 1e3)
