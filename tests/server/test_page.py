"""The page in a browser: a WAV file is its microphone, it hears back sound and shows the words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from facrt.runtime.engine import load
from facrt.server.app import Access

sys.path.insert(0, str(Path(__file__).parent))
from browser import CHROMIUM, browsing
from serving import FakeEngine, hum, running

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium brings it")


INTERRUPT_AT_FIRST_SOUND = """(() => {
  const isNew = facrt.events["input_audio_buffer.committed"] && !document.getElementById("interrupt").disabled;
  const isHeard = document.getElementById("sound").textContent !== "\u2013";
  if (isNew && isHeard) document.getElementById("interrupt").click();
  return Boolean(isNew && isHeard);
})()"""


@pytest.fixture
def microphone(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    soundfile.write(path, hum(1.5, 6.0), 24_000, subtype="PCM_16")
    return path


def test_a_typed_and_a_spoken_turn(nano_bundle: Path, microphone: Path, tmp_path: Path) -> None:
    with running(load(nano_bundle)) as server, browsing(f"{server.url}/", microphone, tmp_path / "profile") as page:
        page.wait("!!window.facrt")
        page.js("document.getElementById('connect').click()")
        page.wait("!document.getElementById('text').disabled")
        page.js("document.getElementById('text').value = 'Turn on the kitchen lamp.'")
        page.js("document.getElementById('send').click()")
        page.wait("facrt.answers.length === 1")
        assert page.js("facrt.answers[0]") == "The kitchen lamp is now on."
        assert page.js("facrt.heardSeconds") > 1
        page.js("document.getElementById('talk').click()")
        page.wait(INTERRUPT_AT_FIRST_SOUND)
        page.wait("facrt.answers.length === 2")
        page.wait("[...document.querySelectorAll('#log .it')].pop().className.includes('cut')")
        events: dict[str, Any] = page.js("facrt.events")
        assert events["input_audio_buffer.speech_started"] >= 1
        assert events["input_audio_buffer.committed"] >= 1
        assert page.js("facrt.sentSeconds") > 1.5
        assert page.js("[...document.querySelectorAll('#log .you')].pop().textContent") == "(spoken)"
        page.wait("document.getElementById('interrupt').disabled")
        page.js("document.getElementById('talk').click()")
        page.wait("document.getElementById('state').textContent === 'connected'")


def test_the_page_asks_for_a_key(microphone: Path, tmp_path: Path) -> None:
    access = Access("hunter2")
    with (
        running(FakeEngine(), access=access) as server,
        browsing(f"{server.url}/", microphone, tmp_path / "profile") as page,
    ):
        page.wait("!!window.facrt")
        page.js("document.getElementById('connect').click()")
        page.wait("document.getElementById('state').textContent.includes('API key')")
        page.js("document.getElementById('key').value = 'hunter2'")
        page.js("document.getElementById('connect').click()")
        page.wait("document.getElementById('state').textContent === 'connected'")
