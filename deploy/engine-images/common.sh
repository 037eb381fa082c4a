# Shell functions that the entrypoints share.

die() {
    echo "entrypoint: $*" >&2
    exit 1
}

# NAME_FILE names a file that holds the value of NAME, as in the official images (a mounted secret).
read_secret_files() {
    local name file
    for name in "$@"; do
        file="${name}_FILE"
        [[ -n ${!file:-} ]] || continue
        [[ -z ${!name:-} ]] || die "$name and $file are both set"
        [[ -r ${!file} ]] || die "$file names ${!file}, which cannot be read"
        export "$name=$(<"${!file}")"
        unset "$file"
    done
}

# Start this entrypoint again as USER, who then owns the directories. Returns when that is so already.
become() {
    local user=$1
    shift
    [[ $(id -u) == 0 ]] || return 0
    local directory
    for directory in "$@"; do
        mkdir -p "$directory"
        find "$directory" \! -user "$user" -exec chown "$user:$user" {} +
    done
    exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$0" "${command[@]}"
}

initdb_scripts() {
    compgen -G '/docker-entrypoint-initdb.d/*' || true
}

# Run /docker-entrypoint-initdb.d in the order of its names; run_sql_file is the engine's own.
run_initdb_scripts() {
    local file
    while read -r file; do
        [[ -n $file ]] || continue
        echo "entrypoint: running $file"
        case $file in
        *.sh) bash -e "$file" ;;
        *.sql | *.iql) run_sql_file "$file" ;;
        *) die "$file: neither .sh nor .sql" ;;
        esac
    done < <(initdb_scripts)
}

# Poll COMMAND for SECONDS at most, while the process PID lives.
wait_for() {
    local seconds=$1 pid=$2
    shift 2
    local deadline=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || die "the server ended while it was being set up"
        ((SECONDS < deadline)) || die "the server did not answer within $seconds s while it was being set up"
        sleep 0.05
    done
}
