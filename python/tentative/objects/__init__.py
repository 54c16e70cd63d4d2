"""Layer 3, objects: which names of the interpreter were bound, rebound or deleted.

The state is every module's namespace and the given globals, ``sys.modules``, ``sys.path`` and ``os.environ``. Saving
and restoring them is the memory layer's work; this package only compares. Before the transaction it notes which object
each name is bound to (addresses, without touching the objects, since that would copy their pages), and when the branch
ends it compares. What a name's old object looked like is asked where it still is as it was: in the origin.

What it never does: call code of the objects it describes (``describe``). What it cannot tell is in ``gaps``.
"""

from . import gaps
from .capture import Before
from .changes import Found, ObjectChanges, find, resolve

__all__ = ["Before", "Found", "ObjectChanges", "find", "gaps", "resolve"]
