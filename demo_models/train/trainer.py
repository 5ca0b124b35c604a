"""Training one model step by step: optimizer, rate, averaged weights, and a state from which it goes on
exactly.

Knows neither what is learned nor from what: that is a `Task`. On one machine and with one seed, a training
that is stopped and resumed makes the same weights to the bit as one that runs through (on a CPU with one
thread; a GPU's own kernels may differ in the last bits from run to run).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

WARM_STEPS = 200
"""Steps in which the rate rises; also after a resume without the optimizer's moments."""
COOL_PART = 0.35
LAST_RATE = 0.03
"""The rate stays, then falls in the last part of the steps to this part of it."""
LARGEST_GRADIENT = 1.0
BETAS = (0.9, 0.98)


class Task(Protocol):
    """The task that a model learns. A step depends only on the seed and its number."""

    @property
    def model(self) -> nn.Module: ...

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a step, and what else is worth writing down."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Measure the model, with the averaged weights in it, on data that it never saw."""
        ...


class Trainer:
    """One training under way. `step` counts the steps that are done."""

    def __init__(self, task: Task, steps: int, rate: float, average: float) -> None:
        self.task = task
        self.steps = steps
        self.step = 0
        self._rate, self._average = rate, average
        self._warm_from = 0
        self._names, parameters = zip(*task.model.named_parameters(), strict=True)
        self._parameters: list[torch.Tensor] = list(parameters)
        self._averages = [parameter.detach().clone() for parameter in parameters]
        fused = self._parameters[0].device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=rate, betas=BETAS, weight_decay=0.01, fused=fused
        )

    def advance(self) -> dict[str, torch.Tensor]:
        """Do the next step; returns its numbers, still on the device."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * self._part_of_rate()
        loss, numbers = self.task.loss(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self._parameters, LARGEST_GRADIENT)
        self._optimizer.step()
        self.step += 1
        with torch.no_grad():
            keep = min(self._average, self.step / (self.step + 10))
            torch._foreach_lerp_(self._averages, self._parameters, 1 - keep)
        return {"loss": loss.detach(), "gradient": gradient.detach(), **numbers}

    def evaluate(self) -> dict[str, float]:
        with self.averaged():
            self.task.model.eval()
            numbers = self.task.evaluate()
            self.task.model.train()
        return numbers

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with its averaged weights in it."""
        own = [parameter.data for parameter in self._parameters]
        try:
            for parameter, average in zip(self._parameters, self._averages, strict=True):
                parameter.data = average
            yield self.task.model
        finally:
            for parameter, data in zip(self._parameters, own, strict=True):
                parameter.data = data

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that the next steps depend on, by name."""
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter, average in zip(self._names, self._parameters, self._averages, strict=True):
            tensors[f"weights.{name}"] = parameter.detach()
            tensors[f"average.{name}"] = average
            moments = self._optimizer.state.get(parameter, {})
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if key in moments:
                    tensors[f"{key}.{name}"] = torch.as_tensor(moments[key])
        return tensors

    def resume(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Go on after `step` steps. With the averages alone (see `state.pack`) the weights start from them,
        and the rate rises anew while the optimizer finds its moments."""
        self.step = step
        whole = f"weights.{self._names[0]}" in tensors
        self._warm_from = 0 if whole else step
        with torch.no_grad():
            for name, parameter, average in zip(self._names, self._parameters, self._averages, strict=True):
                average.copy_(tensors[f"average.{name}"])
                parameter.copy_(tensors[f"weights.{name}" if whole else f"average.{name}"])
                if f"exp_avg.{name}" in tensors:
                    self._optimizer.state[parameter] = self._moments(name, parameter, tensors)

    def _moments(
        self, name: str, parameter: torch.Tensor, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        moments = {key: tensors[f"{key}.{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
        fused = parameter.device.type == "cuda"
        moments["step"] = tensors[f"step.{name}"].to(parameter.device if fused else "cpu")
        return moments

    def _part_of_rate(self) -> float:
        warm = min(1.0, (self.step - self._warm_from + 1) / WARM_STEPS)
        left = (self.steps - self.step) / (COOL_PART * self.steps)
        return warm * max(LAST_RATE, min(1.0, left))
