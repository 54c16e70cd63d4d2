"""PEP 517 backend: builds the `tentative` executable, then lets maturin build the wheel around both.

maturin alone leaves a binary out of an extension module's wheel without a word; what lies in its `data` directory
under scripts/ goes into the wheel's `.data/scripts/` and so into the environment's bin directory.
It never decides how things are built but for TENTATIVE_BUILD_PROFILE (a cargo profile; release if unset).
"""

import os
import shutil
import subprocess
from pathlib import Path

import maturin

ROOT = Path(__file__).resolve().parent.parent
PROFILE = os.environ.get("TENTATIVE_BUILD_PROFILE", "release")
os.environ.setdefault("MATURIN_PEP517_ARGS", f"--profile {PROFILE}")
SCRIPTS = ROOT / "target" / "wheel.data" / "scripts"
SCRIPTS.mkdir(parents=True, exist_ok=True)  # maturin refuses even to tell the metadata without it

get_requires_for_build_sdist = maturin.get_requires_for_build_sdist
get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable


def _with_executable(build):
    def hook(directory, *arguments, **settings):
        built = "debug" if PROFILE == "dev" else PROFILE
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        command = [
            "cargo",
            "build",
            "--locked",
            "--profile",
            PROFILE,
            "-p",
            "tentative-cli",
            "--bin",
            "tentative",
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        shutil.copy2(target / built / "tentative", SCRIPTS / "tentative")
        return build(directory, *arguments, **settings)

    return hook


build_sdist = maturin.build_sdist
build_wheel = _with_executable(maturin.build_wheel)
build_editable = _with_executable(maturin.build_editable)
prepare_metadata_for_build_wheel = maturin.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = maturin.prepare_metadata_for_build_editable
