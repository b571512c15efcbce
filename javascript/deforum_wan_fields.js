// One control for each field of the settings.  Kind, range, choices, default and hint are the server's.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const FILES = { init_image: "image/*", init_video: "video/*,image/gif", soundtrack: "audio/*,video/*" };

    parts.fields = function (dw) {
        const { h, store } = dw;
        const holders = {}; // field -> its elements on the page: a field may stand in two places
        const label = (name) => dw.config.labels[name] || name;
        dw.label = label;
        dw.controls = {}; // field -> its own control, (field, id) => { input, shown, show }

        // The control of a field with its label, hint and place for an error.
        // options: label, plain (a schedule as a number), lines
        dw.field = function (name, options) {
            const field = dw.fields[name], given = options || {};
            const id = `deforum_wan_${name}${given.plain ? "_plain" : ""}`;
            const control = makeControl(field, id, given);
            const error = h("div.dw-error", { role: "alert", id: id + "_error" });
            control.input.setAttribute("aria-describedby", id + "_error");
            const words = given.label || label(name);
            const title = [field.hint, field.allowed && `Allowed: ${field.allowed}.`, defaultWords(field)].filter(Boolean).join("\n");
            const tag = h("label.dw-label", { htmlFor: id, title }, words);
            const inner = field.kind === "bool" ? h("div.dw-check", {}, control.input, tag) : [tag, control.shown];
            const hint = given.plain || given.short ? null : h("div.dw-hint", {}, field.hint);
            const holder = h("div.dw-field", { title: hint ? "" : title }, inner, hint, given.below || null, error);
            holder.dataset.field = name;
            (holders[name] = holders[name] || []).push({ holder, error, input: control.input, show: control.show });
            control.show();
            return holder;
        };

        function defaultWords(field) {
            const value = field.default;
            if (value === "" || typeof value === "object") return "";
            return `Default: ${value}.`;
        }

        function makeControl(field, id, options) {
            if (dw.controls[field.name]) return dw.controls[field.name](field, id);
            if (options.plain) return plainNumber(field, id);
            if (field.kind === "bool") return checkbox(field, id);
            if (field.kind === "choice") return choice(field, id);
            if (field.kind === "schedule" || field.kind === "files" || options.lines) return area(field, id, options.lines || 2);
            return line(field, id);
        }

        function line(field, id) {
            const numeric = field.kind === "int" || field.kind === "float";
            const input = h("input", { id, type: "text", inputmode: numeric ? "decimal" : "text", autocomplete: "off", spellcheck: false });
            if (numeric) input.addEventListener("keydown", (event) => step(event, field));
            input.addEventListener("input", () => store.set(field.name, input.value, input));
            const shown = FILES[field.name] ? h("div.dw-row", {}, input, browse(field)) : input;
            if (FILES[field.name]) {
                shown.addEventListener("dragover", (event) => event.preventDefault());
                shown.addEventListener("drop", (event) => {
                    event.preventDefault();
                    event.stopPropagation();
                    if (event.dataTransfer.files[0]) fillIn(field, event.dataTransfer.files[0]);
                });
            }
            return { input, shown, show: () => write(input, field) };
        }

        // Arrow keys count up and down, as in a number field; unlike it, what can't be read stays as it was typed.
        function step(event, field) {
            const way = { ArrowUp: 1, ArrowDown: -1 }[event.key], now = Number(event.target.value);
            if (!way || !Number.isFinite(now)) return;
            event.preventDefault();
            const size = (field.multiple > 1 ? field.multiple : 1) * (event.shiftKey ? 10 : 1);
            const next = Math.min(Math.max(now + way * size, field.minimum ?? -Infinity), field.maximum ?? Infinity);
            event.target.value = dw.number(next, 4);
            store.set(field.name, event.target.value, event.target);
        }

        function area(field, id, rows) {
            const input = h("textarea", { id, rows, spellcheck: field.kind === "text" });
            input.addEventListener("input", () => store.set(field.name, input.value, input));
            return { input, shown: input, show: () => write(input, field) };
        }

        function write(input, field) {
            const value = store.values[field.name];
            if (input.value !== value) input.value = value === undefined ? "" : value;
            const usual = modelsOwn(field.name);
            input.placeholder = usual === "" ? "" : `${usual} (the model's)`;
        }

        // What an empty field means with the chosen model.
        function modelsOwn(name) {
            const found = dw.model && dw.model.defaults ? dw.model.defaults[name] : "";
            return found === undefined || found === null ? "" : found;
        }

        // A schedule as one number; says "scheduled" once there is more than a number.
        function plainNumber(field, id) {
            const input = h("input", { id, type: "text", inputmode: "decimal", autocomplete: "off" });
            input.addEventListener("keydown", (event) => !input.readOnly && step(event, field));
            input.addEventListener("input", () => store.set(field.name, input.value, input));
            input.addEventListener("click", () => input.readOnly && dw.goTo(field.name, true));
            const show = () => {
                const value = store.values[field.name] || "";
                const scheduled = /[:()a-z]/i.test(value);
                // While it is typed in, it stays a plain field: nobody's keys may end in a locked one.
                input.readOnly = scheduled && document.activeElement !== input;
                input.classList.toggle("dw-scheduled", input.readOnly);
                const shown = input.readOnly ? "scheduled" : value;
                if (input.value !== shown) input.value = shown;
                const usual = modelsOwn(field.name);
                input.placeholder = usual === "" ? "the model's" : String(usual);
            };
            return { input, shown: input, show };
        }

        function checkbox(field, id) {
            const input = h("input", { id, type: "checkbox" });
            input.addEventListener("change", () => store.set(field.name, input.checked, input));
            return { input, shown: input, show: () => { input.checked = Boolean(store.values[field.name]); } };
        }

        function choice(field, id) {
            const words = (value) => {
                if (value !== "") return value;
                const usual = modelsOwn(field.name);
                return usual ? `the model's (${usual})` : "the model's";
            };
            const input = h("select", { id });
            const show = () => {
                const now = store.values[field.name];
                // A value of an imported file that isn't one of the choices stays visible, with its error.
                const all = field.choices.includes(now) || now === undefined ? field.choices : [...field.choices, now];
                dw.fill(input, all.map((value) => h("option", { value }, words(value))));
                input.value = now === undefined ? field.default : now;
            };
            input.addEventListener("change", () => store.set(field.name, input.value, input));
            return { input, shown: input, show };
        }

        // Files from the browser's machine

        function browse(field) {
            return dw.button("Choose…", `${label(field.name)}: upload a file, or drop it here`, () =>
                dw.pickFiles(FILES[field.name], false, ([file]) => file && fillIn(field, file)));
        }

        async function fillIn(field, file) {
            try {
                store.set(field.name, await dw.upload(field.name, file));
            } catch (error) { dw.complain(error); }
        }

        // Returns the path under which the server keeps it.
        dw.upload = async (name, file) => (await dw.api("uploads", { field: name, name: file.name, data: await base64(file) })).path;

        function base64(file) {
            return new Promise((done, failed) => {
                const reader = new FileReader();
                reader.onload = () => done(String(reader.result).replace(/^[^,]*,/, ""));
                reader.onerror = () => failed(new Error(`${file.name} can't be read`));
                reader.readAsDataURL(file);
            });
        }

        // Errors, and the way to a field

        // found: field -> words.  Returns the fields that have one and stand on the page.
        dw.showErrors = function (found) {
            const seen = [];
            for (const [name, places] of Object.entries(holders)) {
                const words = found[name] || "";
                if (words) seen.push(name);
                for (const place of places) {
                    place.error.textContent = words;
                    place.holder.classList.toggle("dw-wrong", Boolean(words));
                    place.input.setAttribute("aria-invalid", words ? "true" : "false");
                }
            }
            return seen;
        };

        dw.goTo = function (name, last) {
            const places = holders[name] || [];
            const place = last ? places[places.length - 1] : places[0];
            if (!place) return;
            for (let at = place.holder.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
            place.holder.scrollIntoView({ block: "center", behavior: "smooth" });
            place.input.focus({ preventScroll: true });
        };

        dw.ownField = function (name, holder, error, input, show) { // for controls of other parts
            holder.dataset.field = name;
            (holders[name] = holders[name] || []).push({ holder, error, input, show });
        };

        dw.showFields = function (names, origin) {
            for (const name of names) for (const place of holders[name] || []) if (place.input !== origin) place.show();
        };

        store.listen((names, origin) => dw.showFields(names, origin));
        document.addEventListener("focusout", (event) => {
            const holder = event.target.closest && event.target.closest("[data-field]");
            const leaves = holder && dw.app && dw.app.contains(holder) && !holder.contains(event.relatedTarget);
            if (leaves) dw.showFields([holder.dataset.field]);
        });
    };
})();
