#!/usr/bin/env python3
"""Reads programs and libraries of macOS on arm64: python3 packaging/mach_o.py FILE lists what FILE takes from which library."""

import collections
import pathlib
import struct
import sys

MAGIC_ARM64 = b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01"
SYMTAB, RUN_PATH = 0x2, 0x8000001C
# Ways of loading a library. Symbols name theirs by its place among these commands, from 1 on.
LOADS = {0xC, 0x80000018, 0x8000001F, 0x80000023}


class MachO:
    """The load commands of a file that matter here."""

    def __init__(self, path):
        self.data, self.libraries, self.run_paths, self.table = pathlib.Path(path).read_bytes(), [], [], None
        if self.data[:8] != MAGIC_ARM64:
            sys.exit(f"{path} is no Mach-O file for arm64 alone")
        at = 32
        for _ in range(struct.unpack_from("<I", self.data, 16)[0]):
            command, size = struct.unpack_from("<II", self.data, at)
            if command in LOADS:
                self.libraries.append(self.named(at))
            elif command == RUN_PATH:
                self.run_paths.append(self.named(at))
            elif command == SYMTAB:
                self.table = struct.unpack_from("<III", self.data, at + 8)
            at += size

    def named(self, command):
        return self.text(command + struct.unpack_from("<I", self.data, command + 8)[0])

    def text(self, at):
        return self.data[at:self.data.index(b"\0", at)].decode()

    def imports(self):
        """Pairs of a library and a symbol that is taken from it."""
        table, entries, names = self.table or (0, 0, 0)
        for entry in range(entries):
            name, kind, _, description, _ = struct.unpack_from("<IBBHQ", self.data, table + 16 * entry)
            place = description >> 8
            # External, defined nowhere, and of a library with a place of its own.
            if kind & 0x0F == 0x01 and 1 <= place <= len(self.libraries):
                yield self.libraries[place - 1], self.text(names + name)


def main():
    counts = collections.Counter(library for library, _ in MachO(sys.argv[1]).imports())
    for library, count in sorted(counts.items()):
        print(f"{count:4} symbols of {library}")


if __name__ == "__main__":
    main() if len(sys.argv) == 2 else sys.exit(__doc__)
