#!/usr/bin/env bash
# Cross-compiles and links prefixd for macOS arm64, and packs its wheel: packaging/macos.sh
#
# Nothing that is built here has been run. What it shows is that every line compiles for macOS and that every symbol is found: in
# MLX's own library for macOS, in the C library's list that zig carries, or in stubs of exactly those symbols that released
# binaries take from the same libraries (macos_stubs.py). zig compiles C and C++, Rust's own lld links and signs ad hoc.

source "$(dirname "${BASH_SOURCE[0]}")/cross.sh"
triple=aarch64-apple-darwin
sdk=$cross/macos-sdk
wheels=$cross/macos-wheels
program=$CARGO_TARGET_DIR/$triple/release/prefixd
# The oldest macOS that MLX has a library for.
export MACOSX_DEPLOYMENT_TARGET=14.0
# Binaries whose use of the system's libraries is taken over, by wheel: MLX's own, and one that asks for processes and memory.
released=("mlx-metal==$(sed -n '/name: "mlx-metal"/{n;s/.*version: "\(.*\)".*/\1/p}' native/mlx-sys/build/platform.rs)" psutil==7.2.2)

stubs() {
    rm -rf "$sdk" "$wheels" && mkdir -p "$sdk/usr/lib" "$wheels"
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --platform macosx_14_0_arm64 --dest "$wheels" "${released[@]}"
    for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$wheels"; done
    mapfile -t binaries < <(find "$wheels" -name '*.dylib' -o -name '*.so')
    # Rust's lld knows arm64e but not its later kinds; what is listed for arm64e is there for arm64.
    sed 's/, *arm64e\.x1-[a-z]*//g; s/arm64e\.x1-[a-z]*,* *//g; s/arm64e-/arm64-/g' "$zig/lib/libc/darwin/libSystem.tbd" >"$sdk/usr/lib/libSystem.tbd"
    # Further names of the C library, as on macOS.
    for name in c m pthread dl; do ln -s libSystem.tbd "$sdk/usr/lib/lib$name.tbd"; done
    # Public and older than macOS 14, but in none of those binaries: what the sysinfo crate reads the processor's speed with. Rust's
    # libc crate names libiconv; prefixd takes nothing from it.
    python3 packaging/macos_stubs.py "$sdk" "${binaries[@]}" --also /usr/lib/libiconv.2.dylib _iconv \
        --also /System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation \
        _CFRetain _CFStringCreateWithBytesNoCopy _kCFAllocatorNull
}

# zig is told the platform by its own name, and has the system's headers.
compilers() {
    for language in cc c++; do
        cat >"$cross/bin/macos-$language" <<COMPILER
#!/usr/bin/env bash
own=()
while [ \$# -gt 0 ]; do
    case \$1 in
    -print-file-name=include) exec echo "$zig/lib/include" ;;
    -isysroot | -arch) shift ;;
    --target=* | -mmacosx-version-min=*) ;;
    *) own+=("\$1") ;;
    esac
    shift
done
# As Apple's compiler does: no checks that need a library of their own, \`delete\` without a size, and of the C++ library nothing that
# is younger than the oldest macOS (zig brings its own, newer library and takes no heed).
exec "$zig/zig" $language -target aarch64-macos.$MACOSX_DEPLOYMENT_TARGET -fno-sanitize=undefined -fno-sized-deallocation \\
    -U_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS -D_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS=1 -Wno-macro-redefined "\${own[@]}"
COMPILER
    done
    # Build scripts speak to a compiler that hands words on; there is none before this linker. The run path is the one that the
    # wheel needs, since nothing here could change and sign the program later.
    cat >"$cross/bin/macos-ld" <<LINKER
#!/usr/bin/env bash
own=()
for word; do
    [ "\$word" != -Xlinker ] || continue
    [ "\$before" != -rpath ] || word=@loader_path/../../mlx/lib
    own+=("\$word")
    before=\$word
done
exec "$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin/rust-lld" "\${own[@]}"
LINKER
    printf '#!/bin/sh\nexec "%s/zig" ar "$@"\n' "$zig" >"$cross/bin/macos-ar"
    chmod +x "$cross"/bin/macos-*
}

python_tools ziglang
zig=$("$cross/python/bin/python" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')
say "stubs of the system's libraries" stubs
compilers
standard_library "$triple"
export CC_aarch64_apple_darwin=$cross/bin/macos-cc CXX_aarch64_apple_darwin=$cross/bin/macos-c++
export AR_aarch64_apple_darwin=$cross/bin/macos-ar
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_apple_darwin="'-I$zig/lib/libc/include/any-darwin-any' '-I$zig/lib/include'"
export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$cross/bin/macos-ld SDKROOT=$sdk
export CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS='-C linker-flavor=ld64.lld'
say "prefixd for $triple" cargo build --locked "${build_std[@]}" --jobs "$jobs" --release --target "$triple"

for runs_here in "$native/release/prefixd" "$cross/bin/arm64-prefixd"; do
    [ ! -x "$runs_here" ] || break
done
[ -x "$runs_here" ] || fail "found no prefixd that runs here, to write the wheel's manual pages: cargo build --release first. Linked: $program"
say "its wheel" python3 packaging/wheel.py --program "$program" --runs-here "$runs_here"
show '\.whl'
say "what it takes from where" python3 packaging/mach_o.py "$program"
show .
