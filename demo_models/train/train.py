"""The command that trains the demo's models, in pieces of some minutes: it saves often, goes on where it was.

    python -m demo_models.train.train --stage all --state DIR --minutes 9 --seed 0

Stages: `text` (the encoders, seconds), `vae`, `transformer`. `NOTES.md` says what to expect. Knows how a
training is run; what is learned is in `vae` and `transformer`.
"""

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .curves import draw_curves
from .export import MODELS, has_vae, write_transformer, write_vae
from .sizes import SIZES, Size
from .state import load_state, pack, save_state, write_log
from .text import is_written, write_encoders
from .trainer import Task, Trainer
from .transformer import TransformerTask
from .vae import VaeTask, make_vae

STAGES = ("text", "vae", "transformer")
REPORT_STEPS = 50
EVALUATE_SECONDS = 75.0
SAVE_SECONDS = 60.0
CURVES = "curves.png"


@dataclass(frozen=True)
class Run:
    """One call of the command: where, how long, with what."""

    state: Path
    size: Size
    seed: int
    device: torch.device
    deadline: float
    compiled: bool = False
    report_steps: int = REPORT_STEPS

    @property
    def models(self) -> Path:
        return self.state / MODELS

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.deadline


def run_stage(run: Run, stage: str) -> bool:
    """Do as much of a stage as the time allows; whether it is done."""
    if stage == "text":
        return _run_text(run)
    task = _make_task(run, stage)
    own = run.size.vae if stage == "vae" else run.size.transformer
    trainer = Trainer(task, own.steps, own.rate, own.average)
    _resume(run, stage, trainer)
    if trainer.step < trainer.steps:
        _train(run, stage, trainer)
    if trainer.step < trainer.steps:
        return False
    _write_model(run, stage, trainer)
    return True


def write_models(run: Run, stage: str) -> None:
    """Write the model of a stage as it is now, with the averaged weights, done or not."""
    task = _make_task(run, stage)
    trainer = Trainer(task, 1, 1.0, 0.0)
    _resume(run, stage, trainer)
    _write_model(run, stage, trainer)


def _run_text(run: Run) -> bool:
    if not is_written(run.models):

        def report(step: int, loss: float) -> None:
            if step % run.report_steps == 0:
                _tell(f"text step {step}/{run.size.text.steps} loss {loss:.3f}")
                write_log(run.state, {"stage": "text", "what": "train", "step": step, "loss": loss})

        write_encoders(run.models, run.size, run.seed, run.device, report)
    return True


def _make_task(run: Run, stage: str) -> Task:
    if stage == "vae":
        return VaeTask(run.size.vae, run.seed, run.device, compiled=run.compiled)
    if not has_vae(run.models):
        raise SystemExit(
            "The transformer needs a VAE: finish --stage vae, or write it as it is with --write vae."
        )
    return TransformerTask(run.size, run.seed, run.device, run.models, compiled=run.compiled)


def _resume(run: Run, stage: str, trainer: Trainer) -> None:
    found = load_state(run.state / stage)
    if found is None:
        return
    progress, tensors = found
    for name, value in (("seed", run.seed), ("size", run.size.name)):
        if progress[name] != value:
            raise SystemExit(f"{run.state / stage} was begun with {name} {progress[name]}, not {value}.")
    trainer.resume(progress["step"], tensors)
    _tell(f"{stage} goes on after step {trainer.step} of {trainer.steps}")


def _train(run: Run, stage: str, trainer: Trainer) -> None:
    begin, first = time.monotonic(), trainer.step
    saved = evaluated = begin
    while trainer.step < trainer.steps and not run.is_over:
        numbers = trainer.advance()
        now = time.monotonic()
        if trainer.step % run.report_steps == 0 or trainer.step == first + 1:
            _report(run, stage, trainer, numbers, (trainer.step - first) / (now - begin))
        if now - saved > SAVE_SECONDS:
            _save(run, stage, trainer)
            saved = time.monotonic()
        if now - evaluated > EVALUATE_SECONDS:
            _evaluate(run, stage, trainer)
            evaluated = time.monotonic()
    _evaluate(run, stage, trainer)
    _save(run, stage, trainer)
    draw_curves(run.state, run.state / CURVES)


