"""Pictures for surfaces, computed: each the same at every call, none read from a file."""

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]


def add_material(
    scene: mujoco.MjSpec, name: str, image: Image, repeat: tuple[float, float] = (1, 1), **material: object
) -> str:
    """Add a material that shows an image, unless the scene has one of this name.

    Args:
        scene: gets the material, and a texture of the same name.
        name: of the material.
        image: (height, width, 3); its first row is at texture coordinate v = 0.
        repeat: how often the image is repeated along its width and height.
        material: further arguments as in `MjSpec.add_material`, for example `specular`.

    Returns:
        The name, to be used as a geom's `material`.
    """
    if scene.material(name) is None:
        scene.add_texture(
            name=name,
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            height=image.shape[0],
            width=image.shape[1],
            nchannel=3,
            data=image.ravel().tolist(),
        )
        added = scene.add_material(name=name, texrepeat=list(repeat), **material)
        added.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    return name


def shaded(colour: ArrayLike, brightness: NDArray[np.float64]) -> Image:
    """(height, width, 3): a colour (3,) 0..255 made brighter or darker by a factor (height, width)."""
    return np.clip(brightness[..., None] * np.asarray(colour), 0, 255).astype(np.uint8)


def painted(base: Image, layers: list[tuple[NDArray[np.bool_], tuple[int, int, int]]]) -> Image:
    """(height, width, 3): masks (height, width) filled with their colours, one over the other."""
    image = base.copy()
    for mask, colour in layers:
        image[mask] = colour
    return image


def speckle(height: int, width: int, contrast: float, seed: int = 0) -> NDArray[np.float64]:
    """(height, width) brightness around 1 with pixel noise of this standard deviation."""
    return np.random.default_rng(seed).normal(1.0, contrast, size=(height, width))
