"""Reads only the patches that changed, in the vision tower and in the language model (after VLA-Cache).

As `static_patches`, and in the language model, too, the visual tokens of static patches keep the keys and values that
they got when they were last read (VLA-Cache, arXiv 2502.02175). Only the tokens of changed patches and those of state
and instruction go through the layers, and see all others as they are remembered. That is not what reading all tokens
gives: what stands behind a changed patch would have seen the change.

Since few tokens are read, none have to be dropped: techniques of the slot `tokens` are refused beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vla.accelerate.stages import Memory, Temporal, TokenReduction
from vla.accelerate.temporal.language import ReadingSessions
from vla.accelerate.temporal.sessions import Rules
from vla.models.family import ActionModel


@dataclass(frozen=True)
class StaticTokens(Temporal):
    """Reads the visual tokens that changed in tower and language model, and now and then all.

    Args:
        budget, threshold, every, gripper: see `vla.accelerate.temporal.sessions.Rules`; a budget of 1.0 reads all
            tokens in every step.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.5}
    ALL_TOKENS: ClassVar[bool] = True
    budget: float = 1.0
    threshold: float = 0.996
    every: int = 8
    gripper: float = 0.1

    def __post_init__(self) -> None:
        self._rules.check(self.method)

    @property
    def _rules(self) -> Rules:
        return Rules(self.budget, self.threshold, self.every, self.gripper)

    def remembering(self, model: ActionModel) -> tuple[Memory, TokenReduction | None] | None:
        return None if self.budget == 1 else (ReadingSessions(self._rules, model.config.patch_size), None)


TECHNIQUE = StaticTokens
