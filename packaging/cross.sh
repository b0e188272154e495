# What arm64.sh and macos.sh share: tools of Debian and PyPI, unpacked in target/cross without root, and Rust's standard
# library for another platform. Nothing here changes the machine. Sourced by them, not run.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
native=${CARGO_TARGET_DIR:-$root/target}
cross=$native/cross
# A folder of its own, so that the builds of this machine's program are not thrown away.
export CARGO_TARGET_DIR=$cross/build
jobs=${JOBS:-$(nproc)}
mkdir -p "$cross/bin"
cd "$root"

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

for tool in cargo apt-get dpkg-deb python3; do
    command -v $tool >/dev/null || fail "found no $tool; expected Debian or Ubuntu with Rust and Python 3"
done

# say WHAT COMMAND…: runs a command whose output goes to a file, which is shown if it fails, and says how long it took.
say() {
    local what=$1 log=$cross/${0##*/}.log began=$SECONDS ended=0
    shift
    # In a subshell and not behind `||`, which would let a function go on after its first failure.
    set +e
    (set -e && "$@") >"$log" 2>&1
    ended=$?
    set -e
    if [ $ended -ne 0 ]; then
        tail -n 40 "$log" >&2
        fail "$what failed (all of its output: $log): $*"
    fi
    printf '%-64s %4d s\n' "$what" $((SECONDS - began))
}

# show PATTERN: those lines of what the last command said.
show() {
    grep -- "$1" "$cross/${0##*/}.log" | sed 's/^/    /'
}

# apt-get and apt-cache with lists and files of our own, so that neither root nor the machine's lists are needed.
debian() {
    local program=$1
    shift
    mkdir -p "$cross/apt/lists/partial" "$cross/apt/cache/archives/partial"
    "$program" -q -o Dir::State::Lists="$cross/apt/lists" -o Dir::Cache="$cross/apt/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}

# unpack FOLDER OPTION… -- PACKAGE…: fetches Debian packages and unpacks them. The options are apt's.
unpack() {
    local folder=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    rm -rf "$folder" && mkdir -p "$folder"
    (cd "$folder" && debian apt-get "${options[@]}" download "$@")
    for package in "$folder"/*.deb; do
        dpkg-deb --extract "$package" "$folder"
        rm "$package"
    done
}

# with_needs PACKAGE…: the packages and all that they need, except the C library of this machine.
with_needs() {
    debian apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | grep '^[a-z]' | grep -v '^libc6$'
}

# The source of the standard library of this very compiler, which only Debian's later suites have.
rust_source() {
    local version=$1 sources=$cross/apt/rust.list
    local mirror
    mkdir -p "$cross/apt/rust/partial"
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p' | grep -v security | head -n 1)
    [ -n "$mirror" ] || fail "apt names no mirror of Debian, which has Rust's source; install it: rustup component add rust-src"
    for suite in trixie-backports sid; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$sources"
    local only=(-o Dir::Etc::SourceList="$sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$cross/apt/rust" -o Acquire::Languages=none)
    debian apt-get "${only[@]}" update
    unpack "$cross/rust" "${only[@]}" -- "rust-src=$version*"
}

# standard_library TRIPLE: what the platform lacks is built with the program: sets `build_std`, flags for cargo.
standard_library() {
    local sysroot version source
    build_std=()
    sysroot=$(rustc --print sysroot)
    if [ -d "$sysroot/lib/rustlib/$1/lib" ]; then return; fi
    source=$sysroot/lib/rustlib/src/rust/library
    if [ ! -d "$source" ]; then
        version=$(rustc --version | cut -d ' ' -f 2)
        source=$cross/rust/usr/src/rustc-$version/library
        [ -d "$source" ] || say "Rust $version's standard library, as Debian has it" rust_source "$version"
        [ -d "$source" ] || fail "found no $source; rustup target add $1 makes it unnecessary"
    fi
    build_std=(-Zbuild-std=std,panic_unwind,test)
    export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$source
}

# python_tools PACKAGE…: a virtual environment at $cross/python.
python_tools() {
    [ -x "$cross/python/bin/pip" ] || python3 -m venv "$cross/python"
    "$cross/python/bin/pip" install --quiet --disable-pip-version-check "$@"
}
