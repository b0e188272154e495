#!/usr/bin/env python3
"""Installs a wheel as a new user would, and uses it: python3 packaging/test_wheel.py WHEEL

Everything happens in folders of its own, with an environment that has no Rust, no compiler and no library path in it. MLX and
the clients come from the package index; otherwise nothing is fetched.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import venv
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
WHEEL = pathlib.Path(sys.argv.pop()).resolve() if len(sys.argv) > 1 else sys.exit(__doc__)
SIZE_LIMIT = 40_000_000
LIMIT_S = 300


class Wheel(unittest.TestCase):
    """One environment for all tests: a folder with a home, and a virtual environment that the wheel is installed in."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="prefixd-wheel-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.bin = cls.environment("installed")
        cls.pip("install", WHEEL)

    @classmethod
    def environment(cls, name):
        """The programs of a new virtual environment."""
        venv.create(cls.folder / name, with_pip=True)
        return cls.folder / name / "bin"

    @classmethod
    def run_clean(cls, *command, **variables):
        """Runs a command that sees nothing but system programs and an empty home."""
        home = cls.folder / "home"
        home.mkdir(exist_ok=True)
        # How this machine reaches the package index.
        index = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name.startswith(("PIP_", "UV_", "SSL_"))}
        clean = {"PATH": "/usr/bin:/bin", "HOME": str(home), **index, **variables}
        return subprocess.run([str(part) for part in command], env=clean, cwd=cls.folder, capture_output=True, text=True, timeout=LIMIT_S)

    @classmethod
    def said(cls, *command, **variables):
        """What a command that must succeed prints."""
        done = cls.run_clean(*command, **variables)
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    @classmethod
    def pip(cls, *arguments):
        cls.said(cls.bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def test_the_wheel_is_small_and_names_nothing_of_the_machine_that_built_it(self):
        self.assertLessEqual(WHEEL.stat().st_size, SIZE_LIMIT)
        site = next((self.folder / "installed/lib").glob("python*/site-packages"))
        program = site / "prefixd/bin/prefixd"
        if sys.platform == "darwin":
            paths = re.findall(r"LC_RPATH\n.*\n\s+path (.+) \(offset", self.said("otool", "-l", program))
            self.assertEqual(paths, ["@loader_path/../../mlx/lib"])
        else:
            paths = re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", self.said("readelf", "-d", program))
            self.assertEqual(paths, ["$ORIGIN/../../mlx/lib"])

    def test_every_file_is_the_recorded_one(self):
        with zipfile.ZipFile(WHEEL) as archive:
            record = next(name for name in archive.namelist() if name.endswith("/RECORD"))
            named = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
            self.assertEqual(sorted(named), sorted(archive.namelist()))
            notices = next(name for name in named if name.endswith("/licenses/THIRD-PARTY"))
            self.assertIn("mlx-rs 0.", archive.read(notices).decode())

    def test_manual_pages_and_completions_are_where_they_are_looked_for(self):
        share = self.folder / "installed/share"
        for file in ("man/man1/prefixd.1", "bash-completion/completions/prefixd", "zsh/site-functions/_prefixd", "fish/vendor_completions.d/prefixd.fish"):
            self.assertTrue((share / file).is_file(), file)

    def test_the_demo_runs(self):
        self.check_demo(self.said(self.bin / "prefixd", "demo", "--json"))

    def test_the_demo_runs_by_uvx(self):
        tools = self.environment("tools")
        self.said(tools / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "uv")
        demo = self.said(tools / "uvx", "--python", sys.executable, "--from", WHEEL, "prefixd", "demo", "--json",
                         UV_CACHE_DIR=str(self.folder / "uv"))
        self.check_demo(demo)

    def check_demo(self, said):
        runs = json.loads(said)["runs"]
        self.assertEqual([run["cached_tokens"] > 0 for run in runs], [False, True, True], runs)
        self.assertEqual(len({run["answer"] for run in runs}), 1, runs)

    def test_the_openai_client_gets_right_answers(self):
        """The scenario of tests/clients, over the installed program."""
        table = self.said(sys.executable, HERE.parent / "tests/clients/run.py", "openai", "--server", self.bin / "prefixd",
                          "--cache", self.folder / "clients")
        self.assertIn("1 passed", table)

    def test_mlx_may_be_installed_elsewhere_and_is_asked_for_where_it_is_not(self):
        ours, theirs = self.folder / "ours", self.folder / "theirs"
        self.pip("install", "--no-deps", "--target", ours, WHEEL)
        python = self.environment("bare") / "python"
        missing = self.run_clean(python, "-m", "prefixd", "--version", PYTHONPATH=str(ours))
        self.assertEqual(missing.returncode, 1)
        asked = re.search(r"-m pip install (mlx-\S+==\S+)", missing.stderr)
        self.assertTrue(asked, missing.stderr)
        self.pip("install", "--target", theirs, asked.group(1))
        version = self.said(python, "-m", "prefixd", "--version", PYTHONPATH=f"{ours}:{theirs}")
        self.assertRegex(version, r"^prefixd \d+\.\d+\.\d+")


if __name__ == "__main__":
    unittest.main(verbosity=2)
