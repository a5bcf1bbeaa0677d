# Owns one PostgreSQL cluster for the process at the other end of stdin. Arguments: server binaries, directory, port.
#
# Reads one command a line and answers "ok" or "failed: why". When stdin closes, which the kernel does for us however
# that process ends (kill -9 too), the server is stopped and the directory removed.
bin=$1
dir=$2
port=$3
data=$dir/data
log=$dir/log
server=

# A Ctrl-C in the terminal is meant for the tests; their end closes stdin.
trap '' INT TERM HUP
ulimit -c 0

# Some distributions of the server come without its clients.
client() {
    if [ -x "$bin/$1" ]; then echo "$bin/$1"; else command -v "$1" || echo false; fi
}

start() {
    # -k rather than a setting: a standby's copied configuration would name the primary's directory.
    "$bin/postgres" -D "$data" -k "$dir" -p "$port" </dev/null >>"$log" 2>&1 &
    server=$!
    until "$(client pg_isready)" -q -h "$dir" -p "$port" -U postgres >>"$log" 2>&1; do
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.05
    done
}

stop() {
    [ -n "$server" ] || return 0
    kill -"$1" "$server" 2>/dev/null
    wait "$server"
    server=
}

# Minor releases of 2026 and later load only the output plugins named here.
allow_plugins() {
    plugins=$("$bin/postgres" -D "$data" -C output_plugin_libraries 2>/dev/null) || return 0
    echo "output_plugin_libraries = '${plugins:+$plugins, }wal2json, test_decoding'" >>"$data/postgresql.conf"
}

while read -r command argument; do
    case $command in
    initdb)
        "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C -N >>"$log" 2>&1 &&
            allow_plugins
        ;;
    basebackup) "$(client pg_basebackup)" -h "$argument" -p "$port" -U postgres -D "$data" -R -X stream -c fast >>"$log" 2>&1 ;;
    start) start ;;
    stop) stop "$argument" || true ;;
    *) false ;;
    esac && echo ok || echo "failed: $command"
done

stop QUIT
rm -rf "$dir"
