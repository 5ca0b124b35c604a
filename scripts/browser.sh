# The browser that the tests drive. Sourced by run_tests.sh, which has made the environment.

# Installs one where there is none. That it can't be had is not fatal: the tests say what was left out.
ensure_browser() {
    "$environment_python" "$root/tests/browser/find_browser.py" && return
    echo "Installing a browser for the tests: the first time, this takes minutes."
    install_browser >&2 || true
    "$environment_python" "$root/tests/browser/find_browser.py" || echo "No browser could be installed."
}

# Debian's Chromium plays the videos and comes with its libraries; playwright's own is for all other systems.
install_browser() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get -qq update || true
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium fonts-noto-cjk >/dev/null && return
    fi
    "$environment_python" -m playwright install chromium
}
