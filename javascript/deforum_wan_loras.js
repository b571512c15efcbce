// The LoRA field: a row a file, chosen from those found, with its strength.  Its value is text, a line a file.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const TAG = /^<lora:([^:>]+)(?::([^:>]+))?>$/;

    parts.loras = function (dw) {
        const { h, store } = dw;
        let known = null, asked = false; // { loras: [{ name, size }], folders }, null until the answer is there

        dw.controls.loras = function (field, id) {
            const input = h("textarea.dw-code", { id, rows: 3, spellcheck: false, placeholder: "name = 0.8" });
            const list = h("div.dw-lora-rows");
            const none = h("div.dw-hint");
            const add = dw.button("+ LoRA", "Add a file", () => change([...rows(), { name: free(), strength: "1" }], true));
            const look = dw.button("↻", "Look for LoRA files again", () => find());
            const shown = h("div", {}, list, none, h("div.dw-row", {}, add, look),
                h("details.dw-as-text", {}, h("summary.dw-hint", {}, "as text"), input));
            input.addEventListener("input", () => store.set("loras", input.value, input));

            const text = () => store.values.loras || "";
            const rows = () => text().split("\n").map(read).filter(Boolean);

            // What can't be read as a row (a comment) is kept as it is.
            function read(line) {
                const written = line.trim(), tag = TAG.exec(written);
                if (!written) return null;
                if (written.startsWith("#")) return { raw: written };
                if (tag) return { name: tag[1].trim(), strength: (tag[2] || "").trim() };
                const at = written.indexOf("=");
                return at < 0 ? { name: written, strength: "" } : { name: written.slice(0, at).trim(), strength: written.slice(at + 1).trim() };
            }

            function change(items, redraw) {
                const value = items.map((item) => item.raw || (item.strength ? `${item.name} = ${item.strength}` : item.name)).join("\n");
                input.value = value;
                store.set("loras", value, redraw ? null : input);
            }

            const free = () => {
                const used = rows().map((row) => row.name);
                const found = known && known.loras.find((lora) => !used.includes(lora.name));
                return found ? found.name : "name";
            };

            function draw() {
                const all = rows();
                dw.fill(list, all.map((row, at) => (row.raw ? null : one(all, row, at))));
                none.textContent = known && !known.loras.length ? `No LoRA for Wan was found. They go into ${known.folders[0] || "models/lora of this extension"}.` : "";
            }

            function one(all, row, at) {
                const names = known ? known.loras.map((lora) => lora.name) : [];
                const select = h("select", { "aria-label": `LoRA ${at + 1}` },
                    names.includes(row.name) ? null : h("option", { value: row.name }, known ? `${row.name} (not found)` : row.name),
                    (known ? known.loras : []).map((lora) => h("option", { value: lora.name }, `${lora.name} (${dw.bytes(lora.size)})`)));
                select.value = row.name;
                select.addEventListener("change", () => { row.name = select.value; change(all, true); });
                const strength = h("input", { type: "text", value: row.strength, placeholder: "1", autocomplete: "off", "aria-label": `Strength of LoRA ${at + 1}`,
                    title: "A number, or a schedule: 0: (0.2), 60: (0.9); it acts clip by clip" });
                strength.addEventListener("input", () => { row.strength = strength.value.trim(); change(all); });
                const remove = dw.button("×", "Remove", () => change(all.filter((other) => other !== row), true), "dw-plain");
                return h("div.dw-lora", {}, select, strength, remove);
            }

            async function find() {
                known = await dw.api("loras");
                draw();
            }

            function show() {
                if (input.value !== text()) input.value = text();
                draw();
                if (asked) return;
                asked = true;
                find().catch(() => { asked = false; });
            }
            return { input, shown, show };
        };
    };
})();
