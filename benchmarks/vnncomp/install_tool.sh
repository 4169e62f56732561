#!/usr/bin/env bash
# VNN-COMP: installs lpverify in a virtual environment in the repository. May be run again.
#
#     install_tool.sh VERSION
#
# Needs Python 3.11 or newer, and a C++17 compiler for the compiled kernel. What is missing is installed with
# apt-get where that is possible without a password; without a compiler, lpverify works without its kernel.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
exec </dev/null
export DEBIAN_FRONTEND=noninteractive PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

expect_arguments "VERSION" "$@"
if [[ -n ${LPVERIFY:-} ]]; then # one that is installed already
    expect_tool || exit 1
    exec "$lpverify" --version
fi

# apt PACKAGE...: installs packages if that needs no password.
apt() {
    local -a root=()
    command -v apt-get >/dev/null || return 1
    if ((EUID)); then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n env DEBIAN_FRONTEND=noninteractive)
    fi
    "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -y -qq "$@"
}

# suitable PYTHON: it is new enough and can make virtual environments.
suitable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# find_python: the first that is suitable.
find_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if suitable "$python"; then
            printf '%s\n' "$python"
            return
        fi
    done
    return 1
}

if ! suitable "$venv/bin/python"; then
    python=$(find_python) || {
        apt python3-venv || true
        find_python >/dev/null || apt python3.12-venv || apt python3.11-venv || true
        python=$(find_python) || fail "no Python 3.11 or newer with venv; name one with PYTHON=..."
    }
    rm -rf -- "$venv"
    "$python" -m venv "$venv"
fi

pip() { "$venv/bin/python" -m pip --no-input "$@"; }
has_compiler() { command -v c++ g++ clang++ >/dev/null; }

cd -- "$repository"
pip install --upgrade pip
if ! command -v nvidia-smi >/dev/null; then
    pip install torch --index-url https://download.pytorch.org/whl/cpu || true # else the usual one comes below
fi
options=()
if ! has_compiler && ! { apt g++ && has_compiler; }; then
    printf 'no C++ compiler: lpverify is installed without its kernel\n' >&2
    options=(-C cmake.define.LPVERIFY_KERNEL=OFF)
fi
pip install "${options[@]}" .
"$lpverify" --version
