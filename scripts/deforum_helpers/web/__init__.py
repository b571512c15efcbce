"""The server side of the tab and the API.

    service.py       the one object per process that everything below asks: queue, runner, models, presets, plans
    render_job.py    one job of the queue through render_wan, inside the WebUI around us
    so_far.py        the finished frames of a running job as a small video
    host.py          that WebUI: folders, flags, its GPU and lock, its progress bar and Interrupt button
    planning.py      settings -> plan, notes, errors at their fields, estimate
    environment.py   the isolated environment: state, set-up with a live log, self-test
    models.py        models and GPUs, looked for now and then
    paths.py         which files of this machine a request may name
    views.py         jobs, models and presets as the JSON that pages get
    faults.py        errors as JSON, and their HTTP status
    routes.py        the table of routes becomes an app's: bodies, errors, threads
    schema.py        ... and what OpenAPI says of them
    guard.py         who may ask: the host's passwords, no foreign pages
    bodies.py        requests' bodies, bounded and checked
    files.py         a file as an answer, with ranges
    app_routes.py    /deforum-wan/api
    queue_routes.py  ... its part about jobs
    uploads.py       ... its part about pictures and sounds that a page hands over
    deforum_api.py   /deforum_api
    run_now.py       the launch flags
    serve.py         all of it without a WebUI

The service and what it asks know neither fastapi nor starlette; nothing here knows gradio but serve.py.
"""
