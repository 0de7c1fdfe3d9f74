"""The stages as the published code of each family runs them: what accelerations are compared with.

- CogACT: `generate` of one word with all hidden states, of which the last one is kept; the word, and the vocabulary
  head that gave it, are thrown away. The head runs in float32 and embeds time and condition again in every step.
- OpenVLA: `generate` of the words of an action. It reads the prompt as well, so all of it counts as `head`. A model of
  our own, which never learned when not to say other words, may only say actions.
- pi0: as its model defines it, which is transformers' own `sample_actions`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from vla.accelerate.execution.eager import Eager
from vla.accelerate.stages import Execution, Stages
from vla.acting import head_of
from vla.models.family import ActionModel
from vla.models.language import LanguageModel


@dataclass(frozen=True)
class Published(Execution):
    """As published."""

    def stages(self, model: ActionModel, recipe: Any) -> Stages:
        return _STAGES[model.HEAD](model, recipe)


def _diffusion(model: Any, recipe: Any) -> Stages:
    llama = causal(model.language)

    def prefill(visual: Tensor, prompt: Tensor, state: Tensor | None) -> Tensor:
        embeddings, attended = model.sequence(visual, prompt, state)
        made = llama.generate(
            inputs_embeds=embeddings,
            attention_mask=attended.long(),
            generation_config=_greedy(1, output_hidden_states=True, return_dict_in_generate=True),
        )
        return made.hidden_states[0][-1][:, -1]  # of the first pass, after the final norm, at the last position

    eager = Eager().stages(model, recipe)
    return Stages(model.encode, prefill, head_of(model, recipe), eager.inpaint)


def _tokens(model: Any, recipe: Any) -> Stages:
    llama = causal(model.language)
    allowed = LogitsProcessorList([] if model.config.text_words is None else [_ActionWords(model.config)])

    def act(sequence: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        embeddings, attended = sequence
        words = llama.generate(
            inputs_embeds=embeddings,
            attention_mask=attended.long(),
            generation_config=_greedy(model.config.words),
            logits_processor=allowed,
        )
        return model.actions(words)

    return Stages(model.encode, model.sequence, act)


_STAGES: dict[str, Callable[[Any, Any], Stages]] = {
    "diffusion": _diffusion,
    "tokens": _tokens,
    "flow": lambda model, recipe: Eager().stages(model, recipe),
}


class _ActionWords(LogitsProcessor):
    """No other words."""

    def __init__(self, config: Any) -> None:
        self._first, self._end = config.first_action_word, config.action_words

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        others = torch.ones_like(scores, dtype=torch.bool)
        others[:, self._first : self._end] = False
        return scores.masked_fill(others, -torch.inf)


def causal(language: LanguageModel) -> Any:
    """transformers' causal language model around the same weights.

    A model that was trained without a vocabulary head gets its own word embeddings for one, as in models that tie the
    two: what comes out is thrown away, but takes its time.
    """
    with torch.device("meta"):
        model = LlamaForCausalLM(language.llama.config)
    model.model = language.llama
    if language.lm_head is not None:
        model.lm_head = language.lm_head
    else:
        model.lm_head.weight = nn.Parameter(language.llama.embed_tokens.weight.detach(), requires_grad=False)
    return model.eval()


def _greedy(words: int, **outputs: bool) -> GenerationConfig:
    """So many words, the likeliest each, whatever they are."""
    return GenerationConfig(
        max_new_tokens=words, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True, **outputs
    )


TECHNIQUE = Published
