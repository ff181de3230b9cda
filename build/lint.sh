#!/usr/bin/env bash
# Checks formatting, lints and dependencies: Rust for this machine and for wasm, shell, Python, and the workflows under
# .github.
set -euo pipefail
cd "$(dirname "$0")/.."

build/lint-tools.sh
PATH="$PWD/.toolchain/lint/bin:$PATH"

step() {
    local start=$SECONDS
    echo "lint: $*" >&2
    "$@"
    echo "lint: $((SECONDS - start)) s" >&2
}

# Advisories need RustSec's database, a git repository that some networks block. The other checks do not, and run
# everywhere.
check_dependencies() {
    local checks=(bans licenses sources)
    if timeout 120 build/with-rust.sh cargo deny --locked fetch db 2>/dev/null; then
        checks+=(advisories)
    else
        echo "lint: WARNING: can't fetch RustSec's advisory database: dependencies are NOT checked for advisories" >&2
    fi
    build/with-rust.sh cargo deny --locked check --hide-inclusion-graph "${checks[@]}"
}

# The linters find scripts by their extension; .ci/run alone has none.
check_extensions() {
    ! git grep --untracked --files-with-matches '^#!/' -- ':!*.sh' ':!*.py' ':!*.md' ':!.ci/run' ||
        { echo "lint: the scripts above lack an extension; end their names with .sh or .py" >&2; return 1; }
}

# The schemas of GitHub's workflows and of Dependabot come with check-jsonschema: nothing is fetched.
check_workflows() {
    check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
    check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
    zizmor --offline --quiet .github
}

mapfile -t shell_scripts < <(git ls-files --cached --others --exclude-standard -- .ci/run '*.sh')

step check_extensions
step build/check-format.sh
step build/with-rust.sh cargo clippy --locked --workspace --all-features --all-targets -- -D warnings
step build/cargo-wasm.sh clippy --locked --package sigv4-filter --package empty-filter -- -D warnings
step check_dependencies
step shellcheck "${shell_scripts[@]}"
step ruff check .
step check_workflows
