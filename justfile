# Commands of this project; `just` lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Tools that scripts/setup-tools installed come first, then those of the machine.
export PATH := justfile_directory() / "target/tools/bin:" + env("PATH")

[private]
default:
    @just --list --unsorted

# Everything that CI checks.
check: lint test

# Installs the tools of `lint`, and what the interop and browser tests run against.
setup:
    scripts/setup-tools
    scripts/setup-interop
    scripts/setup-browser

# All checks but the tests, cheap ones first.
lint: fmt spelling links scripts workflows dependencies clippy doc

# Formatting.
fmt:
    cargo fmt --all --check

# Spelling of code and documents.
spelling:
    typos

# Relative links between the documents.
links:
    scripts/check-links

# Shell scripts, and the deployment against a recorded docker.
scripts:
    shellcheck .ci/run deploy/* scripts/setup-* scripts/check-* scripts/fuzz scripts/vgg16-weights
    deploy/test-deploy

# GitHub's files, the compose file and the Dockerfile.
workflows:
    zizmor --offline --quiet .github
    check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
    check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
    check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
    hadolint Dockerfile

# Licences, sources and advisories of the dependencies, where cargo-deny is installed.
dependencies:
    scripts/check-dependencies

# Lints of the code, warnings denied.
clippy:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# The reference pages, warnings denied.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# All tests, doctests among them.
test:
    cargo test --workspace

# The same tests, each in its own process (needs cargo-nextest).
nextest *ARGS:
    cargo nextest run --workspace {{ ARGS }}
    cargo test --workspace --doc

# Miri over everything `unsafe` that needs no special instructions (needs a nightly toolchain with miri).
miri *ARGS:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-permissive-provenance -Zmiri-tree-borrows" \
        cargo +nightly miri test --locked -p nephros-conv --test tiny -- {{ ARGS }}

# Fuzzes a target of fuzz/ for so many seconds, or all of them (see CONTRIBUTING.md).
fuzz TARGET="all" SECONDS="60":
    scripts/fuzz {{ TARGET }} {{ SECONDS }}

# The notebooks of research/, from start to end, where their environment is installed.
notebooks:
    scripts/check-notebooks

# Trains on a drawn cohort and serves the result.
demo *ARGS:
    cargo run --release -- demo {{ ARGS }}

# Serves the trained model of this folder.
serve *ARGS:
    cargo run --release -- serve {{ ARGS }}

# Times the feature extractor of VGG16: images in a batch, rounds.
bench IMAGES="1" ROUNDS="15":
    cargo run --release -p nephros-conv --example forward -- {{ IMAGES }} {{ ROUNDS }}

# Times the forward pass beside other engines (from PyPI) and writes docs/benchmarks.md.
bench-peers *ARGS:
    cargo build --release --locked
    scripts/bench-peers {{ ARGS }}

# Times the server beside the bare engine and the reference's design, and writes docs/benchmarks.md.
bench-serve *ARGS:
    cargo build --release --locked
    cargo build --release --locked -p nephros-server --example load
    scripts/bench-serve {{ ARGS }}

# Half an hour of mixed requests, some of them bad; every answer and every receipt is checked.
soak-serve *ARGS:
    cargo build --release --locked
    scripts/soak-serve {{ ARGS }}

# Writes the golden files anew, from the programs that they are compared with: the head of each
# script names what it needs from PyPI.
golden:
    for script in scripts/golden/*.py; do python3 "$script"; done

# Runs the image's final stage with a release binary (needs Debian's buildah, root).
container:
    cargo build --release --locked
    scripts/check-container target/release/nephros
