"""Makes `.venv` with the package installed and `.tools/.venv` with the linters.

Never touches anything outside the repository, except that as root it may install Debian's python3-venv when the
interpreter came without it. Does nothing when neither the sources nor the interpreter changed since the last time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools" / ".venv"
OLDEST = (3, 10)
#: What decides whether the installed package is up to date.
SOURCES = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "crates", "python", "build_backend")
#: The first pip that knows dependency groups.
PIP = "pip>=25.1"


def say(text: str) -> None:
    """Tells the reader of a build's output what is going on."""
    print(f"==> {text}", flush=True)


def run(*command: str | Path) -> None:
    """Runs a step of the build; its failure ends ours with its exit status."""
    status = subprocess.run([str(part) for part in command], cwd=ROOT).returncode
    if status != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {status}")


def base_interpreter() -> Path:
    """The interpreter behind whatever shim or environment started us."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def make_environment(where: Path) -> Path:
    """Makes an empty virtual environment unless a working one of this interpreter is there; returns its python."""
    python = where / "bin" / "python"
    origin = where / "made-by"
    made_by = f"{base_interpreter()} {sys.version}"
    if python.exists() and origin.exists() and origin.read_text() == made_by:
        return python
    say(f"making {where.relative_to(ROOT)} with Python {sys.version.split()[0]}")
    shutil.rmtree(where, ignore_errors=True)
    where.parent.mkdir(parents=True, exist_ok=True)
    make = [str(base_interpreter()), "-m", "venv", str(where)]
    if subprocess.run(make).returncode != 0:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            sys.exit("error: this Python cannot make virtual environments\nhint: install python3-venv")
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "python3-venv")
        shutil.rmtree(where, ignore_errors=True)
        run(*make)
    origin.write_text(made_by)
    return python


def fingerprint(paths: list[Path]) -> str:
    """A digest of the files below some paths, by name, size and content."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)} {file.stat().st_size}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def install(python: Path, mark: Path, sources: list[Path], *arguments: str | Path) -> None:
    """Installs with pip unless the sources are the ones of the last time."""
    wanted = fingerprint([path for path in sources if path.exists()])
    if mark.exists() and mark.read_text() == wanted:
        return
    mark.unlink(missing_ok=True)
    run(python, "-m", "pip", "install", "-q", "--no-input", *arguments)
    mark.write_text(wanted)


def prepare_tools() -> Path:
    """Makes the environment of the linters; returns its bin directory."""
    python = make_environment(TOOLS)
    wanted = ROOT / "tools" / "requirements.txt"
    install(python, TOOLS / "installed", [wanted], "-r", wanted)
    return python.parent


def prepare_package() -> Path:
    """Makes `.venv` with the package and what its tests need; returns its python."""
    python = make_environment(VENV)
    project = ROOT / "pyproject.toml"
    if not (VENV / "installed-tests").exists():
        run(python, "-m", "pip", "install", "-q", "--no-input", "--upgrade", PIP)
    install(python, VENV / "installed-tests", [project], "--group", f"{project}:test")
    if shutil.which("cargo") is None:
        sys.exit("error: no cargo on the path\nhint: install a Rust toolchain, 1.88 or newer")
    say("building and installing the package into .venv")
    install(
        python,
        VENV / "installed-package",
        [ROOT / source for source in SOURCES],
        "--force-reinstall",
        "--no-deps",
        ROOT,
    )
    return python


def main() -> None:
    """Prepares what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools-only", action="store_true", help="only the linters' environment")
    options = parser.parse_args()
    if sys.version_info < OLDEST:
        found = sys.version.split()[0]
        sys.exit(f"error: Python {found} is too old\nhint: make PYTHON=python3.11 …, 3.10 or newer")
    os.umask(0o022)
    if options.tools_only:
        prepare_tools()
    else:
        prepare_package()


if __name__ == "__main__":
    main()
