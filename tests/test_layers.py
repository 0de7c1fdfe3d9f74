"""Dependencies point one way: what each module loads in a fresh interpreter stays within its layer."""

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "cadence_configs": "configs",
    "envs": "envs",
    "eval": "eval",
    "policy_server": "policy_server",
    "vla": "vla",
}
COMMAND_LINE = frozenset({"hydra", "omegaconf", "cadence_configs"})
WIRE_PARTS = ("arrays", "bodies", "checks", "codecs", "messages", "sockets", "wire")
HEAVY = frozenset({"torch", "transformers", "mujoco", "scipy", "matplotlib", "av", "pyarrow", "zmq", "hydra"})

MODEL_LIBRARIES = (
    "torch",
    "transformers",
    "transformers.models.dinov2.modeling_dinov2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.paligemma.modeling_paligemma",
    "safetensors.torch",
    "tokenizers",
    "yaml",
)
EVALUATION_LIBRARIES = ("gymnasium", "mujoco", "zmq", "scipy.stats", "statsmodels.stats.api", "matplotlib.pyplot")

# Reads {preload, modules} from standard input; each module is imported by a fork of an interpreter that has loaded only
# `preload`, so that heavy libraries that the layer may use are paid for once, and no module sees another's imports.
LIST_IMPORTS = """
import importlib, json, os, sys
job = json.load(sys.stdin)
for name in job["preload"]:
    importlib.import_module(name)
before = set(sys.modules)
for name in job["modules"]:
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            answer = {"loaded": sorted(set(sys.modules) - before)}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps([name, answer]).encode() + b"\\n")
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        print(pipe.read(), end="", flush=True)
    os.wait()
"""


@dataclass(frozen=True)
class Layer:
    """What the modules of one layer may load.

    Attributes:
        head: a module, or a package with everything below it; the longest head that fits a module counts.
        ours: modules and packages of this repository, beside the module itself.
        only: the only third-party packages; None allows all but `never`.
        never: third-party packages that must stay out.
        preload: third-party packages worth loading once for the whole layer; it must be allowed to use them.
    """

    head: str
    ours: tuple[str, ...] = ()
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()
    preload: tuple[str, ...] = ()


LAYERS = (
    Layer("vla.api", only=frozenset({"numpy"})),
    Layer("vla.chunking", ours=("vla.api",), only=frozenset({"numpy"})),
    Layer("vla.averaging", ours=("vla.api", "vla.rotations"), only=frozenset({"numpy"})),
    Layer("vla.rotations", only=frozenset({"numpy"})),
    Layer("vla.resampling", ours=("vla.api",), only=frozenset({"numpy"})),
    Layer("vla", ours=("vla",), never=frozenset({"zmq", "gymnasium", "mujoco"}), preload=MODEL_LIBRARIES),
    Layer(
        "policy_server.wire",
        ours=("policy_server.arrays", "policy_server.checks", "vla.api"),
        only=frozenset({"numpy"}),
    ),
    Layer(
        "policy_server.client",
        ours=(
            "vla.api",
            "vla.chunking",
            "vla.resampling",
            *(f"policy_server.{part}" for part in WIRE_PARTS),
            "policy_server.security",
        ),
        only=frozenset({"numpy", "zmq"}),
    ),
    *(
        Layer(
            f"policy_server.{robot_side}",
            ours=("policy_server", "vla.api", "vla.chunking", "vla.resampling"),
            only=frozenset({"numpy", "zmq"}),
        )
        for robot_side in (
            "control_loop",
            "asking",
            "robot",
            "pace",
            "report",
            "interventions",
            "adapters",
            "security",
            "keys",
        )
    ),
    *(
        Layer(
            f"policy_server.{recording}",
            ours=("policy_server", "vla.api", "vla.chunking", "vla.resampling", "vla.training.lerobot_files", "envs"),
            never=frozenset({"torch", "transformers", "mujoco"}),
            preload=("gymnasium",),
        )
        for recording in ("recorder", "recordings", "replay")
    ),
    Layer(
        "policy_server",
        ours=("policy_server", "vla.api", "vla.chunking", "vla.resampling"),
        never=frozenset({"torch", "transformers", "gymnasium", "mujoco"}),
    ),
    Layer("envs", ours=("envs",), never=frozenset({"torch", "transformers", "zmq"}), preload=("gymnasium", "mujoco")),
    Layer("eval.rollout", ours=("vla.api", "vla.chunking"), only=frozenset({"numpy"})),
    Layer("eval.doctor", ours=("eval.machine",), only=frozenset()),
    Layer("eval", ours=("eval", "envs", "policy_server", "vla"), preload=(*MODEL_LIBRARIES, *EVALUATION_LIBRARIES)),
    Layer(
        "cadence_configs",
        ours=("cadence_configs",),
        never=frozenset({"torch", "transformers", "gymnasium", "mujoco", "zmq"}),
    ),
)


