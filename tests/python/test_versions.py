"""The core of the API on every supported interpreter: one wheel serves them all."""

from pathlib import Path

import cloudpickle
import pytest
import tentative
from interpreters import SUPPORTED, find
from processes import ran

CASES = Path(__file__).with_name("core_cases.py")


@pytest.mark.parametrize("version", SUPPORTED)
def test_core_on_every_interpreter(version, tmp_path):
    python = find(version)
    if python is None:
        pytest.skip(f"there is no CPython {version} here")
    # The two packages alone: others of this environment may be built for another interpreter.
    for package in (tentative, cloudpickle):
        (tmp_path / package.__name__).symlink_to(Path(package.__file__).parent)
    done = ran(python, CASES, PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0 and done.stdout.strip() == "ok", done.stdout + done.stderr
