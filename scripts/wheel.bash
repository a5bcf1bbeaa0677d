# The wheel, built as for PyPI: the source distribution first, and from that the wheel. Sourced after server.bash and
# pypi.bash.

# Sets wheel to a wheel in $dir/wheels: a new one, or a copy of the one that TAP_WHEEL names.
# shellcheck disable=SC2154 # dir, pypi
need_wheel() {
    if [ -n "${TAP_WHEEL:-}" ]; then
        [ -f "$TAP_WHEEL" ] || die "no wheel at $TAP_WHEEL"
        mkdir "$dir/wheels"
        cp "$TAP_WHEEL" "$dir/wheels"
    else
        need_rust
        need_pypi build
        step "Building the wheel (release; some minutes the first time)"
        "$pypi/build/bin/pyproject-build" --sdist --outdir "$dir" . >"$dir/build.log" 2>&1 &&
            mkdir "$dir/source" &&
            # Not with the times in it, which are of 2006: cargo would take what it built last for newer.
            tar -xzmf "$dir"/*.tar.gz -C "$dir/source" --strip-components 1 &&
            CARGO_TARGET_DIR=${pypi%/pypi} "$pypi/build/bin/pyproject-build" --wheel --outdir "$dir/wheels" "$dir/source" \
                >"$dir/build.log" 2>&1 ||
            { tail -n 40 "$dir/build.log" >&2; die "the wheel does not build"; }
    fi
    wheel=$(echo "$dir"/wheels/*.whl)
    [ -f "$wheel" ] || die "not one wheel in $dir/wheels"
}
