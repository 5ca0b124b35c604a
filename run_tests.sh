#!/usr/bin/env bash
# Checks style, types, import layers and behaviour, in the app's virtual environment. Fails if one of them fails.
#   bash run_tests.sh [--all | --slow] [arguments of pytest, paths counted from here]
# Without an option the slow tests are left out; --all runs them, too, --slow runs them alone.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source "$root/scripts/environment.sh"
source "$root/scripts/browser.sh"

marks=() only_slow=''
case "${1:-}" in
--all)
    marks=(-m 'not gpu')
    shift
    ;;
--slow)
    marks=(-m 'slow and not gpu')
    only_slow=yes
    shift
    ;;
esac

make_environment
install_once app "$root/requirements.txt"
install_once tests "$root/tests/requirements.txt"
ensure_browser
cd "$root"
# The tests run side by side, so that each of them gets one core; those of a file stay together, because they share
# what is slow to make (an app, a browser).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

failed=''
check() { # NAME COMMAND [ARGUMENT ...]
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed="$failed, $name"
}
if [ -z "$only_slow" ]; then
    check 'ruff check' "$environment_python" -m ruff check .
    check 'ruff format' "$environment_python" -m ruff format --check .
    check mypy "$environment_python" -m mypy
    check 'import layers' "$environment/bin/lint-imports" --no-cache
fi
check pytest "$environment_python" -m pytest -n logical --maxprocesses 4 --dist loadfile "${marks[@]}" "$@"

if [ -n "$failed" ]; then
    fail "Failed: ${failed#, }"
fi
printf '\nAll passed.\n'
