// The parts on the page: the form at the left in the order of a person's thoughts, what runs and the queue at the right.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.tab = function (dw) {
        const { h, store } = dw;
        const section = (id) => dw.config.sections.find((found) => found.id === id);

        dw.makeTab = function () {
            const draft = dw.draft();
            store.values = {};
            start(draft);
            const app = h("div.dw-app");
            dw.app = app;
            const [picker, lacks] = dw.makeModelPicker();
            app.append(h("div.dw-body", {}, h("div.dw-columns-main.dw-top", {}, picker, dw.makePresets()), dw.makeSetupBanner(), lacks,
                h("div.dw-columns-main", {}, left(), right())), h("div.dw-drop-words", {}, "Drop settings files here"), dw.notices);
            dw.acceptDrops(app);
            keys();
            begin();
            return app;
        };

        function start(draft) {
            for (const field of Object.values(dw.fields)) store.values[field.name] = field.kind === "bool" ? field.default : String(field.default);
            store.values.prompts = JSON.stringify(dw.config.first_prompts, null, 2);
            if (draft) for (const [name, value] of Object.entries(draft)) {
                if (name === "extra") store.extra = value;
                else if (name in dw.fields && typeof value === typeof store.values[name]) store.values[name] = value;
            }
        }

        dw.resetForm = function () {
            start(null);
            store.extra = {};
            if (dw.model && dw.model.defaults) {
                store.values.width = String(dw.model.defaults.width);
                store.values.height = String(dw.model.defaults.height);
            }
            store.tell(Object.keys(dw.fields));
        };

        function left() {
            return h("div.dw-left", {}, h("div.dw-panel", {}, dw.makePrompts(),
                h("div.dw-pair", {}, dw.field("positive_prompt", { short: true }), dw.field("negative_prompt", { short: true })), dw.makePlan(), basics()),
            dw.makeActions(), h("div.dw-sections", {}, dw.config.sections.filter((part) => !part.open).map(details), dw.makeSetup()),
            h("div.dw-row.dw-end", {}, dw.makeFileButtons()));
        }

        function basics() {
            const plain = dw.config.plain.map((name) => dw.field(name, { plain: true }));
            const shown = section("basics").fields.filter((name) => name !== "model");
            const short = Object.fromEntries(shown.map((name) => [name, dw.field(name, { short: true })]));
            const clips = short.seed_iter_n;
            const only = () => { clips.hidden = store.values.seed_behavior !== "iter"; };
            store.listen((names) => names.includes("seed_behavior") && only());
            only();
            return h("div.dw-basics", {}, dw.makeSizePicker(), short.width, short.height, short.max_frames, dw.makeSeconds(), short.fps,
                plain, short.solver, short.seed, short.seed_behavior, clips);
        }

        function details(part) {
            const open = h("div.dw-section-body");
            for (const name of part.fields) {
                const field = dw.fields[name];
                const one = dw.field(name, field.kind === "schedule" ? { below: dw.makeCurve(name) } : {});
                open.append(one);
            }
            const box = h("details.dw-section", { open: part.open }, h("summary", {}, h("b", {}, part.title), h("span.dw-hint", {}, part.about)), open);
            box.dataset.section = part.id;
            // A change behind a closed title would be forgotten.
            const told = h("span.dw-told");
            box.firstChild.append(told);
            const mark = () => {
                const set = part.fields.filter((name) => String(store.values[name]) !== String(dw.fields[name].default));
                told.textContent = set.map(inWords).join(" · ");
                told.title = set.map((name) => `${dw.label(name)}: ${store.values[name]}`).join("\n");
                box.classList.toggle("dw-has-set", set.length > 0);
            };
            store.listen(mark);
            mark();
            return box;
        }

        // A field that differs from its default, for the title of a closed section.
        function inWords(name) {
            const value = String(store.values[name]), words = dw.label(name).toLowerCase();
            if (name === "loras") return value.split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("#")).join(" · ");
            if (dw.fields[name].kind === "bool") return store.values[name] ? words : `no ${words}`;
            if (dw.fields[name].kind === "path") return `${words} ${value.split(/[/\\]/).pop()}`;
            if (dw.fields[name].kind === "schedule" && /[:()a-z]/i.test(value)) return `${words} scheduled`;
            return `${words} ${value.length > 24 ? `${value.slice(0, 22)}…` : value}`;
        }

        function right() {
            const queue = dw.makeQueue(), history = dw.makeHistory();
            history.hidden = true;
            const tabs = ["Queue", "History"].map((name) => h("button.dw-tab" + (name === "Queue" ? ".dw-on" : ""), { type: "button", role: "tab", onclick: () => choose(name) }, name));
            function choose(name) {
                for (const tab of tabs) {
                    const on = tab.textContent === name;
                    tab.classList.toggle("dw-on", on);
                    tab.setAttribute("aria-selected", on ? "true" : "false");
                }
                queue.hidden = name !== "Queue";
                history.hidden = name !== "History";
                dw.showHistory(name === "History");
            }
            return h("div.dw-right", {}, dw.makeLive(), h("div.dw-panel.dw-queue", {}, h("div.dw-tabs.dw-head", { role: "tablist" }, tabs), queue, history));
        }

        // Ctrl+Enter and Ctrl+E, while the tab is in sight; the host's own Ctrl+Enter then stays out of it.
        function keys() {
            document.addEventListener("keydown", (event) => {
                if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || !dw.app.offsetParent) return;
                if (dw.app.querySelector(".dw-backdrop")) return;
                const act = { Enter: dw.generate, e: dw.enqueue, E: dw.enqueue }[event.key];
                if (!act) return;
                event.preventDefault();
                event.stopImmediatePropagation();
                act().catch(dw.complain);
            }, true);
        }

        function begin() {
            dw.poll();
            (async () => {
                try {
                    await dw.findModels(false);
                    await dw.loadPresets();
                } catch (error) { dw.complain(error); }
                dw.planSoon();
            })();
        }
    };
})();
