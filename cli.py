"""The `facrt` command: each verb is one function; libraries are imported when a verb needs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import cli_plan, cli_train
from .cli_device import add_to, summary
from .cli_shared import Json, scheme_overrides
from .cli_shared import print_json as _print_json
from .errors import FacrtError, RequestError
from .server.command import serve

if TYPE_CHECKING:
    from .runtime.backend import Array
    from .runtime.engine import Engine, Reply
    from .runtime.prompt import Message

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="On-device Fun-Audio-Chat."
)
app.add_typer(cli_train.app, name="train")
app.command("plan")(cli_plan.plan)
app.command()(serve)
add_to(app)
BundleDir = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle.")]


def main() -> None:
    """Runs the command line: exit 0, 2 for a user's mistake (one line on stderr), 1 for a fault of ours."""
    _guarded(app)


def main_of(verb: str, arguments: list[str], program: str) -> None:
    """One verb under another program's name; otherwise as `main`."""
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    _guarded(lambda: command.main(arguments, prog_name=program))


def _guarded(run_: Callable[[], object]) -> None:
    try:
        run_()
    except FacrtError as error:
        sys.stderr.write(f"facrt: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, or nano.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    target: Annotated[str, typer.Option(help="What the bundle is for.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="A recipe: fp32, fp16, int8, int4. Default: fp32; on a GPU fp16.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="COMPONENT=SCHEME, may be repeated.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file: precision, and a table [components].")] = None,
    detokenizer: Annotated[Path | None, typer.Option(help="A CosyVoice3 folder.")] = None,
    speech_tokenizer: Annotated[Path | None, typer.Option(help="An S3 tokenizer folder.")] = None,
    native: Annotated[str | None, typer.Option(help="Precision of the native speech head. Default: as --set.")] = None,
    backbone: Annotated[
        str, typer.Option(help="Forms of a CPU's backbone: native, onnx or both. native takes half the room.")
    ] = "both",
    calibration: Annotated[
        Path | None, typer.Option(help="Spoken questions: a folder, or a text file that lists some. Default: facrt's.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare the bundle with the reference before it is published.")] = True,
    max_positions: Annotated[
        int, typer.Option(help="Prompt plus answer, 5 a second, where a GPU's caches have one length for good.")
    ] = 4096,
    build_: Annotated[bool, typer.Option("--build/--no-build", help="Compile at once, where it needs no GPU.")] = True,
    system: Annotated[
        str | None, typer.Option(help="The system prompt that the bundle's conversations begin with.")
    ] = None,
    kv_cache: Annotated[
        str | None, typer.Option(help="Keys and values in the graphs: fp32, fp16 or int8. Default: as the target.")
    ] = None,
    json_: Json = False,
) -> None:
    """Turn a checkpoint into a bundle."""
    overrides = scheme_overrides(set_)
    pipeline = _needs_export_extra()
    from .report import export_progress, print_parity, say

    request = pipeline.ExportRequest(
        source, out, target, precision, overrides, recipe, calibration, detokenizer, speech_tokenizer, verify, native,
        max_positions, build_, system, backbone, kv_cache,
    )  # fmt: skip
    with export_progress() as progress:
        manifest = pipeline.export(request, progress)
    if manifest.parity:
        print_parity(manifest.parity)
    size = sum(entry.size_bytes for entry in manifest.files.values())
    say(f"{out}: {len(manifest.recipe)} components, {size / 2**20:.1f} MiB")
    if not manifest.speakers:
        say("no detokenizer: this bundle answers with text and speech ids, not with sound (--detokenizer DIR)")
    elif list(manifest.speakers) == ["neutral"]:
        say("the detokenizer folder has no speaker embedding: a zero one is used")
    if json_:
        _print_json({"bundle": str(out), "size_bytes": size, **summary(manifest), "parity": manifest.parity})


