"""pi0 as LeRobot saves it: config, one safetensors file, two pipelines of processing steps, PaliGemma's tokenizer.

Sources: LeRobot `policies/pi0/`, `processor/pipeline.py` and `processor/normalize_processor.py`. Newer versions save
the tokenizer in a folder of its own; older ones only name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.api import Camera, InputError
from vla.checkpoints import published
from vla.checkpoints.checkpoint import BeforeWeights, Checkpoint, Choices, Layout
from vla.checkpoints.files import read_json, read_tensors
from vla.checkpoints.native import check_together
from vla.checkpoints.openvla import WEIGHTS, read_shards, weight_files
from vla.checkpoints.pi0_names import fitting, ours, sizes
from vla.checkpoints.pi0_robot import Robot, gemma_words, processing, tokenizer_file
from vla.checkpoints.weights import check_finite, check_kinds, empty, fill
from vla.images import BORDER_AROUND, Resize
from vla.models.config import check_whole
from vla.models.pi0 import FAMILY
from vla.models.pi0_config import Pi0Config
from vla.moments import Moments, between

CONFIG, BEFORE, AFTER, FOLDER = "config.json", "policy_preprocessor.json", "policy_postprocessor.json", "tokenizer"
_TYPE, _STATE, _ACTION, _IMAGES = "pi0", "observation.state", "action", "observation.images."
_EMPTY = f"{_IMAGES}empty_camera_"  # masked in training, so left out here
_NORMALISE, _UNNORMALISE, _RENAME = "normalizer_processor", "unnormalizer_processor", "rename_observations_processor"
_DONE_ELSEWHERE = ("to_batch_processor", "device_processor", "pi0_new_line_processor", "tokenizer_processor")
_ONLY_OFF = ("relative_actions_processor", "absolute_actions_processor")
_PROMPT = 1 + Pi0Config.max_prompt
_USUAL = {"n_obs_steps": 1, "use_relative_actions": False, "use_peft": False}
_BOUNDS = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}


def recognises(directory: Path) -> bool:
    """Whether the config is of LeRobot's pi0."""
    if not (directory / CONFIG).exists():
        return False
    try:
        return read_json(directory / CONFIG).get("type") == _TYPE
    except InputError:
        return False


