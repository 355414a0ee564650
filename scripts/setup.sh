#!/bin/sh
# Set up .venv in this clone with the packages of one extra: scripts/setup.sh demo|dev|docs
#
# Touches nothing outside the clone. Does nothing when everything is in place. When something is missing, says what
# in one sentence and exits with 1. NEEDS_MB: how much disk to insist on, if the guess below is wrong for you.
set -eu
cd "$(dirname "$0")/.."
extra=${1:?which packages? scripts/setup.sh demo or scripts/setup.sh dev}
venv=.venv
log=.cache/setup.log

missing() {
    echo "setup: $*" >&2
    exit 1
}

# What the packages depend on: a change of any of it, or a clone that was moved, means installing again.
state() {
    { pwd; cat pyproject.toml src/forgetless/measure/kernels/parts/*.c src/forgetless/measure/kernels/parts/*.h \
        src/forgetless/protect/optimizers/*.c 2>/dev/null || true; } | cksum
}

# The first Python that is new enough and can make a virtual environment.
find_python() {
    python=
    old=
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            old="$name is $version"
        elif ! "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            no_venv=${no_venv:-$version}
        else
            python=$name
            return
        fi
    done
    [ -z "${no_venv:-}" ] ||
        missing "Python $no_venv has no venv module; install it (on Debian: apt install python$no_venv-venv)."
    missing "Python 3.11 or newer is needed${old:+ and $old}; install it (on Debian: apt install python3 python3-venv)."
}

check_disk() {
    needed=${NEEDS_MB:-2000}
    # PyPI's torch for Linux on x86-64 brings CUDA with it.
    [ "$(uname -sm)" != "Linux x86_64" ] || needed=${NEEDS_MB:-8000}
    free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1024))
    [ "$free" -ge "$needed" ] ||
        missing "$free MB are free here and PyTorch needs about $needed; free some, or set NEEDS_MB if you know better."
}

explain_failure() {
    if grep -qiE 'no space left|disk quota' "$log"; then
        missing "the disk is full; free some space and run the same command again."
    elif grep -qiE 'NewConnectionError|NameResolutionError|Failed to establish|network is unreachable|ConnectTimeout|ReadTimeout|ProxyError|from versions: none' "$log"; then
        missing "the package registry was not reached; is there a network, or a mirror to name in PIP_INDEX_URL?"
    fi
    missing "pip could not install the packages; its reasons are above and in $log."
}

mkdir -p .cache/tmp
[ "$(cat "$venv/ready-$extra" 2>/dev/null)" != "$(state)" ] || exit 0
export TMPDIR="$PWD/.cache/tmp" XDG_CACHE_HOME="$PWD/.cache"
unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONPATH PYTHONHOME

if ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
    find_python
    check_disk
    echo "setup: making $venv with $python" >&2
    "$python" -m venv --clear $venv >"$log" 2>&1 || missing "$python could not make $venv; its reasons are in $log."
elif ! $venv/bin/python -c 'import importlib.metadata as m; m.version("torch")' >/dev/null 2>&1; then
    check_disk
fi
echo "setup: installing packages into $venv (the first time takes minutes: PyTorch is large)" >&2
rm -f "$log"
$venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --log "$log" \
    --editable ".[$extra]" >&2 || explain_failure
state >"$venv/ready-$extra"
