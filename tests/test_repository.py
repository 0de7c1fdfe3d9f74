"""Laws of the tree itself: what ships, how long things may be, and what may never be written."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parent.parent
PACKAGES = ("configs", "envs", "eval", "policy_server", "vla")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
COMMANDS = [path for path in CONFIGS if path.parent.name == "configs"]
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")

LONGEST_FILE = 300
LONGEST_FUNCTION = 60
LARGEST_WEIGHTS = 60e6  # [bytes], all tracked weights together
WEIGHT_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".npz", ".npy", ".onnx"}
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked_files() -> list[Path]:
    """Files of the repository: what git tracks or would track, or everything that looks like source outside git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") and (ROOT / ".git").exists():
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    return [path for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the built wheel; it is built from a copy, so that no build folder is left in the tree."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=copy, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_the_wheel_contains_every_file_of_the_packages(wheel: set[str]) -> None:
    needed = {relative(path) for path in tracked_files() if relative(path).split("/")[0] in PACKAGES}
    shipped = {name.replace("cadence_configs/", "configs/", 1) for name in wheel}
    assert needed, "found no source files"
    missing = sorted(needed - shipped)
    assert not missing, f"add to [tool.setuptools] packages or package-data in pyproject.toml: {missing}"


def test_every_folder_with_code_is_a_package() -> None:
    bare = {relative(path.parent) for path in SOURCES if not (path.parent / "__init__.py").is_file()}
    assert not bare, f"these folders need an __init__.py: {sorted(bare)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert not long, f"functions longer than {LONGEST_FUNCTION} lines: {long}"


def test_nothing_is_left_unfinished() -> None:
    texts = [
        path for path in tracked_files() if path.suffix in {".py", ".md", ".yaml", ".toml", ".sh", ".xml", ".html"}
    ]
    found = [f"{relative(path)}: {word}" for path in texts for word in UNFINISHED if word in path.read_text()]
    assert not found


def test_tracked_weights_stay_small() -> None:
    weights = {relative(path): path.stat().st_size for path in tracked_files() if path.suffix in WEIGHT_SUFFIXES}
    assert sum(weights.values()) < LARGEST_WEIGHTS, weights


@pytest.mark.parametrize("path", CONFIGS, ids=relative)
def test_every_config_is_a_mapping(path: Path) -> None:
    assert isinstance(OmegaConf.load(path), DictConfig)


@pytest.mark.parametrize("path", COMMANDS, ids=relative)
def test_every_command_s_config_composes(path: Path) -> None:
    with initialize_config_dir(str(path.parent), version_base=None):
        assert compose(path.stem)


def test_no_benchmark_hides_a_package() -> None:
    """`python benchmarks/latency.py` puts that folder first on the path."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert not packages & {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
