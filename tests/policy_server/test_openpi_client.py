"""The real `openpi-client` package, unchanged, in an environment of its own: it needs an older numpy."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from policy_server.dialect import build
from policy_server.dialects.openpi import OpenPi
from policy_server.server import PolicyServer
from tests.policy_server.elsewhere import environment
from tests.policy_server.foreign import ACTIONS, GOLDEN_SPEC, OPENPI, Golden

OPENPI_CLIENT = ("openpi-client==0.1.2", "typing_extensions")  # which it imports and does not ask for

PROGRAM = """
import json, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

policy = WebsocketClientPolicy(sys.argv[1])
image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
seen = {"observation/image": image, "observation/state": np.linspace(-1, 1, 7), "prompt": "put the spoon on the towel"}
first = policy.infer(seen)
try:
    policy.infer({"prompt": "lift"})
except RuntimeError as error:
    said = str(error)
again = policy.infer(seen)
same = bool((first["actions"] == again["actions"]).all())
print(json.dumps({"metadata": policy.get_server_metadata(), "actions": first["actions"].tolist(), "same": same,
                  "dtype": str(first["actions"].dtype), "said": said}))
"""


@pytest.fixture(scope="session")
def openpi_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with openpi-client."""
    return environment(request, "openpi-client", OPENPI_CLIENT)


@pytest.mark.timeout(600)
def test_the_real_openpi_client_acts_and_reads_metadata_and_errors(openpi_python: Path) -> None:
    policy, dialect = Golden(), build(OPENPI, GOLDEN_SPEC)
    assert isinstance(dialect, OpenPi)
    with PolicyServer(policy, dialects=[dialect]):
        command = [str(openpi_python), "-c", PROGRAM, dialect.endpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    np.testing.assert_array_equal(np.asarray(got["actions"], np.float32), ACTIONS)
    assert (got["dtype"], got["same"]) == ("float32", True)
    assert got["metadata"]["action_horizon"] == 16
    assert "input: observation/image is missing" in got["said"]
    assert policy.saw_the_golden_observation()
