"""LoRA: begins as the checkpoint, trains little, ships plain weights that act as the adapted model does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vla.test_training_run import options  # noqa: F401 - a fixture
from vla.api import InputError
from vla.checkpoints import native
from vla.training import run
from vla.training.lora import merged

LORA = {"rank": 2, "alpha": 4}
Options = dict[str, Any]


@pytest.fixture(params=["diffusion", "autoregressive"])
def begun(options: Options, tmp_path: Path, request: pytest.FixtureRequest) -> Options:  # noqa: F811
    """Options that fine-tune a checkpoint with either kind of head."""
    options |= {"objective": request.param, "tokens": options["tokens"] | {"horizon": 4}}
    first = run.prepare(options | {"out": str(tmp_path / "first")})
    first.export()
    return options | {"from": str(first.checkpoint), "lora": LORA, "model": {}}


def weights(directory: Path | str) -> dict[str, torch.Tensor]:
    return native.load(Path(directory)).model.state_dict()


def weights_of(ready: run.Run) -> dict[str, torch.Tensor]:
    """What a run ships now."""
    ready.export()
    return weights(ready.checkpoint)


def test_it_begins_as_the_checkpoint_and_changes_what_it_says_it_does(begun: Options) -> None:
    ready = run.prepare(begun)
    before = weights(begun["from"])
    ready.export()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(ready.checkpoint).items())
    ready.trainer.run(lambda _: None, lambda _: ready.export())
    after = weights(ready.checkpoint)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    trunk = {name for name in changed if not name.startswith(("head.", "state_projector."))}
    assert any(name.startswith("language.") for name in trunk)
    assert any(name.startswith("vision.") for name in trunk)
    assert all(before[name].ndim == 2 and "embed_tokens" not in name and "lm_head" not in name for name in trunk)


def test_the_merged_model_is_the_adapted_one(begun: Options) -> None:
    ready = run.prepare(begun | {"bf16": False})
    ready.trainer.run(lambda _: None, lambda _: None)
    adapted: Any = ready.trainer.average
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 3, 32, 32, generator=generator)
    with torch.inference_mode():
        expected, given = adapted.encode(images), merged(adapted).encode(images)
    assert not torch.equal(expected, torch.zeros_like(expected))
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_a_killed_run_goes_on_and_its_state_holds_only_what_is_trained(begun: Options, tmp_path: Path) -> None:
    begun["checkpoint_minutes"] = 0.0
    whole = run.prepare(begun)
    whole.trainer.run(lambda _: None, lambda _: whole.export())

    class Killed(Exception):
        pass

    def kill(_: Any) -> None:
        raise Killed

    options = begun | {"out": str(tmp_path / "killed")}  # noqa: F811
    with pytest.raises(Killed):
        run.prepare(options).trainer.run(lambda _: None, kill)
    again = run.prepare(options)
    assert again.trainer.step == 1
    again.trainer.run(lambda _: None, lambda _: again.export())
    expected = weights(whole.checkpoint)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(again.checkpoint).items())
    state = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)
    assert all("lora_" in name for name in state["learner"] if name.startswith("model.language."))


WORDS = ("language.lm_head.weight", "language.llama.embed_tokens.weight")


@pytest.mark.parametrize(
    ("first", "then", "learned"),
    [
        ("diffusion", "diffusion", ()),
        ("diffusion", "autoregressive", WORDS),
        ("diffusion", "block_diffusion", WORDS),
        ("autoregressive", "autoregressive", ()),
        ("autoregressive", "block_diffusion", WORDS[1:]),
        ("block_diffusion", "block_diffusion", ()),
    ],
)
def test_what_begins_at_random_is_trained_as_a_whole(
    options: Options,  # noqa: F811
    tmp_path: Path,
    first: str,
    then: str,
    learned: tuple[str, ...],
) -> None:
    options |= {"tokens": options["tokens"] | {"horizon": 4}, "blocks": options["blocks"] | {"actions": 4}}
    given = run.prepare(options | {"objective": first, "out": str(tmp_path / "first")})
    given.export()
    ready = run.prepare(options | {"objective": then, "from": str(given.checkpoint), "lora": LORA, "model": {}})
    before = weights_of(ready)
    ready.trainer.run(lambda _: None, lambda _: None)
    after = weights_of(ready)
    assert {name for name in WORDS if name in before and not torch.equal(before[name], after[name])} == set(learned)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0, "alpha": 1}, "lora.rank"),
        ({"rank": 4}, "lora has the keys"),
        ("much", "lora must be a group of options, or null"),
        (LORA, "name it with from="),
    ],
)
def test_bad_options_are_refused(lora: Any, message: str, options: Options) -> None:  # noqa: F811
    with pytest.raises(InputError, match=message):
        run.prepare(options | {"lora": lora})
