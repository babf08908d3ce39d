#!/bin/sh
# Make the virtual environment, or bring it up to date. `make` calls this; by hand:
#   sh tools/setup.sh .venv requirements.txt
# Variables: PYTHON=/path/to/python3.11 to choose a Python, INSTALLER=pip to do without uv.
set -eu

venv=$1
requirements=$2
again=${3:-"sh tools/setup.sh $venv $requirements"}
started=$(date +%s)

fail() { # SENTENCE, NEXT COMMAND
    printf 'setup: %s\n  next: %s\n' "$1" "$2" >&2
    exit 1
}

fits() { # PYTHON: TensorFlow 2.21 has packages for these versions alone
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null
}

find_python() {
    for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if fits "$python"; then
            return
        fi
    done
    python=${PYTHON:-python3}
    version=$("$python" -c 'import sys; print("is %d.%d" % sys.version_info[:2])' 2> /dev/null || echo "was not found")
    fail "Python 3.11, 3.12 or 3.13 is needed; $python $version." \
        "install Python 3.11, then: $again PYTHON=/path/to/python3.11"
}

find_flaw() { # why the environment has to be made again; nothing if it is whole
    if [ -e "$venv/.unfinished" ] || [ ! -f "$venv/bin/pip" ]; then
        echo "its set-up was not finished"
    elif ! is_made_here; then
        echo "the folder was moved or copied since"
    elif ! fits "$venv/bin/python"; then
        echo "its Python is gone or does not fit"
    fi
}

is_made_here() { # the scripts of an environment name its Python by an absolute path, in quotes if it is long
    place=$(cd "$venv" && pwd -P)
    head -n 2 "$venv/bin/pip" | grep -q -F -e "#!$place/bin/" -e "\"$place/bin/"
}

make_environment() {
    "$python" -c 'import ensurepip, venv' 2> /dev/null ||
        fail "$python has no modules venv and ensurepip." "sudo apt-get install python3-venv (Debian, Ubuntu), then: $again"
    rm -rf "$venv"
    "$python" -m venv "$venv" ||
        fail "$venv could not be made; the line above says why." "correct it, then: $again"
}

if [ ! -e "$venv" ]; then
    find_python
    echo "Set-up: making $venv with TensorFlow and what else is needed, 2.5 GB on disk. That takes a minute or two;"
    echo "        the first time it downloads 700 MB. Later runs need no set-up."
    make_environment
elif flaw=$(find_flaw) && [ -n "$flaw" ]; then
    find_python
    echo "Set-up: making $venv again, for $flaw. That takes about a minute."
    make_environment
else
    echo "Set-up: bringing $venv up to date."
fi
SETUP_STARTED=$started exec "$venv/bin/python" tools/install.py "$venv" "$requirements" "$again"
