"""Which family and layout the names of tensors remind of, for messages about checkpoints that do not fit."""

from collections.abc import Iterable

_SIGNS = {  # each has a tensor that begins with one of the first and, if there are any, one of the second
    "a pi0 of our own": (("body.vlm.", "body.dit."), ()),
    "pi0": (("paligemma", "model.paligemma", "action_in_proj", "model.action_in_proj", "model.vlm.", "model.dit."), ()),
    "a CogACT run's .pt": (("action_model.", "vision_backbone.dino_featurizer"), ()),
    "OpenVLA as Hugging Face keeps it": (("vision_backbone.featurizer", "language_model."), ()),
    "a CogACT of our own": (("language.llama.", "vision.", "projector."), ("head.net.",)),
    "an OpenVLA of our own": (("language.llama.", "vision.", "projector."), ("language.lm_head.",)),
    "a checkpoint of our own": (("language.llama.", "vision.", "head.net.", "head.embed."), ()),
}


def looks_like(names: Iterable[str]) -> str:
    """Which family or layout the names of a checkpoint's tensors remind of."""
    there = list(names)
    for family, needed in _SIGNS.items():
        if all(any(name.startswith(prefixes) for name in there) for prefixes in needed if prefixes):
            return family
    return "none of the families here"
