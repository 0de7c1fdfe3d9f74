"""The fused vision tower of Prismatic VLMs: DINOv2 says where things are, SigLIP what they are (arXiv 2402.07865)."""

import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipVisionConfig, SiglipVisionModel

_NORM_EPS = 1e-6  # timm's, of both towers


class DinoSiglipTower(nn.Module):
    """Two vision transformers over the same patches, their features joined channel by channel.

    Features are those of each tower's second to last block, before any final norm. The blocks, norms and pooling head
    behind them are part of the published weights and take no part in the forward pass.

    Args:
        image_size: [px] side of the square images that the position embeddings are laid out for.
        patch_size: [px] side of the square patches.
        width, depth, heads: of DINOv2, whose MLP is four times as wide.
        registers: tokens of DINOv2 that belong to no patch, beside its class token.
        siglip_width, siglip_depth, siglip_heads, siglip_mlp_width: of SigLIP.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        registers: int,
        siglip_width: int,
        siglip_depth: int,
        siglip_heads: int,
        siglip_mlp_width: int,
    ) -> None:
        super().__init__()
        self.width = width + siglip_width
        self.prefix = 1 + registers
        self.dino = Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(
                image_size=image_size,
                patch_size=patch_size,
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                mlp_ratio=4,
                num_register_tokens=registers,
                layer_norm_eps=_NORM_EPS,
            )
        )
        self.siglip = SiglipVisionModel(
            SiglipVisionConfig(
                image_size=image_size,
                patch_size=patch_size,
                hidden_size=siglip_width,
                num_hidden_layers=siglip_depth,
                num_attention_heads=siglip_heads,
                intermediate_size=siglip_mlp_width,
                hidden_act="gelu",  # exact, as timm's; SigLIP's own code has the tanh form
                layer_norm_eps=_NORM_EPS,
            )
        )

    def compute_buffers(self) -> None:
        """Make what no checkpoint holds, after a construction without memory."""
        embeddings = self.siglip.embeddings
        embeddings.position_ids = nn.Buffer(torch.arange(embeddings.num_positions).expand(1, -1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images of any size that is a multiple of the patch; position embeddings are interpolated.

        Args:
            images: (batch, 6, height, width): three channels normalised for DINOv2, then three for SigLIP.

        Returns:
            (batch, patches, width + siglip_width), row by row from the top left patch.
        """
        for_dino, for_siglip = images.split(3, dim=1)  # each (batch, 3, height, width)
        return torch.cat([self.dino_features(for_dino), self.siglip_features(for_siglip)], dim=-1)

    def dino_features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, patches, width)."""
        hidden = self.dino.embeddings(images)  # (batch, 1 + registers + patches, width)
        *blocks, _ = self.dino.encoder.layer
        for block in blocks:
            hidden = block(hidden)
        return hidden[:, self.prefix :]

    def siglip_features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, patches, siglip_width)."""
        hidden = self.siglip.embeddings(images, interpolate_pos_encoding=True)  # (batch, patches, siglip_width)
        *blocks, _ = self.siglip.encoder.layers
        for block in blocks:
            hidden = block(hidden, None)
        return hidden
