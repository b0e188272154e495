#!/usr/bin/env python3
"""Lists the licences of everything that is compiled into the program: python3 packaging/licenses.py [--target TRIPLE]

Prints each crate with its licence and the texts that it carries, each text once; wheels and images ship what is printed. Fails
where a licence is not among those that a program under MIT may ship, or where a crate names none.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of a crate's files, those that begin like this.
TEXTS = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")
# Permissive, or, as MPL-2.0, binding on the crate's own files only, which are shipped unchanged.
ALLOWED = {"0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
           "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unicode-3.0", "Unlicense", "Zlib"}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--target", help="the platform; dependencies differ between them")
    sys.stdout.write(listing(options.parse_args().target))


def listing(target):
    """The whole text."""
    crates = shipped(target)
    refused = [f"{crate['name']} {crate['version']}: {crate['license']}" for crate in crates if not allowed(crate["license"] or "")]
    if refused:
        sys.exit("licences that are not allowed here:\n" + "\n".join(refused))
    texts = {}
    for crate in crates:
        for path in files(crate):
            text = path.read_text(errors="replace").strip()
            texts.setdefault(text, []).append(f"{crate['name']} {crate['version']}")
    parts = ["What is compiled into prefixd beside its own code, with the licence of each. The texts follow.\n"]
    parts += [f"{crate['name']} {crate['version']}: {crate['license']} ({crate['repository'] or crate['id']})\n" for crate in crates]
    parts.append("The Rust standard library: MIT OR Apache-2.0\n")
    for text, names in texts.items():
        parts.append(f"\n{'-' * 100}\n{', '.join(names)}\n{'-' * 100}\n{text}\n")
    return "".join(parts)


def shipped(target):
    """The packages of others that prefixd links, by name: no build scripts' needs, no tests'."""
    metadata = read(ROOT / "Cargo.toml", target)
    packages = {package["id"]: package for package in metadata["packages"]}
    needs = {node["id"]: [dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
             for node in metadata["resolve"]["nodes"]}
    left, seen = [metadata["resolve"]["root"]], set()
    while left:
        at = left.pop()
        if at not in seen:
            seen.add(at)
            left += needs[at]
    found = [packages[at] for at in seen if packages[at]["source"]]
    # MLX's C interface, compiled from the package that only the build script names.
    found += [package for package in read(ROOT / "native/mlx-sys/mlx-c/Cargo.toml", target)["packages"] if package["name"] == "mlx-sys"]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def read(manifest, target):
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--manifest-path", str(manifest)]
    command += ["--filter-platform", target] if target else []
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def files(crate):
    """The licence files at a crate's top, and of mlx-c, which lies deeper."""
    folder = pathlib.Path(crate["manifest_path"]).parent
    folders = [folder, folder / "src/mlx-c"] if crate["name"] == "mlx-sys" else [folder]
    found = [path for place in folders if place.is_dir() for path in place.iterdir()]
    return sorted(path for path in found if path.is_file() and path.name.upper().startswith(TEXTS))


def allowed(expression):
    """Whether a licence expression can be met with allowed licences: of an `OR` one part, of an `AND` every part."""
    text = expression.replace("/", " OR ")
    words = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", text)

    def either(at):
        met, at = both(at)
        while at < len(words) and words[at] == "OR":
            other, at = both(at + 1)
            met = met or other
        return met, at

    def both(at):
        met, at = one(at)
        while at < len(words) and words[at] == "AND":
            other, at = one(at + 1)
            met = met and other
        return met, at

    def one(at):
        if at < len(words) and words[at] == "(":
            met, at = either(at + 1)
            return met, at + 1
        return at < len(words) and words[at] in ALLOWED, at + 1

    met, at = either(0)
    return met and at == len(words)


if __name__ == "__main__":
    main()
