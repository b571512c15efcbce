// Named settings, built in and one's own; settings files in and out, by button and by drop.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.presets = function (dw) {
        const { h, store } = dw;
        const select = h("select", { id: "deforum_wan_preset", title: "Choosing a preset puts its fields into the form" });
        const about = h("span.dw-hint");
        let found = { presets: [], default: "", notices: [] };

        dw.makePresets = function () {
            select.addEventListener("change", () => { words(); apply(select.value).catch(dw.complain); });
            store.listen((names) => names.includes("model") && load(() => select.value).catch(dw.complain));
            return h("div.dw-presets", {}, h("label.dw-label", { htmlFor: "deforum_wan_preset" }, "Preset"), select,
                dw.button("Save…", "Save the form as a preset", save), dw.button("⋯", "Rename, delete, default, import, export", menu, "dw-plain"), about);
        };

        // keep: the preset to show as chosen; asked for once the list is there, for someone may have chosen another by then.
        const load = async function (keep) {
            found = await dw.api(`presets?model=${encodeURIComponent(store.values.model || "")}`);
            const group = (label, builtIn) => {
                const own = found.presets.filter((preset) => preset.built_in === builtIn);
                return own.length ? h("optgroup", { label }, own.map((preset) => h("option", { value: preset.name, title: preset.description },
                    preset.name + (preset.name === found.default ? " (default)" : "")))) : null;
            };
            const name = keep();
            dw.fill(select, h("option", { value: "" }, "choose…"), group("Built in", true), group("Your own", false));
            select.value = found.presets.some((preset) => preset.name === name) ? name : "";
            words();
            return found;
        };
        dw.loadPresets = async function () {
            await load(() => "");
            for (const line of found.notices) dw.say(line, "bad");
            if (found.default && !dw.draft()) { select.value = found.default; await apply(found.default); words(); }
        };

        const chosen = () => found.presets.find((preset) => preset.name === select.value);
        function words() { about.textContent = chosen() ? chosen().description : ""; }

        let turn = 0;
        async function apply(name) {
            if (!name) return;
            const mine = ++turn;
            const mixed = await dw.api(`presets/${encodeURIComponent(name)}/apply`, { settings: store.request() });
            if (mine !== turn) return; // another was chosen meanwhile
            store.load(mixed.settings);
            if (mixed.notes.length) dw.say(`Preset ${name}`, "", mixed.notes);
        }

        function save() {
            const own = chosen() && !chosen().built_in ? chosen() : null;
            const content = h("input", { type: "checkbox" });
            const over = h("input", { type: "checkbox", checked: Boolean(own) });
            const text = h("input", { type: "text", value: own ? own.description : "", "aria-label": "Description" });
            dw.ask("Save a preset", "Name", own ? own.name : "", "Save", async (name) => {
                const saved = await dw.api("presets", { name, settings: store.request(), description: text.value, overwrite: over.checked, with_content: content.checked });
                await load(() => saved.name);
                dw.say(`Preset ${saved.name} is saved`);
            }, [h("label.dw-field", {}, h("span.dw-label", {}, "What it is for"), text),
                h("label.dw-check", {}, content, " with prompts, seed, picture and sound"),
                h("label.dw-check", {}, over, " in place of one of this name")]);
        }

        function menu() {
            const preset = chosen(), own = preset && !preset.built_in;
            dw.dialog("Presets", (close) => {
                const then = (text, act, off, kind) => {
                    const button = dw.button(text, "", async () => { close(); await act(); }, kind);
                    button.disabled = Boolean(off);
                    return button;
                };
                const path = preset ? `presets/${encodeURIComponent(preset.name)}` : "";
                return [h("p.dw-hint", {}, preset ? `Chosen: ${preset.name}${own ? "" : " (built in)"}` : "No preset is chosen."), h("div.dw-menu", {},
                    then("Open the tab with this preset", async () => { await dw.api("presets/default", { name: preset.name }); await load(() => preset.name); }, !preset),
                    then("Open the tab without a preset", async () => { await dw.api("presets/default", { name: "" }); await load(() => select.value); }, !found.default),
                    then("Rename…", async () => dw.ask("Rename", "Name", preset.name, "Rename", async (name) => { await dw.api(`${path}/rename`, { name }); await load(() => name); }), !own),
                    then("Export as a file", async () => exportPreset(preset, path), !own),
                    then("Import a file…", async () => dw.pickFiles(".json,.txt", false, ([file]) => importPreset(file))),
                    then("Delete", async () => dw.confirm(`Delete ${preset.name}?`, "The preset's file is removed.", "Delete", async () => {
                        await dw.api(path, null, "DELETE");
                        await load(() => "");
                    }), !own, "dw-danger"))];
            });
        }

        async function exportPreset(preset, path) {
            dw.save(`${preset.name}.json`, JSON.stringify(await dw.api(`${path}/export`), null, 4) + "\n");
        }

        async function importPreset(file) {
            const text = await file.text();
            dw.ask("Import a preset", "Name", file.name.replace(/\.[^.]*$/, ""), "Import", async (name) => {
                const made = await dw.api("presets/import", { name, text });
                await load(() => made.name);
                dw.say(`Preset ${made.name} is imported`);
            });
        }

        // Settings files, ours or Deforum's

        dw.importSettings = async function (file) {
            const text = await file.text();
            let kind = "";
            try { kind = JSON.parse(text).format || ""; } catch { /* the server says what is wrong with it, and where */ }
            if (kind === "deforum-wan-preset") { await importPreset(file); return; }
            const read = await dw.api("settings/import", { text });
            store.load(read.settings);
            dw.say(`The form has the settings of ${file.name}`, "", read.notes);
        };

        dw.makeFileButtons = () => [
            dw.button("Import settings…", "A settings file, ours or Deforum's; it may also be dropped anywhere on the tab", () =>
                dw.pickFiles(".txt,.json", false, ([file]) => file && dw.importSettings(file))),
            dw.button("Export settings", "Save the form as a settings file", async () => {
                const made = await dw.api("settings/export", { settings: store.request() });
                dw.save("deforum_wan_settings.txt", made.text);
            }),
            dw.button("Reset", "All fields back to their defaults", () => dw.confirm("Reset the form?", "All fields go back to their defaults.", "Reset", () => dw.resetForm())),
        ];

        dw.acceptDrops = function (app) {
            const hasFiles = (event) => [...(event.dataTransfer ? event.dataTransfer.types : [])].includes("Files");
            app.addEventListener("dragover", (event) => {
                if (!hasFiles(event)) return;
                event.preventDefault();
                app.classList.add("dw-dropping");
            });
            app.addEventListener("dragleave", (event) => event.relatedTarget && app.contains(event.relatedTarget) || app.classList.remove("dw-dropping"));
            app.addEventListener("drop", async (event) => {
                app.classList.remove("dw-dropping");
                if (!hasFiles(event)) return;
                event.preventDefault();
                const files = [...event.dataTransfer.files];
                try {
                    if (files.length > 1) dw.confirm(`Queue ${files.length} files?`, "Each settings file becomes a job.", "Add to queue", () => dw.enqueueFiles(files));
                    else if (files.length) await dw.importSettings(files[0]);
                } catch (error) { dw.complain(error); }
            }, false);
        };
    };
})();
