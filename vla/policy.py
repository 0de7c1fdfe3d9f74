"""VlaPolicy: a model, its processing and a recipe as an in-process Policy."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vla import presets
from vla import recipe as recipes
from vla.accelerate.stages import Frame, Stages
from vla.api import ActionChunk, InputError, Observation, PolicySpec
from vla.aside import aside
from vla.calibration.stored import RANDOM
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Checkpoint, Choices, layout_of
from vla.checkpoints.memory import require_room
from vla.checkpoints.weights import own, twin
from vla.composing import built, calibration_of, fitted, of_random, placed, reweighted
from vla.inpainting import known_rows, repeat_frozen
from vla.precision import DTYPES as DTYPES
from vla.precision import find_device, find_dtype
from vla.preparing import Preparation, padded
from vla.recipe import Recipe
from vla.timing import Spans, StageTimer
from vla.tokenizer import prompt_ids

PRETRAINED = Path(__file__).with_name("pretrained")
TRAINED, SHIPPED = "trained", "tiny"
_INSTRUCTIONS = 64  # whose words are known: a robot repeats its own in every step


class VlaPolicy:
    """Turns observations into action chunks, one at a time or several together.

    The noise that a chunk is denoised from is a function of session and step. So actions depend on the observation
    alone: not on who else is served, not on restarts, not on whether the policy is local or behind a wire. Only a
    `temporal` technique also looks back, at earlier observations of the same session until `reset`.

    Args:
        checkpoint: model, processing and tokenizer; the model is moved and cast in place.
        recipe: how to run the model.
        name: of the model, for the spec.
        weights_hash: of the checkpoint, for the spec.
        device: `cpu` or `cuda`.
        dtype: of everything but the diffusion head, which stays in float32 as in the published code.
        spans: makes what watches the stages `encode`, `prefill`, `head` and `total` of one answer.
        directory: of the checkpoint, where its calibration is; None: it has none.

    Raises:
        InputError: if the recipe does not fit the model, or needs a calibration that is not there or for other weights.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        name: str,
        weights_hash: str,
        device: torch.device,
        dtype: torch.dtype,
        spans: Callable[[], Spans] | None = None,
        directory: Path | None = None,
    ) -> None:
        calibration = calibration_of(recipe, directory, weights_hash)
        if calibration is None and weights_hash == RANDOM:
            calibration = of_random(checkpoint.model)
        recipe = fitted(recipe, checkpoint.model, calibration)
        self.model = reweighted(placed(checkpoint.model, device, dtype), recipe)
        self._directory = directory
        self.processing = checkpoint.processing
        self.recipe = recipe
        self.device, self.dtype = device, dtype
        self.spans: Callable[[], Spans] = spans or (lambda: StageTimer(device))
        self._tokenizer = checkpoint.tokenizer
        self._ids = lru_cache(_INSTRUCTIONS)(partial(prompt_ids, self._tokenizer, longest=self.model.config.max_prompt))
        self.stages: Stages = built(self.model, recipe)
        self._prepare = Preparation(self.model.config.max_prompt, self.model.config.pad_id)
        self.spec = PolicySpec(
            cameras=self.processing.cameras,
            state=self.processing.state,
            actions=self.processing.actions,
            horizon=self.model.config.horizon,
            period=self.processing.period,
            model=name,
            recipe=recipe.name,
            checkpoint=weights_hash,
            inpaints=self.stages.inpaint is not None,
            resize=self.processing.resize_of_sender,
        )

    def infer(self, observation: Observation) -> ActionChunk:
        """Answer the next `spec.horizon` actions.

        Raises:
            InputError: if the observation does not fit `spec`, or the instruction is too long.
        """
        return self.infer_batch([observation])[0]

    @torch.inference_mode()
    def infer_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """Answer several sessions at once, each as `infer` would up to rounding.

        Returns:
            One chunk each, in order; `timing` is the whole batch's.

        Raises:
            InputError: if one of them does not fit `spec`, its instruction is too long, or a session that is remembered
                is there twice; nothing is remembered then.
        """
        for observation in observations:
            self.spec.check(observation)
        span = self.spans()
        with span("total"):
            with span("encode"):
                prompts, states = self._prompts(observations), self._states(observations)  # may refuse: comes first
                visual = self._encode(observations)
            if self.stages.few_lengths:
                self._prepare(self.stages, visual, prompts, states, self.noise(observations))
            with span("prefill"):
                prefilled = self.stages.prefill(visual, prompts, states)
            with span("head"):
                actions = self._actions(prefilled, observations)  # (batch, horizon, A) normalised
                physical = self.processing.physical_actions(actions.cpu().numpy())  # (batch, horizon, A)
        pairs = zip(physical, observations, strict=True)
        about = (self.spec.period, span.milliseconds, self.stages.decoder.statistics if self.stages.decoder else {})
        return [ActionChunk(repeat_frozen(rows, seen), *about) for rows, seen in pairs]

    def reset(self, session: str) -> None:
        """Forget the session; only recipes with a `temporal` technique or `jacobi` decoding remember anything."""
        self.stages.forget(session)

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Run the stages as ordinary PyTorch operations for a while: for counting what compiling or replaying hides."""
        before = self.stages
        self.stages = before.plain or before
        try:
            yield
        finally:
            self.stages = before

    def with_recipe(self, recipe: Recipe) -> "VlaPolicy":
        """The same model under another recipe: of the weights only those that the recipe changes are kept twice.

        Raises:
            InputError: if the recipe does not fit the model, or this policy's own changed the weights.
        """
        if self.recipe.plugs["weights"]:
            raise InputError(f"{self.recipe.name} changed the weights: load a policy for {recipe.name}")
        model = twin(self.model) if recipe.plugs["weights"] else self.model
        loaded = Checkpoint(model, self.processing, self._tokenizer, {})
        spec = self.spec
        return VlaPolicy(
            loaded, recipe, spec.model, spec.checkpoint, self.device, self.dtype, directory=self._directory
        )

    def tensors(self, observations: Sequence[Observation]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the stages are fed: images (batch, cameras, channels, H, W), prompts (batch, words), states or None."""
        return self._images(observations), self._prompts(observations), self._states(observations)

    def noise(self, observations: Sequence[Observation]) -> Tensor:
        """(batch, *noise_shape) that each observation's chunk is made from."""
        return torch.cat([self._noise(seen.session, seen.step) for seen in observations])

    def _encode(self, observations: Sequence[Observation]) -> Any:
        images = self._images(observations)
        frames = [Frame(seen.session, seen.step, self.processing.gripper(seen)) for seen in observations]
        self.stages.begin(frames, lambda: self.processing.pixels(images))
        return self.stages.encode(images)

    def _actions(self, prefilled: Any, observations: Sequence[Observation]) -> Tensor:
        noise = self.noise(observations)
        if self.stages.inpaint is None or all(seen.committed is None for seen in observations):
            return self.stages.act(prefilled, noise)
        return self.stages.inpaint(prefilled, noise, *known_rows(observations, self.processing, noise))

    def _images(self, observations: Sequence[Observation]) -> Tensor:
        return self.processing.images(*observations).to(self.device, self.dtype)

    def _prompts(self, observations: Sequence[Observation]) -> Tensor:
        config = self.model.config
        texts = [self.processing.text(seen.instruction) for seen in observations]
        rows = [self._ids(text)[0] for text in texts]
        prompts = pad_sequence(rows, batch_first=True, padding_value=config.pad_id)  # (batch, words)
        if self.stages.few_lengths:
            prompts = padded(prompts, config.max_prompt, config.pad_id)
        return prompts.to(self.device)

    def _states(self, observations: Sequence[Observation]) -> Tensor | None:
        states = [self.processing.state_numbers(seen) for seen in observations]
        given = [state for state in states if state is not None]
        return torch.cat(given).to(self.device) if given else None  # (batch, S) float32: the model casts it

    def _noise(self, session: str, step: int) -> Tensor:
        """(1, *noise_shape) standard normal, drawn on the CPU: the same on every device for one session and step."""
        shape = (1, *self.model.noise_shape)
        generator = torch.Generator().manual_seed(noise_seed(session, step))
        return torch.randn(shape, generator=generator).to(self.device)


