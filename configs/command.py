"""Turns a function of a config into a console script: overrides, `--help`, clear errors and exit statuses."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from cadence_configs.entry import missing

DONE, FAILED, WRONG_USAGE = 0, 1, 2
CONFIGS = Path(__file__).parent


class JobFailed(Exception):
    """A job of a sweep ended with another exit status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def command(config_name: str, usage_errors: tuple[type[Exception], ...]) -> Callable[..., Callable[[], None]]:
    """Wrap `run(config) -> exit status` as a console script that reads `configs/<config_name>.yaml`.

    Args:
        config_name: the YAML file without its ending.
        usage_errors: exceptions whose message is meant for the user: printed alone, exit status 2.
    """

    def wrap(run: Callable[[DictConfig], int]) -> Callable[[], None]:
        def main() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach us instead of exit status 1
            status = DONE

            def job(config: DictConfig) -> None:
                nonlocal status
                try:  # here, because Hydra prints a report of its own about what reaches it
                    _check_keys(config, config_name)
                    status = max(status, run(config))
                except (*usage_errors, OmegaConfBaseException) as error:
                    status = _refuse(error)
                except ModuleNotFoundError as error:
                    status = _refuse(missing(config_name, error))
                if status and HydraConfig.get().mode is RunMode.MULTIRUN:  # it may run in a process of its own
                    raise JobFailed(status)

            try:
                hydra.main(version_base=None, config_path=str(CONFIGS), config_name=config_name)(job)()
            except MissingConfigException as error:
                status = _refuse(f"there is no {error.missing_cfg_file}; there are: {', '.join(error.options or ())}")
            except (HydraException, OmegaConfBaseException) as error:
                status = _refuse(f"{str(error).splitlines()[0]} Keys: {', '.join(keys(config_name))}")
            except KeyboardInterrupt:
                status = FAILED
            except JobFailed as failure:  # Hydra has said which
                status = failure.status
            sys.exit(status)

        return main

    return wrap


def keys(config_name: str) -> list[str]:
    """The keys a user may set on the command line, in the order of the file, then those of files it builds on."""
    known: Any = OmegaConf.load(CONFIGS / f"{config_name}.yaml")
    own = [str(key) for key in known if key not in ("defaults", "hydra")]
    groups = [str(name) for group in known.get("defaults", []) if isinstance(group, DictConfig) for name in group]
    own += [name for name in groups if not name.startswith("override ")]
    below = [name for name in known.get("defaults", []) if isinstance(name, str) and name != "_self_"]
    return list(dict.fromkeys([*own, *(key for name in below for key in keys(name))]))


def _check_keys(config: DictConfig, config_name: str) -> None:
    """Refuse keys that `+key=value` added and nobody would read."""
    allowed = keys(config_name)
    if unknown := sorted(set(map(str, config)) - set(allowed)):
        raise ConfigKeyError(f"unknown key {', '.join(unknown)}; allowed: {', '.join(allowed)}")


def _refuse(error: Exception | str) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one line a user sees
    return WRONG_USAGE
