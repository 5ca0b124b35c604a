# Makes the virtual environment and installs packages into it. Sourced by scripts that have set $root.
# shellcheck shell=bash disable=SC2154

environment=$root/venv
environment_python=$environment/bin/python

# Without bytecode files, every start would compile the big libraries again and take three times as long.
unset PYTHONDONTWRITEBYTECODE
# What the user has set for another Python must not reach this one.
unset PYTHONHOME PYTHONPATH

fail() { # SENTENCE ...
    printf '%s\n' "$@" >&2
    exit 1
}

# Prints a supported Python that can make virtual environments, or says what to install.
find_python() {
    local name without_venv=''
    for name in ${PYTHON_FOR_VENV:+"$PYTHON_FOR_VENV"} python3.13 python3.12 python3.11 python3.10 python3 python; do
        if "$name" "$root/scripts/check_python.py" 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
        "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue
        without_venv=${without_venv:-$name}
    done
    [ -z "$without_venv" ] || fail \
        "$without_venv に venv モジュールがありません。インストールして、もう一度起動してください。" \
        "$without_venv lacks its venv module. Install it and start again." \
        "    sudo apt install $("$without_venv" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    fail "Python 3.10、3.11、3.12、3.13 のどれも見つかりません。インストールして、もう一度起動してください。" \
        "No Python 3.10, 3.11, 3.12 or 3.13 was found. Install one and start again." \
        "    https://www.python.org/downloads/"
}

# Makes the virtual environment where there is none, or a broken one: made by half, or its Python is gone.
make_environment() {
    local python
    if "$environment_python" "$root/scripts/check_python.py" venv 2>/dev/null; then
        return
    fi
    python=$(find_python)
    "$python" "$root/scripts/make_environment.py" || exit 1
}

# Installs a requirements file, unless the environment already holds exactly this one.
install_once() { # NAME REQUIREMENTS
    "$environment_python" "$root/scripts/install_once.py" "$1" "$2" || exit 1
}
