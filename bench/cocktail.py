"""Core-Cocktail: what a base model forgets while it learns to speak, with and without the merge, over seeds and alpha.

Parts, each a folder with a checkpoint, so that the benchmark goes on where it was stopped:
stage 1 from the run's alignment; stage 2 from the merge of stage 1 with the base model M0, for several alpha. Alpha 1
is the run of the same length without merging, 0.5 the full recipe. Text skill: facts and sums in text that the spoken
data never mentions, asked as in training. Speech: the text of spoken answers to spoken validation questions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import arguments, check, finish
from facrt.model.generate import ChatModel
from facrt.train.facts import facts
from facrt.train.intents import Split
from facrt.train.loop import Schedule, is_finished, run_stage
from facrt.train.mixing import written
from facrt.train.run import Run, merge_backbone
from facrt.train.samples import Sample
from training import Validation, open_run, run_arguments, share_exact, shortened, validation

NO_MERGE = 1.0
CURVE = (0.0, 0.25, 0.5, 0.75, 1.0)
Skill = dict[str, float]  # text, speech


@dataclass(frozen=True)
class Cocktail:
    """Trains and judges the parts; what is in the folder is not done again."""

    run: Run
    folder: Path
    schedules: tuple[Schedule, Schedule]  # of stages 1 and 2
    asked: Sequence[Sample]  # facts
    judged: Validation

    def base(self) -> Skill:
        """M0's text; its speech is that of the alignment, which leaves M0 as it was."""
        return self._skill("base", lambda: self.run.trained_chat("alignment"))

    def first(self, seed: int) -> Skill:
        """After stage 1."""
        self._train(self._first(seed), "cocktail1", self.schedules[0], seed, lambda: self.run.trained_chat("alignment"))
        return self._skill(f"seed-{seed}/stage1", lambda: self.run.chat_from(self._first(seed)))

    def merged(self, seed: int, alpha: float) -> Skill:
        """After the merge, before stage 2."""
        return self._skill(f"seed-{seed}/merged-{alpha:g}", lambda: self._merged(seed, alpha))

    def second(self, seed: int, alpha: float) -> Skill:
        """After stage 2."""
        folder = self._parts / f"seed-{seed}" / f"alpha-{alpha:g}"
        self._train(folder, "cocktail2", self.schedules[1], seed, lambda: self._merged(seed, alpha))
        return self._skill(f"seed-{seed}/alpha-{alpha:g}", lambda: self.run.chat_from(folder))

    @property
    def _parts(self) -> Path:
        return self.folder / f"steps-{self.schedules[0].steps}-{self.schedules[1].steps}"

    def _first(self, seed: int) -> Path:
        return self._parts / f"seed-{seed}" / "stage1"

    def _merged(self, seed: int, alpha: float) -> ChatModel:
        model = self.run.chat_from(self._first(seed))
        merge_backbone(model, self.run.base(), alpha)
        return model

    def _train(self, folder: Path, name: str, schedule: Schedule, seed: int, begin: Callable[[], ChatModel]) -> None:
        if is_finished(folder, schedule):
            return
        model = begin()
        model.requires_grad_(True)
        run_stage(
            self.run.spoken_stage(name, model), schedule, seed, folder,
            lambda done, whole: self.run.show(str(folder.relative_to(self.folder)), done, whole),
            compute=self.run.recipe.compute,
        )  # fmt: skip

    def _skill(self, name: str, load: Callable[[], ChatModel]) -> Skill:
        path = self._parts / name / "skill.json"
        counts = {"facts": len(self.asked), "answers": len(self.judged.samples)}
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["counts"] == counts:
                return {key: kept[key] for key in ("text", "speech")}
        model = load().to(self.run.recipe.compute.torch_device())
        skill = {
            "text": share_exact(model, self.asked),
            "speech": share_exact(model, self.judged.samples, self.judged.questions),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**skill, "counts": counts}) + "\n")
        return skill


