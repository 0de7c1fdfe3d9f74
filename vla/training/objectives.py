"""What a model learns from a batch: the loss of its head, and how that head says the first action."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from vla.training.batches import Batch
from vla.training.blocks import Blocks, hidden_words, predicted_words
from vla.training.streams import Layout, biases, read

DIFFUSION, AUTOREGRESSIVE, BLOCK_DIFFUSION = "diffusion", "autoregressive", "block_diffusion"
_SAMPLING_STEPS = 10  # of DDIM
_MEASURED_NUMBERS = 3  # of the first action: its translation


@dataclass(frozen=True)
class Lesson:
    """One batch, as a model understood it.

    Attributes:
        loss: of the actions.
        visual: (batch, tokens, width) visual tokens.
        cognition: (batch, width) what the head acts on.
        details: further numbers for the log.
    """

    loss: Tensor
    visual: Tensor
    cognition: Tensor
    details: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """What is learned."""

    def compile(self, model: Any) -> None:
        """Fuse what `lesson` runs with `torch.compile`."""
        ...

    def lesson(self, model: Any, batch: Batch, generator: torch.Generator, progress: float) -> Lesson:
        """The loss on a batch; `progress` in [0, 1] is how much of the run is over."""
        ...

    def translation(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """(batch, 3) the first action's translation, normalised, as the model says it in use."""
        ...


