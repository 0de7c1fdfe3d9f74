#!/usr/bin/env bash
# Makes .venv hold everything `make eval` and `make test` need, and checks that MuJoCo renders. Safe to run again.
#
#   PYTHON=python3.12   which interpreter to build .venv from (default: the first of 3.10 to 3.14 that is found)
#   TORCH_BUILD=cpu     cpu or cuda (default: cuda where nvidia-smi lists a GPU, else cpu)
set -euo pipefail
cd "$(dirname "$0")/.."

torch=2.13.0
python=.venv/bin/python

say() { printf '== %s\n' "$*"; }

refuse() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python3.10 python}; do
        if is_supported "$name"; then
            printf '%s' "$name"
            return
        fi
    done
    refuse "no Python 3.10 to 3.14 found; install one and type: make setup PYTHON=/path/to/python3"
}

# Debian and Ubuntu ship python3 without what `python3 -m venv` needs.
provide_venv() {
    local version line
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    line="apt-get update && apt-get install -y python$version-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing python$version-venv"
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version-venv") >/dev/null ||
            refuse "could not install it; type: $line"
    else
        refuse "$1 cannot make virtual environments; type: sudo sh -c '$line'"
    fi
}

# A virtual environment that was moved has scripts that point to its old place.
venv_is_usable() { is_supported "$python" && head -n 2 .venv/bin/pip 2>/dev/null | grep -qF "$PWD/.venv/"; }

make_venv() {
    local base
    venv_is_usable && return
    base=$(find_python)
    provide_venv "$base"
    say "making .venv with $("$base" --version)"
    "$base" -m venv --clear .venv
    pip_install --upgrade pip # the pip that old Pythons bring cannot resolve these dependencies
}

pip_install() { "$python" -m pip install -qq --disable-pip-version-check "$@"; }

torch_build() {
    if nvidia-smi -L >/dev/null 2>&1; then echo cuda; else echo cpu; fi
}

install_torch() {
    local build=${TORCH_BUILD:-$(torch_build)}
    "$python" -c "from importlib.metadata import version; assert version('torch').split('+')[0] == '$torch'" 2>/dev/null && return
    say "installing torch $torch ($build build)"
    case "$build/$(uname -s)" in
    cuda/* | cpu/Darwin) pip_install "torch==$torch" ;;
    cpu/*) pip_install "torch==$torch+cpu" 2>/dev/null || install_cpu_torch_with_uv ;;
    *) refuse "TORCH_BUILD must be cpu or cuda, got $build" ;;
    esac
}

# The default package index has no CPU build for Linux; uv knows where PyTorch keeps it.
install_cpu_torch_with_uv() {
    pip_install uv
    .venv/bin/uv pip install --quiet --python "$python" --torch-backend=cpu "torch==$torch" ||
        refuse "no CPU build of torch $torch could be installed; put one into .venv (or, with several GB of CUDA libraries," \
            "type: .venv/bin/pip install torch==$torch), then type: make setup"
}

make_venv
install_torch
say "installing Cadence and what it needs"
pip_install -e '.[dev]'
say "checking that MuJoCo renders without a screen"
.venv/bin/cadence-doctor --install-gl || exit 2
