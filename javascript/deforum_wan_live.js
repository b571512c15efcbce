// What runs now, whoever started it and in whichever browser; and the last finished video, or the job that was chosen.
// The page asks for the state again and again with short requests; nothing stays open.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const BUSY = 700, IDLE = 2500, HIDDEN = 8000; // milliseconds between two requests

    parts.live = function (dw) {
        const { h } = dw;
        const stage = h("div.dw-stage");
        const status = h("div.dw-status", { "aria-live": "polite" });
        const fill = h("div.dw-bar-fill");
        const bar = h("div.dw-bar", { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, hidden: true }, fill);
        const controls = h("div.dw-row.dw-controls");
        const strip = h("div.dw-picture.dw-strip");
        const log = h("pre.dw-log", { tabIndex: 0 });
        const logBox = h("details.dw-log-box", {}, h("summary", {}, "Log"), log);
        const offline = h("div.dw-banner.dw-warn", { hidden: true }, "The server does not answer. Jobs go on if it lives; this page tries again.");
        const watchers = [];
        let timer = 0, logNext = 1, chosen = "", chosenRan = false, ran = 0, shown = "", last = null;

        dw.state = null;
        dw.watch = (watcher) => watchers.push(watcher);

        dw.makeLive = () => h("div.dw-panel.dw-live", {}, h("div.dw-row.dw-head", {}, h("b.dw-title", {}, "Live"), status), offline, stage, bar,
            controls, strip, logBox);

        // Polling

        dw.poll = async function () {
            clearTimeout(timer);
            const mine = (timer = -1);
            try {
                const since = dw.state ? `since=${encodeURIComponent(dw.state.version)}&` : "";
                const state = await dw.api(`state?${since}log=${logNext}`);
                if (!offline.hidden) {
                    offline.hidden = true;
                    dw.state = null; // another process may answer now, with numbers of its own
                    logNext = 1;
                }
                if (state.changed) take(state);
            } catch (error) {
                if (error.status) status.textContent = error.message;
                else offline.hidden = false;
            }
            if (timer === mine) timer = setTimeout(dw.poll, document.hidden ? HIDDEN : dw.state && dw.state.running.length ? BUSY : IDLE);
        };
        document.addEventListener("visibilitychange", () => !document.hidden && dw.state && dw.poll());

        function take(state) {
            const before = dw.state;
            dw.state = state;
            if (state.log.lines.length) {
                const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
                log.append(state.log.lines.join("\n") + "\n");
                if (log.textContent.length > 200000) log.textContent = log.textContent.slice(-100000);
                if (atEnd) log.scrollTop = log.scrollHeight;
            }
            logNext = state.log.next;
            show(state);
            for (const watcher of watchers) watcher(state, before);
        }

        // Choosing what is shown: "" = what runs, else what ran last while this page watched, else the last finished;
        // "job-7" = that one.

        dw.look = function (what) {
            chosen = what;
            chosenRan = false;
            shown = "";
            if (dw.state) show(dw.state);
        };

        // A job that was added, if it begins at once.
        dw.lookIfIdle = function (id) {
            if (dw.state && !dw.state.running.length && !dw.state.waiting.length && !dw.state.queue.paused) dw.look(`job-${id}`);
            dw.poll();
        };

        function show(state) {
            // One that was watched while it ran is let go of once it has ended and something else runs.
            const runs = state.running.some((job) => `job-${job.id}` === chosen);
            if (chosenRan && !runs && state.running.length) chosen = "";
            chosenRan = Boolean(chosen) && (chosenRan || runs);
            const waiting = chosen && state.waiting.find((job) => `job-${job.id}` === chosen);
            // While the chosen one waits for another, that other is shown.
            const wanted = chosen && !waiting ? state.running.find((job) => `job-${job.id}` === chosen) : state.running[0];
            if (wanted) return showRunning(wanted);
            strip.hidden = bar.hidden = true;
            return waiting ? showWaiting(waiting, state) : showEnded();
        }

        function showWaiting(job, state) {
            shown = "";
            status.textContent = `job ${job.id} waits`;
            dw.fill(stage, h("div.dw-empty", {}, state.queue.paused ? `The queue is paused: ${state.queue.paused}.` : "The job begins in a moment."));
            dw.fill(controls, state.queue.paused ? dw.button("Resume the queue", "", () => act("queue/resume"), "dw-primary") : null);
        }

        // A running job

        function showRunning(job) {
            const progress = job.progress || {};
            ran = job.id;
            if (shown !== `run-${job.id}`) {
                shown = `run-${job.id}`;
                dw.fill(stage, h("div.dw-empty", {}, "The first preview comes with the first steps."));
                drawControls(job);
                drawStrip(job);
            }
            const percent = Math.round(100 * (progress.fraction || 0));
            bar.hidden = false;
            fill.style.width = `${percent}%`;
            bar.setAttribute("aria-valuenow", percent);
            status.textContent = words(job, progress);
            showPreview(job, progress);
            movePlayhead(progress);
            const so_far = controls.querySelector(".dw-so-far");
            if (so_far) {
                so_far.hidden = !job.so_far;
                so_far.textContent = stage.querySelector("video") ? "Show the preview" : `Play the ${dw.several(job.frames, "frame")} so far`;
            }
        }

        function words(job, progress) {
            const list = [`job ${job.id}`];
            if (job.stopping) list.push(job.stopping === "now" || job.stopping === "cancel" ? "stopping" : "stops after this clip");
            if (progress.clips) list.push(`clip ${progress.clip} of ${progress.clips}`);
            if (progress.phase === "sampling" && progress.steps) list.push(`step ${progress.step} of ${progress.steps}`);
            else list.push([progress.phase || "preparing", progress.note].filter(Boolean).join(" "));
            if (progress.phase === "sampling" && progress.seconds_per_step) list.push(`${dw.number(progress.seconds_per_step)} s/step`);
            if (progress.eta_seconds !== null && progress.eta_seconds !== undefined) list.push(`ETA ${dw.seconds(progress.eta_seconds)}`);
            return list.join(" · ");
        }

        function showPreview(job, progress) {
            if (!job.preview || stage.querySelector("video")) return;
            let image = stage.querySelector("img");
            if (!image) {
                image = h("img.dw-frame", { alt: "The clip in work" });
                image.style.aspectRatio = `${job.width || 16} / ${job.height || 9}`;
                dw.fill(stage, image);
            }
            const source = dw.fileUrl(job.preview, { n: progress.updates || 0 });
            // Shown when it is there, so that nothing flickers.
            const next = new Image();
            next.onload = () => { image.src = source; };
            if (image.dataset.source !== source) { image.dataset.source = source; next.src = source; }
        }

        function drawControls(job) {
            const others = () => dw.state && dw.state.waiting_count > 0;
            dw.fill(controls,
                dw.button("Pause after this clip", "The job stops at the end of its clip and goes on from there later", () => act("queue/pause", { after_clip: true })),
                dw.button("Stop, keep frames", "End this job; its finished frames become a video. If others wait, the queue pauses", async () => {
                    if (others()) await dw.api("queue/pause", { reason: "stopped by hand" });
                    await act(`jobs/${job.id}/cancel`);
                }),
                dw.button("Skip to the next", "End this job, keep its frames, go on with the next one", () => act(`jobs/${job.id}/skip`)),
                dw.button("Play the frames so far", "", () => toggleSoFar(job), "dw-so-far"));
        }

        function toggleSoFar(job) {
            if (stage.querySelector("video")) {
                dw.fill(stage, h("div.dw-empty", {}, "The preview comes back with the next step."));
                return;
            }
            const now = dw.state.running.find((other) => other.id === job.id) || job;
            dw.fill(stage, player(dw.fileUrl(now.so_far, { n: now.frames }), true));
        }

        async function act(path, body) {
            await dw.api(path, body || {});
            dw.poll();
        }
        dw.act = act;

        // The running job's own timeline with the place it is at.
        async function drawStrip(job) {
            dw.fill(strip);
            strip.plan = null;
            try {
                const { settings } = await dw.api(`jobs/${job.id}/settings`);
                const answer = await dw.api("plan", { settings, width: dw.roomFor(stage) });
                if (!answer.svg || shown !== `run-${job.id}`) return;
                const svg = dw.drawing(answer.svg);
                const head = document.createElementNS("http://www.w3.org/2000/svg", "line");
                head.setAttribute("class", "dw-playhead");
                head.setAttribute("y1", "0");
                head.setAttribute("y2", String(svg.viewBox.baseVal.height - 26));
                svg.append(head);
                strip.plan = answer.plan;
                strip.hidden = false;
                dw.fill(strip, svg);
                if (job.progress) movePlayhead(job.progress);
            } catch { /* the picture is a comfort */ }
        }

        function movePlayhead(progress) {
            const head = strip.querySelector(".dw-playhead"), plan = strip.plan;
            const clip = plan && plan.clips[(progress.clip || 1) - 1];
            if (!head || !clip) return;
            const done = progress.steps ? progress.step / progress.steps : 0;
            const frame = clip.start_frame + (clip.end_frame - clip.start_frame) * done;
            const svg = strip.firstChild, left = Number(svg.dataset.left), right = Number(svg.dataset.right);
            const x = left + ((svg.viewBox.baseVal.width - left - right) * frame) / plan.max_frames;
            head.setAttribute("x1", x.toFixed(1));
            head.setAttribute("x2", x.toFixed(1));
        }

        // A job that has ended

        function player(source, plays) {
            const video = h("video.dw-frame", { src: source, controls: true, loop: true, muted: true, preload: "metadata", autoplay: Boolean(plays) });
            video.setAttribute("playsinline", "");
            video.addEventListener("error", () => dw.fill(stage, h("div.dw-empty", {}, "The browser can't play this video; its file can be downloaded.")));
            return video;
        }

        async function showEnded() {
            const number = chosen ? Number(chosen.slice(4)) : ran;
            const key = `end-${number}-${dw.state.queue.counts.done}-${dw.state.queue.counts.failed}-${dw.state.queue.counts.cancelled}-${dw.state.queue.counts.interrupted}`;
            if (shown === key) return;
            shown = key;
            const found = (number && await dw.api(`jobs/${number}`).catch(() => null))
                || (await dw.api("jobs?states=done&limit=1")).jobs[0] || null;
            if (shown !== key) return;
            last = found;
            if (!found) return showNothing();
            status.textContent = [`job ${found.id}`, found.state === "interrupted" && found.paused ? "paused" : found.state,
                found.seed === null || found.seed === undefined ? "" : `seed ${found.seed}`].filter(Boolean).join(" · ");
            if (found.video) dw.fill(stage, player(dw.fileUrl(found.video, { n: Math.round(found.updated || 0) }), found.id === number));
            else if (found.thumbnail) dw.fill(stage, h("img.dw-frame", { alt: "", src: dw.fileUrl(found.thumbnail) }));
            else dw.fill(stage, h("div.dw-empty", {}, found.error ? found.error.message : "This job has no video."));
            if (found.error && found.video) stage.append(h("div.dw-error", {}, found.error.message));
            dw.fill(controls, dw.jobButtons(found));
            return undefined;
        }

        function showNothing() {
            status.textContent = "";
            dw.fill(controls);
            dw.fill(stage, h("div.dw-empty", {}, "Nothing has been rendered yet. Write a prompt, look at the timeline, press Generate: "
                + "the clip in work shows here, and the video when it is done."));
        }
        dw.shownJob = () => last;
    };
})();
