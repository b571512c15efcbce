// The prompts as a table and as JSON: two views of one value, the JSON text.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const PAIR = /"((?:[^"\\]|\\.)*)"\s*:\s*"((?:[^"\\]|\\.)*)"/g;
    const MARK = /--neg\b/;
    const MOST_ROWS = 200; // of the table; a browser draws thousands of them too slowly to type in

    parts.prompts = function (dw) {
        const { h, store } = dw;
        const error = h("div.dw-error", { role: "alert" });
        const json = h("textarea.dw-code", { id: "deforum_wan_prompts", rows: 8, spellcheck: false, "aria-label": "Prompts as JSON" });
        const body = h("tbody");
        const table = h("div.dw-table-box", {}, h("table.dw-table", {}, h("thead", {}, h("tr", {},
            h("th.dw-key", { title: "Frame, seconds with an s (2.5s), or an expression of max_f (max_f/2)" }, "Frame"),
            h("th.dw-time", { title: "When it begins" }, "Time"), h("th", {}, "Prompt"), h("th.dw-not", {}, "Negative"), h("th.dw-act"))), body));
        const add = dw.button("+ keyframe", "Add a keyframe behind the last one", addRow);
        const tableBox = h("div", {}, table, h("div.dw-row", {}, add,
            h("span.dw-hint", {}, "Frame: a number, seconds (2.5s) or an expression such as max_f/2.")));
        const jsonBox = h("div", { hidden: true }, json, h("div.dw-hint", {}, dw.fields.prompts.hint));
        let rows = []; // [{key, positive, negative}], what the table shows
        let frames = {}; // key -> frame, as the server read it

        dw.makePrompts = function () {
            const tabs = ["Table", "JSON"].map((name) => h("button.dw-tab", { type: "button", role: "tab", onclick: () => choose(name) }, name));
            function choose(name) {
                for (const tab of tabs) {
                    tab.classList.toggle("dw-on", tab.textContent === name);
                    tab.setAttribute("aria-selected", tab.textContent === name ? "true" : "false");
                }
                tableBox.hidden = name !== "Table";
                jsonBox.hidden = name !== "JSON";
                show();
            }
            const holder = h("div.dw-field.dw-prompts", {}, h("div.dw-row.dw-head", {}, h("b.dw-title", {}, "Prompts"),
                h("div.dw-tabs", { role: "tablist" }, tabs)), tableBox, jsonBox, error);
            dw.ownField("prompts", holder, error, json, show);
            choose("Table");
            return holder;
        };

        json.addEventListener("input", () => store.set("prompts", json.value, json));

        function show() {
            const text = store.values.prompts || "{}";
            if (json.value !== text && document.activeElement !== json) json.value = text;
            const found = pairs(text);
            table.classList.toggle("dw-unread", !found);
            // Drawn anew only where something else stands: who types in a cell keeps it.
            if (found && (!body.firstChild || JSON.stringify(found) !== JSON.stringify(rows))) {
                rows = found;
                draw();
            }
        }

        // [{key, positive, negative}] in the order of the text, keys given twice included; null if it can't be read.
        function pairs(text) {
            if (!dw.strings(text)) return null;
            return [...text.matchAll(PAIR)].map(([, key, prompt]) => row(JSON.parse(`"${key}"`), JSON.parse(`"${prompt}"`)));
        }

        function row(key, prompt) {
            const mark = MARK.exec(prompt);
            if (!mark) return { key, positive: prompt, negative: "" };
            return { key, positive: prompt.slice(0, mark.index).trimEnd(), negative: prompt.slice(mark.index + mark[0].length).trimStart() };
        }

        function text() {
            const lines = rows.map(({ key, positive, negative }) =>
                `  ${JSON.stringify(key)}: ${JSON.stringify(negative ? `${positive} --neg ${negative}` : positive)}`);
            return lines.length ? `{\n${lines.join(",\n")}\n}` : "{}";
        }

        function changed() {
            const value = text();
            json.value = value;
            store.set("prompts", value, json); // json: so that the table isn't drawn anew under the writer's hands
        }

        function draw() {
            dw.fill(body, rows.length ? rows.slice(0, MOST_ROWS).map(drawRow) : h("tr", {}, h("td.dw-empty", { colSpan: 5 },
                "No prompt yet. Add a keyframe and say what the video shows from its frame on.")),
            rows.length > MOST_ROWS ? h("tr", {}, h("td.dw-hint", { colSpan: 5 }, `and ${rows.length - MOST_ROWS} more: edit them as JSON`)) : null);
            add.disabled = rows.length >= MOST_ROWS;
            mark();
        }

        function drawRow(entry, index) {
            const key = cell(entry, "key", `Frame of keyframe ${index + 1}`, "input");
            key.addEventListener("change", () => {
                entry.key = asKey(entry.key);
                key.value = entry.key;
                changed();
            });
            const time = h("input.dw-cell.dw-seconds", { type: "text", "aria-label": `Time of keyframe ${index + 1}`, autocomplete: "off" });
            time.addEventListener("change", () => {
                const found = asKey(time.value.trim().replace(/s?$/, "s"));
                if (/^\d+$/.test(found)) entry.key = key.value = found;
                changed();
                mark();
            });
            const remove = dw.button("×", "Remove this keyframe", () => {
                rows.splice(rows.indexOf(entry), 1);
                changed();
                draw();
            }, "dw-plain");
            const line = h("tr", {}, h("td.dw-key", {}, key), h("td.dw-time", {}, time),
                h("td", {}, cell(entry, "positive", `Prompt of keyframe ${index + 1}`, "textarea", "what the video shows from here on")),
                h("td.dw-not", {}, cell(entry, "negative", `Negative prompt of keyframe ${index + 1}`, "textarea", "what it should not show")),
                h("td.dw-act", {}, remove));
            line.entry = entry;
            return line;
        }

        function cell(entry, what, label, kind, placeholder) {
            const input = h(`${kind}.dw-cell`, { type: kind === "input" ? "text" : null, value: entry[what], "aria-label": label, placeholder: placeholder || "", autocomplete: "off" });
            if (kind === "textarea") {
                input.rows = 1;
                const grow = () => { input.style.height = "auto"; input.style.height = `${input.scrollHeight}px`; };
                input.addEventListener("input", grow);
                input.addEventListener("focus", grow);
                setTimeout(grow);
            }
            input.addEventListener("input", () => {
                entry[what] = input.value;
                changed();
            });
            return input;
        }

        // "2.5s" -> "40" at 16 fps; anything else as it is.
        function asKey(typed) {
            const match = /^(\d+(?:[.,]\d+)?)\s*s$/.exec(typed.trim());
            const fps = Number(store.values.fps);
            return match && fps > 0 ? String(Math.round(Number(match[1].replace(",", ".")) * fps)) : typed.trim();
        }

        function addRow() {
            const known = rows.map((entry) => frameOf(entry.key)).filter((frame) => frame !== null);
            const end = Number(store.values.max_frames) || 81;
            const last = known.length ? Math.max(...known) : -1;
            const frame = last < 0 ? 0 : Math.min(Math.max(last + 1, Math.round((last + end) / 2)), last + 48);
            const before = rows.length ? rows[rows.length - 1] : { positive: "", negative: "" };
            rows.push({ key: String(frame), positive: before.positive, negative: before.negative });
            changed();
            draw();
            const input = body.lastElementChild.querySelector("textarea");
            input.focus();
            input.select();
        }

        function frameOf(key) {
            if (key in frames) return frames[key];
            return /^\s*\d+\s*$/.test(key) ? Number(key) : null;
        }

        // Times, and rows that have an error or no effect.
        function mark() {
            const fps = Number(store.values.fps), end = Number(store.values.max_frames);
            for (const line of body.children) {
                if (!line.entry) continue;
                const frame = frameOf(line.entry.key), time = line.querySelector(".dw-seconds");
                if (document.activeElement !== time) time.value = frame === null || !(fps > 0) ? "" : `${dw.number(frame / fps, 2)}s`;
                time.readOnly = !/^\s*\d*\s*$/.test(line.entry.key);
                line.classList.toggle("dw-outside", frame !== null && frame >= end);
                line.title = frame !== null && frame >= end ? "Behind the end of the video: without effect" : "";
                line.classList.toggle("dw-wrong", wrong === line.entry.key);
            }
        }

        let wrong = null;
        dw.showKeyframes = function (answer) {
            frames = Object.fromEntries((answer.keyframes || []).map(({ key, frame }) => [key, frame]));
            const found = answer.errors.find((problem) => problem.field === "prompts" && problem.keyframe);
            wrong = found ? found.keyframe : null;
            mark();
        };
        store.listen((names, origin) => {
            if (names.includes("fps") || names.includes("max_frames")) mark();
            if (names.includes("prompts") && origin === json && document.activeElement === json) {
                const found = pairs(store.values.prompts);
                table.classList.toggle("dw-unread", !found);
                if (found) { rows = found; draw(); }
            }
        });
    };
})();