def is_within(name: str, head: str) -> bool:
    return name == head or name.startswith(f"{head}.")


def module_name(path: Path) -> str:
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    installed_as = next(name for name, folder in PACKAGES.items() if folder == package)
    return ".".join([installed_as, *rest]).removesuffix(".__init__")


SOURCES = sorted(path for folder in PACKAGES.values() for path in (ROOT / folder).rglob("*.py"))
MODULES = sorted(module_name(path) for path in SOURCES if path.stem != "__main__")


def layer_of(module: str) -> Layer:
    return max((layer for layer in LAYERS if is_within(module, layer.head)), key=lambda layer: len(layer.head))


@cache
def imports_of(layer: Layer) -> dict[str, dict[str, list[str]]]:
    """Module -> {"loaded": names} or {"error": text}, for every module of the layer."""
    job = {"preload": layer.preload, "modules": [module for module in MODULES if layer_of(module) is layer]}
    done = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS], input=json.dumps(job), capture_output=True, text=True, check=True
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())


def is_ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def third_party(loaded: list[str]) -> set[str]:
    heads = {name.partition(".")[0] for name in loaded if not is_ours(name)}
    compiled_helpers = {head for head in heads if head.startswith(("_cython", "cython_runtime", "__"))}
    return heads - set(sys.stdlib_module_names) - compiled_helpers


@pytest.mark.parametrize("module", MODULES)
def test_a_module_loads_only_what_its_layer_allows(module: str) -> None:
    layer = layer_of(module)
    result = imports_of(layer)[module]
    assert "error" not in result, f"{module} cannot be imported: {result['error']}"
    heads = (module, *layer.ours)
    strangers = [
        name
        for name in result["loaded"]
        if is_ours(name) and not any(is_within(name, head) or is_within(head, name) for head in heads)
    ]
    assert not strangers, f"{module} loads {strangers}, its layer allows {heads}"
    theirs = third_party(result["loaded"])
    assert not theirs & layer.never, f"{module} loads {theirs & layer.never}, its layer may not"
    if layer.only is not None:
        assert theirs <= layer.only, f"{module} loads {theirs - layer.only}, its layer allows only {set(layer.only)}"


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "cadence_configs"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = "import importlib, json, sys; before = set(sys.modules); importlib.import_module(sys.argv[1]);"
    code += "print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=True)
    assert not third_party(json.loads(done.stdout)) & HEAVY


def imported_names(tree: ast.AST) -> set[str]:
    """Top-level names of everything imported anywhere in a file, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_entry_points_know_hydra(path: Path) -> None:
    if path.stem == "__main__" or path.parent.name == "configs":
        return
    used = imported_names(ast.parse(path.read_text())) & COMMAND_LINE
    assert not used, f"{path.relative_to(ROOT)} imports {used}; only __main__ modules may"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_builtin_eval_is_not_hidden(path: Path) -> None:
    hiding = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any((a.asname or a.name.partition(".")[0]) == "eval" for a in node.names)
    ]
    assert not hiding, f"{path.relative_to(ROOT)} hides the builtin eval in lines {hiding}"
