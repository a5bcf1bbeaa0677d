# What the scripts need on a machine that may have nothing, and the tap itself. Sourced, from the repository's root.

# Settings of the developer's shell (PGPORT, PGHOST, …) shall reach neither server nor psql nor the tap.
unset "${!PG@}"

step() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (run it as root, or install sudo)"
    fi
}

apt_update() {
    command -v apt-get >/dev/null || die "this needs $*; please install it"
    [ -z "${apt_updated:-}" ] || return 0
    as_root apt-get -qq update || die "apt-get update failed"
    apt_updated=yes
}

# Installs packages where apt is; says what is missing elsewhere.
apt_install() {
    apt_update "$@"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null ||
        die "apt-get cannot install: $*"
}

need_rust() {
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs, then run this again"
    # Rust links with cc, and ring compiles C with it.
    command -v cc >/dev/null || { step "Installing a C compiler"; apt_install gcc libc6-dev; }
}

# Sets tap to the executable: $TAP_BIN, or what is built now; `need_tap --release` builds it as users have it.
need_tap() {
    local profile=debug
    if [ -n "${TAP_BIN:-}" ]; then
        tap=$(realpath "$TAP_BIN")
    else
        need_rust
        [ "${1:-}" != --release ] || profile=release
        step "Building the tap ($profile): $(grep -c '^name = ' Cargo.lock) crates the first time, some minutes"
        # On a terminal cargo says how far it is.
        if [ -t 2 ]; then cargo build --locked "$@"; else cargo build --locked --quiet "$@"; fi
        tap=$(cargo metadata --locked --no-deps --format-version 1 |
            sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/$profile/tap-postgres-rs
    fi
    [ -x "$tap" ] || die "no executable at $tap"
}

# Sets pg_bin to the server programs: $TAP_TEST_PG_BIN, or the newest release installed. With the argument wal2json,
# one that has that plugin.
find_postgres() {
    local bin
    if [ -n "${TAP_TEST_PG_BIN:-}" ]; then
        pg_bin=$TAP_TEST_PG_BIN
        [ -x "$pg_bin/initdb" ] || die "TAP_TEST_PG_BIN=$pg_bin has no initdb"
        return 0
    fi
    pg_bin=
    while read -r bin; do
        [ "${1:-}" = wal2json ] && [ ! -e "${bin%/bin}/lib/wal2json.so" ] && continue
        pg_bin=$bin
    done < <(find /usr/lib/postgresql/*/bin -name initdb -printf '%h\n' 2>/dev/null | sort -V)
    [ -n "$pg_bin" ]
}

# The same, after installing what is missing.
need_postgres() {
    local version packages
    find_postgres "$@" && return 0
    step "Installing PostgreSQL"
    apt_update "a PostgreSQL server${1:+ with $1}"
    if find_postgres; then
        version=$(cut -d/ -f5 <<<"$pg_bin")
    else
        # `postgresql` depends on the distribution's release of it.
        version=$(apt-cache depends postgresql | sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
        [ -n "$version" ] || die "apt knows no package postgresql"
    fi
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        # Only the programs are wanted: without this Debian makes a cluster and starts it.
        apt_install postgresql-common
        echo 'create_main_cluster = false' | as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    packages=("postgresql-$version")
    [ "${1:-}" != wal2json ] || packages+=("postgresql-$version-wal2json")
    apt_install "${packages[@]}"
    find_postgres "$@" || die "no server${1:+ with $1} under /usr/lib/postgresql after installing ${packages[*]}"
}

# The clients that the tests run; the servers of scripts/versions.bash come without. And an SSH server to tunnel through, and what
# container/pipeline-part is written in.
need_clients() {
    command -v python3 >/dev/null || { step "Installing Python"; apt_install python3; }
    [ -x "$pg_bin/psql" ] || command -v psql >/dev/null || { step "Installing psql"; apt_install postgresql-client; }
    [ -x /usr/sbin/sshd ] || { step "Installing sshd"; install_sshd; }
}

# Only the program is wanted: this keeps Debian from starting the service.
install_sshd() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"
        trap 'as_root rm -f "$policy"' EXIT
    fi
    apt_install openssh-server
)
