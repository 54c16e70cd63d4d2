"""What a new user does first: install a package and look, then a shell with job control and an editor in it."""

import shutil
import subprocess
import sys
import time
import zipfile

import pytest
from conftest import EXECUTABLE
from terminal import Terminal

#: The end of what the command asks; a terminal's control sequences have question marks too.
QUESTION = "[k]eep for later?"


def make_wheel(directory):
    """Makes a wheel with one module and returns its path."""
    path = directory / "greeting-1.0-py3-none-any.whl"
    files = {
        "greeting.py": "TEXT = 'hello from the wheel'\n",
        "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "greeting-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, "greeting-1.0.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)
    return path


def test_a_package_is_installed_looked_at_and_committed(tentative):
    environment = tentative.work / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    wheel = make_wheel(tentative.directory)
    python = environment / "bin" / "python"

    def imports():
        return subprocess.run([python, "-c", "import greeting"], stderr=subprocess.DEVNULL).returncode == 0

    install = [python, "-m", "pip", "install", "-q", "--no-index", "--no-cache-dir", wheel]
    ended = tentative("run", "--keep", "--", *install)
    assert ended.returncode == 0, ended.stderr
    assert not imports()
    shown = tentative("show")
    assert "greeting.py" in shown.stdout, shown.stdout + shown.stderr
    difference = tentative("diff")
    assert "+TEXT = 'hello from the wheel'" in difference.stdout, difference.stdout + difference.stderr
    committed = tentative("commit")
    assert committed.returncode == 0, committed.stderr
    assert imports()
    assert tentative("list").stdout.strip() == "" or "no " in tentative("list").stdout


def shell(tentative):
    """A shell in a transaction, on a terminal."""
    environment = {**tentative.environment, "SHELL": "/bin/bash", "TERM": "xterm", "PS1": "$ "}
    environment["ENV"] = environment["BASH_ENV"] = ""
    return Terminal([str(EXECUTABLE), "run"], environment, tentative.work)


def test_a_shell_has_job_control_and_its_changes_are_asked_about(tentative):
    (tentative.work / "kept").write_text("as it was\n")
    with shell(tentative) as terminal:
        terminal.type("echo $((40+2)) > kept; cat kept; ls -d /proc/self\n")
        terminal.wait_for("42\r\n")
        terminal.wait_for("/proc/self\r\n")
        terminal.type("sleep 100\n")
        terminal.wait_for("sleep 100")
        time.sleep(0.5)
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        terminal.type("bg; jobs; kill %1; wait; echo over-$?\n")
        terminal.wait_for("sleep 100 &")
        terminal.wait_for("over-")
        terminal.type("exit\n")
        terminal.wait_for("kept")
        assert (tentative.work / "kept").read_text() == "as it was\n"
        terminal.wait_for(QUESTION)
        terminal.type("c")
        assert terminal.end() == 0
    assert (tentative.work / "kept").read_text() == "42\n"


def test_a_shell_whose_terminal_hangs_up_keeps_its_work(tentative):
    (tentative.work / "kept").write_text("as it was\n")
    with shell(tentative) as terminal:
        terminal.type("echo changed > kept; echo done-$((1+1))\n")
        terminal.wait_for("done-2")
        terminal.type("exit\n")
        terminal.wait_for(QUESTION)
        terminal.hang_up()
        terminal.end()
    assert (tentative.work / "kept").read_text() == "as it was\n"
    assert "kept" in tentative("show").stdout
    assert tentative("rollback").returncode == 0


def test_an_editor_works_inside_and_its_file_can_be_kept(tentative):
    if shutil.which("vi") is None:
        pytest.skip("needs the program vi")
    with shell(tentative) as terminal:
        terminal.type("vi -u NONE letter; echo left-$?\n")
        terminal.wait_for("letter")
        terminal.type("idear reader\x1b:wq\n")
        terminal.wait_for("left-0")
        terminal.type("exit\n")
        terminal.wait_for(QUESTION)
        terminal.type("k")
        assert terminal.end() == 0
    assert not (tentative.work / "letter").exists()
    assert "+dear reader" in tentative("diff").stdout
    assert tentative("commit").returncode == 0
    assert (tentative.work / "letter").read_text() == "dear reader\n"
