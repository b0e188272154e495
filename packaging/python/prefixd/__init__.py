"""Starts the program that this package carries.

The program finds MLX's library beside this package, where pip puts both (its run path). Where MLX is installed in another
place of `sys.path`, such as the system's while this package is the user's, the library's folder goes into the loader's
search path. A folder that the user has put there comes first.
"""

import os
import pathlib
import sys

from prefixd._mlx import NAME, VERSION

HERE = pathlib.Path(__file__).resolve().parent
# The wheel's own record of MLX, which names its version.
RECORD = f"{NAME.replace('-', '_')}-{VERSION}.dist-info"
SEARCH_PATH = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"


def main():
    """Becomes the program: same process, arguments and environment."""
    program = HERE / "bin" / "prefixd"
    site = find_mlx()
    if site is None:
        sys.exit(f"prefixd: {NAME} {VERSION} is not installed beside it; expected {RECORD} in a folder of sys.path. "
                 f"Run: {sys.executable} -m pip install {NAME}=={VERSION}")
    if site != HERE.parent:
        named = os.environ.get(SEARCH_PATH)
        os.environ[SEARCH_PATH] = os.pathsep.join(filter(None, [named, str(site / "mlx" / "lib")]))
    try:
        os.execv(program, [str(program), *sys.argv[1:]])
    except OSError as why:
        sys.exit(f"prefixd: {program} did not start: {why}")


def find_mlx():
    """The folder that MLX's wheel is installed in: the one beside this package, else the first of `sys.path`."""
    places = [HERE.parent, *(pathlib.Path(place) for place in sys.path if place)]
    return next((place for place in places if (place / RECORD).is_dir()), None)
