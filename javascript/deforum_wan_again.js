// What can be made of a job that has ended: its settings, another seed, what comes after its end, a part of it anew.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.again = function (dw) {
        const { h, store } = dw;

        dw.useSettings = async function (job) {
            const found = await dw.api(`jobs/${job.id}/settings`);
            store.load(found.settings);
            dw.say(`The form has the settings of job ${job.id}`);
        };

        dw.anotherSeed = async function (job) {
            const made = await dw.api(`jobs/${job.id}/duplicate`, { seed: -1 });
            dw.say(`Job ${made.id} waits in the queue`);
            dw.lookIfIdle(made.id);
        };

        // The form gets the job's settings, to begin where it ends: only what is to be seen then is left to write.
        dw.continueJob = async function (job) {
            const [all, found] = await Promise.all([dw.api(`jobs/${job.id}`), dw.api(`jobs/${job.id}/settings`)]);
            if (!all.settings_file) throw new Error(`The files of job ${job.id} are gone, so nothing can go on from it`);
            const { keyframes } = await dw.api("plan", { settings: found.settings });
            const last = keyframes.length ? found.settings.prompts[keyframes[keyframes.length - 1].key] : "";
            const more = found.settings.seed_behavior === "schedule" ? { seed_behavior: "iter" } : {};
            store.load({ ...found.settings, prompts: { 0: last }, continue_from: all.settings_file, init_image: "", init_video: "", seed: -1, ...more });
            dw.say(`The form goes on from the end of job ${job.id}: say what comes next, then Generate`);
            const first = dw.app.querySelector(".dw-table textarea");
            first.scrollIntoView({ block: "center", behavior: "smooth" });
            first.select();
        };

        // From which clip on?  The job's own timeline is the choice: a click on a clip.
        dw.retakeJob = async function (job) {
            const { settings, seed } = await dw.api(`jobs/${job.id}/settings`);
            const width = Math.min(800, Math.round(dw.app.clientWidth * 0.9) - 60);
            const { plan, svg } = await dw.api("plan", { settings: { ...settings, seed }, width });
            if (!plan) throw new Error(`The clips of job ${job.id} can't be told any more`);
            dw.dialog(`Job ${job.id}: again from a clip`, (close) => {
                const picture = dw.drawing(svg), boxes = [...picture.querySelectorAll(".dw-clip")];
                const words = h("div.dw-hint");
                const problem = h("div.dw-error", { role: "alert" });
                const count = plan.clip_count;
                const clip = h("input", { type: "text", inputmode: "numeric", value: String(Math.min(2, count)), autocomplete: "off" });
                const fresh = h("input", { type: "text", inputmode: "numeric", placeholder: "a fresh one", autocomplete: "off" });
                const show = () => {
                    const number = Number(clip.value), first = plan.clips[number - 1];
                    boxes.forEach((box, at) => box.classList.toggle("dw-stays", at < number - 1));
                    words.textContent = !first ? `A number from 1 to ${count}`
                        : `${["", "", "Clip 1 stays as it is. "][number] ?? `Clips 1 to ${number - 1} stay as they are. `}Frames ${first.start_frame} to ${plan.max_frames - 1} are made anew, as a new job.`;
                };
                if (boxes.length === count) boxes.forEach((box, at) => {
                    box.classList.add("dw-choice");
                    box.addEventListener("click", () => { clip.value = String(at + 1); show(); });
                });
                clip.addEventListener("input", show);
                show();
                const go = async () => {
                    const number = (input) => (/^\d+$/.test(input.value.trim()) ? Number(input.value) : input.value.trim());
                    try {
                        const made = await dw.api(`jobs/${job.id}/retake`, { clip: number(clip), ...(fresh.value.trim() ? { seed: number(fresh) } : {}) });
                        close();
                        dw.say(`Job ${made.jobs[0].id} waits in the queue`);
                        dw.lookIfIdle(made.jobs[0].id);
                    } catch (error) { problem.textContent = error.message; }
                };
                return [h("div.dw-picture", {}, picture), words, h("div.dw-pair", {},
                    h("label.dw-field", {}, h("span.dw-label", {}, `From clip (1 to ${count})`), clip),
                    h("label.dw-field", {}, h("span.dw-label", {}, "Its seed"), fresh)), problem,
                h("div.dw-row.dw-end", {}, dw.button("Cancel", "", close), dw.button("Add to queue", "", go, "dw-primary"))];
            }, true);
        };
    };
})();
