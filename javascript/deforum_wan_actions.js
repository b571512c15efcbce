// Generate, Add to queue, a grid of jobs, and editing a job that waits.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.actions = function (dw) {
        const { h, store } = dw;
        const problem = h("div.dw-problem", { role: "alert" });
        const bar = h("div.dw-actions");
        let editing = null; // the waiting job whose settings are in the form

        dw.makeActions = () => { drawBar(); return bar; };

        function drawBar() {
            if (editing) {
                dw.fill(bar, dw.button(`Save changes to job ${editing.id}`, "", saveEdit, "dw-primary"),
                    dw.button("Leave it as it was", "", () => { editing = null; drawBar(); }), problem);
                return;
            }
            const generate = dw.button("Generate", "Render now, before all that waits (Ctrl+Enter)", dw.generate, "dw-primary.dw-large");
            const enqueue = dw.button("Add to queue", "Render after all that waits (Ctrl+E)", dw.enqueue, "dw-large");
            generate.id = "deforum_wan_generate";
            enqueue.id = "deforum_wan_enqueue";
            dw.fill(bar, generate, enqueue, dw.button("Add as grid…", "One job for each combination of values", grid), problem);
        }

        // The first problem in one line, with the way to its field.
        dw.showProblem = function (errors) {
            const first = errors[0];
            if (!first) return dw.fill(problem);
            const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : "";
            const go = first.field in dw.fields ? h("button.dw-link", { type: "button", onclick: () => dw.goTo(first.field) }, "show") : null;
            return dw.fill(problem, h("span", {}, first.message + more), go);
        };

        // Settings that can be queued, or null with the problem shown.
        async function checked() {
            const plan = await dw.planNow();
            if (!plan) return store.request(); // the server did not answer: queueing will say so
            const stops = plan.errors.filter((error) => error.field !== "model" || !plan.plan);
            if (!stops.length) return store.request();
            dw.showProblem(stops);
            if (stops[0].field in dw.fields) dw.goTo(stops[0].field);
            return null;
        }

        async function add(more) {
            const settings = await checked();
            if (!settings) return null;
            try {
                const added = await dw.api("jobs", { settings, ...more });
                dw.lastAdded = { id: added.jobs[0].id, text: JSON.stringify(settings) };
                return added;
            } catch (error) {
                dw.showProblem([error]);
                if (error.field in dw.fields) dw.goTo(error.field);
                return null;
            }
        }

        dw.generate = async function () {
            if (editing) return saveEdit();
            const desk = dw.state && dw.state.environment;
            if (desk && !desk.ready && !desk.work) {
                dw.showProblem([{ field: "", message: `Nothing can be rendered yet: the isolated environment is ${desk.text}. It is set up below, under Environment.` }]);
                dw.openSetup();
                return;
            }
            const added = await add({ first: true });
            if (!added) return;
            if (dw.state && dw.state.queue.paused) await dw.api("queue/resume", {});
            dw.say(`Job ${added.jobs[0].id} begins`, "", added.notes);
            dw.look(`job-${added.jobs[0].id}`);
            dw.poll();
        };

        dw.enqueue = async function () {
            if (editing) return saveEdit();
            const added = await add({});
            if (!added) return;
            const paused = dw.state && dw.state.queue.paused ? "; the queue is paused" : "";
            dw.say(`Job ${added.jobs[0].id} waits in the queue${paused}`, "", added.notes);
            dw.lookIfIdle(added.jobs[0].id);
        };

        dw.editJob = async function (job) {
            const found = await dw.api(`jobs/${job.id}/settings`);
            store.load(found.settings);
            editing = job;
            drawBar();
            bar.scrollIntoView({ block: "nearest", behavior: "smooth" });
        };

        async function saveEdit() {
            const settings = await checked();
            if (!settings) return;
            const done = await dw.api(`jobs/${editing.id}/edit`, { settings });
            dw.say(`Job ${editing.id} is changed`, "", done.notes);
            editing = null;
            drawBar();
            dw.poll();
        }

        // Grid

        function grid() {
            dw.dialog("Add as grid", (close) => {
                const rows = h("div.dw-grid-rows");
                const total = h("span.dw-hint");
                const words = h("div.dw-error", { role: "alert" });
                const name = h("input", { type: "text", placeholder: "a name for the batch", "aria-label": "Name of the batch" });
                const names = Object.keys(dw.fields).filter((field) => !["prompts", "extra"].includes(field));
                const addRow = (field, values) => {
                    const select = h("select", { "aria-label": "Field" }, names.map((key) => h("option", { value: key }, dw.label(key))));
                    const input = h("input", { type: "text", value: values || "", "aria-label": "Values",
                        placeholder: "one value; another" });
                    select.value = field;
                    const hint = () => { input.placeholder = select.value === "seed" ? "7, 20-29" : "one value; another value"; count(); };
                    select.addEventListener("change", hint);
                    input.addEventListener("input", count);
                    const row = h("div.dw-row", {}, select, input, dw.button("×", "Remove", () => { row.remove(); count(); }, "dw-plain"));
                    rows.append(row);
                    hint();
                };
                const axes = () => Object.fromEntries([...rows.children].map((row) => {
                    const [select, input] = row.querySelectorAll("select, input");
                    if (select.value === "seed") return ["seed", input.value];
                    return [select.value, input.value.split(";").map((part) => part.trim()).map((part) => typed(select.value, part))];
                }));
                function count() {
                    let product = 1;
                    for (const value of Object.values(axes())) product *= typeof value === "string" ? seeds(value) : value.length;
                    total.textContent = `${dw.several(product, "job")}, the form's other values alike in all`;
                }
                addRow("seed", "1-4");
                const go = async () => {
                    words.textContent = "";
                    const settings = await checked();
                    if (!settings) { close(); return; }
                    try {
                        const added = await dw.api("jobs/grid", { settings, axes: axes(), name: name.value.trim() });
                        close();
                        dw.say(`${dw.several(added.jobs.length, "job")} added`, "", added.notes);
                        dw.poll();
                    } catch (error) { words.textContent = error.message; }
                };
                return [h("p.dw-hint", {}, "One job for each combination. Seeds: numbers and ranges with commas; other fields: values with semicolons."),
                    rows, dw.button("+ field", "Vary another field", () => addRow("guidance_scale", "")), name, total, words,
                    h("div.dw-row.dw-end", {}, dw.button("Cancel", "", close), dw.button("Add", "", go, "dw-primary"))];
            });
        }

        function typed(name, text) {
            const field = dw.fields[name];
            return field.kind === "bool" ? ["true", "yes", "on", "1"].includes(text.toLowerCase()) : text;
        }

        function seeds(text) {
            return text.split(",").map((part) => part.trim()).filter(Boolean).reduce((sum, part) => {
                const range = /^(\d+)\s*-\s*(\d+)$/.exec(part);
                return sum + (range ? Math.max(0, Number(range[2]) - Number(range[1]) + 1) : 1);
            }, 0);
        }
    };
})();