def fact_samples(run: Run) -> list[Sample]:
    """Every fact once, as training asks for it; the phrasings take turns."""
    maker = run.maker({})
    turns = [fact.turns(Split.TRAIN) for fact in facts()]
    asked = [written((phrasings[i % len(phrasings)],)) for i, phrasings in enumerate(turns)]
    return [maker.make(conversation, 0, spoken_question=False, spoken_answer=False) for conversation in asked]


def mean(skills: Sequence[Skill], key: str) -> float:
    return sum(skill[key] for skill in skills) / len(skills)


def row(name: str, skills: Sequence[Skill]) -> dict[str, Any]:
    """One line of the table: means, and every seed's value."""
    spread = {f"{key}_by_seed": [skill[key] for skill in skills] for key in ("text", "speech")}
    return {"model": name, "text": mean(skills, "text"), "speech": mean(skills, "speech"), **spread}


def show_table(table: Sequence[dict[str, Any]], curve: Sequence[dict[str, Any]]) -> None:
    lines = [f"{'model':<40} {'text':>7} {'speech':>7}"]
    lines += [f"{line['model']:<40} {line['text']:7.1%} {line['speech']:7.1%}" for line in table]
    lines += [f"{'alpha':<12} {'text merged':>12} {'speech merged':>14} {'text after':>11} {'speech after':>13}"]
    lines += [
        f"{point['alpha']:<12g} {point['merged']['text']:12.1%} {point['merged']['speech']:14.1%} "
        f"{point['after']['text']:11.1%} {point['after']['speech']:13.1%}"
        for point in curve
    ]
    sys.stderr.write("\n".join(lines) + "\n")


def main() -> None:
    parser = arguments(__doc__)
    run_arguments(parser, "bench-cocktail")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--curve-seeds", type=int, default=1, help="seeds over which the curve's means are taken")
    parser.add_argument("--steps1", type=int, help="of stage 1; default: the recipe's")
    parser.add_argument("--steps2", type=int, help="of stage 2; default: the recipe's")
    options = parser.parse_args()
    run = open_run(options)
    folder = options.out or options.run / "bench-cocktail"
    schedules = run.recipe.schedules
    bench = Cocktail(
        run, folder,
        (shortened(schedules["cocktail1"], options.steps1), shortened(schedules["cocktail2"], options.steps2)),
        fact_samples(run), validation(run, folder, options.validation, options.conversations),
    )  # fmt: skip
    seeds, full = range(1, options.seeds + 1), run.recipe.alpha
    base = bench.base()
    first = [bench.first(seed) for seed in seeds]
    unmerged = [bench.second(seed, NO_MERGE) for seed in seeds]
    recipe = [bench.second(seed, full) for seed in seeds]
    curve = []
    for alpha in CURVE:
        chosen = seeds[: options.curve_seeds]
        pairs = [(bench.merged(seed, alpha), bench.second(seed, alpha)) for seed in chosen]
        before, after = ({k: mean(side, k) for k in ("text", "speech")} for side in zip(*pairs, strict=True))
        curve.append({"alpha": alpha, "merged": before, "after": after})
    table = [
        row("M0 (speech: after the alignment)", [base]),
        row("after stage 1", first),
        row("same length, not merged (alpha 1)", unmerged),
        row(f"full recipe (alpha {full:g})", recipe),
    ]
    show_table(table, curve)
    kept = mean(recipe, "text") / base["text"] if base["text"] else 0.0
    checks = [
        check("M0: facts and sums that are wrong", 1 - base["text"], "share", 0.05),
        check("full recipe: share of M0's text skill that is lost", 1 - kept, "share", 0.1),
        check("full recipe: speech behind the unmerged run", 100 * (mean(unmerged, "speech") - mean(recipe, "speech")),
              "points", 1.0),
    ]  # fmt: skip
    report = {
        "steps": [schedule.steps for schedule in bench.schedules], "seeds": len(seeds),
        "curve_seeds": options.curve_seeds, "facts": len(bench.asked), "spoken_answers": len(bench.judged.samples),
        "table": table, "curve": curve,
    }  # fmt: skip
    finish({**report, "checks": checks}, options.json)


if __name__ == "__main__":
    main()
