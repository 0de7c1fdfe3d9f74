"""The stages of one answer as callables, and what decides how they are run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from vla.accelerate.lean.decoder import Decoder as Language
from vla.accelerate.lean.decoder import ReadPrefix
from vla.accelerate.reduction.calls import Call
from vla.accelerate.reduction.layout import Layout, layout_of
from vla.accelerate.techniques import SLOTS, Technique
from vla.api import InputError
from vla.decoding.decoder import Decoder
from vla.models.family import ActionModel

Act = Callable[[Any, Tensor], Tensor]
Inpaint = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stages:
    """What a policy runs, in this order.

    Attributes:
        encode: images (batch, cameras, channels, height, width) -> visual tokens (batch, tokens, width), or a
            `vla.accelerate.reduction.layout.Visual` of them where they are not all patches.
        prefill: (visual tokens, prompt (batch, words), state (batch, S) or None) -> what the head needs.
        act: (what `prefill` gave, noise (batch, *noise_shape)) -> (batch, horizon, A) normalised.
        inpaint: as `act`, with known actions (batch, horizon, A) and their weights (batch, horizon, 1); None if the
            head cannot continue known actions.
        memory: what the stages remember of each session; None: nothing.
        decoder: what says actions in words; None: the head does not.
        plain: the same stages as ordinary PyTorch operations, which a counter of operations can see; None: these are.
        few_lengths: whether a new length of prompts takes so long to be made ready for that there may be only a few,
            to which prompts are padded.
    """

    encode: Callable[[Tensor], Any]
    prefill: Callable[[Any, Tensor, Tensor | None], Any]
    act: Act
    inpaint: Inpaint | None = None
    plain: "Stages | None" = None
    memory: "Memory | None" = None
    decoder: Decoder | None = None
    few_lengths: bool = False

    def begin(self, frames: Sequence["Frame"], pixels: Callable[[], Tensor]) -> None:
        """Tell what remembers sessions whose images come next.

        Args:
            frames: one for each row of the batch.
            pixels: gives (batch, cameras, channels, height, width) as they are shown, if anybody wants to know.

        Raises:
            InputError: if a session is there twice: its second answer would depend on its first.
        """
        remembers = self.memory is not None or (self.decoder is not None and self.decoder.remembers)
        if remembers and len({frame.session for frame in frames}) < len(frames):
            sessions = [frame.session for frame in frames]
            raise InputError(f"a session may be in a batch once, as it is remembered; got {sessions}: ask one by one")
        if self.memory is not None:
            self.memory.begin(frames, pixels())
        if self.decoder is not None:
            self.decoder.begin(frames)

    def forget(self, session: str) -> None:
        """Forget a session; nothing happens if it is not known."""
        for remembering in (self.memory, self.decoder):
            if remembering is not None:
                remembering.forget(session)


class Frame(NamedTuple):
    """One observation as a memory of sessions needs to know it.

    Attributes:
        session, step: of the observation.
        gripper: how far it is open, by the robot's own state; None if the state does not say.
    """

    session: str
    step: int
    gripper: float | None


class Memory(Protocol):
    """What stages remember of each session from one answer to the next."""

    def around(self, tower: Any) -> Callable[[Tensor], Tensor]:
        """What reads images instead of a lean vision tower, with or without its projector."""
        ...

    def reading(self, language: Language, start: int) -> ReadPrefix:
        """What reads a prefix instead of a lean language model, in which `start` tokens come before the visual ones."""
        ...

    def begin(self, frames: Sequence[Frame], pixels: Tensor) -> None:
        """Say whose images the next call of `encode` has.

        Args:
            frames: one for each row of the batch.
            pixels: (batch, cameras, channels, height, width) as they are shown, not normalised.
        """
        ...

    def forget(self, session: str) -> None:
        """Forget a session; nothing happens if it is not known."""
        ...


@dataclass(frozen=True)
class Execution(Technique):
    """Decides how the stages of a model are run.

    Attributes:
        places: the slots beside its own that it leaves room for.
    """

    slot: ClassVar[str] = "execution"
    places: ClassVar[frozenset[str]] = frozenset({"weights"})

    def stages(self, model: ActionModel, recipe: Any) -> Stages:
        """Build the stages, once, after the model is where and in what it will be used.

        Args:
            model: on its device and in its dtype.
            recipe: a `vla.recipe.Recipe`: steps, guidance and the other slots' techniques.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Decoding(Technique):
    """Decides how action words come out.

    Args:
        cache: most tokens that an answer may take, prompt and chunk together: a longer prompt is refused; None: as many
            as the model can read.

    Raises:
        InputError: on a value outside its range.
    """

    cache: int | None = None
    slot: ClassVar[str] = "decoding"

    def __post_init__(self) -> None:
        if self.cache is not None and (isinstance(self.cache, bool) or not isinstance(self.cache, int)):
            raise InputError(f"decoding={self.method}: cache must be a whole number of tokens, got {self.cache!r}")

    @property
    def dynamic(self) -> bool:
        """Whether the number of passes depends on what is seen, so that the head cannot be recorded."""
        return True

    def unfit(self, model: Any) -> str | None:
        if model.HEAD != "tokens":
            return None if self.method == SLOTS["decoding"].default else "it denoises actions instead of saying words"
        config = model.config
        if self.cache is not None and not config.words < self.cache <= config.max_tokens:
            return f"cache must be from {config.words + 1} to {config.max_tokens} tokens, got {self.cache}"
        return None

    def decoder(self) -> Decoder:
        """What decodes for one policy; it may remember sessions."""
        raise NotImplementedError


