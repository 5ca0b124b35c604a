# Makes the virtual environment and installs packages into it. Sourced by scripts that have set $root.
# shellcheck shell=bash disable=SC2154

environment=$root/venv
environment_python=$environment/bin/python

# Without bytecode files, every start would compile the big libraries again and take three times as long.
unset PYTHONDONTWRITEBYTECODE
# What the user has set for another Python must not reach this one.
unset PYTHONHOME PYTHONPATH

fail() { # SENTENCE
    printf '%s\n' "$1" >&2
    exit 1
}

is_supported() { # PYTHON
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Prints a supported Python that can make virtual environments, or says what to install.
find_python() {
    local name without_venv=''
    for name in python3.13 python3.12 python3.11 python3.10 python3 python; do
        is_supported "$name" || continue
        if "$name" -c 'import venv, ensurepip' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
        without_venv=${without_venv:-$name}
    done
    [ -z "$without_venv" ] || fail "$without_venv lacks its venv module. Install it and start again \
(Debian, Ubuntu: sudo apt install $("$without_venv" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])'))."
    fail "No Python 3.10, 3.11, 3.12 or 3.13 was found. Install one (https://www.python.org/downloads/) and start again."
}

# Makes the virtual environment where there is none, or a broken one: made by half, or its Python is gone.
make_environment() {
    local python
    if is_supported "$environment_python" && "$environment_python" -c 'import pip' 2>/dev/null; then
        return
    fi
    python=$(find_python)
    echo "Making a virtual environment in $environment"
    "$python" -m venv --clear "$environment" || fail "The virtual environment could not be made: see the lines above."
}

# Installs a requirements file, unless the environment already holds exactly this one.
install_once() { # NAME REQUIREMENTS
    local stamp=$environment/installed-$1 sum
    sum=$(cksum <"$2")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then
        return
    fi
    echo "Installing what ${2#"$root"/} asks for: the first time, this takes minutes."
    "$environment_python" -m pip install --quiet --no-input --disable-pip-version-check -r "$2" || fail \
        "The installation failed: see the lines above. Check the network and the free disk space, then start again."
    printf '%s\n' "$sum" >"$stamp"
}
