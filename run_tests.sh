#!/usr/bin/env bash
# Checks style, types and behaviour, in the app's virtual environment. Fails if one of them fails.
#   bash run_tests.sh [arguments of pytest, paths counted from here]
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source "$root/scripts/environment.sh"
source "$root/scripts/browser.sh"

make_environment
install_once app "$root/requirements.txt"
install_once tests "$root/tests/requirements.txt"
ensure_browser
cd "$root"
# The tests run side by side, so that each of them gets one core; those of a file stay together, because they share
# what is slow to make (an app, a browser).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

failed=''
check() { # NAME MODULE [ARGUMENT ...]
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$environment_python" -m "$@" || failed="$failed, $name"
}
check 'ruff check' ruff check .
check 'ruff format' ruff format --check .
check mypy mypy
check pytest pytest -n logical --maxprocesses 4 --dist loadfile "$@"

if [ -n "$failed" ]; then
    fail "Failed: ${failed#, }"
fi
printf '\nAll passed.\n'
