"""`cadence-dagger`: episodes that a policy leads in part and the expert labels -> a LeRobotDataset v3 directory."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.dagger()

from typing import Any

from omegaconf import DictConfig, OmegaConf

from cadence_configs.command import command
from envs.__main__ import directory, read_request, run
from envs.errors import EnvError
from eval.dagger.learner import Learner
from vla.api import InputError

_LEARNER = ("model", "checkpoint", "accel", "share", "execute")


@command("dagger", usage_errors=(InputError, EnvError))
def main(config: DictConfig) -> int:
    """Collect; what the learner can do shows in how many attempts are kept."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    out, workers = directory(options.pop("out")), options.pop("workers")
    model, checkpoint, recipe, share, execute = (options.pop(name) for name in _LEARNER)
    learner = Learner(model, checkpoint, recipe, share, execute)
    request = read_request({**options, "learner": _name(learner)})
    return run(request, out, workers, learner.world)


def _name(learner: Learner) -> str:
    """Names the learner by its weights, so that an interrupted collection goes on with the same one only."""
    from pathlib import Path

    from vla.checkpoints import native
    from vla.policy import PRETRAINED

    place = Path(learner.checkpoint) if learner.checkpoint else PRETRAINED / learner.model
    return f"{native.weights_hash(place)} {learner.recipe} share {learner.share} execute {learner.execute}"
