"""`cadence-doctor`: what this machine has, what is wrong with it, and what to type; needs only the base install."""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from eval.machine import machine

FINE, BROKEN, CANNOT_INSTALL = 0, 1, 2
DISTRIBUTION = "cadence-vla"
EXTRAS = ("server", "codecs", "sim", "data", "eval")
PACKAGE_NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA_MARKER = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
GL_INSTALL_LINES = {
    "apt-get": "apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1"
    " libegl-mesa0 libgl1-mesa-dri",
    "dnf": "dnf install -y libglvnd-egl libglvnd-glx libglvnd-gles libglvnd-opengl mesa-libEGL mesa-dri-drivers",
    "pacman": "pacman -Sy --noconfirm libglvnd mesa",
    "apk": "apk add mesa-egl mesa-gl mesa-gles mesa-dri-gallium",
    "zypper": "zypper install -y libglvnd Mesa Mesa-libEGL1 Mesa-libGL1 Mesa-dri",
}
RENDER_ONE_IMAGE = """
import json
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 2"/><geom type="sphere" size=".2" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    renderer.update_scene(data)
    assert renderer.render().max() > 0, "the picture is black"
    from OpenGL import GL
    print(json.dumps(GL.glGetString(GL.GL_RENDERER).decode()))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        text: what was found.
        remedy: what to type or do; empty if nothing is wrong.
        needed: False if the finding is only slow or unusual, so that the machine still counts as fine.
    """

    subject: str
    text: str
    remedy: str = ""
    needed: bool = True

    @property
    def is_broken(self) -> bool:
        return bool(self.remedy) and self.needed


def main() -> None:
    """Entry point of `cadence-doctor`: exit status 0 fine, 1 something needed is broken, 2 GL cannot be installed."""
    parser = argparse.ArgumentParser(prog="cadence-doctor", description=__doc__)
    parser.add_argument(
        "--install-gl",
        action="store_true",
        help="only make rendering work: install the GL libraries if they are missing and you are root,"
        " else print the line to type (exit status 2)",
    )
    if parser.parse_args().install_gl:
        sys.exit(install_gl())
    findings = list(examine())
    for finding in findings:
        print(line(finding), flush=True)
    broken = [finding.subject for finding in findings if finding.is_broken]
    print(f"\n{len(broken)} needed thing(s) broken: {', '.join(broken)}" if broken else "\nEverything needed is fine.")
    sys.exit(BROKEN if broken else FINE)


def examine() -> Iterator[Finding]:
    """Look at everything Cadence uses, cheapest first."""
    yield python_finding()
    yield machine_finding()
    packages = {extra: tuple(requirements(DISTRIBUTION, extra)) for extra in EXTRAS}
    for extra in EXTRAS:
        yield packages_finding(extra, packages)
    for subject, package, examine_part in PARTS:
        if is_installed(package):
            yield examine_part()
        else:
            yield Finding(subject, f"not looked at: {package} is missing")


def line(finding: Finding) -> str:
    """Write one finding as text, its remedy below it."""
    mark = "BROKEN" if finding.is_broken else "note" if finding.remedy else "ok"
    remedy = f"\n{'':26}-> {finding.remedy}" if finding.remedy else ""
    return f"{mark:7} {finding.subject:17} {finding.text}{remedy}"


def python_finding() -> Finding:
    text = f"Python {platform.python_version()} on {platform.platform()}; cadence {version(DISTRIBUTION)}"
    remedy = "" if sys.version_info >= (3, 10) else "install Python 3.10 or newer and run `make setup` with it"
    return Finding("python", text, remedy)


def machine_finding() -> Finding:
    found = machine()
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    text = f"{found['processor']}, {found['cores']} usable core(s), {found['memory'] / 2**30:.1f} GiB"
    return Finding("machine", f"{text}; OMP_NUM_THREADS {threads}")


def requirements(distribution: str, extra: str = "") -> Iterator[str]:
    """Name what an installed distribution's metadata asks for: with this extra, or always."""
    for requirement in requires(distribution) or []:
        name, marker = PACKAGE_NAME.match(requirement), EXTRA_MARKER.search(requirement)
        if name and (marker[1] if marker else "") == extra:
            yield name[0].lower()


def packages_finding(extra: str, packages: dict[str, tuple[str, ...]]) -> Finding:
    """Look for the packages of one extra: none of its own is a choice, only some of all is broken.

    Args:
        extra: a key of `packages`.
        packages: of every extra; what another one brings does not tell that this one was chosen.
    """
    found = [name for name in packages[extra] if is_installed(name)]
    missing = [name for name in packages[extra] if name not in found]
    listed = ", ".join(f"{name} {version(name)}" for name in found)
    if not missing:
        return Finding(f"[{extra}]", listed)
    others = {name for other, names in packages.items() if other != extra for name in names}
    others |= {name for other in others if is_installed(other) for name in requirements(other)}
    text = f"missing {', '.join(missing)}; found {listed}" if found else "not installed"
    remedy = f"pip install '{DISTRIBUTION}[{extra}]'  (in a clone: make setup)"
    return Finding(f"[{extra}]", text, remedy, needed=not others.issuperset(found))


