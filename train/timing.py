"""When espeak-ng says what: the sounds and words of a text and when they begin, from its library's events."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import json
import subprocess
import sys
from typing import Any, NamedTuple

from ..errors import FacrtError

SILENCE = "sil"

SYNCHRONOUS = 2  # names and values of espeak-ng's speak_lib.h
PHONEME_EVENTS, DONT_EXIT = 1, 0x8000
RATE, PITCH = 1, 3
EVENT_TERMINATED, EVENT_WORD, EVENT_PHONEME = 0, 1, 7
BY_CHARACTER, UTF8 = 1, 1


class Sound(NamedTuple):
    """A sound of a recording; it lasts until the next one."""

    start_s: float
    name: str
    word: int | None = None  # where the word that begins with it begins in the text, in characters


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def time_sounds(text: str, voice: str, speed_wpm: int, pitch: int) -> list[Sound]:
    """The sounds of a text as `espeak-ng -v voice -s speed_wpm -p pitch` says it.

    Returns:
        The sounds in order, by espeak-ng's names of phonemes; pauses are silence. What it said before moves the times
        by some milliseconds.

    Raises:
        FacrtError: espeak-ng's library is missing, or it does not know the voice.
    """
    library = _library()
    if library.espeak_SetVoiceByName(voice.encode()):
        raise FacrtError(f"espeak-ng has no voice {voice}; check `espeak-ng --voices=en`")
    library.espeak_SetParameter(RATE, speed_wpm, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    sounds: list[Sound] = []
    word: list[int] = []  # that begins with the next sound

    def collect(_: Any, __: int, events: Any) -> int:
        for event in _until_terminated(events):
            if event.type == EVENT_WORD and event.text_position:  # at 0 stands none: the end of some texts
                word[:] = [event.text_position - 1]
            elif event.type == EVENT_PHONEME:
                name = event.id.string.decode(errors="replace").strip("_") or SILENCE
                sounds.append(Sound(event.audio_position / 1000, name, word.pop() if word else None))
        return 0

    callback = _Callback(collect)  # kept until the library is done with it
    library.espeak_SetSynthCallback(callback)
    said = text.encode()
    library.espeak_Synth(said, len(said) + 1, 0, BY_CHARACTER, 0, UTF8, None, None)
    library.espeak_Synchronize()
    return sounds


def time_sounds_alone(text: str, voice: str, speed_wpm: int, pitch: int) -> list[Sound]:
    """`time_sounds` in a process of its own, where nothing was said before: the same times always.

    Raises:
        FacrtError: as `time_sounds`.
    """
    command = [sys.executable, "-m", __name__, voice, str(speed_wpm), str(pitch)]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise FacrtError((done.stderr.splitlines() or [f"{command[2]} ended with status {done.returncode}"])[-1])
    return [Sound(*row) for row in json.loads(done.stdout)]


def _until_terminated(events: Any) -> Any:
    i = 0
    while events[i].type != EVENT_TERMINATED:
        yield events[i]
        i += 1


@functools.cache
def _library() -> Any:
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise FacrtError("espeak-ng's shared library is not installed; apt install libespeak-ng1 brings it")
    library = ctypes.CDLL(name)
    rate_hz = library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS | DONT_EXIT)
    if rate_hz <= 0:
        raise FacrtError("espeak-ng's library finds no voices; check that it runs: espeak-ng --version")
    return library


if __name__ == "__main__":
    try:
        print(json.dumps(time_sounds(sys.stdin.read(), sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    except FacrtError as error:
        sys.exit(f"{error}")
