"""The body of a rolled back block is skipped, on every supported interpreter that is here."""

import sys
from pathlib import Path

import pytest
from interpreters import SUPPORTED, find
from processes import ran

CASES = Path(__file__).with_name("skip_cases.py")


@pytest.mark.parametrize("version", SUPPORTED)
def test_no_bytecode_of_the_body_runs(version):
    python = find(version)
    if python is None:
        pytest.skip(f"there is no CPython {version} here")
    done = ran(python, CASES)
    assert done.returncode == 0 and done.stdout.strip() == "ok", done.stdout + done.stderr


@pytest.mark.parametrize("core", ("ctrace", "pytrace", "sysmon"))
def test_coverage_goes_on_and_sees_no_line_of_a_body(core, tmp_path, monkeypatch):
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("there is no sys.monitoring before 3.12")
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(CASES.parent)!r})\nfrom skip_cases import RolledBack\n"
        "def f():\n    with RolledBack():\n        body = 1\n    after = 1\n    return after\n"
        "assert f() == 1\n"
    )
    monkeypatch.setenv("COVERAGE_CORE", core)
    monkeypatch.chdir(tmp_path)
    done = ran(sys.executable, "-m", "coverage", "run", f"--include={program}", program)
    assert done.returncode == 0, done.stdout + done.stderr
    done = ran(sys.executable, "-m", "coverage", "json", "-o", "-", "-q")
    import json

    (found,) = json.loads(done.stdout)["files"].values()
    assert found["missing_lines"] == [6], found