def _report(run: Run, stage: str, trainer: Trainer, numbers: dict[str, torch.Tensor], speed: float) -> None:
    """Write a line to the log and tell how far it is. Waits for the device: once in many steps."""
    values = {name: round(float(value), 5) for name, value in numbers.items()}
    if not all(map(torch.isfinite, map(torch.tensor, values.values()))):
        raise SystemExit(
            f"{stage} step {trainer.step}: numbers that are none ({values}); the last state is kept."
        )
    line = {"stage": stage, "what": "train", "step": trainer.step, "per_second": round(speed, 2)}
    write_log(run.state, line | values)
    shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
    left = (trainer.steps - trainer.step) / speed / 60
    _tell(f"{stage} step {trainer.step}/{trainer.steps} {shown} ({speed:.2f}/s, {left:.1f} min to go)")


def _evaluate(run: Run, stage: str, trainer: Trainer) -> None:
    values = {name: round(value, 5) for name, value in trainer.evaluate().items()}
    write_log(run.state, {"stage": stage, "what": "held out", "step": trainer.step} | values)
    _tell(f"{stage} step {trainer.step} held out: {values}")


def _save(run: Run, stage: str, trainer: Trainer) -> None:
    progress = {"step": trainer.step, "steps": trainer.steps, "seed": run.seed, "size": run.size.name}
    save_state(run.state / stage, progress, trainer.state())


def _write_model(run: Run, stage: str, trainer: Trainer) -> None:
    """Write the averaged weights below the state's `models`. A VAE that is there stays: a transformer may
    have learned from its latents."""
    with trainer.averaged() as model:
        if stage == "transformer":
            write_transformer(run.models, model)
        elif not has_vae(run.models):
            vae = make_vae(run.size.vae, run.seed).to(run.device).eval()  # a copy: writing changes it
            vae.load_state_dict(model.state_dict())
            spread = write_vae(run.models, vae, run.size, run.seed, run.device)
            _tell(f"vae written; its latents' deviation was {spread:.3f}")


def _tell(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 0 when all stages asked for are done, 3 when there is more to do."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for each new length: 0.3 s a step
    run = Run(
        state=options.state,
        size=_size(options),
        seed=options.seed,
        device=torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu")),
        deadline=time.monotonic() + 60 * options.minutes,
        compiled=options.compile,
    )
    if options.pack is not None:
        for stage in STAGES[1:]:
            if (run.state / stage).is_dir():
                pack(run.state / stage, options.pack / stage)
        return 0
    if options.write is not None:
        write_models(run, options.write)
        return 0
    stages = STAGES if options.stage == "all" else (options.stage,)
    return 0 if all(run_stage(run, stage) for stage in stages) else 3


def _size(options: argparse.Namespace) -> Size:
    """The size by name, with the values that the command line changes: `--set vae.steps=12000`."""
    size: Any = SIZES["toy" if options.quick else options.size]
    for change in options.set:
        name, _, value = change.partition("=")
        part, _, key = name.partition(".")
        known = getattr(getattr(size, part, None), key, None)
        if not isinstance(known, int | float):
            raise SystemExit(f"--set {change}: there is no number of that name.")
        own = dataclasses.replace(getattr(size, part), **{key: type(known)(value)})
        size = dataclasses.replace(size, **{part: own})
    return size


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo's models.")
    add: Callable[..., Any] = parser.add_argument
    add("--stage", choices=(*STAGES, "all"), default="all")
    add("--state", type=Path, required=True, help="where everything is kept between two calls")
    add("--minutes", type=float, default=9.0, help="stop after so long and keep the state (default: 9)")
    add("--seed", type=int, default=0)
    add("--size", choices=tuple(SIZES), default="demo")
    add("--quick", action="store_true", help="the toy size, which a CPU can train in seconds")
    add("--set", action="append", default=[], metavar="PART.NAME=NUMBER", help="change a number of the size")
    add("--device", help="cuda or cpu (default: a GPU if there is one)")
    add("--compile", action="store_true", help="torch.compile the models: a minute first, faster then")
    add("--write", choices=STAGES[1:], help="only write this model as it is now to DIR/models")
    add("--pack", type=Path, metavar="DIR", help="only copy the state for a journey, small, to DIR")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
