"""The cabinet with three drawers (ManiSkill2_real2sim `data/custom/mk_station.urdf`): its parts and their sizes."""

import mujoco

from envs.scene import FOREGROUND
from envs.scenes._room import BOX, add_box, add_furniture
from envs.scenes._surfaces import stone, wood
from envs.textures import add_material

CABINET_SIZE = (0.63, 0.615, 0.865)  # [m]
DRAWER_HEIGHTS = {"top": 0.668, "middle": 0.423, "bottom": 0.178}  # of each drawer's frame above the cabinet's [m]
HANDLE = (0.3425, 0.0, 0.02)  # centre of the handle's bar in the drawer's frame [m]
_THICK = 0.02  # [m], of panels
_DENSITY = 1000.0  # [kg/m^3], SAPIEN's default
_TRAVEL = 0.5  # [m]
_DAMPING = 1.0  # [N s/m]
# PhysX takes a joint's friction as a share of the force that the joint carries, here the weight of 11.4 kg.
_FRICTION = 0.05 * 11.4 * 9.81  # [N]


def add_materials(spec: mujoco.MjSpec) -> None:
    """Add the materials `cabinet`, `table` (its top), `drawer` (the inside) and `handle`."""
    add_material(spec, "cabinet", wood((168, 155, 144), boards=1), specular=0.1, shininess=0.2)
    add_material(spec, "table", stone((190, 173, 150), contrast=0.04), specular=0.2, shininess=0.5)
    spec.add_material(name="drawer", rgba=[0.78, 0.78, 0.76, 1], specular=0.1, shininess=0.2)
    spec.add_material(name="handle", rgba=[0.10, 0.10, 0.11, 1], specular=0.5, shininess=0.6)


def add_cabinet(spec: mujoco.MjSpec, position: tuple[float, float, float]) -> None:
    """Add the cabinet with its frame, on the floor under its middle, at a position [m].

    Bodies `top_drawer`, `middle_drawer`, `bottom_drawer`, each with a slide joint `top_drawer_joint` (0 to 0.5 m),
    a site `top_handle` in the middle of its handle, and a body `top_drawer_bottom`, the panel on which things lie.
    """
    add_materials(spec)
    cabinet = spec.worldbody.add_body(name="cabinet", pos=list(position))
    half_x, half_y, height = CABINET_SIZE[0] / 2, CABINET_SIZE[1] / 2, CABINET_SIZE[2]
    side, inner = {"group": FOREGROUND, "material": "cabinet"}, half_x - _THICK
    add_box(cabinet, (-half_x, -half_y, 0), (-inner, half_y, height - _THICK), **side)
    for near, far in ((-half_y, -half_y + _THICK), (half_y - _THICK, half_y)):
        add_box(cabinet, (-inner, near, 0), (half_x - _THICK, far, height - _THICK), **side)
    top = {"group": FOREGROUND, "material": "table", "name": "cabinet_top"}
    add_box(cabinet, (-half_x, -half_y, height - _THICK), (half_x, half_y, height), **top)
    for name, drawer_height in DRAWER_HEIGHTS.items():
        _add_drawer(cabinet, name, drawer_height)


def _add_drawer(cabinet: mujoco.MjsBody, name: str, height: float) -> None:
    drawer = cabinet.add_body(name=f"{name}_drawer", pos=[0, 0, height], gravcomp=1)
    drawer.add_joint(
        name=f"{name}_drawer_joint",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[1, 0, 0],
        limited=True,
        range=[0, _TRAVEL],
        damping=_DAMPING,
        frictionloss=_FRICTION,
    )
    inside = {"group": FOREGROUND, "material": "drawer", "density": _DENSITY}
    for x in (-0.285, 0.285):
        add_furniture(drawer, type=BOX, pos=[x, 0, -0.02], size=[0.01, 0.2575, 0.05], **inside)
    for y in (-0.2675, 0.2675):
        add_furniture(drawer, type=BOX, pos=[0, y, -0.02], size=[0.295, 0.01, 0.05], **inside)
    bottom = drawer.add_body(name=f"{name}_drawer_bottom", pos=[0, 0, -0.06])
    add_furniture(bottom, type=BOX, size=[0.275, 0.2575, 0.01], **inside)
    add_front(drawer, group=FOREGROUND, density=_DENSITY)
    add_handle(drawer, group=FOREGROUND, density=_DENSITY)
    drawer.add_site(name=f"{name}_handle", pos=list(HANDLE), rgba=[0, 0, 0, 0])


def add_front(drawer: mujoco.MjsBody, **geom: object) -> None:
    """Add the panel that is seen when a drawer is shut."""
    add_furniture(drawer, type=BOX, pos=[0.305, 0, 0], size=[0.0075, 0.3075, 0.07], material="cabinet", **geom)


def add_handle(drawer: mujoco.MjsBody, **geom: object) -> None:
    """Add a bar on two posts, solid unlike SIMPLER's, which is only seen; 27 mm lie between it and the panel."""
    x, y, z = HANDLE
    add_furniture(drawer, type=BOX, pos=[x, y, z], size=[0.0025, 0.05, 0.0025], material="handle", **geom)
    for side in (-0.05, 0.05):
        post = {"pos": [0.3325, side, z], "size": [0.010, 0.0025, 0.0025]}
        add_furniture(drawer, type=BOX, material="handle", **post, **geom)
