"""Decoders behind the server: published OpenVLA without training, after token selection, and sessions of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_server.client import RemotePolicy
from policy_server.server import PolicyServer
from tests.vla.test_published import BRIDGE, observation
from vla.api import InputError
from vla.policy import VlaPolicy, load_policy

TOKENS = {"method": "efficientvla", "budget": 2, "key_tokens": 1, "layer": 1}


def policy(checkpoint: Path, decoding: Any, **slots: Any) -> VlaPolicy:
    recipe = {"denoising_steps": 10, "guidance_scale": 1.5, "execution": "lean", "decoding": decoding, **slots}
    return load_policy(checkpoint=checkpoint, dataset=BRIDGE, recipe=recipe)


@pytest.mark.parametrize("slots", [{}, {"tokens": TOKENS}])
def test_jacobi_serves_published_openvla_with_its_own_actions(openvla: Path, slots: dict[str, Any]) -> None:
    expected = policy(openvla, "autoregressive", **slots).infer(observation())
    with PolicyServer(policy(openvla, "jacobi", **slots)) as server, RemotePolicy(server.endpoint) as remote:
        np.testing.assert_array_equal(remote.infer(observation()).actions, expected.actions)


@pytest.mark.parametrize("method", ["self_speculative", "block_diffusion"])
def test_published_openvla_says_which_decoders_it_can_do(openvla: Path, method: str) -> None:
    with pytest.raises(InputError, match=f"decoding={method} .*no mask word.*autoregressive or jacobi"):
        policy(openvla, method)
