# What is done with this repository, by name. `just` lists it; each recipe is a command that works without just, too.

_:
    @just --list

# What CI runs: format, lints, tests
ci:
    .ci/run

# The wheel of this machine's platform, in target/wheels
wheel *flags:
    cargo build --release --locked
    python3 packaging/wheel.py {{flags}}

# Installs the newest wheel into clean environments and uses it
wheel-test:
    python3 packaging/test_wheel.py "$(ls -t target/wheels/prefixd-*.whl | head -1)"

# Linux arm64 from another Debian machine: built, packed, and run under qemu
arm64:
    packaging/arm64.sh

# macOS arm64 from Linux: built, linked and packed, not run
macos:
    packaging/macos.sh

# The crates that others may use, as they would be published
crates:
    cargo publish --dry-run --locked --package prefixd-migrations --package prefixd-cache

# The licences of everything that is compiled in
licenses:
    python3 packaging/licenses.py

# The container image, for the CPU or with --build-arg WHEEL=--cuda
image *flags:
    buildah build --format docker --file packaging/Containerfile --tag prefixd {{flags}} .
