#!/usr/bin/env bash
# Starts the app. The first time, it makes a virtual environment beside itself and installs what the app needs.
#   bash start.sh [arguments of webui/endframe_ichi.py]
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source "$root/scripts/environment.sh"

make_environment
install_once app "$root/requirements.txt"
# The current directory stays the user's, so that relative paths among the arguments mean what they say.
exec "$environment_python" "$root/webui/endframe_ichi.py" "$@"