@dataclass(frozen=True)
class Weights(Technique):
    """Changes parameters, once after loading."""

    slot: ClassVar[str] = "weights"

    def apply(self, model: ActionModel) -> ActionModel:
        """The changed model; it may be the same object."""
        raise NotImplementedError


@dataclass(frozen=True)
class TokenReduction(Technique):
    """Makes visual tokens fewer, or says where they stand."""

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"budget": "all"}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.5}
    slot: ClassVar[str] = "tokens"

    @property
    def statistics(self) -> bool:
        """Whether it needs to know what the vision tower's last block attends to."""
        return False

    @property
    def features(self) -> bool:
        """Whether it needs the tokens as they were before the projector."""
        return False

    @property
    def dynamic(self) -> bool:
        """Whether the number of tokens depends on what is seen, so that no stage can be recorded."""
        return False

    @property
    def counted(self) -> bool:
        """Whether the language model's attention counts a token once for each of its patches."""
        return False

    def calls(self, layout: Layout) -> Sequence[Call]:
        """Where it acts in a model.

        Args:
            layout: of all visual tokens of the model.

        Raises:
            InputError: if the model has no such place.
        """
        raise NotImplementedError

    def unfit(self, model: ActionModel) -> str | None:
        from vla.accelerate.reduction.plan import Plan

        try:
            Plan([self], layout_of(model))
        except InputError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Temporal(Technique):
    """Uses a stage's result again at a later control step of the same session.

    Attributes:
        ALL_TOKENS: whether the language model must have all visual tokens for that.
    """

    ALL_TOKENS: ClassVar[bool] = False
    slot: ClassVar[str] = "temporal"

    def remembering(self, model: ActionModel) -> "tuple[Memory, TokenReduction | None] | None":
        """Make a memory for a policy around a model.

        Returns:
            What is remembered, and what has to watch the language model for it, if anything; None: nothing changes.
        """
        raise NotImplementedError


class Denoising(NamedTuple):
    """How a chunk is denoised.

    Attributes:
        steps: evaluations of the network.
        copies: rows of each chunk, a batch apart: 2 under guidance, the conditioned ones first.
    """

    steps: int
    copies: int


Blocks = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class ActionCache(Technique):
    """Decides in every denoising step whether the blocks of the network run or an earlier result is used again."""

    slot: ClassVar[str] = "action_cache"

    @property
    def dynamic(self) -> bool:
        """Whether what runs depends on numbers, so that the head cannot be recorded."""
        return False

    def unfit(self, model: ActionModel) -> str | None:
        return "it writes words instead of denoising" if model.HEAD == "tokens" else None

    def check(self, run: Denoising) -> None:
        """Refuse what it cannot be used with, when a policy is built.

        Raises:
            InputError: naming what is allowed.
        """

    def wrap(self, blocks: Blocks, run: Denoising) -> Blocks:
        """What runs instead of the blocks for one chunk, or one batch of chunks; asked again for the next.

        Args:
            blocks: (step, hidden (copies * batch, tokens, width)) -> hidden after all blocks; steps count from 0.
            run: how the chunks are denoised.
        """
        raise NotImplementedError
