# Taps, mappers, targets and tools from PyPI, each in a virtual environment of its own below target/pypi. Sourced after setup.bash.
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
    # DuckDB 2 takes the first row of its files for a header.
    duckdb) printf '%s\n' "target-duckdb" "target-duckdb==0.8.0 duckdb==1.1.3" ;;
    # Its SQLAlchemy is of 2018.
    sqlite) printf '%s\n' "target-sqlite 3.9 3.8" target-sqlite==0.2.0 ;;
    # Neither of these two is on PyPI.
    meltano-sqlite)
        printf '%s\n' "target-sqlite 3.12 3.13 3.11 3.10" \
            git+https://github.com/MeltanoLabs/target-sqlite@d4e802eadfd383d0b6993f97769e2d1ae8099507
        ;;
    parquet)
        printf '%s\n' "target-parquet 3.11 3.10 3.9 3.12" git+https://github.com/Automattic/target-parquet@v1.1.2
        ;;
    # What it is pinned to has no wheels for later Pythons, and knows no later NumPy.
    pypi-parquet) printf '%s\n' "target-parquet 3.7 3.6" "target-parquet==0.0.1 numpy==1.16.6" ;;
    s3-jsonl) printf '%s\n' "target-s3-jsonl 3.11 3.12 3.10 3.9" target-s3-jsonl==2.0.1 ;;
    moto) printf '%s\n' "moto_server 3.12 3.13 3.11 3.10" "moto[server]==5.2.5" ;;
    transform-field) printf '%s\n' "transform-field 3.9 3.8 3.10" pipelinewise-transform-field==2.3.0 ;;
    map-transform) printf '%s\n' "meltano-map-transform 3.12 3.13 3.11 3.10" meltano-map-transform==0.12.3 ;;
    singer-jsonl) printf '%s\n' "target-singer-jsonl" target-singer-jsonl==0.1.0 ;;
    csv) printf '%s\n' "target-csv" meltanolabs-target-csv==0.5.0 ;;
    snowflake) printf '%s\n' "target-snowflake" meltanolabs-target-snowflake==0.20.4 ;;
    bigquery) printf '%s\n' "target-bigquery" "z3-target-bigquery==0.7.2 setuptools==75.8.0" ;;
    pipelinewise-snowflake) printf '%s\n' "target-snowflake 3.9 3.8 3.10" pipelinewise-target-snowflake==2.3.0 ;;
    pipelinewise-bigquery) printf '%s\n' "target-bigquery 3.9 3.8" pipelinewise-target-bigquery==1.5.0 ;;
    pipelinewise-redshift) printf '%s\n' "target-redshift 3.9 3.8 3.10" pipelinewise-target-redshift==1.6.0 ;;
    # Its own dependency's program.
    rich) printf '%s\n' "pygmentize" rich==15.0.0 ;;
    build) printf '%s\n' "pyproject-build" build==1.3.0 ;;
    maturin) printf '%s\n' "maturin" "maturin==1.16.0 ziglang==0.17.1" ;;
    auditwheel) printf '%s\n' "auditwheel 3.12 3.13 3.11 3.10" auditwheel==6.8.2 ;;
    twine) printf '%s\n' "twine 3.12 3.13 3.11 3.10" twine==7.0.0 ;;
    # Its jsonschema is of 2017.
    singer-tools) printf '%s\n' "singer-check-tap 3.9 3.8 3.7" singer-tools==0.4.1 ;;
    meltano-cli) printf '%s\n' "meltano 3.12 3.13 3.11 3.10" meltano==4.4.1 ;;
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

# Installs the best package of a name that installs; fails if none does.
need_pypi() {
    try_pypi "$1" || die "no release of $1 installs; $pypi/$1/pip.log tells why"
}

# The same, but says no more than that none does. A file says that it was completed.
try_pypi() {
    local venv=$pypi/$1 program versions package repository option python
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
        if [[ $package == git+* ]]; then
            # Where the repository is out of reach, no Python helps.
            repository=${package#git+}
            mkdir -p "$venv"
            if ! GIT_TERMINAL_PROMPT=0 git ls-remote "${repository%@*}" HEAD >/dev/null 2>"$venv/pip.log"; then
                echo "not $package: $(tail -n 1 "$venv/pip.log")"
                continue
            fi
        fi
        # First where it says that it belongs, then anywhere: later Pythons run it as well.
        for option in --no-input --ignore-requires-python; do
            for python in "${candidates[@]}"; do
                rm -rf "$venv"
                # A shim may stand for a Python that isn't there.
                "$python" -m venv "$venv" >/dev/null 2>&1 || continue
                # psycopg2 comes as a wheel or not at all.
                # shellcheck disable=SC2086 # words
                "$venv/bin/pip" install --quiet --disable-pip-version-check "$option" --only-binary psycopg2-binary \
                    $package >"$venv/pip.log" 2>&1 </dev/null || continue
                "$venv/bin/$program" --help >/dev/null 2>&1 </dev/null || continue
                echo "$package" >"$venv/installed"
                return 0
            done
        done
        echo "not ${package%% *}: $(tail -n 1 "$venv/pip.log" 2>/dev/null || true)"
    done
    return 1
}
