"""The few rows of attention that selectors ask for are those of transformers' own layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tests.vla.family_members import member
from vla.accelerate.lean.decoder import Decoder, Tokens, sequence
from vla.accelerate.lean.layer import decoder_layer
from vla.accelerate.reduction.probe import Probe

TOKENS, VISUAL, LAYER = 11, slice(1, 7), 1


class Asked:
    """A model's own language model, and the probe that a selector in front of the layer after `LAYER` is given."""

    def __init__(self, name: str, padding: int = 0) -> None:
        deeper: dict[str, Any] = {"depth" if name == "pi0" else "language_depth": 3}
        policy: Any = member(name, **deeper)
        gemma = name == "pi0"
        self.causal = not gemma
        self.model = policy.model.body.vlm.language_model if gemma else policy.model.language.llama
        decoder = Decoder(self.model, decoder_layer, gemma=gemma, causal=self.causal, positions=64)
        width = self.model.config.hidden_size
        hidden = torch.randn(2, TOKENS, width, generator=torch.Generator().manual_seed(0))
        attended = torch.ones(2, TOKENS, dtype=torch.bool)
        attended[1, TOKENS - 1 - padding : TOKENS - 1] = False
        self.tokens = sequence(hidden, attended)
        self.probes: list[Probe] = []
        with torch.inference_mode():
            decoder.read(self.tokens, 1, {LAYER + 1: [self._note]})
        (self.probe,) = self.probes

    def _note(self, layer: int, tokens: Tokens) -> Tokens:
        assert tokens.probe is not None
        self.probes.append(tokens.probe)
        self.following = tokens.probe.next(tokens.hidden)
        return tokens

    @torch.inference_mode()
    def full(self, layer: int, rope: bool = True, columns: slice | None = None) -> Tensor:
        """(batch, heads, tokens, tokens) attention of a layer, made of transformers' modules."""
        probe = self.probe if layer == LAYER else self.following
        block = self.model.layers[layer]
        normed, attention = block.input_layernorm(probe.inputs), block.self_attn
        shape = (2, TOKENS, -1, attention.head_dim)
        query, key = (m(normed).view(shape).transpose(1, 2) for m in (attention.q_proj, attention.k_proj))
        if rope:
            query, key = apply_rotary_pos_emb(query, key, *self.model.rotary_emb(query, self.tokens.positions))
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        logits = query @ key.transpose(-1, -2) / attention.head_dim**0.5
        seen = self.tokens.attended[:, None, None].expand(2, 1, TOKENS, TOKENS)
        if self.causal:
            seen = seen & torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        logits = logits.masked_fill(~seen, float("-inf"))
        return logits.softmax(-1) if columns is None else logits[..., columns].softmax(-1)


@pytest.fixture(scope="module", params=["cogact_vit", "pi0"])
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param, padding=2)


@pytest.mark.parametrize("rope", [True, False])
@torch.inference_mode()
def test_rows_are_rows_of_the_full_attention(asked: Asked, rope: bool) -> None:
    where = torch.tensor([[8, 10], [7, 10]])
    made = asked.probe.map(where, VISUAL, rope=rope, apart=False)
    rows = asked.full(LAYER, rope).gather(2, where[:, None, :, None].expand(-1, made.shape[1], -1, TOKENS))
    torch.testing.assert_close(made, rows[..., VISUAL], rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_the_next_layer_s_rows_too(asked: Asked) -> None:
    where = torch.tensor([[9, 10], [9, 10]])[:, 1:]
    made = asked.following.map(where, VISUAL, rope=True, apart=False)
    torch.testing.assert_close(made, asked.full(LAYER + 1)[:, :, 10:11, VISUAL], rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_the_text_s_mean_leaves_padding_out(asked: Asked) -> None:
    made = asked.probe.attention("text", VISUAL.stop, VISUAL, rope=True, apart=True)
    full = asked.full(LAYER, columns=VISUAL).mean(dim=1)  # (batch, tokens, columns)
    spoken = asked.tokens.attended[:, VISUAL.stop :]
    expected = torch.stack([rows[VISUAL.stop :][counts].mean(dim=0) for rows, counts in zip(full, spoken, strict=True)])
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made.sum(dim=1), torch.ones(2))


@torch.inference_mode()
def test_the_last_row_is_the_last_that_is_no_padding() -> None:
    asked = Asked("cogact_vit")
    probe = asked.probe
    cut = torch.ones(2, TOKENS, dtype=torch.bool)
    cut[1, -3:] = False
    shorter = Probe(probe.inputs, probe.key, probe.turn, cut, probe.causal, probe.weights, probe.shape, probe.following)
    made = shorter.attention("last", VISUAL.stop, VISUAL, rope=True, apart=False)
    full = asked.full(LAYER).mean(dim=1)
    torch.testing.assert_close(made, torch.stack([full[0, -1, VISUAL], full[1, -4, VISUAL]]), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_a_probe_of_fewer_tokens_is_part_of_the_whole(asked: Asked) -> None:
    index = torch.tensor([[0, 2, 3, 7, 10], [0, 1, 5, 7, 10]])
    fewer, last = asked.probe.kept(index), torch.tensor([[4], [4]])
    made = fewer.map(last, slice(0, 5), rope=True, apart=True)
    whole = asked.probe.map(index[:, -1:], slice(0, TOKENS), rope=True, apart=False)
    part = whole.gather(3, index[:, None, None].expand(-1, whole.shape[1], 1, -1))
    torch.testing.assert_close(made, part / part.sum(dim=-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_quantised_projections_that_stay_apart_are_found_by_their_place() -> None:
    from vla.accelerate.lean.linear import Linear
    from vla.accelerate.reduction.probe import _some_rows

    maps = [nn.Linear(4, rows, bias=False) for rows in (6, 2, 2)]
    hidden = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    apart = Linear(tuple(m.weight for m in maps), (None,) * 3)
    together = Linear((torch.cat([m.weight for m in maps]),), (None,))
    for first, count in ((0, 6), (6, 2), (8, 2)):
        assert torch.allclose(_some_rows(apart, hidden, first, count), _some_rows(together, hidden, first, count))