def model_names() -> list[str]:
    """The models that ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{native.CONFIG}"))


@aside
def load_policy(
    model: str = SHIPPED,
    checkpoint: str | Path | None = None,
    recipe: str | Mapping[str, Any] | Recipe = "none",
    device: str = "cpu",
    dtype: str = "float32",
    init: str = TRAINED,
    dataset: str | None = None,
    robot: str | None = None,
) -> VlaPolicy:
    """Build a policy from names, as the commands do; any thread may use it then, see `vla.aside`.

    Args:
        model: a shipped model, or with `init` a preset: published shapes without weights.
        checkpoint: directory of a checkpoint in any layout, instead of a model; its name becomes the model's.
        recipe: a file in `configs/recipes/` or of your own, its values, or a recipe.
        device: `cpu` or `cuda`.
        dtype: a key of `vla.precision.DTYPES`, or `auto`.
        init: `trained`, or `random` for the same shapes with random weights.
        dataset: which statistics of a published checkpoint un-normalise actions, or which robot of a checkpoint of
            our own is in use; None if there is one only, or `robot` decides.
        robot: name of the robot in use, which chooses where there are several; else it says nothing.

    Raises:
        InputError: on a name that does not exist, a checkpoint that is missing or damaged, a device that is not
            there, or too little memory; the message lists what is.
    """
    chosen = recipes.find(recipe)
    place = find_device(device)
    numbers = find_dtype(dtype, place)
    _check_choice("init", init, (TRAINED, RANDOM))
    directory = _directory(model, checkpoint, init)
    digest = RANDOM
    if directory is None:
        loaded = presets.build(model, place, numbers)
    elif init == RANDOM:
        loaded = _untrained(directory, dataset or robot)
    else:
        loaded, digest = _read(directory, Choices(dataset, robot), place, numbers)
    name = model if checkpoint is None else Path(checkpoint).resolve().name
    return VlaPolicy(loaded, chosen, name, digest, place, numbers, directory=directory)


def noise_seed(session: str, step: int) -> int:
    """A seed in [0, 2**63) that is the same in every process."""
    digest = hashlib.sha256(f"{session}\x1f{step}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _read(directory: Path, choices: Choices, device: torch.device, dtype: torch.dtype) -> tuple[Checkpoint, str]:
    """A checkpoint in whatever layout, and its hash."""
    layout = layout_of(directory)
    loaded = layout.load(directory, choices, lambda model: require_room(model, device, dtype))
    own(loaded.model, device, dtype)
    return loaded, layout.weights_hash(directory, choices)


def _untrained(directory: Path, robot: str | None) -> Checkpoint:
    """A checkpoint of our own with random weights."""
    if layout_of(directory) is not native.LAYOUT:
        presets_there = ", ".join(presets.names())
        raise InputError(f"init=random is for checkpoints of our own and presets ({presets_there}), not {directory}")
    return native.load(directory, weights=False, robot=robot)


def _directory(model: str, checkpoint: str | Path | None, init: str) -> Path | None:
    """Where the weights are; None for a preset."""
    if checkpoint is not None:
        if model != SHIPPED:
            raise InputError(f"model={model} and checkpoint={checkpoint} each say which model it is; leave one out")
        return Path(checkpoint)
    if model in model_names():
        return PRETRAINED / model
    if model not in presets.names():
        known = ", ".join([*model_names(), *presets.names()])
        raise InputError(f"unknown model {model!r}; allowed: {known}; or give checkpoint=<directory>")
    if init == TRAINED:
        raise InputError(f"no weights ship for {model}; give checkpoint=<directory>, or init=random to time its shapes")
    return None


def _check_choice(key: str, value: object, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(f"unknown {key} {value!r}; allowed: {', '.join(allowed)}")
