"""Chains, and the sites of large lattices, spread over the devices of a mesh."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from energydsl._messages import brief
from energydsl._types import Configuration
from energydsl.compiler.ebm import EBM

CHAIN, SITE = "chain", "site"
"""The names of a mesh's axes: chains are divided along one, the first axis of variables along the
other."""


def spread(ebm: EBM, xs: Configuration, mesh: object) -> Configuration:
    """Configurations, (chain, *site), on the devices of a mesh; as they are without a mesh.

    What is computed from them follows: XLA divides the work in the same way, and exchanges the
    sites at the boundaries between devices.

    Raises:
        TypeError: the argument is not a mesh.
        ValueError: a name of the mesh's axes is unknown, or an axis does not divide the chains or
            the lattice.
    """
    if mesh is None:
        return xs
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"sample got mesh={brief(mesh)}; expected a mesh of devices such as "
            'jax.make_mesh((8,), ("chain",)).'
        )
    unknown = set(mesh.axis_names) - {CHAIN, SITE}
    if unknown:
        raise ValueError(
            f"sample got a mesh with the axes {list(mesh.axis_names)}; expected 'chain', along "
            "which chains are divided, or 'site', along which the first axis of variables is."
        )
    for v in ebm.structure.skeleton.free:
        _check_divides(mesh, SITE, v.shape[0] if v.shape else 1, f"the first axis of {v.name!r}")
    _check_divides(mesh, CHAIN, len(next(iter(xs.values()))), "the chains")
    # Axes of the explicit kind, which `jax.make_mesh` makes, would have to be named in every step.
    automatic = (AxisType.Auto,) * len(mesh.axis_names)
    mesh = Mesh(np.asarray(mesh.devices), mesh.axis_names, axis_types=automatic)
    axes = [name if name in mesh.axis_names else None for name in (CHAIN, SITE)]
    return {
        n: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes[: a.ndim])))
        for n, a in xs.items()
    }


def _check_divides(mesh: Mesh, axis: str, size: int, what: str) -> None:
    parts = mesh.shape.get(axis, 1)
    if size % parts:
        raise ValueError(
            f"sample got a mesh whose axis {axis!r} has {parts} devices, which do not divide "
            f"{what}, of size {size}. Give a mesh with another number of devices, or another size."
        )
