"""The training run: `python -m train --out DIR --seed 7 --minutes 30`.

Loss on what the assistant says only; Muon for the matrices and AdamW for the rest, warm-up, cosine, clipped gradients;
contexts grow from short to long. Each step's data depends on the seed, the step's number and the part of the time that
is used up, so a run that stops goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from train.checkpoint import Progress, load_checkpoint, save_checkpoint
from train.data import LONG, SHORT, Batch, Shape, pack
from train.head_start import give_head_start
from train.model import load_model, loss_of, new_model, save_model
from train.muon import Muon
from train.report import Report, open_report
from train.sampled import Sample
from train.sieve import losses_of, sieved
from train.tasks import mixture
from train.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from train.workers import Team, open_team, own_place

FINAL_RATE = 2e-5
WARM_UP_STEPS = 30
WEIGHT_DECAY = 0.05
MOST_GRADIENT_NORM = 1.0
LONG_FROM = 0.4
"""The part of the run after which long batches are mixed in."""
LONG_SHARE = 0.04
STEPS_A_POINT = 25
"""The loss is averaged over this many steps for one point of the curve."""
SECONDS_BETWEEN_CHECKPOINTS = 120.0
SECONDS_BETWEEN_SAMPLES = 90.0


@dataclass(frozen=True)
class Course:
    """What a run is like. `calls`: how much more often than usual calls are met. `tokens_from`: from which part of
    the run on a worker's short batch has how many tokens; `longest`: of one dialogue. `sieve`: how many times as many
    are drawn as are learnt (train/sieve.py)."""

    peak_rate: float
    calls: float
    tokens_from: tuple[tuple[float, int], ...]
    longest: int
    grows: bool
    sieve: int = 1


COURSES = {
    # From little to much: small batches learn more a token at first, contexts grow with the run.
    "first": Course(2e-3, 1.0, ((0.0, 768), (0.08, 1536), (0.55, 3072)), SHORT.longest, grows=True),
    # For a model that has learnt most: calls above all, the longest of them too.
    "second": Course(1.2e-3, 4.0, ((0.0, 1536), (0.5, 3072)), 512, grows=False, sieve=4),
}


@dataclass
class Trainer:
    """One run. `minutes` is processor time of each worker, over all resumptions: busy neighbours do not shorten it."""

    model: LlamaForCausalLM
    tokenizer: Tokenizer
    team: Team
    minutes: float
    progress: Progress
    course: Course = COURSES["first"]
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    last: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        matrices = [weight for weight in self.model.model.layers.parameters() if weight.dim() == 2]
        own = {id(weight) for weight in matrices}
        rest = [weight for weight in self.model.parameters() if id(weight) not in own]
        adam = torch.optim.AdamW(rest, lr=self.course.peak_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.optimizers = [Muon(matrices, self.team, self.course.peak_rate, WEIGHT_DECAY), adam]

    @property
    def part_done(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.progress.seconds / (60 * self.minutes))

    def rate(self) -> float:
        """The learning rate of this step: a linear warm-up, then a half cosine over the time that is left."""
        warm_up = min(1.0, (self.progress.step + 1) / WARM_UP_STEPS)
        cosine = 0.5 * (1 + math.cos(math.pi * self.part_done))
        return warm_up * (FINAL_RATE + (self.course.peak_rate - FINAL_RATE) * cosine)

    def batch(self) -> Batch:
        """This step's data: short contexts of few facts at first, then more, then long ones among them."""
        of_step = random.Random(f"{self.progress.seed} {self.progress.step}")
        is_long = self.part_done > LONG_FROM and of_step.random() < LONG_SHARE
        source = random.Random(f"{self.progress.seed} {self.progress.step} {self.team.worker}")
        reach = 5 + round(7 * min(1.0, self.part_done / 0.3)) if self.course.grows else 12
        tokens = next(tokens for start, tokens in reversed(self.course.tokens_from) if self.part_done >= start)
        drawn, kinds = tokens * self.course.sieve, mixture(self.course.calls)
        short = Shape(drawn, self.course.longest, kinds)
        batch = pack(self.tokenizer, source, LONG if is_long else short, reach)
        return batch if is_long or drawn == tokens else sieved(losses_of(self.model, batch), batch, tokens)

    def step(self) -> float:
        """One batch, one update; returns the loss in nats a learnt token."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
        batch = self.batch()
        loss = loss_of(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        weights = list(self.model.parameters())
        now = time.process_time()
        mean, dialogues, spent = self.team.average(weights, loss.item(), len(batch.lengths), now - self.last)
        self.last = now
        torch.nn.utils.clip_grad_norm_(weights, MOST_GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.progress.step += 1
        self.progress.tokens += batch.ids.numel() * self.team.count
        self.progress.dialogues += round(dialogues * self.team.count)
        self.progress.seconds += spent
        return mean

    def run(self, folder: Path, report: Report) -> None:
        """Trains until the time is used up; writes a checkpoint into `folder` now and then, and at the end."""
        losses: list[float] = []
        saved = sampled = time.monotonic()
        sample = Sample(self.tokenizer) if self.team.leads else None
        while self.part_done < 1.0:
            losses.append(self.step())
            if len(losses) == STEPS_A_POINT:
                mean = sum(losses) / len(losses)
                losses = []
                self.progress.curve.append((self.progress.step, round(self.progress.seconds, 1), round(mean, 4)))
                report.point(self.progress, self.part_done, mean)
            if self.team.leads and time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                save_checkpoint(folder, self.model, self.optimizers, self.progress)
                saved = time.monotonic()
            if sample and time.monotonic() - sampled > SECONDS_BETWEEN_SAMPLES:
                self.progress.sampled.append((round(self.progress.seconds, 1), sample.scores(self.model)))
                report.scores(self.progress.sampled[-1][1])
                sampled = time.monotonic()
                self.last = time.process_time()
        if self.team.leads:
            save_checkpoint(folder, self.model, self.optimizers, self.progress)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    parser.add_argument("--start", type=Path, help="folder with a model to go on from, in place of random weights")
    parser.add_argument("--course", choices=COURSES, default="first")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="processor time of each worker, over all resumptions"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--checkpoints", type=Path, help="folder for checkpoints; OUT/checkpoints if not given")
    return parser.parse_args()


def main() -> None:
    """Trains, or goes on with a run that stopped, and writes the model's files."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoints: Path = options.checkpoints or options.out / "checkpoints"
    if own_place() == 0 and not (options.out / "tokenizer.json").exists():
        save_tokenizer(load_tokenizer(options.start) if options.start else train_tokenizer(options.seed), options.out)
    with open_team(options.workers) as team, open_report(team.leads) as report:
        tokenizer = load_tokenizer(options.out)
        model = load_model(options.start) if options.start else new_model(tokenizer, options.seed)
        if not options.start:
            give_head_start(model)
        trainer = Trainer(model, tokenizer, team, options.minutes, Progress(options.seed), COURSES[options.course])
        trainer.progress = load_checkpoint(checkpoints, model, trainer.optimizers) or trainer.progress
        trainer.run(checkpoints, report)
        if team.leads:
            save_model(model, options.out)
