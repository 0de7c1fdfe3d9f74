"""Which version of a task's world to show."""

from dataclasses import dataclass
from pathlib import Path

from envs import variants
from envs.errors import EnvError
from envs.variant import SETTINGS, VISUAL_MATCHING, Variant

OFFICIAL, MIXED = "official", "mixed"
SCENES = (OFFICIAL, MIXED)


@dataclass(frozen=True)
class Staging:
    """How a task is shown.

    Args:
        setting: `visual_matching` (a photograph or backdrop behind what is simulated) or `variant_aggregation`.
        variant: visual perturbation, a name of `envs.variants.names()`.
        scene: `official`, or `mixed` with the objects and targets of other tasks present.
        overlay: image file to use as backdrop under visual matching, None for the one that is drawn.
        robot_assets: checkout of MuJoCo Menagerie whose meshes replace our own robot, None for our own.

    Raises:
        EnvError: if a value is not one of those allowed, or the overlay is no file or given without visual matching.
    """

    setting: str = VISUAL_MATCHING
    variant: str = variants.BASE
    scene: str = OFFICIAL
    overlay: Path | None = None
    robot_assets: Path | None = None

    def __post_init__(self) -> None:
        for key, value, allowed in (("setting", self.setting, SETTINGS), ("scene", self.scene, SCENES)):
            if value not in allowed:
                raise EnvError(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
        variants.find(self.variant)
        if self.overlay is not None:
            if self.setting != VISUAL_MATCHING:
                raise EnvError(f"overlay={self.overlay} needs setting={VISUAL_MATCHING}, got {self.setting}")
            if not self.overlay.is_file():
                raise EnvError(f"overlay={self.overlay} does not exist; give a picture taken by the policy's camera")

    @property
    def perturbation(self) -> Variant:
        return variants.find(self.variant)
