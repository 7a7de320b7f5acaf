#!/bin/sh
# Checks the crate against Twomemo. Installs what it needs below the target directory; needs python3 with venv and the
# network the first time. Usage: run.sh [ROUNDS [SEED]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../../target}
mkdir -p "$target"
venv=$target/interop-venv
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import twomemo.etree' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
fi
cargo build --quiet --manifest-path "$here/../../Cargo.toml" --example omemo2_lines --target-dir "$target"
exec "$venv/bin/python" "$here/twomemo_check.py" "$target/debug/examples/omemo2_lines" "$@"
