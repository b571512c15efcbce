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
                const value = text.trim() ? dw.strings(text) : {};
                // Keys that are whole numbers come first and in order, whatever the text has: as the video shows them.
                return value && Object.entries(value).map(([key, path]) => ({ key, path }));
            }

            function text() {
                const lines = rows.map(({ key, path }) => `  ${JSON.stringify(key)}: ${JSON.stringify(path)}`);
                return lines.length ? `{\n${lines.join(",\n")}\n}` : "";
            }

            function changed() {
                input.value = text();
                store.set(field.name, input.value, input); // input: so that who types in a row keeps it
            }

            function redraw() {
                changed();
                draw();
            }

            async function take(files) {
                for (const file of files) {
                    const path = await dw.upload(field.name, file);
                    if (read(input.value) === null) return;
                    rows.push({ key: free(), path });
                    redraw();
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
                const cell = (value, label, placeholder, act) => {
                    const box = h("input", { type: "text", value, placeholder, autocomplete: "off", spellcheck: false, "aria-label": label });
                    box.addEventListener("input", () => act(box.value));
                    return box;
                };
                // Keys are unique: while one is typed over another, the text would lose a picture.
                const key = cell(row.key, `Frame of picture ${at + 1}`, "frame", (typed) => {
                    const twice = rows.some((other) => other !== row && other.key.trim() === typed.trim());
                    key.classList.toggle("dw-twice", twice);
                    key.title = twice ? "This frame has a picture already" : "";
                    if (twice) return;
                    row.key = typed;
                    changed();
                });
                key.addEventListener("change", () => {
                    key.value = row.key;
                    key.classList.remove("dw-twice");
                });
                const path = cell(row.path, `File of picture ${at + 1}`, "a picture's path", (typed) => {
                    row.path = typed;
                    changed();
                });
                const choose = dw.button("Choose…", `Another picture for frame ${row.key}`, () => dw.pickFiles(PICTURES, false, async ([file]) => {
                    if (!file) return;
                    row.path = await dw.upload(field.name, file);
                    redraw();
                }));
                const remove = dw.button("×", "Remove", () => {
                    rows.splice(rows.indexOf(row), 1);
                    redraw();
                }, "dw-plain");
                return h("div.dw-keyframe-image", {}, key, path, choose, remove);
            }

            function show() {
                const value = store.values[field.name] || "";
                if (input.value !== value) input.value = value;
                const found = read(value);
                unread.hidden = Boolean(found);
                list.hidden = add.disabled = !found;
                if (!found) asText.open = true;
                if (!found || JSON.stringify(found) === JSON.stringify(rows)) return;
                rows = found;
                draw();
            }
            return { input, shown, show };
        };
    };
})();
