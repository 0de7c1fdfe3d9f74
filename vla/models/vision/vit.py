"""The vision tower: a vision transformer that turns images into one token per patch."""

from torch import Tensor, nn
from transformers import ViTConfig, ViTModel


class VisionTower(nn.Module):
    """A `transformers` ViT without pooling; its class token takes part in attention but is not handed on.

    Args:
        image_size: [px] side of the square images that the position embeddings are laid out for.
        patch_size: [px] side of the square patches.
        width: features of a token.
        depth: transformer blocks.
        heads: attention heads.
    """

    def __init__(self, *, image_size: int, patch_size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.vit = ViTModel(
            ViTConfig(
                image_size=image_size,
                patch_size=patch_size,
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                layer_norm_eps=1e-6,
            ),
            add_pooling_layer=False,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode images of any size that is a multiple of the patch; position embeddings are interpolated.

        Args:
            images: (batch, 3, height, width), normalised.

        Returns:
            (batch, patches, width), row by row from the top left patch.
        """
        hidden = self.vit(pixel_values=images, interpolate_pos_encoding=True).last_hidden_state
        return hidden[:, 1:]
