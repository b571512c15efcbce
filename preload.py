"""The flags that this extension adds to a WebUI's command line; the WebUI calls `preload` before it parses."""

from __future__ import annotations

import argparse

# The original Deforum has --deforum-api, --deforum-run-now and --deforum-terminate-after-run-now.  A name can be
# registered once only, and which of two extensions comes first depends on their folders' names.  Ours carry a tail:
# argparse takes an unambiguous beginning for the whole, so that the short names work without the original, and are its
# own with it.  Either way the value is found under the original's name.
_SHARED = (
    ("--deforum-api-wan", "deforum_api", {"action": "store_true"}, "serve the API under /deforum_api"),
    (
        "--deforum-run-now-wan", "deforum_run_now", {"type": str, "metavar": "FILES"},
        "settings files, with commas between them, to render as soon as the WebUI is up",
    ),
    (
        "--deforum-terminate-after-run-now-wan", "deforum_terminate_after_run_now", {"action": "store_true"},
        "end the WebUI when those are rendered",
    ),
)  # fmt: skip


def preload(parser: argparse.ArgumentParser) -> None:
    """Add the flags.  Every reader must use getattr(cmd_opts, name, None): flags vanish between hosts."""
    group = parser.add_argument_group("Deforum Wan")
    _add(group, "--deforum-wan-models", type=str, metavar="DIR", help="where the Wan models are")
    _add(group, "--deforum-wan-env", type=str, metavar="DIR", help="where the isolated environment is")
    for flag, destination, options, text in _SHARED:
        short = flag.rsplit("-", 1)[0]
        _add(group, flag, dest=destination, help=f"{text} (may be written {short})", **options)


def _add(group: argparse._ArgumentGroup, flag: str, **options: object) -> None:
    try:
        group.add_argument(flag, **options)
    except argparse.ArgumentError:  # someone else has it, and reads it: a WebUI must start all the same
        return
