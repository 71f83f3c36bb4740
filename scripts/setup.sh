# Sourced by run.sh and test.sh: one virtual environment, made once and again when its inputs change.
# Usage: . scripts/setup.sh [EXTRA]

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
extra="${1:-}"
python="${PYTHON:-python3}"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $python is $("$python" --version 2>&1)" >&2
    exit 2
}

venv="$root/.venv"
stamp="$venv/.installed${extra:+-$extra}"
wanted="$(cat "$root/requirements.txt" "$root/pyproject.toml" | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "setting up $venv (once)" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.txt" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root${extra:+[$extra]}" >&2
    echo "$wanted" >"$stamp"
fi
