// What would be rendered: the timeline, errors at their fields, notes, what it costs.  The server plans, as the render does.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});
    const DELAY = 180; // milliseconds after the last key

    parts.plan = function (dw) {
        const { h, store } = dw;
        const picture = h("div.dw-picture");
        const readout = h("div.dw-readout");
        const numbers = h("div.dw-numbers");
        const notes = h("ul.dw-plan-notes");
        const curves = {}; // schedule -> its drawing below the field
        let asked = 0, newest = null;
        dw.plan = null;

        dw.makePlan = () => h("div.dw-plan", {}, h("div.dw-row.dw-head", {}, h("b.dw-title", {}, "Timeline"), readout), picture, numbers, notes);

        dw.planSoon = dw.debounced(() => dw.planNow(), DELAY);
        // The picture is drawn for the width it has, so that its letters keep their size.
        dw.roomFor = (box) => Math.round(Math.min(Math.max(box.clientWidth, 240), 8000));
        let room = 0;
        new ResizeObserver(() => {
            if (picture.clientWidth && Math.abs(dw.roomFor(picture) - room) > 2) dw.planSoon();
        }).observe(picture);

        // The plan of the form as it stands.  If something newer is asked for meanwhile, that one's: who waits never
        // goes on with what was typed before.  null where the server doesn't answer.
        dw.planNow = () => (newest = ask());

        async function ask() {
            const number = ++asked;
            let answer;
            try {
                room = dw.roomFor(picture);
                answer = await dw.api("plan", { settings: store.request(), width: room });
            } catch (error) {
                if (error.status !== 422 && error.status !== 413) { if (error.status) dw.complain(error); return null; }
                answer = { ok: false, errors: [{ field: error.field, message: error.message }], notes: [], plan: null, svg: "", keyframes: [], estimate: null };
            }
            if (number !== asked) return newest;
            dw.plan = answer;
            show(answer);
            return answer;
        }

        function show(answer) {
            const found = {};
            for (const problem of answer.errors) if (!found[problem.field]) found[problem.field] = words(problem);
            dw.showErrors(found);
            dw.showKeyframes(answer);
            picture.classList.toggle("dw-old", !answer.plan);
            if (answer.svg) {
                dw.fill(picture, drawing(answer.svg));
                hover();
            } else if (!picture.firstChild) dw.fill(picture, h("div.dw-empty", {}, "The timeline appears once there is a prompt."));
            numbersOf(answer);
            dw.fill(notes, answer.notes.map((note) => h("li", {}, note)));
            for (const name of Object.keys(curves)) drawCurve(name, answer.plan);
            dw.showProblem(answer.errors);
        }

        // At its field an error needs neither the field's name nor the value; one in a schedule says where in it.
        function words(problem) {
            if (problem.keyframe || problem.column || !problem.what) return problem.message;
            if (/, line \d/.test(problem.message)) return problem.message;
            return [problem.what, problem.next_step || (problem.allowed && `allowed: ${problem.allowed}`)].filter(Boolean).join("; ");
        }

        // The server's SVG as elements; parsed as XML, so that nothing in it is run.
        function drawing(svg) {
            const parsed = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
            return parsed.nodeName === "svg" ? document.importNode(parsed, true) : h("div", {}, "The timeline can't be drawn.");
        }
        dw.drawing = drawing;

        function numbersOf(answer) {
            const { plan, estimate } = answer;
            if (!plan) return dw.fill(numbers, "");
            const words = [`${plan.max_frames} frames`, `${dw.number(plan.seconds)} s at ${dw.number(plan.fps)} fps`,
                `${dw.several(plan.clip_count, "clip")}${plan.shots > 1 ? ` in ${plan.shots} shots` : ""}`];
            const costs = [];
            if (estimate) {
                const basis = { measured: "measured here", scaled: "scaled from another size", guess: "a guess" }[estimate.seconds_basis];
                costs.push(h("span", { title: `Time of the whole render, ${basis || estimate.seconds_basis}` },
                    `~${estimate.seconds_text} `, h("i", {}, `(${basis || estimate.seconds_basis})`)));
                const over = estimate.memory_available && estimate.memory_bytes > estimate.memory_available;
                if (estimate.memory_bytes) costs.push(h(over ? "span.dw-over" : "span", { title: "Most that lies in memory at one time, a guess; weights that don't fit are streamed" },
                    `${dw.bytes(estimate.memory_bytes)} memory`, estimate.memory_available ? ` of ${dw.bytes(estimate.memory_available)}` : ""));
                const full = estimate.disk_free && estimate.disk_bytes > estimate.disk_free;
                if (estimate.disk_bytes) costs.push(h(full ? "span.dw-over" : "span", { title: "Room for pictures, latents and the video, at most" },
                    `up to ${dw.bytes(estimate.disk_bytes)} disk`, full ? ` (${dw.bytes(estimate.disk_free)} free)` : ""));
            }
            return dw.fill(numbers, goesOn(), words.map((text) => h("span", {}, text)), costs);
        }

        // That this video begins where a job ends would be overlooked behind a closed title.
        function goesOn() {
            const path = store.values.continue_from;
            if (!path || !path.trim()) return null;
            const name = path.split(/[/\\]/).pop().replace(/_settings\.txt$/, "");
            return h("span.dw-chip", { title: path }, `goes on from ${name}`, dw.button("×", "Begin anew instead", () => store.set("continue_from", ""), "dw-plain"));
        }

        // Frame, time and values under the pointer.
        function hover() {
            const svg = picture.firstChild;
            if (!svg.dataset || !dw.plan.plan) return;
            svg.addEventListener("mousemove", (event) => {
                const plan = dw.plan.plan, box = svg.getBoundingClientRect(), width = svg.viewBox.baseVal.width;
                const left = Number(svg.dataset.left), right = Number(svg.dataset.right);
                const at = ((event.clientX - box.left) / box.width) * width;
                const frame = Math.floor(((at - left) / (width - left - right)) * plan.max_frames);
                if (frame < 0 || frame >= plan.max_frames) { readout.textContent = ""; return; }
                const values = ["guidance_scale", "strength", "shift", "num_inference_steps"].filter((name) => plan.curves[name])
                    .map((name) => `${dw.label(name).toLowerCase()} ${dw.number(valueAt(plan.curves[name], frame))}`);
                readout.textContent = [`frame ${frame}`, `${dw.number(frame / plan.fps)} s`, ...values].join(" · ");
            });
            svg.addEventListener("mouseleave", () => { readout.textContent = ""; });
        }

        function valueAt(curve, frame) {
            let low = 0, high = curve.frames.length - 1;
            while (low < high) {
                const middle = Math.ceil((low + high) / 2);
                if (curve.frames[middle] <= frame) low = middle; else high = middle - 1;
            }
            return curve.values[low];
        }

        // The curve of one schedule, for below its field.
        dw.makeCurve = function (name) {
            curves[name] = h("div.dw-schedule-curve");
            return curves[name];
        };
        const NAMES = { seed_schedule: "seed" };
        const SVG = "http://www.w3.org/2000/svg";

        function drawCurve(name, plan) {
            const curve = plan && plan.curves[NAMES[name] || name];
            const box = curves[name];
            if (!curve || (name === "seed_schedule" && store.values.seed_behavior !== "schedule")) return dw.fill(box);
            const least = Math.min(...curve.values), most = Math.max(...curve.values);
            if (least === most) return dw.fill(box, h("span.dw-hint", {}, `${dw.number(least, 3)} throughout`));
            const svg = document.createElementNS(SVG, "svg"), line = document.createElementNS(SVG, "polyline");
            svg.setAttribute("viewBox", "0 0 600 46");
            svg.setAttribute("preserveAspectRatio", "none");
            const last = Math.max(1, plan.max_frames - 1);
            line.setAttribute("points", curve.frames.map((frame, at) =>
                `${((frame / last) * 600).toFixed(1)},${(43 - (40 * (curve.values[at] - least)) / (most - least)).toFixed(1)}`).join(" "));
            svg.append(line);
            return dw.fill(box, svg, h("div.dw-range", {}, h("span", {}, dw.number(most, 3)), h("span", {}, dw.number(least, 3))));
        }

        store.listen(() => dw.planSoon());
    };
})();
