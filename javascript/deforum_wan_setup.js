// The isolated environment: its state, Install and Repair with a live log, GPUs, folders, a self-test.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.setup = function (dw) {
        const { h } = dw;
        const banner = h("div");
        const state = h("div.dw-setup-state");
        const buttons = h("div.dw-row");
        const log = h("pre.dw-log", { hidden: true, tabIndex: 0 });
        const facts = h("dl.dw-facts-list");
        const section = h("details.dw-section", { id: "deforum_wan_environment" }, h("summary", {}, h("b", {}, "Environment"),
            h("span.dw-hint", {}, "the isolated Python that renders, GPUs, folders, self-test")),
        h("div.dw-section-body", {}, state, buttons, log, facts));
        let next = 1, drawn = "", asking = false, known = false;

        dw.makeSetup = () => section;
        dw.makeSetupBanner = () => banner;
        dw.openSetup = function () {
            section.open = true;
            section.scrollIntoView({ block: "center", behavior: "smooth" });
        };
        section.addEventListener("toggle", () => section.open && !known && look());

        async function look() {
            known = true;
            const found = await dw.api("environment").catch(() => null);
            if (!found) { known = false; return; }
            const gpus = found.gpus.length ? found.gpus.map((gpu) => `${gpu.name}, ${dw.bytes(gpu.memory)} (${dw.bytes(gpu.free)} free), driver ${gpu.driver}`)
                : ["none seen: renders run on the CPU, which suits the demo only"];
            const lines = [["GPU", gpus], ["Models are looked for in", found.model_folders], ["Results go to", [found.output_folder]],
                ["Queue and presets", [found.data_folder]], ["Environment", [found.folder]], ["By hand", [found.command]], ["WebUI", [found.host.title]]];
            dw.fill(facts, lines.map(([name, values]) => [h("dt", {}, name), h("dd", {}, values.map((value) => h("div", {}, value)))]));
        }

        function show(desk) {
            const key = JSON.stringify([desk.status, desk.text, desk.work, desk.last]);
            if (desk.log_next > next || desk.work) readLog();
            if (key === drawn) return;
            drawn = key;
            const last = desk.last && desk.last.text ? h(`div.${desk.last.ok ? "dw-good" : "dw-error"}`, {}, desk.last.text) : null;
            dw.fill(state, h("div", {}, h(`span.dw-dot.${desk.ready ? "dw-good" : "dw-bad"}`), desk.work ? `${desk.work} is under way` : desk.text),
                desk.ready ? null : h("div.dw-hint", {}, `Needs ${desk.needs_text}. It has a folder of its own; nothing is installed into the WebUI.`), last);
            const act = (path) => async () => {
                section.open = true;
                await dw.api(`environment/${path}`, {});
                dw.poll();
            };
            dw.fill(buttons, desk.work ? dw.button("Stop", "An installation goes on from there the next time", act("stop"))
                : [dw.button(desk.status === "partial" ? "Go on installing" : desk.ready ? "Install again" : "Install", "", act("install"), desk.ready ? "" : "dw-primary"),
                    dw.button("Repair", "Look through every installed file, mend what is damaged", act("repair")),
                    desk.ready ? dw.button("Self-test", "Render a second of video with the demo model", act("self-test")) : null,
                    desk.ready ? dw.button("Free the worker's memory", "End the idle worker; the next render loads the model again", async () => {
                        await dw.api("worker/release", {});
                        dw.say("The worker's memory is free");
                    }) : null]);
            dw.fill(banner, desk.ready || desk.work ? null : h("div.dw-banner.dw-warn", {}, h("div.dw-row", {}, h("span.dw-grow", {},
                h("b", {}, "Before the first render: "), `the isolated environment is ${desk.text}. Needs ${desk.needs_text}.`),
            dw.button("Install", "Sets it up, with a live log", act("install"), "dw-primary"), dw.button("Show", "", dw.openSetup))));
        }

        async function readLog() {
            if (asking) return;
            asking = true;
            try {
                const found = await dw.api(`environment/log?from=${next}`);
                if (found.lines.length) {
                    log.hidden = false;
                    log.append(found.lines.join("\n") + "\n");
                    log.scrollTop = log.scrollHeight;
                }
                next = found.next;
            } catch { /* the next request asks again */ } finally { asking = false; }
        }

        dw.watch((found) => show(found.environment));
    };
})();
