// The field of keyframe images: a row a picture, with its frame.  Its value is JSON text, {"frame": "path", ...}.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const PICTURES = "image/*";

    parts.pictures = function (dw) {
        const { h, store } = dw;

        dw.controls.init_images = function (field, id) {
            const input = h("textarea.dw-code", { id, rows: 3, spellcheck: false, placeholder: '{"0": "a.png", "max_f/2": "b.png"}' });
            const list = h("div.dw-picture-rows");
            const unread = h("div.dw-hint", { hidden: true }, "This can't be shown as rows: mend it as text.");
            const add = dw.button("+ picture", "Choose pictures of this machine", () => dw.pickFiles(PICTURES, true, (files) => take(files)));
            const asText = h("details.dw-as-text", {}, h("summary.dw-hint", {}, "as text"), input);
            const shown = h("div.dw-pictures", {}, list, unread, h("div.dw-row", {}, add), asText);
            let rows = []; // [{ key, path }], what the list shows

            input.addEventListener("input", () => {
                store.set(field.name, input.value, input);
                show();
            });
            shown.addEventListener("dragover", (event) => event.preventDefault());
            shown.addEventListener("drop", (event) => {
                event.preventDefault();
                event.stopPropagation();
                take([...event.dataTransfer.files]).catch(dw.complain);
            });

            // null if the text is no object of paths: who typed it mends it, and nothing is lost.
            function read(text) {
                if (!text.trim()) return [];
                let value;
                try { value = JSON.parse(text); } catch { return null; }
                if (!value || typeof value !== "object" || Array.isArray(value)) return null;
                if (!Object.values(value).every((path) => typeof path === "string")) return null;
                // Keys that are whole numbers come first and in order, whatever the text has: as the video shows them.
                return Object.entries(value).map(([key, path]) => ({ key, path }));
            }

            function text() {
                const lines = rows.map(({ key, path }) => `  ${JSON.stringify(key)}: ${JSON.stringify(path)}`);
                return lines.length ? `{\n${lines.join(",\n")}\n}` : "";
            }

            function changed(redraw) {
                input.value = text();
                store.set(field.name, input.value, redraw ? null : input);
            }

            async function take(files) {
                for (const file of files) {
                    const path = await dw.upload(field.name, file);
                    if (read(input.value) === null) return;
                    rows.push({ key: free(), path });
                    changed(true);
                }
            }

            // The first picture opens the video, each further one stands a little behind the last.
            function free() {
                const taken = rows.map((row) => row.key.trim());
                const numbers = taken.map(Number).filter(Number.isFinite);
                let frame = numbers.length ? Math.max(...numbers) + 40 : taken.length || store.values.init_image ? 40 : 0;
                while (taken.includes(String(frame))) frame += 1;
                return String(frame);
            }

            function draw() {
                dw.fill(list, rows.map(one));
            }

            function one(row, at) {
                const cell = (what, label, placeholder) => {
                    const box = h("input", { type: "text", value: row[what], placeholder, autocomplete: "off", spellcheck: false, "aria-label": label });
                    // Keys are unique: while one is typed over another, the text would lose a picture.
                    box.addEventListener("input", () => {
                        const twice = what === "key" && rows.some((other) => other !== row && other.key.trim() === box.value.trim());
                        box.classList.toggle("dw-twice", twice);
                        box.title = twice ? "This frame has a picture already" : "";
                        if (twice) return;
                        row[what] = box.value;
                        changed();
                    });
                    box.addEventListener("change", () => {
                        box.value = row[what];
                        box.classList.remove("dw-twice");
                    });
                    return box;
                };
                const choose = dw.button("Choose…", `Another picture for frame ${row.key}`, () => dw.pickFiles(PICTURES, false, async ([file]) => {
                    if (!file) return;
                    row.path = await dw.upload(field.name, file);
                    changed(true);
                    draw();
                }));
                const remove = dw.button("×", "Remove", () => {
                    rows.splice(rows.indexOf(row), 1);
                    changed(true);
                    draw();
                }, "dw-plain");
                return h("div.dw-keyframe-image", {}, cell("key", `Frame of picture ${at + 1}`, "frame"),
                    cell("path", `File of picture ${at + 1}`, "a picture's path"), choose, remove);
            }

            function show() {
                const value = store.values[field.name] || "";
                if (input.value !== value) input.value = value;
                const found = read(value);
                unread.hidden = Boolean(found);
                list.hidden = add.disabled = !found;
                if (!found) asText.open = true;
                if (found && JSON.stringify(found) !== JSON.stringify(rows)) {
                    rows = found;
                    draw();
                } else if (found && list.children.length !== rows.length) draw();
            }
            return { input, shown, show };
        };
    };
})();