def is_installed(package: str) -> bool:
    """Tell whether a distribution is installed, without importing it."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def device_finding() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", f"cuda: {torch.cuda.get_device_name()}; torch {torch.__version__}")
    text = f"cpu: torch {torch.__version__}, {torch.get_num_threads()} thread(s)"
    if has_nvidia_gpu():
        remedy = "remove .venv and run `make setup TORCH_BUILD=cuda`"
        return Finding("device", f"{text}; this torch does not see the NVIDIA GPU", remedy, needed=False)
    return Finding("device", text)


def has_nvidia_gpu() -> bool:
    """Tell whether the NVIDIA driver lists a GPU."""
    program = shutil.which("nvidia-smi")
    return bool(program) and subprocess.run([program, "-L"], capture_output=True, check=False).returncode == 0


def rendering_finding() -> Finding:
    renderer, error = render_once()
    if error:
        return Finding("rendering", error, gl_remedy())
    text = f"{renderer}; MUJOCO_GL={gl_backend() or 'unset'}"
    if has_nvidia_gpu() and "nvidia" not in renderer.lower():
        remedy = "EGL fell back to software: install the driver's /usr/share/glvnd/egl_vendor.d/10_nvidia.json"
        return Finding("rendering", text, remedy, needed=False)
    return Finding("rendering", text)


def gl_backend() -> str:
    """Name the MuJoCo backend that `envs` draws with here; empty where the choice is MuJoCo's own."""
    headless = sys.platform == "linux" and "DISPLAY" not in os.environ
    return os.environ.get("MUJOCO_GL", "egl" if headless else "")


def render_once() -> tuple[str, str]:
    """Render one picture in a process of its own, since a broken GL driver can take its process down.

    Returns:
        The GL renderer's name and an error, one of them empty.
    """
    environment = dict(os.environ)
    if gl_backend():
        environment["MUJOCO_GL"] = gl_backend()
    command = [sys.executable, "-c", RENDER_ONE_IMAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "", "MuJoCo rendered nothing within 60 s"
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    last_words = done.stderr.strip().splitlines()
    return "", f"MuJoCo cannot render: {last_words[-1] if last_words else f'exit status {done.returncode}'}"


def gl_remedy() -> str:
    """Say what to type so that MuJoCo renders without a screen."""
    install = gl_install_line()
    if install:
        return install if is_root() else f"sudo sh -c '{install}'"
    return "install the EGL libraries of Mesa (libEGL.so.1, libGL.so.1 and a software driver) for this system"


def gl_install_line() -> str:
    """Give the line that installs the GL libraries with this system's package manager; empty if there is none."""
    return next((install for program, install in GL_INSTALL_LINES.items() if shutil.which(program)), "")


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def install_gl() -> int:
    """Make rendering work, installing the GL libraries if that is what is missing and allowed.

    Returns:
        `FINE`, or `CANNOT_INSTALL` after printing what to type.
    """
    _, error = render_once()
    if not error:
        return FINE
    install = gl_install_line()
    if install and is_root():
        print(f"{error}\ninstalling the GL libraries: {install}", flush=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["sh", "-c", install], env=environment, stdout=subprocess.DEVNULL, check=False)
        _, error = render_once()
        if not error:
            return FINE
    print(f"error: {error}\ntype: {gl_remedy()}", file=sys.stderr)
    return CANNOT_INSTALL


def checkpoint_finding() -> Finding:
    directory = shipped_checkpoint()
    weights = directory / "model.safetensors"
    remedy = f"reinstall {DISTRIBUTION}, or check the files out again"
    if not weights.is_file():
        return Finding("shipped policy", f"no weights in {directory}", remedy)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as tensors:
            count = len(tensors.keys())
    except SafetensorError as error:
        return Finding("shipped policy", f"{weights} is damaged: {error}", remedy)
    return Finding("shipped policy", f"tiny: {count} tensors, {weights.stat().st_size / 1e6:.1f} MB in {directory}")


def shipped_checkpoint() -> Path:
    """Find the directory of the policy `model=tiny` without importing the package."""
    spec = find_spec("vla")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package `vla` is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))) / "pretrained" / "tiny"


PARTS: tuple[tuple[str, str, Callable[[], Finding]], ...] = (
    ("device", "torch", device_finding),
    ("rendering", "mujoco", rendering_finding),
    ("shipped policy", "safetensors", checkpoint_finding),
)


if __name__ == "__main__":
    main()