@app.command()
def run(
    bundle: BundleDir,
    audio: Annotated[list[Path] | None, typer.Argument(metavar="[IN.wav ...]", help="One file per user turn.")] = None,
    text: Annotated[str | None, typer.Option(help="The user's text, beside or instead of the audio.")] = None,
    messages: Annotated[Path | None, typer.Option(help="A JSON list of messages to answer the last of.")] = None,
    out: Annotated[Path, typer.Option(help="The answer; several turns are numbered.")] = Path("answer.wav"),
    system: Annotated[str | None, typer.Option(help="The system prompt. Default: the bundle's.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Argmax everywhere.")] = False,
    seed: Annotated[int, typer.Option(help="Of the sampled mode.")] = 0,
    max_steps: Annotated[int, typer.Option(help="Backbone steps at most (5 per second).")] = 512,
    repetition_penalty: Annotated[float | None, typer.Option(help="Default: the bundle's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Default: the bundle's.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0: off. Default: the bundle's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Default: the bundle's.")] = None,
    speaker: Annotated[str | None, typer.Option(help="A speaker of the bundle.")] = None,
    no_speech: Annotated[bool, typer.Option("--no-speech", help="Answer in text only.")] = False,
    threads: Annotated[int | None, typer.Option(help="Default: the CPU cores at hand.")] = None,
    backbone: Annotated[str | None, typer.Option(help="native or onnx. Default: native where there is one.")] = None,
    speech_head: Annotated[str | None, typer.Option(help="native or onnx. Default: native where there is one.")] = None,
    speech_cache: Annotated[str, typer.Option(help="The native speech head's KV cache: fp32, fp16 or int8.")] = "fp32",
    backend: Annotated[str | None, typer.Option(help="onnx, cuda or tensorrt. Default: as the target.")] = None,
    json_: Json = False,
) -> None:
    """Answer spoken or written questions."""
    from .report import print_timings, say
    from .runtime.audio import read_audio, refuse_unwritable, write_wav
    from .runtime.engine import load
    from .runtime.messages import read_messages

    if messages is not None and (audio or text is not None):
        raise RequestError("--messages already holds the whole conversation: give no IN.wav and no --text beside it")
    if messages is None and not audio and text is None:
        raise RequestError("nothing to answer: give IN.wav, --text T or --messages FILE.json")
    history = read_messages(messages) if messages is not None else None
    heard = [read_audio(path) for path in audio or []]
    engine = load(
        bundle, num_threads=threads, backbone=backbone, speech_head=speech_head, speech_cache=speech_cache,
        backend=backend,
    )  # fmt: skip
    if engine.has_audio and not no_speech:
        refuse_unwritable(out)
    options = {
        "greedy": greedy, "seed": seed, "max_steps": max_steps, "repetition_penalty": repetition_penalty,
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "speaker": speaker,
    }  # fmt: skip
    replies = []
    for reply in _answers(engine, history, heard, text, system, not no_speech, options):
        sys.stderr.write(f"{reply.text}\n") if json_ else _print_text(reply.text)
        print_timings(reply)
        replies.append(reply)
    turns = []
    for i, reply in enumerate(replies, start=1):
        path = None
        if reply.audio is not None:
            path = out if len(replies) == 1 else out.with_name(f"{out.stem}-{i}{out.suffix}")
            write_wav(path, reply.audio, reply.sample_rate)
            say(f"{path}: {len(reply.audio) / reply.sample_rate:.2f} s of speech")
        turns.append(_turn_json(reply, path))
    if json_:
        _print_json({"turns": turns})


def _answers(
    engine: Engine,
    history: list[Message] | None,
    audio: list[Array],
    text: str | None,
    system: str | None,
    speech: bool,
    options: dict[str, Any],
) -> Any:
    conversation = engine.conversation(system, speech)
    if history is not None:
        if history[0].role == "system":
            if system is not None:
                raise RequestError("--system and a system message in --messages: give one of the two")
        else:
            history = [*conversation.messages, *history]
        yield engine.answer(history, speech=speech, **options)
        return
    for pcm in audio[:-1]:
        yield conversation.respond(pcm, **options)
    yield conversation.respond(audio[-1] if audio else None, text=text, **options)


