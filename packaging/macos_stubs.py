#!/usr/bin/env python3
"""Writes what a linker needs to know of macOS: python3 packaging/macos_stubs.py SDK BINARY… [--also LIBRARY SYMBOL…]

Apple's libraries are not to be had here. But binaries that run on macOS name each symbol that they take, and the library they
take it from. So SDK gets, for every library of the system that BINARY… use, a stub (.tbd) of exactly those symbols: what
links against it takes nothing that no released binary takes. `--also` adds symbols that none of them uses, one option a library.
"""

import argparse
import pathlib

from mach_o import MachO


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("sdk", type=pathlib.Path)
    options.add_argument("binaries", type=pathlib.Path, nargs="+", metavar="BINARY")
    options.add_argument("--also", nargs="+", action="append", default=[], metavar="NAME")
    chosen = options.parse_args()
    taken = {}
    for binary in chosen.binaries:
        for library, symbol in MachO(binary).imports():
            taken.setdefault(library, set()).add(symbol)
    for library, *symbols in chosen.also:
        taken.setdefault(library, set()).update(symbols)
    for library, symbols in sorted(taken.items()):
        # The C library's stub is whole, and @rpath is no library of the system.
        if library.startswith("/") and not library.endswith("/libSystem.B.dylib"):
            stub = write(chosen.sdk, library, sorted(symbols))
            print(f"{stub}: {len(symbols)} symbols of {library}")


def write(sdk, library, symbols):
    """Where a linker looks: `-lc++` finds usr/lib/libc++.tbd, `-framework Metal` its folder."""
    name = library.rsplit("/", 1)[1]
    if ".framework/" in library:
        path = sdk / f"System/Library/Frameworks/{name}.framework/{name}.tbd"
    else:
        path = sdk / "usr/lib" / f"{name.split('.')[0]}.tbd"
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f"'{symbol}'" for symbol in symbols)
    path.write_text(
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\n"
        f"install-name: '{library}'\nexports:\n  - targets: [ arm64-macos ]\n    symbols: [ {listed} ]\n...\n"
    )
    return path


if __name__ == "__main__":
    main()
