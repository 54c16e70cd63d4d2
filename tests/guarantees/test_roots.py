"""Renaming directories: by programs that see other things at a path than the sandbox, and of closed ones."""

import os
import subprocess
import sys

import pytest
from conftest import EXECUTABLE

IN_A_JAIL = """
import os
os.chroot("jail")
os.chdir("/")
for old, new in (("/../d/x", "/../d/y"), ("/link/z", "/link/w")):
    try:
        os.rename(old, new)
    except OSError:
        pass
"""
#: In a mount namespace of its own: what is renamed lies on the new mount, whatever is below that.
ON_A_MOUNT = """
set -e
mount -t tmpfs none d
mkdir -p d/x d/z; echo on the mount > d/x/file
mv d/x d/y; mv d/z d/w
test "$(cat d/y/file)" = "on the mount"
"""


def lay_out(work):
    """The same directories in the work directory and in a jail in it."""
    for base in (work, work / "jail"):
        for name in ("x", "z"):
            (base / "d" / name).mkdir(parents=True)
            (base / "d" / name / "file").write_text(f"{name} of {base.name}")
    (work / "jail" / "link").symlink_to("/d")


def names(work):
    """What there is."""
    return sorted(str(path.relative_to(work)) for path in work.rglob("*"))


def test_a_program_with_another_root_renames_nothing_outside_of_it(tentative):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lay_out(tentative.work)
    before = [name for name in names(tentative.work) if not name.startswith("jail")]
    done = tentative("run", "--commit", "--", sys.executable, "-c", IN_A_JAIL)
    assert done.returncode == 0, done.stderr
    after = names(tentative.work)
    assert [name for name in after if not name.startswith("jail")] == before
    # Where the kernel cannot rename it says EXDEV.
    assert {"jail/d/x", "jail/d/y"} & set(after) and {"jail/d/z", "jail/d/w"} & set(after)


def test_what_is_renamed_on_a_mount_made_inside_is_renamed_there(tentative):
    lay_out(tentative.work)
    before = names(tentative.work)
    done = tentative("run", "--commit", "--", "unshare", "-rm", "sh", "-c", ON_A_MOUNT)
    assert done.returncode == 0, done.stderr
    assert names(tentative.work) == before


def test_a_directory_with_a_mount_in_it_is_not_renamed_and_keeps_the_mount(tentative):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    script = """
        set -e; mkdir -p m/s/below; mount -t tmpfs none m/s; echo there > m/s/file
        "$@" run --commit=always -- sh -c 'mv -T m n 2> error; cat m/s/file; echo more >> m/s/file'
        cat m/s/file; umount m/s
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", EXECUTABLE],
        cwd=tentative.work,
        env=tentative.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "there\nthere\nmore\n", done.stderr
    assert "busy" in (tentative.work / "error").read_text()


@pytest.mark.parametrize("mode", [0o500, 0o555])
def test_a_closed_directory_is_renamed_by_its_owner(tentative, mode):
    directory = tentative.work / "d"
    (directory / "below").mkdir(parents=True)
    (directory / "below" / "file").write_text("text")
    directory.chmod(mode)
    done = tentative("run", "--commit", "--", "mv", "d", "e")
    assert done.returncode == 0, done.stderr
    moved = tentative.work / "e"
    assert moved.stat().st_mode & 0o7777 == mode and os.listdir(tentative.work) == ["e"]
    moved.chmod(0o700)
    assert (moved / "below" / "file").read_text() == "text"


def test_what_nobody_can_look_into_is_not_renamed_and_nothing_is_left(tentative):
    if os.geteuid() == 0:
        pytest.skip("needs an ordinary user")
    directory = tentative.work / "d"
    directory.mkdir()
    (directory / "file").write_text("text")
    directory.chmod(0)
    done = tentative("run", "--commit=always", "--", "mv", "d", "e")
    assert done.returncode == 1 and "nothing was changed" in done.stderr, done.stderr
    directory.chmod(0o700)
    assert os.listdir(tentative.work) == ["d"]
