"""The routes of our own that the tab's page code and programs use, all under /deforum-wan/api.

    GET    /state?since=&log=                 what a page that watches needs; tiny if nothing has changed since
    GET    /fields                            the settings' fields: kinds, ranges, hints
    POST   /plan                              settings -> timeline, notes, errors at their fields, estimate
    GET    /models?refresh=                   models, what they can do, what they lack
    POST   /models/check                      read a model's files whole, compare their sha256; see /environment/log
    GET    /loras                             LoRA files on this machine, by the names that the field takes
    POST   /settings/import  /settings/export a settings file's text <-> settings
    POST   /uploads                           a picture or a sound of the page's machine, for its field
    GET    /presets?model=   POST /presets    presets; save one
    POST   /presets/default  /presets/import
    DELETE /presets/{name}   POST /presets/{name}/rename  /apply   GET /presets/{name}/export
    GET    /environment      /environment/log?from=
    POST   /environment/install  /repair  /self-test  /stop        /worker/release
    GET    /jobs?text=&states=&bookmarked=&batch=&order=&offset=&limit=
    POST   /jobs  /jobs/folder  /jobs/grid  /jobs/import           GET /jobs/export?ids=
    POST   /jobs/cancel  /jobs/retry  /jobs/retry-failed  /jobs/delete
    GET    /jobs/{job}  /jobs/{job}/settings  /jobs/{job}/files/{kind}  /jobs/{job}/files/frame/{number}
    DELETE /jobs/{job}
    POST   /jobs/{job}/cancel  /skip  /retry  /run-next  /move  /edit  /duplicate  /retake  /bookmark  /rename
    POST   /queue/pause  /resume  /options  /prune  /dismiss

Errors are {"error": {"field", "keyframe", "column", "message", ...}}: 422 a value, 404, 409 not as things stand,
413 too large, 415 not JSON, 401 and 403 see guard.py, 503 a disk or an environment that can't be used.
docs/api.md says more.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..errors import Conflict
from ..lora_files import find_loras
from ..planning.picture import WIDTH
from ..presets import preset_values
from ..queue_store.jobs import parsed
from ..settings import FIELDS, settings_to_text
from ..ui.fields import field_facts
from ..wan_integration import close_shared_worker, lora_search_folders
from . import host
from .address import BASE
from .queue_routes import queue_routes
from .routes import Call, Reply, Route
from .uploads import upload_routes
from .views import preset_facts

_SETTINGS = {"settings": "a settings object, ours or Deforum's"}


def app_routes(base: str = BASE) -> list[Route]:
    """The whole table.  What stands fast goes before {name}, which takes anything."""
    preset = f"{base}/presets/{{name}}"
    desk = f"{base}/environment"
    return [
        Route("GET", f"{base}/state", state, "What a page that watches needs",
              query={"since": "the version seen last", "log": "the first line of the log that is wanted"}),
        Route("GET", f"{base}/fields", fields, "The settings' fields"),
        Route("POST", f"{base}/plan", plan, "What settings would render, what is wrong, what it costs",
              {**_SETTINGS, "width": "of the timeline's picture in pixels"}),
        Route("GET", f"{base}/models", models, "Models on this machine", query={"refresh": "1: look again"}),
        Route("POST", f"{base}/models/check", check_model, "Read a model's files whole and compare their sha256",
              {"model": "a model's name"}),
        Route("GET", f"{base}/loras", loras, "LoRA files on this machine"),
        Route("POST", f"{base}/settings/import", import_settings, "Read a settings file",
              {"text": "the file's text, ours or Deforum's"}),
        Route("POST", f"{base}/settings/export", export_settings, "Write a settings file", _SETTINGS),
        Route("GET", f"{base}/presets", presets, "Presets", query={"model": "a model's name"}),
        Route("POST", f"{base}/presets", save_preset, "Save a preset",
              {"name": "", **_SETTINGS, "description": "", "overwrite": "true: in place of one of this name",
               "with_content": "true: prompts, seed and files too"}),
        Route("POST", f"{base}/presets/default", set_default_preset, "Choose what the tab opens with", {"name": ""}),
        Route("POST", f"{base}/presets/import", import_preset, "Take in a preset or a settings file",
              {"name": "", "text": "the file's text", "overwrite": ""}),
        Route("DELETE", preset, delete_preset, "Delete a preset"),
        Route("POST", f"{preset}/rename", rename_preset, "Rename a preset", {"name": "the new one"}),
        Route("POST", f"{preset}/apply", apply_preset, "Settings with the preset's fields in place", _SETTINGS),
        Route("GET", f"{preset}/export", export_preset, "A preset as a file"),
        Route("GET", desk, environment, "State of the isolated environment, GPUs, folders"),
        Route("GET", f"{desk}/log", environment_log, "Log of the set-up, the self-test, a file check",
              query={"from": "the first line that is wanted"}),
        Route("POST", f"{desk}/install", install, "Set the environment up, or go on with it", {}),
        Route("POST", f"{desk}/repair", repair, "Look through every installed file, mend or rebuild", {}),
        Route("POST", f"{desk}/self-test", self_test, "Render a second with the demo model", {}),
        Route("POST", f"{desk}/stop", stop_environment, "End what is under way", {}),
        Route("POST", f"{base}/worker/release", release_worker, "End the idle worker, to free its memory", {}),
        *upload_routes(base),
        *queue_routes(base),
    ]  # fmt: skip


def state(call: Call) -> dict[str, Any]:
    return call.service.state(call.query.text("since", "", longest=300), call.query.whole("log", 0, least=0))


def fields(call: Call) -> dict[str, Any]:
    return {"fields": field_facts()}


def plan(call: Call) -> dict[str, Any]:
    settings, width = call.body.object("settings"), call.body.whole("width", WIDTH, least=240, most=8000)
    return call.service.plan(settings, any_path=call.any_path, width=width)


def models(call: Call) -> dict[str, Any]:
    return call.service.models(refresh=call.query.flag("refresh"))


def check_model(call: Call) -> Reply:
    """Begin it; the environment's log tells how far it is and what came of it."""
    model = call.service.model_named(call.body.text("model", longest=4096))
    call.service.environment.start("file check", model)
    return Reply(call.service.environment.state(), 202)


