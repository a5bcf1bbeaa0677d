# Taps and targets from PyPI, each in a virtual environment of its own below target/pypi. Sourced after setup.bash.
#
# TAP_TEST_PYTHON names a Python to try before all others, TAP_TEST_REFERENCE anything that pip installs as the reference:
# a release, or its sources (2.2.0 is not on PyPI, but in PipelineWise's repository, singer-connectors/tap-postgres).

pypi=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pypi

# What to install for a name: its program, the Pythons that it is made for, the packages, the best first.
pypi_package() {
    case $1 in
    reference)
        echo tap-postgres "3.9 3.8 3.7 3.12"
        if [ -n "${TAP_TEST_REFERENCE:-}" ]; then
            echo "$TAP_TEST_REFERENCE"
        else
            printf 'pipelinewise-tap-postgres==%s\n' 2.2.0 2.1.0 2.0.0 1.8.4
        fi
        ;;
    meltano-tap) printf '%s\n' "tap-postgres 3.12 3.13 3.11 3.10" meltanolabs-tap-postgres==0.10.0 ;;
    jsonl) printf '%s\n' "target-jsonl" target-jsonl==0.1.4 ;;
    # What it is pinned to has no wheels for later Pythons.
    pipelinewise) printf '%s\n' "target-postgres 3.11 3.10 3.9 3.8" pipelinewise-target-postgres==2.1.2 ;;
    meltano) printf '%s\n' "target-postgres" meltanolabs-target-postgres==0.8.1 ;;
    # Its own dependency's program.
    rich) printf '%s\n' "pygmentize" rich==15.0.0 ;;
    esac
}

pypi_pythons() {
    local version
    [ -z "${TAP_TEST_PYTHON:-}" ] || echo "$TAP_TEST_PYTHON"
    for version in "$@"; do
        command -v "python$version" || true
        find "${PYENV_ROOT:-$HOME/.pyenv}/versions/" -path "*/$version.*/bin/python" 2>/dev/null || true
    done
    echo python3
}

# Installs the best package of a name that installs; a file says that it was completed.
need_pypi() {
    local venv=$pypi/$1 program versions package option python
    local -a packages candidates
    mapfile -t packages < <(pypi_package "$1")
    read -r program versions <<<"${packages[0]}"
    packages=("${packages[@]:1}")
    if [ -e "$venv/installed" ] && printf '%s\n' "${packages[@]}" | grep -qxF "$(cat "$venv/installed")"; then return 0; fi
    step "Installing ${packages[0]%%=*}"
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    # shellcheck disable=SC2086 # words
    mapfile -t candidates < <(pypi_pythons $versions)
    mkdir -p "$pypi"
    for package in "${packages[@]}"; do
        # First where it says that it belongs, then anywhere: later Pythons run it as well.
        for option in --no-input --ignore-requires-python; do
            for python in "${candidates[@]}"; do
                rm -rf "$venv"
                # A shim may stand for a Python that isn't there.
                "$python" -m venv "$venv" >/dev/null 2>&1 || continue
                # psycopg2 comes as a wheel or not at all.
                "$venv/bin/pip" install --quiet --disable-pip-version-check "$option" --only-binary psycopg2-binary \
                    "$package" >"$venv/pip.log" 2>&1 </dev/null || continue
                "$venv/bin/$program" --help >/dev/null 2>&1 </dev/null || continue
                echo "$package" >"$venv/installed"
                return 0
            done
        done
        echo "not $package: $(tail -n 1 "$venv/pip.log" 2>/dev/null || true)"
    done
    die "no release of ${packages[0]%%=*} installs; $venv/pip.log tells why"
}