def _turn_json(reply: Reply, path: Path | None) -> dict[str, Any]:
    sound = None
    if reply.audio is not None:
        sound = {"path": str(path), "seconds": len(reply.audio) / reply.sample_rate, "sample_rate": reply.sample_rate}
    return {
        "text": reply.text,
        "text_ids": reply.text_ids,
        "speech_ids": reply.speech_ids,
        "audio": sound,
        "timings": asdict(reply.timings),
    }


@app.command()
def chat(
    bundle: Annotated[Path | None, typer.Argument(metavar="DIR", help="A bundle.")] = None,
    input_: Annotated[
        list[Path] | None, typer.Option("--input", help="A file that stands in for the microphone, may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A WAV file that stands in for the loudspeaker.")] = None,
    devices: Annotated[bool, typer.Option("--devices", help="List the sound card's devices.")] = False,
    microphone: Annotated[str | None, typer.Option(help="A device's number or name.")] = None,
    loudspeaker: Annotated[str | None, typer.Option(help="A device's number or name.")] = None,
    detector: Annotated[str | None, typer.Option(help="silero or energy. Default: silero where installed.")] = None,
    silence_ms: Annotated[float, typer.Option(help="Silence that ends a turn.")] = 500.0,
    no_barge_in: Annotated[bool, typer.Option("--no-barge-in", help="Let answers end: for loudspeakers.")] = False,
    system: Annotated[str | None, typer.Option(help="The system prompt. Default: the bundle's.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Argmax everywhere.")] = False,
    seed: Annotated[int, typer.Option(help="Of the sampled mode.")] = 0,
    max_steps: Annotated[int, typer.Option(help="Backbone steps of an answer at most (5 per second).")] = 512,
    threads: Annotated[int | None, typer.Option(help="Default: the CPU cores at hand.")] = None,
    json_: Json = False,
) -> None:
    """Talk: the microphone is heard all the time, and each turn is answered aloud."""
    from .report import chat_meter, print_turn
    from .runtime.audio import refuse_unwritable
    from .runtime.engine import load
    from .runtime.events import AudioChunk, Failed, TextDelta, TurnEnded
    from .runtime.sound_card import FileMicrophone, FileSpeaker, Loudspeaker, Microphone, Speaker
    from .runtime.sound_card import devices as list_devices
    from .runtime.turns import TurnSettings

    if devices:
        sys.stdout.write(f"{list_devices()}\n")
        return
    if bundle is None:
        raise RequestError("no bundle is named: facrt chat DIR")
    if out is not None:
        refuse_unwritable(out)
    settings = TurnSettings(min_silence_ms=silence_ms)
    ears = FileMicrophone(input_) if input_ else Microphone(_device(microphone))
    engine = load(bundle, num_threads=threads)
    rate = engine.detokenizer.sample_rate if engine.detokenizer else 0
    use_file = out is not None or bool(input_) or not rate
    mouth: Speaker = FileSpeaker(out, rate) if use_file else Loudspeaker(rate, _device(loudspeaker))
    talk = engine.conversation(system, max_turns=8)

    def fall_silent() -> float:
        played_ms = mouth.played_ms()
        mouth.drop()
        return played_ms

    events = talk.listen(
        ears, turns=settings, detector=detector, barge_in=not (no_barge_in or input_), played_ms=fall_silent,
        greedy=greedy, seed=seed, max_steps=max_steps,
    )  # fmt: skip
    turns: list[dict[str, Any]] = []
    try:
        with chat_meter(ears, talk):
            for event in events:
                if isinstance(event, AudioChunk):
                    mouth.play(event)
                elif isinstance(event, TextDelta) and not json_:
                    _print_text(event.text, end="")
                elif isinstance(event, Failed):
                    turns.append({"failed": event.reason})
                    print_turn(event.reason, {})
                elif isinstance(event, TurnEnded):
                    if not json_:
                        _print_text("")
                    turns.append({k: v for k, v in asdict(event).items() if k != "turn"})
                    print_turn(event.reason, event.timings_ms)
    except KeyboardInterrupt:
        talk.interrupt()
        mouth.drop()
    finally:
        ears.close()
        mouth.close()
    if json_:
        _print_json({"turns": turns})


