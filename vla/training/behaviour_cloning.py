"""Behaviour cloning: a policy learns what the expert did from what the expert's camera saw.

Runs go through phases of growing image size: objects are found sooner in few large patches, then precisely in many
small ones. A step depends on the seed and its number alone, so a killed run continues as if nothing had happened.
"""

import copy
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vla.api import InputError
from vla.models.trunk import Trunk
from vla.training.attention import use_training_operations
from vla.training.batches import Batch, Batches
from vla.training.keypoints import KeypointHead
from vla.training.objectives import Diffusion, Lesson, Objective
from vla.training.optimizer import Optimizer, update_average
from vla.training.schedule import Cloning
from vla.training.state import damaged, differing, known, read_state, write_state
from vla.training.team import Team

Module = TypeVar("Module", bound=nn.Module)


class Diverged(FloatingPointError):
    """The loss is not finite any more."""


class Trainer:
    """Trains one model; everything it needs to continue is in `out/state.pt`.

    Args:
        model: float32; trained in place.
        keypoints: auxiliary head, or None to train without.
        cloning: how to train.
        training: batches to learn from.
        validation: (batches, frames) to measure on.
        out: directory of the run.
        identity: plain values of all else that a continued run must share with its past.
        compiled: let `torch.compile` fuse the model's operations; needs a C++ compiler, and minutes at the beginning
            and at each new image size.
        objective: what is learned; None: to denoise chunks.
        device: where to compute.
        team: of processes that train this model together; each is given the same arguments otherwise.

    Attributes:
        team: of this process.
        learner: "model" and, if there is one, "keypoints", in float32.
        average: of the model's weights, over the last steps; what is evaluated and shipped.
    """

    def __init__(
        self,
        model: Trunk,
        keypoints: KeypointHead | None,
        cloning: Cloning,
        training: Batches,
        validation: tuple[Batches, np.ndarray],
        out: Path,
        identity: dict[str, Any],
        compiled: bool = False,
        objective: Objective | None = None,
        device: str = "cpu",
        team: Team | None = None,
    ) -> None:
        self.cloning = cloning
        self.team = team or Team()
        self._device = torch.device(device)
        self._objective = objective or Diffusion(cloning.draws)
        self.step = 0
        learner = nn.ModuleDict({"model": model} | ({"keypoints": keypoints} if keypoints else {}))
        self.learner = learner.to(self._device)
        self.average = _copied(model).requires_grad_(False).eval()
        # The copy that computes gradients, maybe in bfloat16.
        self._worker = copy.deepcopy(self.learner).bfloat16() if cloning.bf16 else _copied(self.learner)
        use_training_operations(self._worker)
        if compiled:
            self._objective.compile(self._worker["model"])
        self._optimizer = Optimizer([self.learner])
        self._training = training
        self._validation, self._validation_frames = validation
        self._out = out
        self._identity = identity

    def run(self, on_step: Callable[[dict[str, float]], None], on_save: Callable[["Trainer"], None]) -> None:
        """Train to the end.

        Args:
            on_step: told the losses of every step.
            on_save: called whenever the state was saved, and at the end.

        Raises:
            Diverged: if a loss is not finite; the state saved last stays.
            LostMember: if another process of the team ended; likewise.
        """
        saved = time.monotonic()
        with self.team.joined(), _ahead() as ahead:
            coming = ahead.submit(self._batch, self.step)
            while self.step < self.cloning.steps:
                batch = coming.result()
                if self.step + 1 < self.cloning.steps:
                    coming = ahead.submit(self._batch, self.step + 1)
                losses = self._train_step(batch)
                self.step += 1
                if not self.team.leads:
                    continue
                if self.step % self.cloning.validate_every == 0 or self.step == self.cloning.steps:
                    losses["validation_error"] = self.validation_error()
                self._log(losses)
                on_step(losses)
                if time.monotonic() - saved > 60 * self.cloning.checkpoint_minutes or self.step == self.cloning.steps:
                    self.save()
                    on_save(self)
                    saved = time.monotonic()

    def validation_error(self) -> float:
        """Mean absolute error of the first action's translation on held-out frames, normalised units, sampled.

        It orders policies by their success; the denoising loss on held-out frames does not.
        """
        image_size = self.cloning.at(self.step - 1)[0].image_size
        errors = []
        for part in np.array_split(self._validation_frames, max(1, len(self._validation_frames) // 64)):
            batch = self._validation.of(part, image_size).to(self._device)
            generator = _generator(self.cloning.seed, 3, int(part[0]))
            with torch.inference_mode():
                said = self._objective.translation(self.average, batch, generator)
            errors.append((said - batch.actions[:, 0, : said.shape[1]]).abs().mean(dim=1).cpu())
        return float(torch.cat(errors).mean())

    def save(self) -> None:
        """Write the state."""
        state = {
            "step": self.step,
            "cloning": asdict(self.cloning),
            "identity": self._identity,
            "learner": _trained(self.learner, self.learner),
            "average": _trained(self.average, self._model),
            "optimizer": self._optimizer.state_dict(),
        }
        write_state(self._out / "state.pt", state)

    def resume(self) -> bool:
        """Continue from `out/state.pt` if there is one; phases that have not begun may have changed.

        Raises:
            InputError: if that run was trained in another way or on other data, or its state is damaged.
        """
        path = self._out / "state.pt"
        if not path.exists():
            self._forget_log_beyond(0)  # of a run that was killed before its first save
            return False
        state = read_state(path)
        different = self.cloning.differences(state["cloning"], state["step"])
        different += differing(self._identity, known(state.get("identity"), self._identity))
        if different:
            raise InputError(
                f"{path} was trained with other {', '.join(different)}; use the same options, or another out="
            )
        if _shapes(state["learner"]) != _shapes(_trained(self.learner, self.learner)):
            raise InputError(f"{path} holds a model of another shape; use the same options, or another out=")
        try:
            _load(self.learner, self.learner, state["learner"])
            _load(self.average, self._model, state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise damaged(path, str(error).partition("\n")[0]) from error
        self.step = state["step"]
        self._forget_log_beyond(self.step)
        return True

    def _batch(self, step: int) -> Batch:
        phase, first_sample, _ = self.cloning.at(step)
        share = phase.batch // self.team.size
        return self._training.training(first_sample + self.team.number * share, share, phase.image_size)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        phase, _, rate = self.cloning.at(self.step)
        batch = batch.to(self._device)
        _copy_values(self.learner, self._worker)
        generator = _generator(self.cloning.seed, 2, self.step, *([self.team.number] if self.team.number else []))
        lesson = self._objective.lesson(self._worker["model"], batch, generator, self.step / self.cloning.steps)
        keypoint_loss = self._keypoint_loss(lesson, batch)
        loss = lesson.loss + self.cloning.keypoint_weight * keypoint_loss
        if not loss.isfinite():
            raise Diverged(
                f"the loss is {loss.item()} at step {self.step}; the state saved last in {self._out} stays as it is; "
                "train with lower learning rates, in another out="
            )
        loss.backward()
        _move_gradients(self._worker, self.learner)
        self.team.average(self.learner.parameters())
        self._optimizer.step(rate)
        update_average(self.average, self._model, self.step, self.cloning.average_decay)
        return {
            "step": self.step + 1,
            "image_size": phase.image_size,
            "learning_rate": rate,
            "action_loss": lesson.loss.item(),
            "keypoint_loss": keypoint_loss.item(),
            **lesson.details,
        }

    @property
    def _model(self) -> nn.Module:
        return self.learner["model"]

    def _keypoint_loss(self, lesson: Lesson, batch: Batch) -> Tensor:
        if "keypoints" not in self._worker:
            return torch.zeros(())
        head: Any = self._worker["keypoints"]
        return head.loss(lesson.visual, lesson.cognition, batch.keypoints)

    def _log(self, losses: dict[str, float]) -> None:
        with (self._out / "train.jsonl").open("a") as log:
            log.write(json.dumps(losses) + "\n")

    def _forget_log_beyond(self, step: int) -> None:
        if not self.team.leads:
            return
        path = self._out / "train.jsonl"
        lines = path.read_text().splitlines()[:step] if path.exists() else []
        path.write_text("".join(line + "\n" for line in lines))


def _copied(module: Module) -> Module:
    """A copy that shares what is not trained."""
    return copy.deepcopy(module, {id(each): each for each in module.parameters() if not each.requires_grad})


def _ahead() -> ThreadPoolExecutor:
    """A thread that prepares batches on one core: with a team of its own it would put the learner's to sleep, see
    `vla.aside`."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1)
    pool.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(threads)  # of this thread, and of the libraries that know one number only
    return pool


def _trained(module: nn.Module, learner: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module without those that the learner, of the same shape, does not train."""
    frozen = {name for name, parameter in learner.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def _load(module: nn.Module, learner: nn.Module, saved: dict[str, Tensor]) -> None:
    """Give a module what `_trained` gave."""
    if missing := sorted(_trained(module, learner).keys() - saved.keys()):
        raise KeyError(f"Missing key {missing[0]}")
    module.load_state_dict(module.state_dict() | saved)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


@torch.no_grad()
def _copy_values(source: nn.Module, target: nn.Module) -> None:
    for value, copied in zip(source.parameters(), target.parameters(), strict=True):
        if value.requires_grad:
            copied.copy_(value)


def _move_gradients(source: nn.Module, target: nn.Module) -> None:
    for computed, master in zip(source.parameters(), target.parameters(), strict=True):
        master.grad = None if computed.grad is None else computed.grad.float()
        computed.grad = None
