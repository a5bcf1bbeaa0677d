# The wheel, built as for PyPI: the source distribution first, and from that the wheel. Sourced after server.bash and
# pypi.bash.

# Sets wheel to a wheel in $dir/wheels: a new one, or a copy of the one that TAP_WHEEL names.
# shellcheck disable=SC2154 # dir, pypi
need_wheel() {
    if [ -n "${TAP_WHEEL:-}" ]; then
        mkdir "$dir/wheels"
        cp "$TAP_WHEEL" "$dir/wheels"
    else
        need_rust
        need_pypi build
        step "Building the wheel (release; some minutes the first time)"
        CARGO_TARGET_DIR=${pypi%/pypi} "$pypi/build/bin/pyproject-build" --outdir "$dir/wheels" . >"$dir/build.log" 2>&1 ||
            { tail -n 40 "$dir/build.log" >&2; die "the wheel does not build"; }
    fi
    wheel=$(echo "$dir"/wheels/*.whl)
    [ -f "$wheel" ] || die "not one wheel in $dir/wheels"
}
