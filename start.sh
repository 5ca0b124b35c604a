#!/usr/bin/env bash
# Starts the app. The first time, it makes a virtual environment beside itself and installs what the app needs.
# start.bat does the same on Windows.
#   bash start.sh [arguments of webui/endframe_ichi.py]
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source "$root/scripts/environment.sh"

# 1. A virtual environment: the one that is there if it works, else a new one.
make_environment
# 2. The packages, once, and again when requirements.txt has changed.
install_once app "$root/requirements.txt"
# 3. The app, in the browser where there is a screen for one.
if [ "$(uname)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    set -- --inbrowser "$@"
fi
# The current directory stays the user's, so that relative paths among the arguments mean what they say.
ENDFRAME_ICHI_STARTER="bash start.sh" exec "$environment_python" "$root/webui/endframe_ichi.py" "$@"
