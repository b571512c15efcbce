"""Jobs and the queue, the part of /deforum-wan/api that changes them.  app_routes.py has the table."""

from __future__ import annotations

import dataclasses
from typing import Any

from starlette.responses import Response

from ..errors import Conflict, NotFound, SettingsError
from ..job_queue import STATES, Job, QueueOptions, Search
from ..queue_store.exchange import LARGEST_IMPORT
from .files import ServedFile, file_response
from .routes import Call, Reply, Route
from .service import Added
from .views import job_brief, job_detail, job_file, ours

_ORDERS = ("newest", "oldest", "queue")
_MOST_SHOWN = 200
_TEXT = {"text": "the file's text"}
_WANTED = {
    "settings": "a settings object, ours or Deforum's; or",
    "jobs": "a list of them",
    "name": "shown in lists",
    "batch": "what they are found by together",
    "first": "true: before all that wait",
}


def queue_routes(base: str) -> list[Route]:
    """base: "/deforum-wan/api".  What stands fast goes before {job}, which takes anything."""
    one = f"{base}/jobs/{{job}}"
    return [
        Route("GET", f"{base}/jobs", list_jobs, "Search jobs, newest first", query=_SEARCH),
        Route("POST", f"{base}/jobs", add, "Queue one or several settings", _WANTED),
        Route("POST", f"{base}/jobs/folder", add_folder, "Queue every settings file of a folder on this machine",
              {"folder": "in the outputs, the data or the examples", "batch": "", "first": ""}),
        Route("POST", f"{base}/jobs/grid", add_grid, "Queue one job for each combination of values",
              {"settings": "a settings object", "axes": '{"seed": "7, 20-29", "guidance_scale": ["4", "6"]}',
               "name": "", "batch": ""}),
        Route("POST", f"{base}/jobs/import", import_jobs, "Queue the jobs of an exported queue",
              {**_TEXT, "batch": ""}, largest=2 * LARGEST_IMPORT),
        Route("GET", f"{base}/jobs/export", export_jobs, "Jobs as a file: those that wait, or those named",
              query={"ids": "1,2,3"}),
        Route("POST", f"{base}/jobs/cancel", cancel_many, "Cancel several jobs", {"ids": "their numbers"}),
        Route("POST", f"{base}/jobs/retry", retry_many, "Let several jobs wait again",
              {"ids": "their numbers", "resume": "false: start over", "first": ""}),
        Route("POST", f"{base}/jobs/retry-failed", retry_failed, "Let all failed jobs wait again", {}),
        Route("POST", f"{base}/jobs/delete", delete_many, "Delete several jobs; their files stay",
              {"ids": "their numbers"}),
        Route("GET", one, show, "All about a job"),
        Route("DELETE", one, delete, "Delete a job that isn't running; its files stay"),
        Route("GET", f"{one}/settings", show_settings, "A job's settings under our names, and as a file's text"),
        Route("GET", f"{one}/files/{{kind}}", serve_file, "A file of a job, in ranges too", query=_FILE),
        Route("GET", f"{one}/files/{{kind}}/{{name}}", serve_file, "An output frame: files/frame/12", query=_FILE),
        Route("POST", f"{one}/cancel", cancel, "Cancel a job; a running one stops within a step and keeps its frames",
              {}),
        Route("POST", f"{one}/skip", skip, "Stop the running job, keep its frames, go on with the next", {}),
        Route("POST", f"{one}/retry", retry, "Let an ended job wait again, going on from its finished clips",
              {"resume": "false: start over", "first": ""}),
        Route("POST", f"{one}/run-next", run_next, "Put a waiting job before all others", {}),
        Route("POST", f"{one}/move", move, "Move a waiting job",
              {"before": "a job's number; or", "after": "a job's number; or", "places": "up (negative) or down"}),
        Route("POST", f"{one}/edit", edit, "Give a waiting job other settings",
              {"settings": "a settings object", "resume": "true: keep the clips that the change doesn't reach"}),
        Route("POST", f"{one}/duplicate", duplicate, "Queue the same settings again",
              {"seed": "another one; -1 a fresh one"}),
        Route("POST", f"{one}/retake", retake, "Queue a job once more from a clip on, the clips before it as they are",
              {"clip": "the first one to make anew, counted from 1", "seed": "its seed; -1 a fresh one"}),
        Route("POST", f"{one}/bookmark", bookmark, "Mark a job, so that it stays in the history", {"marked": ""}),
        Route("POST", f"{one}/rename", rename, "Give a job a name", {"name": ""}),
        Route("POST", f"{base}/queue/pause", pause, "Begin no further job",
              {"after_clip": "true: the running job stops at the end of its clip, to go on later", "reason": ""}),
        Route("POST", f"{base}/queue/resume", resume, "Open the queue; paused jobs go on first", {}),
        Route("POST", f"{base}/queue/options", set_options, "Change how the queue behaves",
              {name: "" for name in _OPTIONS}),
        Route("POST", f"{base}/queue/prune", prune, "Remove what the options no longer keep", {}),
        Route("POST", f"{base}/queue/dismiss", dismiss, "Forget the notices about the queue's file", {}),
    ]  # fmt: skip


