# Sourced by the other scripts: finds a Python, keeps one .venv per clone, installs what is asked for.
# usage: prepare FILE...   (requirements files, relative to the repository)
#        prepare_in DIRECTORY FILE...   (another environment, without bloomery in it)

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "bloomery needs Python 3.11, 3.12 or 3.13, and none is on the PATH (python3 is $(python3 --version 2>&1)). \
Install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

bootstrap() {
    local directory="$1" python
    shift
    if [ -x "$directory/bin/python" ]; then python="$directory/bin/python"; else python="$(find_python)"; fi
    (cd "$root" && "$python" scripts/bootstrap.py --venv "$directory" "$@")
}

prepare() { bootstrap "$venv" "$@"; }
prepare_in() { bootstrap "$root/$1" --bare "${@:2}"; }