def load(directory: Path, choices: Choices, before: BeforeWeights) -> Checkpoint:
    """Read a directory; the weights stay memory-mapped until they are moved or cast.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    path = directory / CONFIG
    values = _config(path)
    robot = _robot(directory, values)
    tensors = read_shards(directory)
    check_kinds(directory, tensors)
    named = ours(tensors, directory)
    said = {
        "cameras": len(robot.cameras),
        "state_dim": len(robot.state),
        "action_dim": len(robot.action),
        "horizon": values["chunk_size"],
        "max_prompt": values["tokenizer_max_length"] - 1,  # one of them is BOS
        "shortest_period": values.get("min_period", Pi0Config.shortest_period),
        "longest_period": values.get("max_period", Pi0Config.longest_period),
    }
    config = Pi0Config(**(sizes(named, directory) | said))
    _check_sizes(values, config, path)
    around = processing(robot, choices, Resize(config.image_size, BORDER_AROUND), directory)
    tokenizer = gemma_words(directory, directory / FOLDER)
    check_together(directory, config, around, tokenizer)
    model = empty(FAMILY, config)
    before(model)
    fitted = fitting(model.state_dict(), named, directory)
    check_finite(directory, tensors)
    fill(model, fitted)
    return Checkpoint(model, around, tokenizer, {"published": {"layout": "lerobot", "dataset": choices.dataset}})


def _config(path: Path) -> dict[str, Any]:
    """The config, after checking what decides how the policy is run.

    Raises:
        InputError: naming the keys that are missing or ask for something else.
    """
    values = read_json(path)
    kinds = {"chunk_size": int, "input_features": dict, "output_features": dict}
    check_whole(f"{path}: tokenizer_max_length", values.setdefault("tokenizer_max_length", _PROMPT), 2)
    if wrong := [key for key, kind in kinds.items() if not isinstance(values.get(key), kind)]:
        raise InputError(f"{path}: {wrong} must be there, as {[kinds[key].__name__ for key in wrong]}")
    differing = [f"{key} is {values[key]!r}" for key, usual in _USUAL.items() if values.get(key, usual) != usual]
    if differing:
        raise InputError(f"{path} asks for what cannot be done here: {'; '.join(differing)}; allowed: {_USUAL}")
    return values


def _check_sizes(values: Mapping[str, Any], config: Pi0Config, path: Path) -> None:
    """Refuse a config that does not fit the tensors."""
    facts = {
        "image_resolution": [config.image_size] * 2,
        "max_state_dim": config.state_width,
        "max_action_dim": config.action_width,
    }
    differing = [
        f"{key} is {values[key]}, the tensors say {made}"
        for key, made in facts.items()
        if values.get(key, made) != made
    ]
    if differing:
        raise InputError(f"{path} does not fit the weights: {'; '.join(differing)}")


def _robot(directory: Path, values: Mapping[str, Any]) -> Robot:
    before, after = (_Pipeline.read(directory / name) for name in (BEFORE, AFTER))
    renamed = before.step(_RENAME).get("config", {}).get("rename_map", {})
    state = _shape(values["input_features"], _STATE, 1, directory / CONFIG)[0]
    action = _shape(values["output_features"], _ACTION, 1, directory / CONFIG)[0]
    names = values.get("action_feature_names")
    return Robot(
        cameras=_cameras(values["input_features"], renamed, directory / CONFIG),
        state=before.moments(_NORMALISE, _STATE, "STATE", state),
        action=after.moments(_UNNORMALISE, _ACTION, "ACTION", action),
        action_names=tuple(names) if isinstance(names, list) else (),
    )


def _cameras(features: Mapping[str, Any], renamed: Mapping[str, str], path: Path) -> tuple[Camera, ...]:
    """The cameras in the order of the config, under the names that the robot gives them."""
    robot_names = {theirs: robot for robot, theirs in renamed.items()}
    keys = [key for key in features if key.startswith(_IMAGES) and not key.startswith(_EMPTY)]
    if not keys:
        raise InputError(f"{path}: input_features has no {_IMAGES}<camera>")
    cameras = []
    for key in keys:
        _, height, width = _shape(features, key, 3, path)  # (channels, height, width)
        cameras.append(Camera(robot_names.get(key, key).removeprefix(_IMAGES), height, width))
    return tuple(cameras)


def _shape(features: Mapping[str, Any], key: str, dimensions: int, path: Path) -> list[int]:
    feature = features.get(key)
    shape = feature.get("shape") if isinstance(feature, Mapping) else None
    if not isinstance(shape, list) or len(shape) != dimensions or not all(type(n) is int and n > 0 for n in shape):
        raise InputError(f"{path}: the feature {key} must have a shape of {dimensions} number(s), got {shape}")
    return shape


@dataclass(frozen=True)
class _Pipeline:
    """The steps of one pipeline by their names."""

    path: Path
    steps: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "_Pipeline":
        """Refuses steps that would do something else to the numbers."""
        listed = read_json(path).get("steps")
        if not isinstance(listed, list) or not all(isinstance(step, Mapping) for step in listed):
            raise InputError(f"{path} has no list of steps")
        steps = {str(step.get("registry_name", step.get("class"))): step for step in listed}
        known = {_NORMALISE, _UNNORMALISE, _RENAME, *_DONE_ELSEWHERE, *_ONLY_OFF}
        if unknown := sorted(steps.keys() - known):
            raise InputError(f"{path} has steps that are not known here: {unknown}; known: {sorted(known)}")
        if on := [name for name in _ONLY_OFF if steps.get(name, {}).get("config", {}).get("enabled")]:
            raise InputError(f"{path}: {on} cannot be done here; only policies of absolute actions are")
        return cls(path, steps)

    def step(self, name: str) -> Mapping[str, Any]:
        """The step of this name; empty if there is none."""
        return self.steps.get(name, {})

    def moments(self, name: str, feature: str, kind: str, count: int) -> Moments:
        """How a step normalises one feature.

        Raises:
            InputError: if it has no statistics, or not of `count` numbers.
        """
        config = self.step(name).get("config", {})
        mode = config.get("norm_map", {}).get(kind, "IDENTITY")
        if config.get("normalize_observation_keys") is not None:
            raise InputError(f"{self.path}: normalize_observation_keys cannot be done here")
        if mode == "IDENTITY":
            return Moments((0.0,) * count, (1.0,) * count, (True,) * count)
        if mode not in ("MEAN_STD", *_BOUNDS):
            raise InputError(f"{self.path}: {kind} is normalised by {mode!r}; allowed: MEAN_STD, {', '.join(_BOUNDS)}")
        first, second = (
            self._numbers(name, f"{feature}.{which}", count) for which in _BOUNDS.get(mode, ("mean", "std"))
        )
        if mode == "MEAN_STD":
            return Moments(first, second, (True,) * count)
        if feature == _STATE:  # where both bounds are the same, published code puts out -1
            second = tuple(b if b != a else a + 2 for a, b in zip(first, second, strict=True))
        return between(first, second)

    def _numbers(self, name: str, key: str, count: int) -> tuple[float, ...]:
        file = self.step(name).get("state_file")
        if file is None:
            raise InputError(
                f"{self.path}: the step {name} has no statistics; a base model has none, fine-tune it on a robot first"
            )
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{self.path} names a file outside of its directory: {file!r}")
        tensors = read_tensors(self.path.parent / file)
        if key not in tensors or tuple(tensors[key].shape) != (count,):
            shape = tuple(tensors[key].shape) if key in tensors else None
            raise InputError(f"{self.path.parent / file}: {key} must have the shape ({count},), got {shape}")
        return tuple(tensors[key].double().tolist())


def _weights_hash(directory: Path, choices: Choices) -> str:
    states = sorted(directory.glob("policy_*processor*.safetensors"))
    tokenizer = tokenizer_file(directory, directory / FOLDER)
    described = [directory / CONFIG, directory / BEFORE, directory / AFTER, tokenizer, *states]
    return published.sampled_hash(weight_files(directory), described, choices)


LAYOUT = Layout(
    looks_like=f"LeRobot's pi0 has {CONFIG}, {WEIGHTS}, {BEFORE}, {AFTER} with their statistics, and tokenizer.json",
    recognises=recognises,
    load=load,
    weights_hash=_weights_hash,
)
