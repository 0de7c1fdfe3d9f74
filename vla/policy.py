"""VlaPolicy: a model, its processing and a recipe as an in-process Policy."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla import recipe as recipes
from vla.api import ActionChunk, InputError, Observation, PolicySpec
from vla.checkpoints import native
from vla.models.cogact import CogAct
from vla.models.heads.diffusion import timesteps_for
from vla.recipe import Recipe
from vla.timing import Spans, StageTimer
from vla.tokenizer import prompt_ids

PRETRAINED = Path(__file__).with_name("pretrained")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp32": torch.float32, "bf16": torch.bfloat16}
TRAINED, RANDOM = "trained", "random"


class VlaPolicy:
    """Turns observations into action chunks, one at a time.

    The noise that a chunk is denoised from is a function of session and step. So actions depend on the observation
    alone: not on who else is served, not on restarts, not on whether the policy is local or behind a wire.

    Args:
        checkpoint: model, processing and tokenizer; the model is moved and cast in place.
        recipe: how to run the model.
        name: of the model, for the spec.
        weights_hash: of the checkpoint, for the spec.
        device: `cpu` or `cuda`.
        dtype: of everything but the diffusion head, which stays in float32 as in the published code.
        spans: makes what watches the stages `encode`, `prefill`, `head` and `total` of one answer.

    Raises:
        InputError: if the recipe does not fit the model.
    """

    def __init__(
        self,
        checkpoint: native.Checkpoint,
        recipe: Recipe,
        name: str,
        weights_hash: str,
        device: torch.device,
        dtype: torch.dtype,
        spans: Callable[[], Spans] | None = None,
    ) -> None:
        timesteps_for(recipe.denoising_steps, checkpoint.model.config.train_steps)  # refuses steps that do not divide
        self.model = _placed(checkpoint.model, device, dtype)
        self.processing = checkpoint.processing
        self.recipe = recipe
        self.device, self.dtype = device, dtype
        self.spans: Callable[[], Spans] = spans or (lambda: StageTimer(device))
        self._tokenizer = checkpoint.tokenizer
        self.spec = PolicySpec(
            cameras=self.processing.cameras,
            state=self.processing.state,
            actions=self.processing.actions,
            horizon=self.model.config.horizon,
            period=self.processing.period,
            model=name,
            recipe=recipe.name,
            checkpoint=weights_hash,
        )

    @torch.inference_mode()
    def infer(self, observation: Observation) -> ActionChunk:
        """Answer the next `spec.horizon` actions.

        Raises:
            InputError: if the observation does not fit `spec`, or the instruction is too long.
        """
        self.spec.check(observation)
        span = self.spans()
        with span("total"):
            with span("encode"):
                visual = self.model.encode(self._images(observation))
            with span("prefill"):
                cognition = self.model.prefill(visual, self._prompt(observation), self._state(observation))
            with span("head"):
                sampled = self._sample(cognition, observation)
        return ActionChunk(actions=sampled, period=self.spec.period, timing=span.milliseconds)

    def reset(self, session: str) -> None:
        """Nothing is remembered between calls, so there is nothing to forget."""

    def _images(self, observation: Observation) -> Tensor:
        return self.processing.images(observation).to(self.device, self.dtype)  # (1, cameras, 3, height, width)

    def _prompt(self, observation: Observation) -> Tensor:
        text = self.processing.text(observation.instruction)
        return prompt_ids(self._tokenizer, text, self.model.config.max_prompt).to(self.device)  # (1, words)

    def _state(self, observation: Observation) -> Tensor | None:
        state = self.processing.state_numbers(observation)
        return None if state is None else state.to(self.device, self.dtype)  # (1, S)

    def _sample(self, cognition: Tensor, observation: Observation) -> Any:
        """(horizon, A) float32 array in physical units."""
        noise = self._noise(observation.session, observation.step)
        steps, guidance = self.recipe.denoising_steps, self.recipe.guidance_scale
        sampled = self.model.head.sample(cognition, noise, steps, guidance)  # (1, horizon, A)
        return self.processing.physical_actions(sampled[0].cpu().numpy())

    def _noise(self, session: str, step: int) -> Tensor:
        """(1, horizon, A) standard normal, drawn on the CPU: the same on every device for one session and step."""
        shape = (1, self.spec.horizon, len(self.spec.actions))
        generator = torch.Generator().manual_seed(noise_seed(session, step))
        return torch.randn(shape, generator=generator).to(self.device)


def model_names() -> list[str]:
    """The models that ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{native.CONFIG}"))


def load_policy(
    model: str = "tiny",
    checkpoint: str | Path | None = None,
    recipe: str | Mapping[str, Any] = "none",
    device: str = "cpu",
    dtype: str = "float32",
    init: str = TRAINED,
) -> VlaPolicy:
    """Build a policy from names, as the commands do.

    Args:
        model: a shipped model.
        checkpoint: directory of another checkpoint, used instead of the shipped one; its name becomes the model's.
        recipe: a file in `configs/recipes/`, or its values.
        device: `cpu` or `cuda`.
        dtype: a key of `DTYPES`.
        init: `trained`, or `random` for the same shapes with random weights.

    Raises:
        InputError: on a name that does not exist, a checkpoint that is missing or damaged, or a device that is not
            there; the message lists what is.
    """
    chosen = recipes.find(recipe)
    place = find_device(device)
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("init", init, (TRAINED, RANDOM))
    directory = _directory(model, checkpoint)
    loaded = native.load(directory, weights=init == TRAINED)
    weights_hash = native.weights_hash(directory) if init == TRAINED else RANDOM
    name = model if checkpoint is None else directory.resolve().name
    return VlaPolicy(loaded, chosen, name, weights_hash, place, DTYPES[dtype])


def noise_seed(session: str, step: int) -> int:
    """A seed in [0, 2**63) that is the same in every process."""
    digest = hashlib.sha256(f"{session}\x1f{step}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _placed(model: CogAct, device: torch.device, dtype: torch.dtype) -> CogAct:
    """The model on its device, all but the head in `dtype`."""
    for name, part in model.named_children():
        part.to(device=device, dtype=torch.float32 if name == "head" else dtype)
    return model


def _directory(model: str, checkpoint: str | Path | None) -> Path:
    if checkpoint is not None:
        return Path(checkpoint)
    if model not in model_names():
        known = ", ".join(model_names()) or "none ship with this copy"
        raise InputError(f"unknown model {model!r}; allowed: {known}; or give checkpoint=<directory>")
    return PRETRAINED / model


def find_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InputError: if it is not there, listing what is.
    """
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name not in there:
        raise InputError(f"device={name!r} is not there; this machine has: {', '.join(there)}")
    return torch.device(name)


def _check_choice(key: str, value: object, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(f"unknown {key} {value!r}; allowed: {', '.join(allowed)}")
