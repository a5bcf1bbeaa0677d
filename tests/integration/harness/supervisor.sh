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

launch() {
    # -k rather than a setting: a standby's copied configuration would name the primary's directory.
    "$bin/postgres" -D "$data" -k "$dir" -p "$port" "$@" </dev/null >>"$log" 2>&1 &
    server=$!
}

start() {
    launch "$@"
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

# What a standby of the server in this directory starts from. By hand: pg_basebackup refuses servers of later releases than
# its own. The WAL is streamed.
basebackup() {
    set -- "$1" "$(client psql) -X -qAt -v ON_ERROR_STOP=1 -h $1 -p $port -U postgres -d postgres"
    version=$($2 -c 'show server_version_num') || return
    if [ "$version" -ge 150000 ]; then
        start="pg_backup_start('standby', true)" stop="pg_backup_stop()"
    else
        start="pg_start_backup('standby', true, false)" stop="pg_stop_backup(false)"
    fi
    mkdir -m 700 "$data" && $2 <<SQL || return
select $start;
\! tar -C "$1/data" --exclude=./postmaster.pid --exclude='./pg_wal/*' --exclude='./pg_replslot/*' -c . | tar -C "$data" -x
\o $data/backup_label
select labelfile from $stop;
SQL
    conninfo="primary_conninfo = 'host=$1 port=$port user=postgres dbname=postgres'"
    if [ "$version" -ge 120000 ]; then
        touch "$data/standby.signal" && echo "$conninfo" >>"$data/postgresql.auto.conf"
    else
        printf '%s\n' 'standby_mode = on' "$conninfo" >"$data/recovery.conf"
    fi
}

# Sets the epoch and id of the next transaction, whose place in this segment of pg_xact is made.
next_xid() {
    "$bin/pg_resetwal" -D "$data" -e "$1" -x "$2" && dd if=/dev/zero of="$data/pg_xact/$3" bs=262144 count=1
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
    basebackup) basebackup "$argument" >>"$log" 2>&1 ;;
    start) start ${argument:+"$argument"} ;;
    launch) launch ;;
    # The argument is three words.
    next_xid) next_xid $argument >>"$log" 2>&1 ;;
    promote) "$bin/pg_ctl" -D "$data" promote >>"$log" 2>&1 ;;
    stop) stop "$argument" || true ;;
    *) false ;;
    esac && echo ok || echo "failed: $command"
done

stop QUIT
rm -rf "$dir"
