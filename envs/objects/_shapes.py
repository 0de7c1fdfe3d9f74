"""Shapes that objects are made of: round visual meshes made from a profile, and solids that stand still."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.object_model import add_solid, add_visual
from envs.scene import HIDDEN

Grid = NDArray[np.float64]

ALONG_X = [np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0]  # turns a geom's z axis into the body's x axis, its x axis down


@dataclass(frozen=True)
class Revolved:
    """A surface of revolution about the z axis, closed at both ends.

    A picture on it has its columns around the axis (the first at the x axis, counter-clockwise seen from above) and
    its rows along the profile, the first at the top.

    Attributes:
        name: of the mesh.
        profile: (radius, z) from the lowest to the highest ring [m].
        shifts: of the rings' centres along x [m], for what is bent; empty for none.
        segments: corners of each ring.
    """

    name: str
    profile: tuple[tuple[float, float], ...]
    shifts: tuple[float, ...] = ()
    segments: int = 20

    def add_to(self, scene: mujoco.MjSpec, body: mujoco.MjsBody, **geom: object) -> None:
        """Add it to a body as something to be seen; keyword arguments as in `MjsBody.add_geom`."""
        if scene.mesh(self.name) is None:
            ring, place = np.moveaxis(self._faces(), -1, 0)
            scene.add_mesh(
                name=self.name,
                uservert=self._vertices().ravel(),
                userface=(ring * self.segments + place % self.segments).ravel(),
                usertexcoord=self._texture_coordinates().ravel(),
                userfacetexcoord=(ring * (self.segments + 1) + place).ravel(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
            )
        add_visual(body, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=self.name, **geom)

    def pixels(self, height: int, width: int) -> tuple[Grid, Grid, Grid]:
        """Angle [rad] (0..2 pi), radius [m] and z [m] at every pixel of a picture on the surface, (height, width)."""
        rows, columns = 1 - (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        heights = np.interp(rows, self._lengths(), np.array(self.profile)[:, 1])
        radii = np.interp(rows, self._lengths(), np.array(self.profile)[:, 0])
        angle, radius = np.meshgrid(2 * np.pi * columns, radii)
        return angle, radius, np.repeat(heights[:, None], width, axis=1)

    def _lengths(self) -> NDArray[np.float64]:
        """(rings,) 0..1 along the profile."""
        lengths = np.hypot(*np.diff(np.array(self.profile), axis=0).T)
        return np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()

    def _vertices(self) -> NDArray[np.float64]:
        """(rings, segments, 3) [m]."""
        turn = 2 * np.pi * np.arange(self.segments) / self.segments
        radius, z = np.array(self.profile).T[:, :, None]
        shift = np.array(self.shifts or (0.0,) * len(self.profile))[:, None]
        x, y = shift + radius * np.cos(turn), radius * np.sin(turn)
        return np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1)

    def _texture_coordinates(self) -> NDArray[np.float64]:
        """(rings, segments + 1, 2): the place where the picture's sides meet has two."""
        around, down = np.meshgrid(np.linspace(0, 1, self.segments + 1), 1 - self._lengths())
        return np.stack([around, down], axis=-1)

    def _faces(self) -> NDArray[np.int32]:
        """(triangles, 3, 2): ring, and place around it, of each corner; triangles at the two ends have no twin."""
        ring, place = np.meshgrid(np.arange(len(self.profile) - 1), np.arange(self.segments), indexing="ij")
        corner = np.stack([ring, place], axis=-1).reshape(-1, 1, 2)
        lower = corner + np.array([[0, 0], [0, 1], [1, 1]])
        upper = corner + np.array([[0, 0], [1, 1], [1, 0]])
        radius = np.array(self.profile)[:, 0]
        has_area = [radius[ring.ravel()] > 0, radius[ring.ravel() + 1] > 0]
        return np.concatenate([lower[has_area[0]], upper[has_area[1]]]).astype(np.int32)


def add_standing_cylinder(body: mujoco.MjsBody, *, radius: float, bottom: float, top: float, density: float) -> None:
    """Add a hidden solid cylinder about z that stands still on its flat ends.

    A cylinder's flat end has contacts that wander around its rim and make it tremble, so two weightless boxes, turned
    against each other, carry it: together an octagon.
    """
    half, inset = (top - bottom) / 2, 0.0005
    cylinder, box = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_BOX
    solid = {"pos": [0, 0, (bottom + top) / 2], "group": HIDDEN, "rolls": True}
    add_solid(body, density=density, type=cylinder, size=[radius, half - inset, 0], **solid)
    side = radius * np.sqrt(0.5) - 2 * inset  # corners stay inside the cylinder, so that fingers touch only that
    for angle in (0.0, np.pi / 4):
        turned = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        add_solid(body, density=0, type=box, size=[side, side, half], quat=turned, **solid)
