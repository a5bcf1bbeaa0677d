# Private servers, gone when the script ends. Sourced after setup.bash; pg_bin names the programs (need_postgres).

# The server refuses to run as root.
as_server() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    else
        runuser -u "$server_user" -- "$@"
    fi
}

# shellcheck disable=SC2154 # pg_bin
stop_servers() {
    trap '' INT TERM
    local pid_file
    for pid_file in "$dir"/*/postmaster.pid; do
        [ ! -f "$pid_file" ] || as_server "$pg_bin/pg_ctl" -D "${pid_file%/*}" -m immediate -w stop >/dev/null 2>&1 || true
    done
    rm -rf "$dir"
}

# Sets dir to a new directory for files, servers and their sockets.
private_directory() {
    server_user=$(id -un postgres 2>/dev/null || echo nobody)
    # In /tmp whatever TMPDIR says: a socket's path is limited to some hundred bytes.
    dir=$(mktemp -d "/tmp/$1.XXXXXX")
    trap stop_servers EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    [ "$(id -u)" -ne 0 ] || chown "$server_user" "$dir"
}

# start_server NAME SETTING… starts a server in $dir/NAME, on a socket in $dir and the port 5432 unless a setting says
# otherwise, with both output plugins and no regard for crashes.
start_server() (
    name=$1
    shift
    cd "$dir" || exit
    as_server "$pg_bin/initdb" -D "$name" -U postgres -A trust -E UTF8 --locale=C -N >"$name.initdb.log" 2>&1 ||
        { cat "$name.initdb.log" >&2; exit 1; }
    # Minor releases that have this setting refuse other plugins than the listed.
    plugins=$(as_server "$pg_bin/postgres" -D "$name" -C output_plugin_libraries 2>/dev/null) &&
        echo "output_plugin_libraries = '$plugins, wal2json'" >>"$name/postgresql.conf"
    printf '%s\n' "unix_socket_directories = '$dir'" "listen_addresses = ''" "wal_level = logical" "fsync = off" "$@" \
        >>"$name/postgresql.conf"
    as_server "$pg_bin/pg_ctl" -D "$name" -l "$name.log" -w start >/dev/null || { cat "$name.log" >&2; exit 1; }
)

# Prints a port of loopback that nothing listens on.
free_port() {
    python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
}

# sql DATABASE ARGUMENT… runs psql on the server in $dir.
sql() {
    local database=$1
    shift
    "$pg_bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$dir" -U postgres -d "$database" "$@"
}