class Diffusion:
    """Denoise chunks.

    Args:
        draws: noises per frame.
    """

    def __init__(self, draws: int) -> None:
        self._draws = draws
        self._read: Callable[..., Tensor] = read

    def compile(self, model: Any) -> None:
        model.encode = torch.compile(model.encode, dynamic=False)
        self._read = torch.compile(read, dynamic=False)

    def lesson(self, model: Any, batch: Batch, generator: torch.Generator, progress: float) -> Lesson:
        images, states = _in_dtype_of(model, batch)
        visual = model.encode(images)
        sequence, attended = model.sequence(visual, batch.prompts, states)
        layout = Layout(sequence.shape[1], copies=1, clean=0, noisy=0, streams=0)
        seen = biases(attended, layout, block=1, begin=0, dtype=sequence.dtype)
        cognition = self._read(model.language, sequence, _positions(attended, 0), seen, layout)[:, 0]
        return Lesson(model.head.loss(cognition, batch.actions, self._draws, generator), visual, cognition)

    def translation(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        noise = torch.randn(batch.actions.shape, generator=generator).to(batch.actions.device)
        cognition = model.prefill(model.encode(batch.images), batch.prompts, batch.states)
        return model.head.sample(cognition, noise, _SAMPLING_STEPS, guidance_scale=1.0)[:, 0, :_MEASURED_NUMBERS]


class Words:
    """Say the words of a chunk one after the other, and with `blocks` also fill in blocks of them.

    Args:
        smoothing: [bins] how far right answers spread: a bin's neighbours are nearly right; 0: only one bin is.
        blocks: how blocks are filled in; None: they are not.
        rounding: [bins] right answers are rounded to multiples of it, counted from the middle bin; 1 keeps them.
    """

    def __init__(self, smoothing: float, blocks: Blocks | None = None, rounding: int = 1) -> None:
        self._smoothing, self._blocks, self._rounding = smoothing, blocks, rounding
        self._read: Callable[..., Tensor] = read

    def compile(self, model: Any) -> None:
        model.encode = torch.compile(model.encode, dynamic=False)
        self._read = torch.compile(read, dynamic=False)

    def lesson(self, model: Any, batch: Batch, generator: torch.Generator, progress: float) -> Lesson:
        images, states = _in_dtype_of(model, batch)
        visual = model.encode(images)
        prompt, attended = model.sequence(visual, batch.prompts, states)
        words = self._rounded(model, model.words(batch.actions))  # (batch, words)
        positions = _positions(attended, words.shape[1])
        if self._blocks is None:
            hidden, _ = self._streams(model, prompt, attended, positions, words, words[:, :0, None].bool(), block=1)
            return Lesson(self._loss(model, hidden, words), visual, hidden[:, 0])
        if progress < self._blocks.blind:
            attended = attended.clone()
            attended[:, 1 : 1 + visual.shape[1]] = False
        block = self._blocks.at(progress) * model.config.action_dim
        begin = self._blocks.begin(block, generator)
        hiding = hidden_words(len(words), words.shape[1], block, self._blocks, generator, begin).to(words.device)
        clean, noisy = self._streams(model, prompt, attended, positions, words, hiding, block, begin)
        asked = predicted_words(hiding)  # (batch, streams, words)
        wanted = words[:, None].roll(-1, dims=-1).expand_as(asked)
        losses = self._loss(model, clean, words), self._loss(model, noisy[asked], wanted[asked])
        weight = self._blocks.noisy_weight
        details = {"clean_loss": losses[0].item(), "noisy_loss": losses[1].item(), "block": block}
        return Lesson((1 - weight) * losses[0] + weight * losses[1], visual, clean[:, 0], details)

    def translation(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        prefilled = model.prefill(model.encode(batch.images), batch.prompts, batch.states)
        first, count = model.config.first_action_word, model.config.action_dim
        words = torch.full_like(batch.prompts[:, :1], first).repeat(1, count)
        for i in range(_MEASURED_NUMBERS):
            words[:, i] = first + model.action_logits(prefilled.hidden[:, -1]).argmax(dim=-1)
            prefilled = model.extend(prefilled, words[:, i : i + 1])
        return model.actions(words)[:, 0, :_MEASURED_NUMBERS]

    def _streams(
        self,
        model: Any,
        prompt: Tensor,
        attended: Tensor,
        positions: Tensor,
        words: Tensor,
        hiding: Tensor,
        block: int,
        begin: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Hidden states that predict words.

        Args:
            prompt: (batch, tokens, width) embeddings of everything before the words.
            attended: (batch, tokens) bool.
            positions: (batch, tokens and words) int64.
            words: (batch, words) int64; the last one is only predicted, never read by the clean stream.
            hiding: (batch, streams, words) bool.
            block: words in a block.
            begin: words that the first block lacks.

        Returns:
            (batch, words, width) of the clean stream, each state predicts the word of its number;
            (batch, streams, words, width) of the noisy ones, each predicts the word after it.
        """
        count, streams = words.shape[1], hiding.shape[1]
        copies = 1 if self._blocks is None or self._blocks.vision_efficient else 1 + streams
        layout = Layout(prompt.shape[1], copies, clean=count - 1, noisy=count if streams else 0, streams=streams)
        noisy = torch.where(hiding, model.config.mask_word or 0, words[:, None])  # (batch, streams, words)
        said = model.language.embed(torch.cat([words[:, :-1], noisy.flatten(1)], dim=1))
        of_prompt, of_words = positions.split([layout.prompt, count], dim=1)
        hidden = self._read(
            model.language,
            torch.cat([prompt.repeat(1, copies, 1), said], dim=1),
            torch.cat([of_prompt.repeat(1, copies), of_words[:, :-1], of_words.repeat(1, streams)], dim=1),
            biases(attended, layout, block, begin, prompt.dtype),
            layout,
        )
        clean, rest = hidden.split([count, streams * layout.noisy], dim=1)
        return clean, rest.unflatten(1, (streams, layout.noisy))

    def _rounded(self, model: Any, words: Tensor) -> Tensor:
        """Of int64 action words, the nearest that right answers may be."""
        first, last = model.config.first_action_word, model.config.action_words - 1
        middle = first + model.config.bins // 2  # of an odd number of bins between the edges: action 0
        far = torch.div(words - middle + self._rounding // 2, self._rounding, rounding_mode="floor")
        return (middle + far * self._rounding).clamp(first, last)

    def _loss(self, model: Any, hidden: Tensor, words: Tensor) -> Tensor:
        """Mean cross-entropy of the words that (…, width) hidden states predict; 0 if there are none."""
        logits = model.action_logits(hidden).float().flatten(0, -2)
        wanted = words.flatten() - model.config.first_action_word
        if self._smoothing > 0:
            bins = torch.arange(model.config.bins, device=wanted.device)
            spread = (-(((bins[:, None] - bins) / self._smoothing) ** 2) / 2).softmax(dim=-1)  # (bins, bins)
            wanted = spread[wanted]
        return functional.cross_entropy(logits, wanted, reduction="sum") / max(len(logits), 1)


def _positions(attended: Tensor, words: int) -> Tensor:
    """(batch, prompt and words) int64: padding does not count."""
    prompt = attended.long().cumsum(dim=1)
    following = prompt[:, -1:] + torch.arange(words, device=attended.device)
    return torch.cat([(prompt - 1).clamp(min=0), following], dim=1)


def _in_dtype_of(model: Any, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Images and states."""
    dtype = model.projector[0].weight.dtype
    return batch.images.to(dtype), None if batch.states is None else batch.states.to(dtype)