def loras(call: Call) -> dict[str, Any]:
    folders = lora_search_folders(host.lora_folders())
    found = [{"name": lora.name, "size": lora.size} for lora in find_loras(folders)]
    return {"loras": found, "folders": [str(folder) for folder in folders]}


def import_settings(call: Call) -> dict[str, Any]:
    text = call.body.text("text", longest=8 * 1024 * 1024)
    return call.service.import_settings(text)


def export_settings(call: Call) -> dict[str, Any]:
    settings = call.body.object("settings")
    return {"text": call.service.export_settings(settings)}


# Presets


def presets(call: Call) -> dict[str, Any]:
    return call.service.preset_list(call.query.text("model", "", longest=4096))


def save_preset(call: Call) -> Reply:
    body = call.body
    name, settings, description = body.text("name"), body.object("settings"), body.text("description", "", longest=2000)
    overwrite, with_content = body.flag("overwrite"), body.flag("with_content")
    values = preset_values(parsed(settings), with_content=with_content)
    saved = call.service.presets.save(name, values, description=description, overwrite=overwrite)
    return Reply(preset_facts(saved), 201)


def set_default_preset(call: Call) -> dict[str, Any]:
    name = call.body.text("name")
    call.service.presets.set_default(name)
    return {"default": call.service.presets.default}


def import_preset(call: Call) -> Reply:
    name, text, overwrite = (
        call.body.text("name"), call.body.text("text", longest=1024 * 1024), call.body.flag("overwrite")
    )  # fmt: skip
    return Reply(preset_facts(call.service.presets.import_text(text, name, overwrite=overwrite)), 201)


def delete_preset(call: Call) -> dict[str, Any]:
    call.service.presets.delete(call.path["name"])
    return {"deleted": call.path["name"]}


def rename_preset(call: Call) -> dict[str, Any]:
    name = call.body.text("name")
    return preset_facts(call.service.presets.rename(call.path["name"], name))


def apply_preset(call: Call) -> dict[str, Any]:
    settings = call.body.object("settings")
    mixed, notes = call.service.with_preset(settings, call.path["name"])
    values = {name: getattr(mixed, name) for name in FIELDS}
    return {"settings": values, "notes": notes, "text": settings_to_text(mixed)}


def export_preset(call: Call) -> Response:
    text = call.service.presets.export_text(call.path["name"])
    return Response(text, headers={"Content-Disposition": 'attachment; filename="preset.json"'},
                    media_type="application/json")  # fmt: skip


# The environment


def environment(call: Call) -> dict[str, Any]:
    return call.service.environment_facts()


def environment_log(call: Call) -> dict[str, Any]:
    desk = call.service.environment
    first = call.query.whole("from", 0, least=0)
    return {"next": desk.log.next, "lines": desk.log.since(first), **desk.state()}


def install(call: Call) -> Reply:
    return _begin(call, "install")


def repair(call: Call) -> Reply:
    return _begin(call, "repair")


def self_test(call: Call) -> Reply:
    return _begin(call, "self-test")


def _begin(call: Call, work: Any) -> Reply:
    call.service.environment.start(work)
    return Reply(call.service.environment.state(), 202)


def stop_environment(call: Call) -> dict[str, Any]:
    call.service.environment.stop()
    return call.service.environment.state()


def release_worker(call: Call) -> dict[str, Any]:
    if call.service.is_rendering():
        raise Conflict("a job is being rendered", next_step="wait for its end, or cancel it")
    close_shared_worker()
    return {"released": True}
