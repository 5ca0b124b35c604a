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

# Prints a supported Python that can make virtual environments: one that is installed, or else one that comes into the
# app's folder. Says what to install where neither works.
find_python() {
    local name status without_venv=''
    for name in ${PYTHON_FOR_VENV:+"$PYTHON_FOR_VENV"} python3.14 python3.13 python3.12 python3.11 python3.10 python3 python; do
        check_python "$name"
        case $status in
        0)
            printf '%s\n' "$name"
            return
            ;;
        3) without_venv=${without_venv:-$name} ;;
        esac
    done
    get_python && return
    [ -z "$without_venv" ] || fail \
        "$without_venv に venv モジュールがありません。インストールして、もう一度起動してください。" \
        "$without_venv has no venv module. Install it and start again." \
        "    sudo apt install $("$without_venv" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    fail "Python 3.10、3.11、3.12、3.13、3.14 のどれも見つかりません。インストールして、もう一度起動してください。" \
        "No Python 3.10, 3.11, 3.12, 3.13 or 3.14 was found. Install one and start again." \
        "    https://www.python.org/downloads/"
}

# Sets $status: 0 for a usable Python, 3 for one that lacks but a module.
check_python() { # PYTHON [venv]
    local python=$1 answer
    shift
    status=0
    answer=$("$python" "$root/scripts/check_python.py" "$@" 2>/dev/null) || status=$?
    [ "$answer" = usable ] || [ "$status" != 0 ] || status=1
}

# Prints a Python that uv has put into the folder "uv" here, or puts one there. Nothing is written anywhere else. Says why
# it could not. The version and checksum of uv are in uv.txt; get_python.bat does the same on Windows.
get_python() {
    local folder=$root/uv
    if newest_own_python; then
        return
    fi
    tell getting
    # A damaged one is fetched again.
    [[ $("$folder/uv" --version 2>/dev/null) == uv* ]] || get_uv "$folder" || return
    UV_PYTHON_INSTALL_DIR=$folder/python UV_CACHE_DIR=$folder/cache UV_PYTHON_INSTALL_BIN=0 UV_SYSTEM_CERTS=1 \
        "$folder/uv" python install --reinstall 3.13 >&2 && newest_own_python || refuse not_got
}

get_uv() { # FOLDER
    local new=$1/new name system checksum address status=0
    for name in curl sha256sum; do
        command -v "$name" >/dev/null || refuse no_tools || return
    done
    command -v unzip >/dev/null || command -v python3 >/dev/null || refuse no_tools || return
    while read -r system checksum address && [ "$system $(uname -sm)" != 'linux Linux x86_64' ]; do :; done \
        <"$root/scripts/uv.txt"
    [ -n "$address" ] || refuse not_got || return
    rm -rf "$new"
    mkdir -p "$new" 2>/dev/null || refuse no_room || return
    curl --fail --location --silent --show-error --retry 3 --connect-timeout 30 --output "$new/uv.zip" "$address" >&2 ||
        status=$?
    case $status in # curl's: no such proxy, refused, broken off, unknown certificate; half a download; no room
    0) ;;
    5 | 22 | 56 | 60 | 77 | 97) refuse proxy || return ;;
    18) refuse damaged || return ;;
    23) refuse no_room || return ;;
    *) refuse no_network || return ;;
    esac
    printf '%s  %s\n' "$checksum" "$new/uv.zip" | sha256sum --check --status || refuse damaged || return
    if command -v unzip >/dev/null; then
        unzip -q "$new/uv.zip" -d "$new" >&2 || refuse no_room || return
    else # any Python can do this
        python3 -m zipfile -e "$new/uv.zip" "$new" >&2 || refuse no_room || return
    fi
    # Moved when it is whole, so that what lies there is never a half.
    chmod +x "$new"/uv-*/scripts/uv && mv "$new"/uv-*/scripts/uv "$1/uv" || refuse no_room || return
    rm -rf "$new"
}

newest_own_python() {
    local python status
    for python in "$root"/uv/python/cpython-3.13*/bin/python3; do
        check_python "$python"
        if [ "$status" = 0 ]; then
            printf '%s\n' "$python"
            return
        fi
    done
    return 1
}

tell() { # NAME
    printf '%s\n' "$(<"$root/scripts/python_$1.txt")" >&2
}

refuse() { # REASON
    tell "$1"
    [ ! -e "$root/uv/new" ] || rm -rf "$root/uv/new"
    return 1
}

# Makes the virtual environment where there is none, or a broken one: made by half, or its Python is gone.
make_environment() {
    local python status
    check_python "$environment_python" venv
    [ "$status" != 0 ] || return 0
    python=$(find_python)
    "$python" "$root/scripts/make_environment.py" || exit 1
}

# Installs a requirements file, unless the environment already holds exactly this one.
install_once() { # NAME REQUIREMENTS
    "$environment_python" "$root/scripts/install_once.py" "$1" "$2" || exit 1
}
