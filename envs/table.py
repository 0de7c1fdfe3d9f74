"""The table-top scene of the Bridge tasks: table, floor, backdrop, lights and rendering quality."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.objects import OBJECT_COLLISION

TABLE_HEIGHT = 0.87  # [m]


def add_table(scene: mujoco.MjSpec) -> None:
    """Add a wooden table with its top at `TABLE_HEIGHT`, a floor, a wall, and light."""
    _set_rendering(scene)
    _add_textures(scene)
    world, box = scene.worldbody, mujoco.mjtGeom.mjGEOM_BOX
    world.add_geom(
        name="table",
        type=box,
        pos=[-0.1, 0.0, TABLE_HEIGHT - 0.02],
        size=[0.65, 0.75, 0.02],
        material="table",
        friction=[0.5, 0.005, 0.0001],
        **OBJECT_COLLISION,
    )
    floor = {"contype": 0, "conaffinity": 0}
    world.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[4, 4, 0.1], rgba=[0.36, 0.34, 0.33, 1], **floor)
    world.add_geom(type=box, pos=[-1.6, 0, 1.0], size=[0.02, 3.0, 1.0], rgba=[0.72, 0.74, 0.74, 1], **floor)
    world.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0.3, 0.4, 2.4],
        dir=[-0.25, -0.3, -1.0],
        diffuse=[0.62, 0.61, 0.58],
        specular=[0.25, 0.25, 0.25],
        castshadow=True,
    )


def _set_rendering(scene: mujoco.MjSpec) -> None:
    # On a CPU renderer the shadow map is the cost: 4096 with 4x anti-aliasing is six times slower than this.
    scene.visual.quality.shadowsize = 1024
    scene.visual.quality.offsamples = 0
    scene.visual.headlight.ambient = [0.36, 0.36, 0.38]
    scene.visual.headlight.diffuse = [0.28, 0.28, 0.28]
    scene.visual.headlight.specular = [0.1, 0.1, 0.1]
    scene.visual.map.shadowclip = 1.0
    scene.stat.extent = 0.8
    scene.stat.center = [-0.1, 0.0, 0.95]
    scene.visual.map.znear = 0.01


def _add_textures(scene: mujoco.MjSpec) -> None:
    image = wood_texture(256, 256)
    scene.add_texture(
        name="wood",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        width=image.shape[1],
        height=image.shape[0],
        nchannel=3,
        data=image.ravel().tolist(),
    )
    material = scene.add_material(name="table", specular=0.15, shininess=0.2, reflectance=0.0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "wood"
    material.texrepeat = [2, 2]


def wood_texture(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) boards with grain, the same at every call."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, width, endpoint=False), np.linspace(0, 1, height, endpoint=False))
    board = np.floor(x * 4).astype(int)
    tone = rng.uniform(-0.05, 0.05, size=4)[board]
    wave = sum(np.sin(2 * np.pi * (f * x + 0.4 * np.sin(2 * np.pi * y + f) + p)) / f for f, p in ((9, 0.1), (23, 0.6)))
    grain = 0.12 * wave + rng.normal(0, 0.012, size=x.shape)
    seam = -0.18 * (np.abs(x * 4 - np.round(x * 4)) < 0.02)
    shade = 1.0 + tone + grain + seam
    colour = np.array([184, 150, 112])
    return np.clip(shade[..., None] * colour, 0, 255).astype(np.uint8)
