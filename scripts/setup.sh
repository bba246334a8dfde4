#!/bin/sh
# Make .venv and install what is missing: a Python with venv, system libraries of OpenCV and OpenGL, the pinned
# packages.
#
# Run by every target of the Makefile. When nothing is missing it ends in a fraction of a second. What only
# root can install is installed with apt when we are root; otherwise the exact command is printed and we stop
# with exit code 2. The argument "tests" asks for what only the tests need: a browser for those of pages (where
# none can be had we go on), and the environments of tests/stacks, with other versions of MuJoCo.
# PYTHON=/path/to/python3 chooses the interpreter that .venv is made from.
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/complete # written last, so an interrupted set-up has none and starts anew
OLDEST=11            # Python 3.11

has() { command -v "$1" >/dev/null; }
say() { printf '%s\n' "$*" >&2; }
stop() { say "setup: $*"; exit 2; }

# apt_install REASON PACKAGE...: as root install the packages; otherwise say which command does.
apt_install() {
    reason=$1; shift
    has apt-get || stop "$reason. Install it with your system's package manager (Debian: $*), then run this again."
    [ "$(id -u)" -eq 0 ] || stop "$reason. Run this, then start again:
    sudo apt-get update && sudo apt-get install -y $*"
    say "setup: $reason: apt-get install $*"
    # Fresh images come without package lists, old ones with stale lists: both need an update first.
    ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt-get update -qq
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } ||
        stop "apt-get could not install $*."
}

# find_python: set PYTHON to the first interpreter that is new enough and can make environments. Otherwise
# leave NO_VENV naming one that is new enough but comes without venv, or empty.
find_python() {
    NO_VENV=
    for candidate in ${CHOSEN:-python3 python3.11 python3.12 python3.13 python3.14}; do
        "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $OLDEST))" 2>/dev/null || continue
        # ensurepip: Debian ships venv without it, in a package of its own.
        if "$candidate" -c "import venv; from ensurepip import bootstrap" 2>/dev/null; then
            PYTHON=$candidate
            return 0
        fi
        NO_VENV=${NO_VENV:-$candidate}
    done
    return 1
}

# missing_libraries: print the Debian packages of those system libraries that do not load: OpenCV's, and EGL with
# Mesa's software driver, by which environments of third parties draw their frames.
missing_libraries() {
    "$PYTHON" - <<'PY'
import ctypes

PACKAGES = {
    "libEGL.so.1": "libegl1 libgl1-mesa-dri",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
}
missing = set()
for library, package in PACKAGES.items():
    try:
        ctypes.CDLL(library)
    except OSError:
        missing.add(package)
print(*sorted(missing))
PY
}

# Two targets started at once take turns; the lock is on this file, so none is left behind.
if has flock; then
    exec 9<scripts/setup.sh
    flock 9
fi

# What the environment was made from: the files that name versions, and the folder, since .venv holds its path.
wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum; pwd)
current=
if [ -f "$STAMP" ] && [ "$(tail -n 1 "$STAMP")" = "$PWD" ] && "$VENV/bin/python" -c "" 2>/dev/null; then
    current=$(cat "$STAMP")
fi

CHOSEN=${PYTHON:-}
if [ -n "$current" ]; then
    PYTHON=$VENV/bin/python
elif ! find_python; then
    if [ -n "$CHOSEN" ]; then
        stop "PYTHON=$CHOSEN is not a Python 3.$OLDEST or newer that has venv and ensurepip."
    elif [ -n "$NO_VENV" ]; then
        version=$("$NO_VENV" -c "import sys; print('%d.%d' % sys.version_info[:2])")
        apt_install "Python $version comes without venv" "python$version-venv"
    else
        apt_install "Python 3.$OLDEST or newer is missing" python3 python3-venv
    fi
    find_python || stop "no Python 3.$OLDEST or newer with venv was found after the installation. Install one and name it: make PYTHON=/path/to/python3"
fi

packages=$(missing_libraries)
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 # one word a package
    apt_install "OpenCV or OpenGL needs system libraries that are not installed" $packages
    packages=$(missing_libraries)
    [ -z "$packages" ] || stop "system libraries still do not load; reinstall $packages."
fi

# Pages are tested in a browser. Without one those tests are left out, and pytest's summary says so.
if [ "${1:-}" = tests ] && ! has chromium && ! has chromium-browser && ! has google-chrome; then
    (apt_install "The pages' tests need a browser" chromium fonts-dejavu-core) ||
        say "setup: going on without a browser: the pages are not tested."
fi

# make_stacks: for each tests/stacks/NAME.txt an environment .venv/stacks/NAME that has its packages and links to
# all others of .venv but MuJoCo's, whose package takes in whatever else is called mujoco on the path.
make_stacks() {
    for list in tests/stacks/*.txt; do
        stack=$VENV/stacks/$(basename "$list" .txt)
        made_from="$(cksum <"$list") $(cksum <"$STAMP")"
        [ "$(cat "$stack/complete" 2>/dev/null)" != "$made_from" ] || continue
        say "setup: installing what $list names"
        "$VENV/bin/python" -m venv --clear --without-pip "$stack" || stop "could not make $PWD/$stack."
        "$VENV/bin/python" -m pip --python "$stack" install --quiet --disable-pip-version-check --no-deps -r "$list" ||
            stop "pip could not install what $list names."
        "$VENV/bin/python" - "$stack" <<'PY'
import sys
import sysconfig
from pathlib import Path

(packages,) = Path(sys.argv[1]).glob("lib/python*/site-packages")
for package in Path(sysconfig.get_path("purelib")).iterdir():
    link = packages / package.name
    if not package.name.startswith("mujoco") and not link.exists():
        link.symlink_to(package)
PY
        printf '%s\n' "$made_from" >"$stack/complete"
    done
}
finish() {
    [ "${1:-}" != tests ] || make_stacks
    exit 0
}

[ "$current" != "$wanted" ] || finish "$@"

# With a stamp the environment is whole and only its versions are old: pip brings it up to date in place.
# Without one (new, interrupted, or moved) nothing in it can be trusted: it is made anew.
if [ -z "$current" ]; then
    say "setup: making $VENV with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear "$VENV" || stop "could not make $PWD/$VENV."
fi
rm -f "$STAMP"
say "setup: installing the pinned packages (minutes the first time)"
install() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"; }
# hatchling first, so that our own package too is built with the pinned one.
install hatchling
install --no-build-isolation --editable ".[dev]"
"$VENV/bin/python" -c "import cv2" || stop "OpenCV does not load; the message above names what it misses."
printf '%s\n' "$wanted" >"$STAMP"
say "setup: done"
finish "$@"