_OPTIONS = tuple(option.name for option in dataclasses.fields(QueueOptions))
_SEARCH = {
    "text": "words of names and prompts, or #number", "states": ", ".join(STATES), "bookmarked": "true or false",
    "batch": "", "order": ", ".join(_ORDERS), "offset": "", "limit": f"up to {_MOST_SHOWN}",
}  # fmt: skip
_FILE = {"download": "1: to be saved instead of shown"}


def _number(call: Call) -> int:
    text = call.path["job"]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise NotFound("there is no such job", got=text)
    return int(text)


def _job(call: Call) -> Job:
    return call.queue.job(_number(call))


def _added(added: Added) -> Reply:
    return Reply({"jobs": [job_brief(job) for job in added.jobs], "notes": list(added.notes)}, 201)


# Adding


def add(call: Call) -> Reply:
    body = call.body
    name, batch, first = body.text("name", "", longest=400), body.text("batch", "", longest=400), body.flag("first")
    if body.given("jobs") == body.given("settings"):
        raise SettingsError("give either settings or jobs", where="settings", allowed="one of them")
    wanted = body.objects("jobs", None) or [body.object("settings", {})]
    return _added(call.service.add(wanted, name=name, batch=batch, first=first, any_path=call.any_path))


def add_folder(call: Call) -> Reply:
    body = call.body
    folder, batch, first = body.text("folder", longest=4096), body.text("batch", "", longest=400), body.flag("first")
    return _added(call.service.add_folder(folder, batch=batch, first=first))


def add_grid(call: Call) -> Reply:
    body = call.body
    settings, axes = body.object("settings"), body.object("axes")
    name, batch = body.text("name", "", longest=400), body.text("batch", "", longest=400)
    return _added(call.service.add_grid(settings, axes, name=name, batch=batch, any_path=call.any_path))


def import_jobs(call: Call) -> Reply:
    text, batch = call.body.text("text", longest=LARGEST_IMPORT), call.body.text("batch", "", longest=400)
    return _added(call.service.import_jobs(text, batch=batch, any_path=call.any_path))


def export_jobs(call: Call) -> Response:
    text = call.queue.export_jobs(call.query.wholes("ids", None))
    return Response(text, headers={"Content-Disposition": 'attachment; filename="deforum-wan-queue.json"'},
                    media_type="application/json")  # fmt: skip


# Looking


def list_jobs(call: Call) -> dict[str, Any]:
    query = call.query
    states = tuple(part for part in query.text("states", "").split(",") if part)
    if unknown := set(states) - set(STATES):
        raise SettingsError("unknown state", where="states", got=sorted(unknown)[0], allowed=", ".join(STATES))
    search = Search(
        text=query.text("text", ""), states=states,  # type: ignore[arg-type]
        bookmarked=query.flag("bookmarked") if query.given("bookmarked") else None, batch=query.text("batch", ""),
        order=query.choice("order", _ORDERS, "newest"),  # type: ignore[arg-type]
        offset=query.whole("offset", 0, least=0), limit=query.whole("limit", 50, least=0, most=_MOST_SHOWN),
    )  # fmt: skip
    page = call.queue.search(search)
    return {"jobs": [job_brief(job) for job in page.jobs], "total": page.total, "offset": search.offset}


def show(call: Call) -> dict[str, Any]:
    return job_detail(_job(call))


def show_settings(call: Call) -> dict[str, Any]:
    job = _job(call)
    return {"settings": ours(job.settings), "seed": job.seed, "text": call.service.export_settings(job.settings)}


