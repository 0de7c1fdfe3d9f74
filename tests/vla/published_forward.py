"""The forward pass of published CogACT and OpenVLA, written out again.

Nothing here uses our models: the formulas are timm's vision transformer, Llama, CogACT's DiT and its DDIM, over tensors
under their published names.
"""

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear, silu, softmax

from tests.vla.published import ACTIONS, DEPTHS, HEADS, LANGUAGE, PATCH

STEPS = 100
NORM_EPS = {"cogact": 1e-5, "openvla": 1e-6}  # Llama-2's own config; LlamaConfig's default


class Reference:
    """The published computation over tensors `<part>.<name>` of a .pt file, batch one.

    Args:
        parts: dictionaries of the .pt file.
        norm_eps: of Llama's norms.
    """

    def __init__(self, parts: Mapping[str, Mapping[str, Tensor]], norm_eps: float) -> None:
        self.t = {f"{part}.{name}": tensor.float() for part, named in parts.items() for name, tensor in named.items()}
        self.norm_eps = norm_eps

    def visual(self, pixels: Tensor) -> Tensor:
        """(1, 6, height, width) -> (1, patches, language width)."""
        dino = self._tower("vision_backbone.dino_featurizer", pixels[:, :3], "dino")
        siglip = self._tower("vision_backbone.siglip_featurizer", pixels[:, 3:], "siglip")
        hidden = torch.cat([dino, siglip], dim=-1)
        for layer in (0, 2, 4):
            hidden = self._linear(f"projector.projector.{layer}", gelu(hidden) if layer else hidden)
        return hidden

    def hidden(self, pixels: Tensor, words: list[int]) -> Tensor:
        """(1, tokens, language width) after the final norm; `words` begin with BOS, which stands before the patches."""
        embedded = self.t["llm_backbone.llm.model.embed_tokens.weight"][torch.tensor([words])]
        x = torch.cat([embedded[:, :1], self.visual(pixels), embedded[:, 1:]], dim=1)
        for i in range(DEPTHS["llm"]):
            x = self._llama_layer(f"llm_backbone.llm.model.layers.{i}", x)
        return self._rms(x, "llm_backbone.llm.model.norm")

    def decode(self, pixels: Tensor, words: list[int]) -> list[int]:
        """Seven words, greedily, the whole sequence computed anew for each."""
        out: list[int] = []
        for _ in range(ACTIONS):
            last = self.hidden(pixels, words + out)[0, -1]
            out.append(int((self.t["llm_backbone.llm.lm_head.weight"] @ last).argmax()))
        return out

    def sample(self, cognition: Tensor, noise: Tensor, steps: int, guidance: float) -> Tensor:
        """DDIM with eta 0 over a batch doubled for guidance; (1, width), (1, horizon, A) -> (1, horizon, A)."""
        cosine = [math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(STEPS + 1)]
        betas = [min(1 - after / before, 0.999) for before, after in pairwise(cosine)]
        levels = np.cumprod(1 - np.array(betas))
        x, stride = noise, STEPS // steps
        for t in range(STEPS - stride, -1, -stride):
            both = torch.cat([cognition, self.t["action_model.net.z_embedder.uncondition"]])
            with_it, without = self._dit(torch.cat([x, x]), t, both).chunk(2)
            noise_now = without + guidance * (with_it - without)
            level, before = float(levels[t]), float(levels[t - stride]) if t else 1.0
            clean = (x - math.sqrt(1 - level) * noise_now) / math.sqrt(level)
            x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise_now
        return x

    def _dit(self, x: Tensor, t: int, z: Tensor) -> Tensor:
        net = "action_model.net"
        angles = t * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        wave = torch.cat([angles.cos(), angles.sin()])[None]
        time = self._linear(f"{net}.t_embedder.mlp.2", silu(self._linear(f"{net}.t_embedder.mlp.0", wave)))
        token = time + self._linear(f"{net}.z_embedder.linear", z)
        x = torch.cat([token[:, None], self._linear(f"{net}.x_embedder.linear", x)], dim=1)
        x = x + self.t[f"{net}.positional_embedding"]
        for i in range(DEPTHS["dit"]):
            x = x + self._attention(f"{net}.blocks.{i}.attn", layer_norm(x, x.shape[-1:], eps=1e-6), HEADS["dit"])
            x = x + self._mlp(f"{net}.blocks.{i}.mlp", layer_norm(x, x.shape[-1:], eps=1e-6), "tanh")
        return self._linear(f"{net}.final_layer.linear", layer_norm(x, x.shape[-1:], eps=1e-6))[:, 1:]

    def _tower(self, p: str, images: Tensor, kind: str) -> Tensor:
        """The second to last block's patches, before the final norm."""
        weight, bias = self.t[f"{p}.patch_embed.proj.weight"], self.t[f"{p}.patch_embed.proj.bias"]
        x = conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2) + self.t[f"{p}.pos_embed"]
        first = [self.t[f"{p}.{name}"] for name in ("cls_token", "reg_token") if f"{p}.{name}" in self.t]
        x = torch.cat([*first, x], dim=1)
        one = torch.ones(())
        for i in range(DEPTHS[kind] - 1):
            b = f"{p}.blocks.{i}"
            attended = self._attention(f"{b}.attn", self._norm(f"{b}.norm1", x), HEADS[kind])
            x = x + self.t.get(f"{b}.ls1.gamma", one) * attended
            x = x + self.t.get(f"{b}.ls2.gamma", one) * self._mlp(f"{b}.mlp", self._norm(f"{b}.norm2", x), "none")
        return x[:, sum(token.shape[1] for token in first) :]

    def _llama_layer(self, p: str, x: Tensor) -> Tensor:
        normed = self._rms(x, f"{p}.input_layernorm")
        query, key, value = (linear(normed, self.t[f"{p}.self_attn.{part}_proj.weight"]) for part in "qkv")
        query, key = _rotated(query), _rotated(key)
        scores = query @ key.transpose(1, 2) / math.sqrt(LANGUAGE)
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        mixed = softmax(scores.masked_fill(later, -torch.inf), dim=-1) @ value
        x = x + linear(mixed, self.t[f"{p}.self_attn.o_proj.weight"])
        normed = self._rms(x, f"{p}.post_attention_layernorm")
        gated = silu(linear(normed, self.t[f"{p}.mlp.gate_proj.weight"])) * linear(
            normed, self.t[f"{p}.mlp.up_proj.weight"]
        )
        return x + linear(gated, self.t[f"{p}.mlp.down_proj.weight"])

    def _attention(self, p: str, x: Tensor, heads: int) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self._linear(f"{p}.qkv", x).reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv
        weights = softmax(query @ key.transpose(2, 3) * (width // heads) ** -0.5, dim=-1)
        return self._linear(f"{p}.proj", (weights @ value).transpose(1, 2).reshape(batch, tokens, width))

    def _mlp(self, p: str, x: Tensor, approximate: str) -> Tensor:
        return self._linear(f"{p}.fc2", gelu(self._linear(f"{p}.fc1", x), approximate=approximate))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.t[f"{name}.weight"], self.t[f"{name}.bias"], eps=1e-6)

    def _rms(self, x: Tensor, name: str) -> Tensor:
        return self.t[f"{name}.weight"] * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.norm_eps)


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions of one head, its halves paired: (1, tokens, LANGUAGE)."""
    frequencies = 10000.0 ** (-torch.arange(0, LANGUAGE, 2) / LANGUAGE)
    angles = torch.arange(x.shape[1])[:, None] * frequencies  # (tokens, LANGUAGE / 2)
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()], dim=-1)