@app.command()
def profile(
    bundle: BundleDir,
    audio: Annotated[Path | None, typer.Option(help="The spoken question. Default: a made-up one of 3.3 s.")] = None,
    steps: Annotated[int, typer.Option(help="Backbone steps of the answer (5 per second).")] = 25,
    threads: Annotated[int | None, typer.Option(help="Default: the CPU cores at hand.")] = None,
    backbone: Annotated[str | None, typer.Option(help="native or onnx. Default: native where there is one.")] = None,
    speech_head: Annotated[str | None, typer.Option(help="native or onnx. Default: native where there is one.")] = None,
    png: Annotated[Path | None, typer.Option(help="The waterfall as a picture.")] = None,
    trace: Annotated[Path | None, typer.Option(help="A trace file for chrome://tracing or Perfetto.")] = None,
    json_: Json = False,
) -> None:
    """Show where a spoken turn's time and memory go."""
    from .report import print_profile
    from .runtime.audio import read_audio, refuse_unwritable
    from .runtime.engine import load
    from .runtime.profile import chrome_trace, draw, hummed_question
    from .runtime.profile import profile as measure

    pcm = hummed_question() if audio is None else read_audio(audio)
    for path in (png, trace):
        if path is not None:
            refuse_unwritable(path)
    engine = load(bundle, num_threads=threads, backbone=backbone, speech_head=speech_head)
    options: dict[str, Any] = {"greedy": True, "max_steps": steps, "eos_token_id": -1}
    measure(engine, pcm, **(options | {"max_steps": min(steps, 5)}))  # the first calls allocate
    report = measure(engine, pcm, **options)
    if trace is not None:
        trace.write_text(json.dumps(chrome_trace(report)), encoding="utf-8")
    if png is not None:
        draw(report, png)
    spans = report.pop("spans")
    print_profile(report)
    if json_:
        _print_json({**report, "num_spans": len(spans)})


def _device(name: str | None) -> int | str | None:
    return int(name) if name is not None and name.isdigit() else name


@app.command()
def verify(
    bundle: BundleDir,
    source: Annotated[str, typer.Option(help="The checkpoint that the bundle came from, or nano.")],
    detokenizer: Annotated[Path | None, typer.Option(help="Its CosyVoice3 folder, where it lies elsewhere.")] = None,
    speech_tokenizer: Annotated[Path | None, typer.Option(help="Its S3 tokenizer folder, likewise.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Speech to compare a quantized bundle on, as --calibration of export.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="A PNG file for what quantization cost.")] = None,
    json_: Json = False,
) -> None:
    """Compare a bundle with the PyTorch reference, stage by stage; say what quantization cost."""
    pipeline = _needs_export_extra()
    from .export.cost import draw
    from .report import print_cost, print_parity, say

    if chart is not None:
        pipeline.refuse_unquantized(bundle)
    report = pipeline.verify(bundle, source, detokenizer, speech_tokenizer, questions)
    print_parity(report)
    if "quantization" in report:
        print_cost(report["quantization"])
    if chart is not None:
        draw(report["quantization"], chart)
        say(f"{chart}: error by layer, size by component")
    if json_:
        _print_json(report)
    raise typer.Exit(0 if report["ok"] else 1)


def _needs_export_extra() -> Any:
    try:
        from .export import pipeline
    except ModuleNotFoundError as error:
        raise RequestError(f"{error.name} is not installed; exporting needs: pip install 'facrt[export]'") from None
    return pipeline


def _print_text(text: str, end: str = "\n") -> None:
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else "�" for c in text) + end)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