def serve_file(call: Call) -> Response:
    job, kind, name = _job(call), call.path["kind"], call.path.get("name", "")
    if kind == "so_far" and not name:
        path = call.service.video_so_far(job)
        found = (path, "video/mp4") if path else None
    else:
        found = job_file(job, kind, name)
    if found is None:
        raise NotFound("the job has no such file (yet)", got=f"{kind}/{name}".rstrip("/"))
    download = found[0].name if call.query.flag("download") else ""
    return file_response(call.request, ServedFile(*found, download))


# Changing


def cancel(call: Call) -> dict[str, Any]:
    return job_brief(call.queue.cancel(_number(call))[0])


def skip(call: Call) -> dict[str, Any]:
    job = _job(call)
    if job.state != "running":
        raise Conflict("only the running job can be skipped", got=f"job {job.id}, {job.state}")
    return cancel(call)


def cancel_many(call: Call) -> dict[str, Any]:
    ids = call.body.wholes("ids")
    return {"jobs": [job_brief(job) for job in call.queue.cancel(*ids)]}


def retry(call: Call) -> dict[str, Any]:
    again, first = call.body.flag("resume", True), call.body.flag("first")
    return job_brief(call.queue.requeue(_number(call), resume=again, first=first)[0])


def retry_many(call: Call) -> dict[str, Any]:
    ids, again, first = call.body.wholes("ids"), call.body.flag("resume", True), call.body.flag("first")
    jobs = call.queue.requeue(*ids, resume=again, first=first)
    return {"jobs": [job_brief(job) for job in jobs]}


def retry_failed(call: Call) -> dict[str, Any]:
    return {"jobs": [job_brief(job) for job in call.queue.requeue_failed()]}


def delete(call: Call) -> dict[str, Any]:
    call.service.delete(_number(call))
    return {"deleted": [_number(call)]}


def delete_many(call: Call) -> dict[str, Any]:
    ids = call.body.wholes("ids")
    call.service.delete(*ids)
    return {"deleted": ids}


def run_next(call: Call) -> dict[str, Any]:
    return job_brief(call.queue.run_next(_number(call)))


def move(call: Call) -> dict[str, Any]:
    body = call.body
    before, after, places = (body.whole(name, None) for name in ("before", "after", "places"))
    if [before, after, places].count(None) != 2:
        raise SettingsError("give one of before, after and places", where="before", allowed="a whole number")
    if places is not None:
        return job_brief(call.queue.move_by(_number(call), places=max(-10_000, min(places, 10_000))))
    return job_brief(call.queue.move(_number(call), before=before, after=after))


def edit(call: Call) -> dict[str, Any]:
    settings, again = call.body.object("settings"), call.body.flag("resume")
    done = call.service.edit(_number(call), settings, resume=again, any_path=call.any_path)
    return {**job_brief(done.jobs[0]), "notes": list(done.notes)}


def duplicate(call: Call) -> Reply:
    seed = call.body.whole("seed", None, least=-1, most=2**32 - 1)
    return Reply(job_brief(call.queue.duplicate(_number(call), seed=seed)), 201)


def retake(call: Call) -> Reply:
    clip, seed = call.body.whole("clip"), call.body.whole("seed", -1, least=-1, most=2**32 - 1)
    return _added(call.service.retake(_number(call), clip, seed=seed))


def bookmark(call: Call) -> dict[str, Any]:
    marked = call.body.flag("marked", True)
    return job_brief(call.queue.bookmark(_number(call), marked))


def rename(call: Call) -> dict[str, Any]:
    name = call.body.text("name", longest=400)
    return job_brief(call.queue.rename(_number(call), name))


# The queue as a whole


def pause(call: Call) -> dict[str, Any]:
    after_clip, reason = call.body.flag("after_clip"), call.body.text("reason", "paused", longest=200)
    call.queue.pause(after_clip=after_clip, reason=reason)
    return call.service.queue_facts()


def resume(call: Call) -> dict[str, Any]:
    call.queue.resume()
    return call.service.queue_facts()


def set_options(call: Call) -> dict[str, Any]:
    changes = {name: call.body.value(name) for name in _OPTIONS if call.body.given(name)}
    call.queue.set_options(**changes)
    return call.service.queue_facts()


def prune(call: Call) -> dict[str, Any]:
    return {"deleted": call.queue.prune()}


def dismiss(call: Call) -> dict[str, Any]:
    call.queue.dismiss_notices()
    return call.service.queue_facts()
