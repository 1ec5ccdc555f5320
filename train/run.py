"""The whole recipe: data, every stage from its last checkpoint, and the checkpoint folder that comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FacrtError, RequestError
from ..model.checkpoint import chat_layout
from ..model.config_files import read_chat_config, read_detokenizer_config, read_speech_tokenizer_config
from ..model.flow import Flow
from ..model.generate import ChatModel
from ..model.speech_tokenizer import speech_tokenizer_layout
from ..model.vocoder import Vocoder
from ..runtime.prompt import Prompter
from . import parallel
from .answers import Answer, prepare_answers
from .chat_stage import ChatStage, initialize_chat, tie
from .dataset import LINES, Conversation, read_dataset
from .encoder_stage import Dictation, EncoderStage, EncoderTraining, Spoken, labelled_questions
from .facts import fact_turns
from .flow_stage import FlowStage, initialize_flow
from .intents import Split, Turn, examples
from .labels import label_path, read_labels
from .loop import Stage, is_finished, load_trained, run_stage
from .make import DataRequest, make_dataset
from .mixing import SpokenMix, TextMix
from .questions import QuestionStore
from .recipe import STAGES, Recipe
from .samples import SampleMaker, Speech
from .speech_ids import cached_ids
from .splices import dictated, proper_words, splice, words_of_answer
from .tokenizer_stage import TokenizerStage, TokenizerTraining, initialize
from .vocoder_stage import PitchStage, VocoderStage, initialize_vocoder
from .write import keep_absent_zero, speaker_embedding, write_configs, write_text_tokenizer

Show = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True)
class Run:
    """One folder with everything that a recipe makes on its way; each part is made once and then read."""

    recipe: Recipe
    folder: Path
    data: Path | None = None  # a dataset folder instead of the generator's
    show: Show = lambda *_: None

    @property
    def stages(self) -> tuple[str, ...]:
        """What makes a whole run, in order."""
        return STAGES

    def train(self, stage: str) -> None:
        """Trains one stage, from its last checkpoint.

        Raises:
            FacrtError: the folder cannot be written.
            RequestError: an earlier stage that it needs has not been run.
        """
        schedule = self.recipe.schedules[stage]
        if is_finished(self.folder / stage, schedule):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FacrtError(f"{self.folder} cannot be written ({error.strerror}); choose another --out") from None
        run_stage(
            self.stage(stage),
            schedule,
            self.recipe.seed,
            self.folder / stage,
            lambda done, whole: self.show(stage, done, whole),
            compute=self.recipe.compute,
        )

    def stage(self, name: str) -> Stage:
        """A stage as it begins, on the CPU."""
        torch.manual_seed(self.recipe.seed)
        made: Stage = getattr(self, f"_{name}")()
        return made

    # -- what the stages share

    @cached_property
    def conversations(self) -> list[Conversation]:
        folder = self.data or self.folder / "data"
        with parallel.one_after_the_first():
            if self.data is None and not (folder / LINES).exists():
                asked = self.recipe.data
                request = DataRequest(
                    folder, Split.TRAIN, asked["train"], self.recipe.seed, asked["workers"], asked["read_aloud"]
                )
                make_dataset(request, lambda done, whole: self.show("data", done, whole))
            return list(read_dataset(folder))

    @cached_property
    def answers(self) -> list[Answer]:
        spoken = [
            (m.text, m.audio) for c in self.conversations for m in c.messages if m.role == "assistant" and m.audio
        ]
        with parallel.one_after_the_first():
            return prepare_answers(
                [(text or "", path) for text, path in spoken], self.folder / "answers.pt",
                lambda done, whole: self.show("answers", done, whole),
            )  # fmt: skip

    @cached_property
    def questions(self) -> QuestionStore:
        paths = dict.fromkeys(m.audio for c in self.conversations for m in c.messages if m.role == "user" and m.audio)
        num_mels = read_chat_config(self.configs).audio.num_mels
        with parallel.one_after_the_first():
            return QuestionStore(
                list(paths), self.folder / "questions", num_mels,
                lambda done, whole: self.show("questions", done, whole),
            )  # fmt: skip

    @cached_property
    def configs(self) -> Path:
        """The checkpoint's folder so far: configuration files and the text tokenizer."""
        folder = self.folder / "configs"
        with parallel.one_after_the_first():
            if not (folder / "config.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_text_tokenizer(folder, self._all_texts(), int(self.recipe.shapes["text_tokenizer"]["vocabulary"]))
                write_configs(folder, self.recipe.shapes)
        return folder

    def _all_texts(self) -> Iterator[str]:
        turns: Iterator[Turn] = (t for e in itertools.islice(examples(Split.TRAIN, 0), 20_000) for t in e.turns)
        for turn in itertools.chain(turns, itertools.islice(fact_turns(Split.TRAIN, 0), 4_000)):
            yield turn.user_text
            yield f"{turn.tool_call or ''}{turn.answer_text}"

    @cached_property
    def speech_ids(self) -> list[Tensor]:
        """The trained tokenizer's ids of every answer, [n] int64."""
        return self.ids_of(self.answers, self.folder / "speech_ids.pt")

    def ids_of(self, answers: list[Answer], cache: Path) -> list[Tensor]:
        """The trained tokenizer's ids of some answers, kept in a file."""
        heard = {answer.text: answer.heard for answer in answers}
        return self._cached_ids(list(heard), heard.__getitem__, "speech ids", cache)

    def _cached_ids(self, texts: list[str], heard: Callable[[str], Tensor], what: str, cache: Path) -> list[Tensor]:
        device = self.recipe.compute.torch_device()
        tokenizer = self.trained_tokenizer().tokenizer.to(device)
        with parallel.one_after_the_first():
            return cached_ids(
                texts, lambda text: tokenizer(heard(text)[None].to(device).float())[0], cache,
                lambda done, whole: self.show(what, done, whole),
            )  # fmt: skip

    @cached_property
    def splices(self) -> Speech:
        """Sentences of pieces of those answers that have a label file beside their WAV -> their ids."""
        paths = {m.text: m.audio for c in self.conversations for m in c.messages if m.role == "assistant" and m.audio}
        labels = [(answer, label_path(paths[answer.text])) for answer in self.answers]
        found = [(a, words_of_answer(a.text, read_labels(path), a.num_tokens)) for a, path in labels if path.exists()]
        answers, words = [a for a, said in found if said], [said for _, said in found if said]
        if not answers:
            return {}
        proper, count = proper_words(words), int(self.recipe.data["splices"])
        made = {(s := splice(words, proper, seed)).text: s for seed in range(count)}
        ids = self._cached_ids(
            list(made), lambda text: made[text].heard(answers), "splices", self.folder / "splices.pt"
        )
        return dict(zip(made, ids, strict=True))

    # -- trained modules

    def trained_tokenizer(self) -> TokenizerTraining:
        module = self._new_tokenizer()
        load_trained(self.folder / "tokenizer", module)
        return module

    def trained_chat(self, stage: str) -> ChatModel:
        return self.chat_from(self.folder / stage)

    def chat_from(self, folder: Path) -> ChatModel:
        """The chat model that a stage has left in a folder."""
        module = self.new_chat()
        load_trained(folder, module)
        return module

    def _new_tokenizer(self) -> TokenizerTraining:
        config = read_speech_tokenizer_config(self.configs / "s3tokenizer")
        module = TokenizerTraining(config, self.recipe.extras["tokenizer"]["decoder_layers"], 80)
        initialize(module)
        keep_absent_zero(module.tokenizer, speech_tokenizer_layout(config))
        return module

    def new_chat(self) -> ChatModel:
        module = ChatModel(read_chat_config(self.configs))
        initialize_chat(module)
        keep_absent_zero(module, chat_layout(module.config))
        return module

    # -- the stages

    def _tokenizer(self) -> Stage:
        return TokenizerStage(self._new_tokenizer(), self.answers, self.recipe.schedules["tokenizer"].batch_size)

    def _flow(self) -> Stage:
        size, flow = self.recipe.schedules["flow"].batch_size, self.new_flow()
        return FlowStage(flow, self.answers, self.speech_ids, speaker_embedding(flow.config.speaker_dim), size)

    def new_flow(self) -> Flow:
        flow = Flow(read_detokenizer_config(self.configs / "detokenizer")[0])
        initialize_flow(flow)
        return flow

    def new_vocoder(self) -> Vocoder:
        vocoder = Vocoder(read_detokenizer_config(self.configs / "detokenizer")[1])
        initialize_vocoder(vocoder)
        return vocoder

    def _vocoder(self) -> Stage:
        extra, size = self.recipe.extras["vocoder"], self.recipe.schedules["vocoder"].batch_size
        return VocoderStage(self.new_vocoder(), self.answers, size, extra["frames"], extra["wave_weight"])

    def _pitch(self) -> Stage:
        size, frames = self.recipe.schedules["pitch"].batch_size, self.recipe.extras["pitch"]["frames"]
        return PitchStage(self.new_vocoder().source.pitch, self.answers, size, frames)

    def _encoder(self) -> Stage:
        model, size = self.base(), self.recipe.schedules["encoder"].batch_size
        module = EncoderTraining(model, len(self.sound_names))
        placed = self.recipe.extras["encoder"]["placed_steps"]
        return EncoderStage(module, model, self.questions, self.spoken_questions, self.sound_names, size, placed)

    @cached_property
    def spoken_questions(self) -> list[Spoken]:
        """The questions of which it is known when each word is said: those with a label file."""
        messages = [m for c in self.conversations for m in c.messages if m.role == "user"]
        found = labelled_questions(messages, self._text_maker, self.questions)
        if not found:
            raise RequestError(
                f"no question in {self.data} has its sounds in a .lab file beside its WAV, and a new audio encoder "
                "learns from them; docs/TRAINING.md has the form, `facrt train data` writes them"
            )
        return found

    @cached_property
    def sound_names(self) -> list[str]:
        return sorted({sound.name for item in self.spoken_questions for sound in item.sounds})

    def _text(self) -> Stage:
        model, extra = self.new_chat(), self.recipe.extras["text"]
        train_only(model, "backbone")
        mix = TextMix(self._text_maker, extra["questions"], extra["shares"], extra["practice"])
        return self._chat_stage("text", model, None, mix)

    def base(self) -> ChatModel:
        """M0: the text model that is taught to hear and speak."""
        return self.trained_chat("text")

    def before_alignment(self) -> ChatModel:
        """M0 with an audio encoder that writes what it reads."""
        model = self.base()
        self._trained_encoder(model)
        return model

    def _trained_encoder(self, model: ChatModel) -> EncoderTraining:
        module = EncoderTraining(model, len(self.sound_names))
        load_trained(self.encoder_folder, module)
        return module

    @property
    def encoder_folder(self) -> Path:
        return self.folder / "encoder"

    @cached_property
    def dictation(self) -> Dictation | None:
        """What the chat stages teach of the questions themselves; None where the encoder is not this run's."""
        return self._trained_encoder(self.base()).dictation(self.spoken_questions)

    def _alignment(self) -> Stage:
        model = self.before_alignment()
        train_only(model, "audio_encoder", "grouping", "speech_head")
        return self.spoken_stage("alignment", model)

    def _cocktail1(self) -> Stage:
        model = self.trained_chat("alignment")
        model.requires_grad_(True)
        return self.spoken_stage("cocktail1", model)

    def _cocktail2(self) -> Stage:
        model = self.trained_chat("cocktail1")
        merge_backbone(model, self.base(), self.recipe.alpha)
        model.requires_grad_(True)
        return self.spoken_stage("cocktail2", model)

    # -- samples

    @cached_property
    def speech(self) -> Speech:
        """What `SampleMaker` takes: the words of answers and splices -> their speech ids."""
        answers = {answer.text: ids for answer, ids in zip(self.answers, self.speech_ids, strict=True)}
        return {**self.splices, **answers}

    @cached_property
    def _maker(self) -> SampleMaker:
        return self.maker(self.speech)

    @cached_property
    def _text_maker(self) -> SampleMaker:
        return self.maker({})

    def maker(self, speech: Speech) -> SampleMaker:
        """Samples for this run's model."""
        config, template = read_chat_config(self.configs), self.configs / "chat_template.jinja"
        prompter = Prompter(self.configs / "tokenizer.json", template if template.exists() else None, config)
        return SampleMaker(prompter, config, speech)

    def spoken_stage(self, name: str, model: ChatModel) -> Stage:
        """A stage on conversations as the recipe mixes them."""
        tie(model)
        if self.recipe.words_held:
            hold_words(model, self._text_maker.mark_ids)
        mix = SpokenMix(self._maker, self.conversations, self.recipe.mix, [dictated(text) for text in self.splices])
        return self._chat_stage(name, model, self.questions, mix, self.dictation)

    def _chat_stage(
        self, name: str, model: ChatModel, questions: QuestionStore | None, mix: TextMix | SpokenMix,
        dictation: Dictation | None = None,
    ) -> Stage:  # fmt: skip
        size, recompute = self.recipe.schedules[name].batch_size, self.recipe.compute.gradient_checkpointing
        return ChatStage(name, model, questions, partial(mix.batch, size), recompute=recompute, dictation=dictation)


def train_only(model: ChatModel, *parts: str) -> None:
    """Freezes all of the model but these parts."""
    model.requires_grad_(False)
    for part in parts:
        model.get_submodule(part).requires_grad_(True)


def hold_words(model: ChatModel, mark_ids: Collection[int]) -> None:
    """Leaves the text tables without a gradient from now on, but for the rows of these ids; weight decay goes on.

    A softmax pushes away the rows of all words that are not said, and the optimizers scale a small gradient up to a
    whole step: words of which the spoken data never speaks would be moved furthest, and what was known of them lost.
    """
    for table in {model.backbone.embedding.weight, model.backbone.head.weight}:
        if table.requires_grad:
            learns = torch.zeros(len(table), 1, device=table.device)
            learns[list(mark_ids)] = 1
            table.register_hook(lambda gradient, learns=learns: gradient * learns.to(gradient))


def merge_backbone(model: ChatModel, base: ChatModel, alpha: float) -> None:
    """alpha * model + (1 - alpha) * base on the backbone, in place: the rest was not in the base model."""
    ours, theirs = model.backbone.state_dict(), base.backbone.state_dict()
    model.backbone.load_state_dict({name: alpha * ours[name] + (1 - alpha) * theirs[name] for name in ours})


def run_recipe(run: Run, stages: tuple[str, ...] = ()) -> None:
    """Trains the stages in order, all if none is named; each goes on from its last checkpoint.

    Raises:
        RequestError: a stage is unknown.
    """
    unknown = [stage for stage in stages if stage not in run.stages]
    if unknown:
        raise RequestError(f"stage {unknown[0]!r} is none of {', '.join(run.stages)}")
    with parallel.processes():
        for stage in stages or run.stages:
            run.train(stage)
