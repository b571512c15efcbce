// Which model, how large, how long.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.model = function (dw) {
        const { h, store } = dw;
        let known = { models: [], folders: [], known: [], default: "" };
        const select = h("select", { id: "deforum_wan_model", title: dw.fields.model.hint });
        const facts = h("div.dw-facts");
        const missing = h("div");
        const error = h("div.dw-error", { role: "alert" });

        // The picker: models found, and one named by a settings file even if it isn't there.
        dw.makeModelPicker = function () {
            const holder = h("div.dw-model", {}, h("label.dw-label", { htmlFor: "deforum_wan_model" }, dw.label("model")),
                select, dw.button("↻", "Look for models again", () => dw.findModels(true)), facts, error);
            dw.ownField("model", holder, error, select, showModels);
            select.addEventListener("change", () => {
                const before = dw.model;
                store.set("model", select.value, select);
                follow(before);
            });
            return [holder, missing];
        };

        dw.findModels = async function (refresh) {
            known = await dw.api("models" + (refresh ? "?refresh=1" : ""));
            const first = !dw.model;
            showModels();
            dw.showFields(Object.keys(dw.fields));
            if (first && !dw.draft()) follow(null);
            if (refresh) dw.say(known.models.length ? `${dw.several(known.models.length, "model")} found` : "No model found");
            dw.planSoon();
        };

        function showModels() {
            const now = store.values.model || "";
            const chosen = find(now);
            const options = [h("option", { value: "" }, known.default ? `first found (${known.default})` : "none found")];
            options.push(...known.models.map((model) => h("option", { value: value(model) }, title(model))));
            if (now && !chosen) options.push(h("option", { value: now }, `${now} (not found)`));
            dw.fill(select, options);
            select.value = chosen && now ? value(chosen) : now;
            dw.model = chosen;
            dw.fill(facts, chosen ? [words(chosen), partsOf(chosen)] : "");
            dw.fill(missing, lacks(chosen));
        }

        const value = (model) => (known.models.filter((other) => other.name === model.name).length > 1 ? model.reference : model.name);
        const find = (name) => known.models.find((model) => name && [model.name, model.reference, model.path].includes(name))
            || (name ? null : known.models.find((model) => model.name === known.default) || null);

        function title(model) {
            const state = model.complete ? "" : " — not complete";
            return `${model.title || model.name}${model.name === model.variant ? "" : ` (${model.name})`}${state}`;
        }

        function words(model) {
            const can = model.takes, yes = (flag) => (flag ? "yes" : "no");
            const list = can.text === undefined ? [] : [`text ${yes(can.text)}`, `image ${yes(can.image)}`];
            if (model.capabilities.some((what) => what.startsWith("continue"))) list.push("extends clips by latents");
            list.push(dw.bytes(model.size));
            return list.join(" · ");
        }

        // What each part is loaded from: layout, format, dtype.
        function partsOf(model) {
            const names = (part) => part.files[0] + (part.files.length > 1 ? ` and ${part.files.length - 1} more` : "");
            return h("details", {}, h("summary", {}, "What it is loaded from"), h("ul", {}, model.parts.map((part) =>
                h("li", {}, `${part.title}: ${part.description}, ${dw.bytes(part.size)} (${names(part)})`))),
            dw.button("Check the files", "Read them whole and compare their sha256 with what was published; takes as long as the disk needs",
                async () => {
                    await dw.api("models/check", { model: model.reference });
                    dw.openSetup();
                    dw.poll();
                }));
        }

        function lacks(model) {
            if (model && model.demo && known.models.every((other) => other.demo)) return onlyDemo();
            if (model && !model.complete) {
                const gaps = [...model.missing.map((gap) => [`${gap.part}: ${gap.reason}`, gap.command]), ...model.problems.map((text) => [text, ""])];
                return h("div.dw-banner.dw-warn", {}, h("b", {}, `${model.title || model.name} is not complete.`),
                    h("ul", {}, gaps.map(([text, command]) => h("li", {}, text, command ? h("code", {}, command) : null))));
            }
            if (!model && !known.models.length && known.folders.length) return onlyDemo();
            return null;
        }

        // Where models go, and under which names they are published.
        function onlyDemo() {
            const there = known.models.length > 0;
            return h("details.dw-banner", {}, h("summary", {}, there
                ? "Only the bundled demo model is here: tiny pictures, to try everything with. How to get Wan 2.1…"
                : "No model found. How to get one…"),
            h("p", {}, "Put a model's folder, as it is published, into one of these folders, then look again (↻):"),
            h("ul", {}, known.folders.map((folder) => h("li", {}, h("code", {}, folder)))),
            h("p", {}, "Downloads that are known here:"),
            h("ul.dw-columns", {}, known.known.map((row) => h("li", {}, `${row.title}: `, h("code", {}, row.repository)))));
        }

        // Another model has another size of its own: take it, unless someone chose a size that it has too.
        function follow(before) {
            showModels();
            const to = dw.model;
            dw.showFields(Object.keys(dw.fields));
            if (!to || !to.defaults) return;
            const now = [Number(store.values.width), Number(store.values.height)];
            const untouched = !before || !before.defaults || (now[0] === before.defaults.width && now[1] === before.defaults.height);
            const fits = to.sizes.some(([width, height]) => width === now[0] && height === now[1]);
            if (untouched && !fits) setSize(to.defaults.width, to.defaults.height);
        }

        // Size

        function setSize(width, height) {
            store.values.width = String(width);
            store.values.height = String(height);
            store.tell(["width", "height"]);
        }

        dw.makeSizePicker = function () {
            const sizes = h("select", { id: "deforum_wan_size", title: "Sizes that the model was trained on" });
            const show = () => {
                const now = `${store.values.width} x ${store.values.height}`;
                const all = dw.model ? dw.model.sizes.map(([width, height]) => `${width} x ${height}`) : [];
                dw.fill(sizes, all.map((size) => h("option", { value: size }, size)), h("option", { value: "" }, "own size"));
                sizes.value = all.includes(now) ? now : "";
            };
            sizes.addEventListener("change", () => sizes.value && setSize(...sizes.value.split(" x ")));
            store.listen((names) => (names.includes("width") || names.includes("height")) && show());
            dw.showSizes = show;
            const swap = dw.button("⇄", "Swap width and height", () => setSize(store.values.height, store.values.width));
            return h("div.dw-field.dw-size", {}, h("label.dw-label", { htmlFor: "deforum_wan_size" }, "Size"),
                h("div.dw-row", {}, sizes, swap));
        };

        // Length in seconds beside the frames: two views of max_frames.
        dw.makeSeconds = function () {
            const input = h("input", { id: "deforum_wan_seconds", type: "text", inputmode: "decimal", autocomplete: "off" });
            const show = () => {
                const seconds = Number(store.values.max_frames) / Number(store.values.fps);
                if (document.activeElement !== input) input.value = Number.isFinite(seconds) ? dw.number(seconds, 3) : "";
            };
            input.addEventListener("input", () => {
                const frames = Math.round(Number(input.value.replace(",", ".")) * Number(store.values.fps));
                if (Number.isFinite(frames) && frames > 0) store.set("max_frames", String(frames), input);
            });
            input.addEventListener("blur", () => setTimeout(show));
            store.listen((names) => (names.includes("max_frames") || names.includes("fps")) && show());
            show();
            return h("div.dw-field", { title: "The length in seconds; it sets the number of frames" },
                h("label.dw-label", { htmlFor: "deforum_wan_seconds" }, "= seconds"), input);
        };
        dw.models = () => known;
        store.listen((names) => names.includes("model") && dw.showSizes && (showModels(), dw.showSizes()));
    };
})();
