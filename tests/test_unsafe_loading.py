"""The law against pickles, tried on small programs, and then on every program of the repository."""

from pathlib import Path

import pytest

from tests.test_repository import relative, tracked_files
from tests.unsafe_loading import complaints

PROGRAMS = [path for path in tracked_files() if path.suffix == ".py"]

UNSAFE = [
    "import pickle",
    "import pickle as p",
    "from pickle import loads",
    "import os, _pickle",
    "def f():\n    import cloudpickle.fast",
    "import dill",
    "import shelve",
    "from joblib import load",
    "import joblib\njoblib.load('a')",
    "import importlib\nimportlib.import_module('pickle').loads(b'')",
    "from importlib import import_module\nimport_module(name='dill')",
    "__import__('pickle')",
    "def f(socket):\n    return socket.recv_pyobj()",
    "def f(socket):\n    socket.send_pyobj(1)",
    "def f(socket):\n    return getattr(socket, 'recv_pyobj')()",
    "import pandas as pd\npd.read_pickle('a')",
    "from pandas import read_pickle",
    "import torch\ntorch.load('a')",
    "import torch\ntorch.load('a', weights_only=False)",
    "import torch\ntorch.load('a', weights_only=maybe)",
    "import torch\ntorch.load('a', **options)",
    "import torch as t\nt.load('a')",
    "import torch\nread = torch.load",
    "import torch\ngetattr(torch, 'load')('a')",
    "import torch.serialization as s\ns.load('a')",
    "from torch import serialization\nserialization.load('a')",
    "from torch import load",
    "from torch import load as read",
    "import functools, torch\nread = functools.partial(torch.load, weights_only=True)",
    "import numpy as np\nnp.load('a', allow_pickle=True)",
    "import numpy as np\nnp.load('a', allow_pickle=maybe)",
    "import numpy as np\nnp.load('a', None, True)",
    "import numpy as anything\nanything.load('a', None, maybe)",
    "import numpy as np\nnp.lib.format.read_array(file, allow_pickle=True)",
    "import numpy as np\nnp.load('a', **{'allow_pickle': True})",
    "import numpy as np\nread = np.load",
    "from numpy import load",
    "import yaml\nyaml.unsafe_load('a')",
    "from yaml import unsafe_load",
    "import yaml\nyaml.load('a')",
    "import yaml\nyaml.load('a', yaml.Loader)",
    "import yaml as y\ny.load_all('a', Loader=y.FullLoader)",
    "from yaml import load",
]

SAFE = [
    "import json\njson.loads('1')",
    "import torch\ntorch.load('a', weights_only=True)",
    "import torch as t\nt.load('a', map_location='cpu', weights_only=True)",
    "import numpy as np\nnp.load('a')",
    "import numpy as np\nnp.load('a', 'r', False)",
    "import numpy as np\nnp.load('a', allow_pickle=False)",
    "import numpy as np\nnp.save('a', [1], allow_pickle=False)",
    "import yaml\nyaml.safe_load('a')",
    "import yaml\nyaml.load('a', Loader=yaml.CSafeLoader)",
    "import importlib\nimportlib.import_module('json')",
    "from safetensors.torch import load_file\nload_file('a')",
    "policy.load('a')",
    "text = 'import pickle'",
]


@pytest.mark.parametrize("program", UNSAFE)
def test_programs_that_may_run_what_they_read_are_refused(program: str) -> None:
    assert complaints(program)


@pytest.mark.parametrize("program", SAFE)
def test_other_programs_are_not(program: str) -> None:
    assert complaints(program) == []


def test_a_complaint_has_its_line() -> None:
    assert complaints("import json\n\nimport pickle\n") == ["line 3: imports pickle"]


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_nothing_in_the_repository_unpickles(path: Path) -> None:
    assert complaints(path.read_text()) == []
