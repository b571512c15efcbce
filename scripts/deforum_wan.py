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
        try:
            spec.loader.exec_module(package)
        except BaseException:
            del sys.modules[NAME]
            raise
    return importlib.import_module(NAME + "." + module)


def too_old():
    """What to say of a Python that the package can't run on, "" of one that it can; this file any of them can read."""
    if sys.version_info >= (3, 10):  # noqa: UP036
        return ""
    return "this Python is too old; got {}.{}; allowed: 3.10 and newer".format(*sys.version_info)


def register():
    """Give the WebUI the tab; if the package can't even be imported, one that says why."""
    try:
        if too_old():
            raise RuntimeError(too_old())
        load("ui_elements").register()
    except Exception as error:
        show_failure(error)


def show_failure(error):
    """A tab made of nothing but the WebUI's own gradio, because anything of ours may be what is broken."""
    import html
    import traceback

    from modules import script_callbacks

    whole = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    sys.stderr.write("Deforum Wan: its code could not be loaded\n" + whole)
    words = "<b>Deforum Wan could not be loaded.</b> {}<pre style='white-space: pre-wrap'>{}</pre>{}".format(
        html.escape(f"{type(error).__name__}: {error}"), html.escape(whole),
        "Update or reinstall the extension, then restart the WebUI.  Queued jobs are kept.",
    )  # fmt: skip

    def on_ui_tabs():
        import gradio

        with gradio.Blocks(analytics_enabled=False) as page:
            gradio.HTML(words, elem_id="deforum_wan_failure")
        return [(page, "Deforum Wan", "deforum_wan")]

    script_callbacks.on_ui_tabs(on_ui_tabs)


if __name__ == "__main__":
    if too_old():
        sys.stderr.write("error: " + too_old() + "\n")
        sys.exit(3)
    sys.exit(load("cli").main())
else:
    register()
