"""Builds the real Nacos servers, and a Dubbo provider, the tests run against: class paths under `.rig/`.

Maven Central holds the server's libraries but no server. Each folder beside this file names the
libraries of one version and adds the main class they lack.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path


RIG = Path(__file__).resolve().parent
OUT = RIG.parents[1] / ".rig"
PROJECTS = {"2.2.4": RIG / "nacos-2", "3.1.0": RIG / "nacos-3", "dubbo": RIG / "dubbo"}


class RigUnavailableError(Exception):
    """This machine lacks something the rig cannot install: the message says what, and what to do."""


def class_path(version: str) -> str:
    """Return the class path of one server version, or of the provider, building it if its sources changed."""
    require("real Nacos servers")
    OUT.mkdir(exist_ok=True)
    with (OUT / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may start at once
        _build(PROJECTS[version], OUT / version)
    return _ordered(OUT / version)


def require(what: str) -> None:
    """Raise RigUnavailableError where Java cannot be built and run."""
    for tool, package in {"java": "a JDK 17", "mvn": "Maven"}.items():
        if shutil.which(tool) is None:
            raise RigUnavailableError(f"{what} need {package}: no `{tool}` on the PATH")


def maven(project: Path, *arguments: str) -> None:
    """Run Maven on a folder's pom; raises RuntimeError with the end of what it said."""
    run = subprocess.run(
        ["mvn", "--batch-mode", "--quiet", "--file", str(project / "pom.xml"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError(f"Maven could not build {project.name} ({' '.join(arguments)}):\n{run.stdout[-4000:]}")


def _build(project: Path, out: Path) -> None:
    stamp = out / "stamp"
    sources = hashlib.sha256()
    for source in [Path(__file__), project / "pom.xml", *sorted(project.rglob("*.java"))]:
        sources.update(source.read_bytes())
    wanted = sources.hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(out, ignore_errors=True)
    maven(project, f"-Drig.out={out}", "compile")
    last = out / "last"
    last.mkdir()
    for jar in (out / "lib").glob("hessian-3.*.jar"):
        jar.rename(last / jar.name)
    stamp.write_text(wanted)


def _ordered(out: Path) -> str:
    # Alipay's hessian 3 and Caucho's hessian 4 hold the same classes. In front, 3 breaks Raft's
    # serialisation; left out, the server answers every call but delivers no push. So it goes last,
    # and the order is spelled out because `lib/*` promises none.
    jars = [*sorted((out / "lib").glob("*.jar")), *sorted((out / "last").glob("*.jar"))]
    return ":".join(str(path) for path in [out / "classes", *jars])


def main() -> None:
    """Build all servers; what `make` calls."""
    for version in PROJECTS:
        start = time.monotonic()
        try:
            class_path(version)
        except RigUnavailableError as missing:
            sys.exit(str(missing))
        name = version if version == "dubbo" else f"nacos {version}"
        print(f"{name}: ready in {OUT / version} ({time.monotonic() - start:.1f} s)")  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
