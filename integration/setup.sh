#!/bin/sh
# Creates .venv with everything that the tests in a real Envoy and the demo need. Quick if nothing has changed.
#
#   integration/setup.sh            .venv, of integration/requirements.txt
#   integration/setup.sh clients    .toolchain/clients, of integration/clients/requirements.txt: for the nightly tests
set -eu
cd "$(dirname "$0")/.."

venv=.venv
requirements=integration/requirements.txt
if [ "${1:-}" = clients ]; then
    venv=.toolchain/clients
    requirements=integration/clients/requirements.txt
fi
installed=$venv/installed-requirements.txt

if cmp -s "$requirements" "$installed"; then
    exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "integration/setup.sh: Python 3.11 or newer is needed; install it (Debian: apt-get install python3-venv) or name one in \$PYTHON" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "integration/setup.sh: Python's venv module is missing; install it (Debian: apt-get install python3-venv)" >&2
    exit 1
fi

echo "Installing the Python packages of $requirements into $venv"
"$python" -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
cp "$requirements" "$installed"
