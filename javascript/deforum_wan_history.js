// Jobs that have ended: search, results, and what can be done with them again.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const PAGE = 20, FRAMES_SHOWN = 6;
    const ENDED = ["done", "failed", "cancelled", "interrupted"];

    parts.history = function (dw) {
        const { h } = dw;
        const search = h("input", { type: "search", placeholder: "words, or #number", "aria-label": "Search the history" });
        const filter = h("select", { "aria-label": "Which jobs" }, h("option", { value: "" }, "all"),
            ENDED.map((state) => h("option", { value: state }, state)), h("option", { value: "★" }, "★ bookmarked"));
        const list = h("div.dw-jobs.dw-ended-jobs", { role: "list" });
        const foot = h("div.dw-row.dw-foot");
        let count = PAGE, drawn = "", visible = false;

        dw.makeHistory = () => h("div", {}, h("div.dw-row.dw-queue-head", {}, search, filter), list, foot);
        dw.showHistory = function (on) {
            visible = on;
            drawn = "";
            if (on) look();
        };

        async function look() {
            if (!visible) return;
            const query = new URLSearchParams({ limit: String(count), states: ENDED.includes(filter.value) ? filter.value : ENDED.join(",") });
            if (search.value.trim()) query.set("text", search.value.trim());
            if (filter.value === "★") query.set("bookmarked", "true");
            let page;
            try { page = await dw.api(`jobs?${query}`); } catch (error) { dw.fill(list, h("div.dw-error", {}, error.message)); return; }
            const key = JSON.stringify(page);
            if (key === drawn) return;
            drawn = key;
            dw.fill(list, page.jobs.length ? page.jobs.map(endedRow) : h("div.dw-empty", {}, search.value || filter.value
                ? "No job fits." : "Nothing has ended yet. Every job stays here with its video and its settings."));
            dw.fill(foot, page.total > page.jobs.length ? dw.button(`Show more (${page.total - page.jobs.length})`, "", () => { count += 2 * PAGE; return look(); }) : null,
                page.total ? h("span.dw-hint.dw-grow", {}, dw.several(page.total, "job")) : null);
        }
        search.addEventListener("input", dw.debounced(() => { count = PAGE; look(); }, 200));
        filter.addEventListener("change", look);

        function endedRow(job) {
            const word = job.paused ? "paused" : job.state;
            const state = h(`span.dw-state.dw-${job.state}`, {}, word);
            const row = dw.jobRow(job, [state, job.finished ? ` ${dw.when(job.finished)}` : ""], [...again(job), bookmark(job), dw.jobMenu(job)]);
            if (job.error && job.state !== "done") row.querySelector(".dw-job-text").append(h("div.dw-error", {}, job.error.message));
            return row;
        }

        function again(job) {
            if (job.state === "done") return [];
            const words = job.paused ? "Go on" : job.state === "cancelled" || job.state === "interrupted" ? "Resume" : "Retry";
            return [dw.button(words, "Let it wait again; finished clips are kept", () => dw.act(`jobs/${job.id}/retry`))];
        }

        const bookmark = (job) => dw.button(job.bookmark ? "★" : "☆", job.bookmark ? "Remove the bookmark" : "Bookmark: it stays in the history", async () => {
            await dw.act(`jobs/${job.id}/bookmark`, { marked: !job.bookmark });
            await look();
        });

        // What can be done with a job, in the live view and in menus

        dw.jobButtons = (job) => [
            ...again(job),
            job.state === "done" ? dw.button("Continue from its end", "The form gets its settings, to begin where it ends", () => dw.continueJob(job)) : null,
            dw.button("Again, another seed", "Queue the same settings with a fresh seed", () => dw.anotherSeed(job)),
            job.video ? dw.button("Again from a clip…", "The clips before stay, the others are made anew, as a new job", () => dw.retakeJob(job)) : null,
            dw.button("Use these settings", "Put the settings of this job into the form", () => dw.useSettings(job)),
            job.video ? dw.button("Save video", "Download the video", () => dw.download(`jobs/${job.id}/files/video`)) : null,
            dw.button("Details…", "Its files, its settings, the error", () => details(job.id)),
        ];

        dw.jobMenu = (job) => dw.button("⋯", "More", () => menu(job), "dw-plain");

        function menu(job) {
            const ended = ENDED.includes(job.state);
            dw.dialog(`Job ${job.id}`, (close) => {
                const then = (text, act, kind) => dw.button(text, "", async () => { close(); await act(); look(); }, kind);
                return [h("p.dw-prompt-text", {}, job.prompt || "(no prompt)"), h("div.dw-menu", {},
                    then("Show in the live view", async () => dw.look(`job-${job.id}`)),
                    then("Details: files, settings, error", async () => details(job.id)),
                    then("Use these settings", () => dw.useSettings(job)),
                    job.state === "done" ? then("Continue from its end", () => dw.continueJob(job)) : null,
                    ended && job.video ? then("Again from a clip…", () => dw.retakeJob(job)) : null,
                    then("Duplicate", async () => { await dw.act(`jobs/${job.id}/duplicate`); }),
                    then("Duplicate with another seed", () => dw.anotherSeed(job)),
                    ended ? then("Render again from the start", () => dw.act(`jobs/${job.id}/retry`, { resume: false })) : null,
                    then("Rename…", async () => dw.ask("Rename", "Name", job.name, "Rename", async (name) => { await dw.act(`jobs/${job.id}/rename`, { name }); look(); })),
                    then(job.bookmark ? "Remove the bookmark" : "Bookmark", () => dw.act(`jobs/${job.id}/bookmark`, { marked: !job.bookmark })),
                    then("Export as a file", async () => dw.download("jobs/export", { ids: job.id })),
                    ended ? then("Delete (its files stay)", async () => dw.confirm(`Delete job ${job.id}?`,
                        "It goes from the history. The pictures and the video stay in their folder.", "Delete", async () => {
                            await dw.api(`jobs/${job.id}`, null, "DELETE");
                            dw.look("");
                            dw.poll();
                            look();
                        }), "dw-danger") : null)];
            });
        }

        async function details(id) {
            const [job, made] = await Promise.all([dw.api(`jobs/${id}`), dw.api(`jobs/${id}/settings`)]);
            const lines = [["State", job.paused ? "paused" : job.state], ["Seed", job.seed], ["Frames on disk", job.frames], ["Attempts", job.attempts],
                ["Added", dw.when(job.created)], job.finished && job.started ? ["Took", dw.seconds(job.finished - job.started)] : null,
                ["Folder", job.folder || "none yet"]].filter((line) => line && line[1] !== null && line[1] !== undefined);
            dw.dialog(`Job ${job.id}: ${job.title}`, (close) => [
                job.error ? h("div.dw-banner.dw-bad", {}, job.error.message) : null,
                h("dl.dw-facts-list", {}, lines.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])),
                h("div.dw-row.dw-files", {}, job.files.map((file) => dw.button(`${file.kind} (${dw.bytes(file.size)})`, file.name, () => dw.download(file.url)))),
                frames(job),
                h("textarea.dw-code", { readOnly: true, rows: 12, value: made.text, "aria-label": "Settings of the job" }),
                h("div.dw-row.dw-end", {}, dw.button("Save settings", "", () => dw.save(`job_${job.id}_settings.txt`, made.text)), dw.button("Close", "", close)),
            ], true);
        }

        // Some frames of the whole, each a link to its picture.
        function frames(job) {
            const shown = Math.min(job.frames, FRAMES_SHOWN);
            if (!shown) return null;
            const numbers = Array.from({ length: shown }, (_, at) => Math.round((at * (job.frames - 1)) / Math.max(1, shown - 1)));
            return h("div.dw-frames", {}, numbers.map((number) => h("a", { href: dw.fileUrl(`jobs/${job.id}/files/frame/${number}`), target: "_blank", title: `Frame ${number}` },
                h("img", { alt: `Frame ${number}`, loading: "lazy", src: dw.fileUrl(`jobs/${job.id}/files/frame/${number}`) }), h("span.dw-hint", {}, String(number)))));
        }

        dw.watch((state, before) => {
            const ended = (of) => of && ENDED.map((name) => of.queue.counts[name]).join();
            if (ended(state) !== ended(before)) look();
        });
    };
})();
