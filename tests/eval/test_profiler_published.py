"""What the profiler counts at published shapes is what was published; on the meta device, so no weights are needed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from eval.profiler import cost
from tests.eval.profiles import settings
from vla.api import InputError
from vla.checkpoints import memory
from vla.checkpoints.weights import empty
from vla.models import family
from vla.policy import load_policy
from vla.tokenizer import PROMPT, build_tokenizer, prompt_ids

WORDS = 23  # of the prompt: 282 tokens with one for the beginning, 256 visual ones and two at the end
PUBLISHED = {"encode": 405.50, "prefill": 3726.55, "head": 57.96}  # [GFLOP] EfficientVLA, table 1: CogACT-Base
CONFIG = Path(__file__).parents[2] / "configs" / "profile.yaml"


@pytest.mark.timeout(600)  # thousands of operations in Python, slow beside other work
def test_operations_of_cogact_base_are_the_published_ones() -> None:
    """The published prefill counts the vocabulary head at every token and no attention; the sum is within 1 %."""
    kind = family.find("cogact")
    model: Any = empty(kind, kind.presets["cogact_base"])
    model.language.llama.set_attn_implementation("eager")  # the fused form looks into the mask, which has no values
    spans = cost.FlopSpans()
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        with spans("encode"):
            visual = model.encode(torch.empty(1, 1, 6, 224, 224, device="meta"))
        with spans("prefill"):
            cognition = model.prefill(visual, torch.full((1, WORDS), 5, device="meta"), None)
        with spans("head"):
            model.head.sample(cognition, torch.empty(1, 16, 7, device="meta"), 10, 1.5)
    assert {stage: count / 1e9 for stage, count in spans.flops.items()} == pytest.approx(PUBLISHED, rel=0.02)
    assert cost.count_parameters(model.vision) + cost.count_parameters(model.projector) == pytest.approx(802.3e6, 1e-4)
    assert cost.count_parameters(model.head) == 88_986_887


def test_the_instruction_that_is_measured_makes_a_prompt_as_long_as_the_published_one() -> None:
    (line,) = [line for line in CONFIG.read_text().splitlines() if line.startswith("instruction: ")]
    instruction = line.removeprefix("instruction: ").partition(" #")[0]
    assert prompt_ids(build_tokenizer(), PROMPT.format(instruction=instruction), 99).shape == (1, WORDS)


def test_too_little_memory_is_said_with_the_number_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 10**10)
    with pytest.raises(InputError, match=r"needs 15\.\d GB of memory in bfloat16, cpu has 10\.0 GB free"):
        load_policy("cogact_base", init="random", dtype="bf16")


def test_settings_are_checked_when_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="warm_up"):
        settings(tmp_path, warm_up=0)
