"""The one script of the extension: a WebUI loads it and gets the tab; run by hand it is the command line.

The package beside it is loaded by file path under a name of its own, because `deforum_helpers` is also the name of
the original Deforum's package, and a WebUI may have both.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "deforum_wan_helpers"
FOLDER = Path(__file__).resolve().parent / "deforum_helpers"


def load(module):
    """Import a module of the package; a package that is loaded already (after "Reload UI") is used again."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, str(FOLDER / "__init__.py"), submodule_search_locations=[str(FOLDER)]
        )
        package = importlib.util.module_from_spec(spec)
        sys.modules[NAME] = package
        spec.loader.exec_module(package)
    return importlib.import_module(NAME + "." + module)


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is what an older one reads first
        got = "{}.{}".format(*sys.version_info)
        sys.stderr.write("error: this Python is too old; got " + got + "; allowed: 3.10 and newer\n")
        sys.exit(3)
    sys.exit(load("cli").main())
elif (FOLDER / "ui_elements.py").is_file():
    load("ui_elements").register()
