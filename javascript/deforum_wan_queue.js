// The queue: what runs and what waits, in its order.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const OPTIONS = {
        auto_resume: ["Go on by itself", "A job that was interrupted by a crash is resumed at the next start."],
        most_attempts: ["Most attempts", "How often a job is tried before it counts as failed."],
        pause_on_out_of_memory: ["Pause on out-of-memory", "The queue pauses instead of failing one job after the other."],
        release_when_empty: ["Free memory when empty", "The model leaves the memory as soon as no job waits, instead of after ten idle minutes. In a WebUI it always does."],
        at_once: ["Jobs at once", "How many jobs this queue's processes may run at the same time."],
        keep_jobs: ["Keep jobs", "How many ended jobs the history keeps; 0 = all. Bookmarked ones always stay."],
        keep_days: ["Keep days", "For how many days; 0 = for ever."],
    };

    parts.queue = function (dw) {
        const { h } = dw;
        const list = h("div.dw-jobs.dw-waiting-jobs", { role: "list" });
        const head = h("div.dw-row.dw-queue-head");
        const banner = h("div");
        let dragged = null, drawn = "", focused = null;

        dw.makeQueue = () => h("div", {}, banner, head, list, h("div.dw-row.dw-foot", {},
            dw.button("Add files…", "Queue settings files from this computer", () => dw.pickFiles(".txt,.json", true, dw.enqueueFiles)),
            dw.button("Add folder…", "Queue every settings file of a folder on the server", addFolder),
            dw.button("Export", "Save the waiting jobs as a file", () => dw.download("jobs/export")),
            dw.button("Import…", "Add the jobs of an exported queue", () => dw.pickFiles(".json", false, importQueue)),
            dw.button("Options…", "How the queue behaves", options)));

        function show(state) {
            const { queue } = state;
            const key = JSON.stringify([queue.paused, queue.counts, queue.notices, queue.trouble, state.waiting, state.running.map((job) => [job.id, job.name, job.stopping, job.bookmark])]);
            for (const job of state.running) progressOf(job);
            if (key === drawn || dragged) return;
            drawn = key;
            banners(queue);
            dw.fill(head, h("span.dw-hint.dw-grow", {}, [`running ${queue.counts.running}`, `waiting ${queue.counts.pending}`, `done ${queue.counts.done}`,
                queue.counts.failed ? `failed ${queue.counts.failed}` : "", queue.counts.interrupted ? `interrupted ${queue.counts.interrupted}` : ""].filter(Boolean).join(" · ")),
            queue.paused ? dw.button("Resume", `Paused: ${queue.paused}. Paused jobs go on first`, () => dw.act("queue/resume"), "dw-primary")
                : dw.button("Pause queue", "Begin no further job; the running one goes on", () => dw.act("queue/pause", { reason: "paused by hand" })),
            queue.counts.failed ? dw.button("Retry failed", "Let all failed jobs wait again; finished clips are kept", () => dw.act("jobs/retry-failed")) : null);
            const rows = [...state.running.map(runningRow), ...state.waiting.map(waitingRow)];
            dw.fill(list, rows.length ? rows : h("div.dw-empty", {}, "The queue is empty. Add to queue puts a job here; all of them are rendered one after the other, also while this page is closed."));
            refocus();
            if (state.waiting_count > state.waiting.length) list.append(h("div.dw-hint", {}, `and ${state.waiting_count - state.waiting.length} more`));
            for (const job of state.running) progressOf(job);
        }

        function refocus() {
            const row = focused && list.querySelector(`[data-job="${focused.job}"]`);
            if (!row) return;
            const button = [...row.querySelectorAll("button")].find((one) => one.textContent === focused.mark && !one.disabled);
            (button || row).focus({ preventScroll: true });
            focused = null;
        }

        function banners(queue) {
            const close = dw.button("×", "Forget these notices", () => dw.act("queue/dismiss"), "dw-plain");
            dw.fill(banner, queue.trouble ? h("div.dw-banner.dw-bad", {}, queue.trouble) : null,
                queue.paused ? h("div.dw-banner.dw-warn", {}, h("b", {}, "Paused: "), queue.paused) : null,
                queue.notices.length ? h("div.dw-banner.dw-warn", {}, h("div.dw-row", {}, h("ul.dw-grow", {}, queue.notices.map(({ time, text }) => h("li", {}, `${dw.when(time)}: ${text}`))), close)) : null);
        }

        // Rows, alike in queue and history

        dw.thumbnail = (job) => h("div.dw-thumb", {}, job.thumbnail ? h("img", { alt: "", loading: "lazy", src: dw.fileUrl(job.thumbnail, { n: Math.round(job.updated || 0) }) })
            : h("span", { "aria-hidden": "true" }, `#${job.id}`));

        dw.facts = function (job) {
            const seconds = job.max_frames && job.fps ? `${dw.number(job.max_frames / job.fps, 1)} s` : "";
            return [`${job.width}×${job.height}`, `${job.max_frames} frames`, seconds, job.model ? String(job.model).split(/[/\\]/).pop() : "",
                job.seed === null || job.seed === undefined ? "" : `seed ${job.seed}`].filter(Boolean).join(" · ");
        };

        dw.jobRow = function (job, state, buttons) {
            const title = h("div.dw-job-title", { title: job.prompt }, job.bookmark ? "★ " : "", h("b", {}, `#${job.id} `), job.title);
            const row = h("div.dw-job", { role: "listitem" }, dw.thumbnail(job), title, h("div.dw-job-buttons", {}, buttons),
                h("div.dw-job-text.dw-hint", {}, state, " · ", dw.facts(job), job.prompt_count > 1 ? ` · ${job.prompt_count} prompts` : "", job.batch ? ` · ${job.batch}` : ""));
            row.dataset.job = job.id;
            row.addEventListener("click", (event) => !event.target.closest("button, a, input") && dw.look(`job-${job.id}`));
            row.tabIndex = 0;
            row.addEventListener("keydown", (event) => {
                if (event.target === row && event.key === "Enter" && !event.ctrlKey && !event.metaKey) dw.look(`job-${job.id}`);
            });
            return row;
        };

        function runningRow(job) {
            const row = dw.jobRow(job, h("span.dw-state.dw-running", {}, job.stopping ? "stopping" : "running"), [
                dw.button("■", "Stop and keep what is done", () => dw.act(`jobs/${job.id}/cancel`)), dw.jobMenu(job)]);
            row.append(h("div.dw-bar", {}, h("div.dw-bar-fill")));
            return row;
        }

        function progressOf(job) {
            const fill = list.querySelector(`[data-job="${job.id}"] .dw-bar-fill`);
            if (fill) fill.style.width = `${Math.round(100 * ((job.progress || {}).fraction || 0))}%`;
        }

        function waitingRow(job, index, all) {
            // Who moves a job by keys finds the focus where it was, at the job's new place.
            const move = (places, mark) => async () => {
                focused = { job: job.id, mark };
                await dw.act(`jobs/${job.id}/move`, { places });
            };
            const up = dw.button("▲", "Move up", move(-1, "▲"));
            const down = dw.button("▼", "Move down", move(1, "▼"));
            if (index === 0) up.disabled = true;
            if (index === all.length - 1) down.disabled = true;
            const row = dw.jobRow(job, h("span.dw-state", {}, "waiting"), [up, down,
                dw.button("⤒", "Run next", () => dw.act(`jobs/${job.id}/run-next`)),
                dw.button("✎", "Edit: its settings go into the form", () => dw.editJob(job)),
                dw.button("×", "Cancel", () => dw.act(`jobs/${job.id}/cancel`)), dw.jobMenu(job)]);
            draggable(row, job);
            row.setAttribute("aria-keyshortcuts", "Alt+ArrowUp Alt+ArrowDown");
            row.addEventListener("keydown", (event) => {
                const places = { ArrowUp: -1, ArrowDown: 1 }[event.key];
                if (!places || !event.altKey) return;
                event.preventDefault();
                move(places, "")().catch(dw.complain);
            });
            return row;
        }

        function draggable(row, job) {
            row.draggable = true;
            row.addEventListener("dragstart", (event) => {
                dragged = job.id;
                event.dataTransfer.effectAllowed = "move";
                event.dataTransfer.setData("text/plain", `job ${job.id}`);
            });
            row.addEventListener("dragend", () => { dragged = null; drawn = ""; if (dw.state) show(dw.state); });
            const behind = (event) => event.clientY > row.getBoundingClientRect().top + row.clientHeight / 2;
            row.addEventListener("dragover", (event) => {
                if (!dragged || dragged === job.id) return;
                event.preventDefault();
                row.classList.toggle("dw-drop-behind", behind(event));
                row.classList.toggle("dw-drop-before", !behind(event));
            });
            const clear = () => row.classList.remove("dw-drop-behind", "dw-drop-before");
            row.addEventListener("dragleave", clear);
            row.addEventListener("drop", async (event) => {
                if (!dragged || dragged === job.id) return;
                event.preventDefault();
                event.stopPropagation();
                const place = behind(event) ? { after: job.id } : { before: job.id }, moved = dragged;
                clear();
                dragged = null;
                drawn = "";
                try { await dw.act(`jobs/${moved}/move`, place); } catch (error) { dw.complain(error); }
            });
        }

        // Adding from elsewhere

        dw.enqueueFiles = async function (files) {
            const jobs = [];
            for (const file of files) jobs.push((await dw.api("settings/import", { text: await file.text() })).settings);
            const added = await dw.api("jobs", { jobs, batch: files.length > 1 ? `${files.length} files` : "" });
            dw.say(`${dw.several(added.jobs.length, "job")} added`, "", added.notes);
            dw.poll();
        };

        function addFolder() {
            dw.ask("Add a folder", "Folder on the server with settings files", "", "Add", async (folder) => {
                const added = await dw.api("jobs/folder", { folder });
                dw.say(`${dw.several(added.jobs.length, "job")} added`, "", added.notes);
                dw.poll();
            });
        }

        async function importQueue([file]) {
            const added = await dw.api("jobs/import", { text: await file.text() });
            dw.say(`${dw.several(added.jobs.length, "job")} added`);
            dw.poll();
        }

        function options() {
            const now = dw.state.queue.options;
            dw.dialog("Queue options", (close) => {
                const words = h("div.dw-error", { role: "alert" });
                const inputs = Object.entries(OPTIONS).filter(([name]) => name in now).map(([name, [label, hint]]) => {
                    const bool = typeof now[name] === "boolean";
                    const input = h("input", { type: bool ? "checkbox" : "text", checked: bool && now[name], value: bool ? "on" : String(now[name]) });
                    input.option = name;
                    return h("label.dw-option", {}, h("span", {}, h("b", {}, label), h("div.dw-hint", {}, hint)), input);
                });
                const save = async () => {
                    const changes = {};
                    for (const label of inputs) {
                        const input = label.querySelector("input");
                        const number = Number(input.value);
                        changes[input.option] = input.type === "checkbox" ? input.checked : Number.isFinite(number) && input.value.trim() ? number : input.value;
                    }
                    try { await dw.act("queue/options", changes); close(); } catch (error) { words.textContent = error.message; }
                };
                return [inputs, words, h("div.dw-row.dw-end", {},
                    dw.button("Tidy up now", "Remove from the history what these options don't keep", () => dw.act("queue/prune")),
                    dw.button("Cancel", "", close), dw.button("Save", "", save, "dw-primary"))];
            });
        }

        dw.watch((state) => show(state));
    };
})();
