"""The few rows of a layer's attention that say which visual tokens matter; never a full map.

In a causal model whose images come first, no visual token sees the text: relevance is in the rows of the text and the
columns of the image. Rotary positions make the last row prefer what is nearest, the bottom of the image (FEATHER), so
they can be left out: a turned key is turned back, since a rotation's inverse is its transpose.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vla.accelerate.lean.layer import DecoderShape, DecoderWeights, rms_norm, rotate
from vla.accelerate.lean.linear import Linear, product

LAST, TEXT = "last", "text"
ROWS = (LAST, TEXT)


@dataclass(frozen=True)
class Probe:
    """A layer whose attention can be asked for.

    Attributes:
        inputs: (batch, tokens, width) hidden states that enter the layer.
        key: (batch, kv_heads, tokens, dim), turned to their positions; None: they are computed when asked for.
        turn: cosine and signed sine of each position, (batch, tokens, 1, dim).
        attended: (batch, tokens) bool, False at padding.
        causal: whether a token sees only itself and those before.
        weights, shape: of the layer.
        following: weights of the layer after it.
        bias: (batch, tokens) added to the logits of attention to a token, or None.
    """

    inputs: Tensor
    key: Tensor | None
    turn: tuple[Tensor, Tensor]
    attended: Tensor
    causal: bool
    weights: DecoderWeights
    shape: DecoderShape
    following: DecoderWeights
    bias: Tensor | None = None

    def next(self, hidden: Tensor) -> "Probe":
        """Of the next layer, which these (batch, tokens, width) hidden states enter."""
        return replace(self, inputs=hidden, key=None, weights=self.following)

    def kept(self, index: Tensor) -> "Probe":
        """Of the tokens at (batch, kept) indices only."""
        rows = torch.arange(len(index), device=index.device)[:, None]
        cosine, sine = (each.expand(len(index), -1, -1, -1)[rows, index] for each in self.turn)
        key = None if self.key is None else self.key.transpose(1, 2)[rows, index].transpose(1, 2)
        inputs, attended = self.inputs[rows, index], self.attended[rows, index]
        bias = None if self.bias is None else self.bias[rows, index]
        return replace(self, inputs=inputs, key=key, turn=(cosine, sine), attended=attended, bias=bias)

    def attention(self, rows: str, after: int, columns: slice, *, rope: bool, apart: bool) -> Tensor:
        """What the context looks at, mean over heads and rows.

        Args:
            rows: "last": the last token that is no padding; "text": all tokens after the visual ones but padding.
            after: where the visual tokens end.
            columns: whose attention is asked for.
            rope: whether queries and keys are turned to their positions.
            apart: whether the softmax is over these columns alone, not over all that a row sees.

        Returns:
            (batch, columns) float32.
        """
        where, counted = self._rows(rows, after)  # each (batch, rows)
        seen = self.map(where, columns, rope=rope, apart=apart).mean(dim=1)  # (batch, rows, columns)
        share = counted.float() / counted.sum(dim=1, keepdim=True)
        return (share[:, None] @ seen)[:, 0]

    def map(self, where: Tensor, columns: slice, *, rope: bool, apart: bool) -> Tensor:
        """Attention of the tokens at (batch, rows) indices, (batch, heads, rows, columns) float32."""
        query, key = self._query(where, rope), self._key(rope)  # (batch, heads, rows, dim), (batch, kv, tokens, dim)
        batch, heads, count, dim = query.shape
        grouped = query.reshape(batch, key.shape[1], -1, dim)  # (batch, kv_heads, heads / kv_heads * rows, dim)
        wanted = key[:, :, columns] if apart else key
        logits = (grouped @ wanted.transpose(-1, -2)).float() * dim**-0.5
        logits = logits.view(batch, heads, count, -1)
        if self.bias is not None:
            logits = logits + (self.bias[:, columns] if apart else self.bias)[:, None, None]
        hidden = ~(self.attended[:, None, columns] if apart else self._visible(where))
        shares = logits.masked_fill(hidden[:, None], float("-inf")).softmax(dim=-1)
        return shares if apart else shares[..., columns]

    def _rows(self, rows: str, after: int) -> tuple[Tensor, Tensor]:
        """Indices, and whether they count, each (batch, rows)."""
        everywhere = torch.arange(self.attended.shape[1], device=self.attended.device)
        if rows == LAST:
            last = (self.attended * everywhere).argmax(dim=1, keepdim=True)
            return last, torch.ones_like(last, dtype=torch.bool)
        return everywhere[after:].expand(len(self.attended), -1), self.attended[:, after:]

    def _visible(self, where: Tensor) -> Tensor:
        """(batch, rows, tokens) bool."""
        seen = self.attended[:, None]
        if not self.causal:
            return seen.expand(-1, where.shape[1], -1)
        everywhere = torch.arange(seen.shape[-1], device=where.device)
        return seen & (everywhere <= where[..., None])

    def _query(self, where: Tensor, rope: bool) -> Tensor:
        batch = torch.arange(len(where), device=where.device)[:, None]
        heads, dim = self.shape.heads, self.turn[0].shape[-1]
        query = self._projected(self.inputs[batch, where], 0, heads).view(len(where), -1, heads, dim)
        if rope:
            cosine, sine = (each.expand(len(where), -1, -1, -1)[batch, where] for each in self.turn)
            query = rotate(query, (cosine, sine))
        return query.transpose(1, 2)

    def _key(self, rope: bool) -> Tensor:
        cosine, sine = self.turn
        if self.key is not None:
            key = self.key.transpose(1, 2)
            return (key if rope else rotate(key, (cosine, -sine))).transpose(1, 2)
        heads, count = self.shape.heads, self.shape.kv_heads
        key = self._projected(self.inputs, heads, count).view(*self.inputs.shape[:2], count, cosine.shape[-1])
        return (rotate(key, self.turn) if rope else key).transpose(1, 2)

    def _projected(self, hidden: Tensor, first: int, heads: int) -> Tensor:
        """Some heads of the layer's query, key and value, (batch, tokens, heads * dim)."""
        dim = self.turn[0].shape[-1]
        normed = rms_norm(hidden, self.weights.norm1, self.shape)
        return _some_rows(self.weights.qkv, normed, first * dim, heads * dim)


def _some_rows(maps: Linear, hidden: Tensor, first: int, count: int) -> Tensor:
    """Outputs `first` to `first + count` of maps that are laid out one after the other."""
    start = 0
    for weight, bias in zip(maps.weights, maps.biases, strict=True):
        if start <= first and first + count <= start + len(weight):
            if (first, count) == (start, len(weight)):
                return product(hidden, weight, bias)
            rows = slice(first - start, first - start + count)
            return product(hidden, weight[rows], None if bias is None else bias[rows])
        start += len(weight)
    raise AssertionError("the outputs are not in one map")
