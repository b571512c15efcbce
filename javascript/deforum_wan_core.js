// The page code of the Deforum Wan tab, part by part; each file adds its part, and this one begins.
//
//   core      elements, requests, values of the form, start
//   dialogs   notices, questions, files in and out
//   fields    one control for each field of the settings, generated from what the server says of it
//   loras     LoRA files and their strengths
//   pictures  keyframe images and their frames
//   model     model picker, size and length
//   prompts   prompts as a table and as JSON
//   plan      timeline, errors at their fields, estimate
//   actions   Generate, Add to queue, grid, editing a waiting job
//   live      what runs now: preview, progress, log
//   queue     what waits
//   again     what can be made of a job that has ended
//   history   what has ended
//   presets   named settings, settings files
//   setup     the isolated environment
//   tab       puts the parts on the page
//
// Everything that comes from people (prompts, names, file names) reaches the page as text, never as HTML.

(function () {
    "use strict";
    const dw = (window.deforumWan = window.deforumWan || {});
    const PARTS = ["dialogs", "fields", "loras", "pictures", "model", "prompts", "plan", "actions", "live", "queue", "again", "history",
        "presets", "setup", "tab"];
    const DRAFT = "deforum-wan-draft";

    // An element from "tag.class.class", properties, and children (text, elements, arrays, null).
    dw.h = function (what, properties, ...children) {
        const [tag, ...classes] = what.split(".");
        const element = document.createElement(tag || "div");
        element.className = classes.join(" ");
        for (const [name, value] of Object.entries(properties || {})) {
            if (value === undefined || value === null || value === false) continue;
            if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
            else if (name in element && !name.startsWith("aria")) element[name] = value;
            else element.setAttribute(name, value === true ? "" : value);
        }
        element.append(...children.flat(5).filter((child) => child !== null && child !== undefined && child !== false));
        return element;
    };

    dw.fill = function (element, ...children) {
        element.replaceChildren(...children.flat(5).filter((child) => child !== null && child !== undefined
            && child !== false));
        return element;
    };

    // title: in words what it does; it is also what a screen reader says of a button that has a sign only.
    dw.button = function (text, title, act, kind) {
        const button = dw.h("button.dw-button" + (kind ? "." + kind : ""), { type: "button", title: title || "" }, text);
        if (title && text.length < 3) button.setAttribute("aria-label", title);
        button.addEventListener("click", async (event) => {
            event.stopPropagation();
            if (button.disabled) return;
            button.disabled = true;
            try { await act(event); } catch (error) { dw.complain(error); } finally { button.disabled = false; }
        });
        return button;
    };

    dw.debounced = function (act, milliseconds) {
        let timer = 0;
        return (...given) => {
            clearTimeout(timer);
            timer = setTimeout(() => act(...given), milliseconds);
        };
    };

    // Requests

    dw.url = function (path) {
        const folder = location.pathname.replace(/[^/]*$/, "").replace(/\/$/, "");
        return folder + dw.config.api + "/" + path;
    };

    // For what the browser fetches by itself: pictures, videos, downloads.
    dw.fileUrl = function (path, more) {
        const query = new URLSearchParams({ ...(more || {}), token: dw.config.token });
        return dw.url(path) + "?" + query;
    };

    // Returns the answer's JSON.  Throws an Error with .status, .field and the server's words.
    dw.api = async function (path, body, method) {
        const options = { method: method || (body ? "POST" : "GET"), headers: { "X-Deforum-Wan-Token": dw.config.token } };
        if (options.method === "POST") {
            options.headers["Content-Type"] = "application/json";
            options.body = JSON.stringify(body || {});
        }
        let answer, found;
        try {
            answer = await fetch(dw.url(path), options);
            found = await answer.json();
        } catch (error) {
            const words = answer ? `the server answered with status ${answer.status} and no JSON`
                : "the server does not answer";
            throw Object.assign(new Error(words), { status: answer ? answer.status : 0, field: "" });
        }
        if (!answer.ok) {
            const told = found.error || {};
            const words = told.message || `the server answered with status ${answer.status}`;
            throw Object.assign(new Error(words), { ...told, message: words, status: answer.status });
        }
        return found;
    };

    // Words

    dw.seconds = function (value) {
        const whole = Math.round(value);
        const two = (number) => String(number).padStart(2, "0");
        if (whole < 60) return `${whole} s`;
        if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
        return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
    };

    dw.bytes = function (value) {
        if (value >= 1e9) return `${(value / 1e9).toFixed(value >= 1e10 ? 0 : 1)} GB`;
        return value >= 1e6 ? `${Math.round(value / 1e6)} MB` : `${Math.max(1, Math.round(value / 1e3))} kB`;
    };

    dw.number = (value, digits) => String(Number(Number(value).toFixed(digits === undefined ? 2 : digits)));

    // The object of strings that a JSON text holds, null if it holds anything else.
    dw.strings = function (text) {
        let value;
        try { value = JSON.parse(text); } catch { return null; }
        if (!value || typeof value !== "object" || Array.isArray(value)) return null;
        return Object.values(value).every((one) => typeof one === "string") ? value : null;
    };

    dw.several = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

    dw.when = function (seconds) {
        const then = new Date(seconds * 1000);
        const today = new Date().toDateString() === then.toDateString();
        const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
        return today ? time : `${then.toLocaleDateString()} ${time}`;
    };

    // The form's values: field -> text as typed, true or false for a switch.  prompts are JSON text.

    function makeStore() {
        const listeners = [];
        const store = {
            values: {}, extra: {},
            listen: (listener) => listeners.push(listener),
            set(name, value, origin) {
                if (store.values[name] === value) return;
                store.values[name] = value;
                store.tell([name], origin);
            },
            tell(names, origin) {
                for (const listener of listeners) listener(names, origin);
                saveDraft(store);
            },
            // settings: by our names, as the server gives them; what isn't there stays.
            load(settings, origin) {
                for (const [name, value] of Object.entries(settings)) {
                    if (name === "extra") store.extra = value || {};
                    else if (name in dw.fields) store.values[name] = asTyped(dw.fields[name], value);
                }
                store.tell(Object.keys(dw.fields), origin);
            },
            request: () => ({ ...store.values, extra: store.extra }),
        };
        return store;
    }

    function asTyped(field, value) {
        if (field.kind === "bool") return Boolean(value);
        if (field.kind === "prompts") return typeof value === "string" ? value : JSON.stringify(value, null, 2);
        return value === null || value === undefined ? "" : String(value);
    }

    const saveDraft = dw.debounced(writeDraft, 400);

    function writeDraft(store) {
        try { localStorage.setItem(DRAFT, JSON.stringify({ values: store.values, extra: store.extra })); } catch { /* private mode */ }
    }

    // Who types and closes the page at once loses nothing.
    addEventListener("pagehide", () => dw.store && writeDraft(dw.store));

    // What was typed before the page was closed, null the first time.
    dw.draft = function () {
        try {
            const draft = JSON.parse(localStorage.getItem(DRAFT));
            return draft && typeof draft.values === "object" ? { ...draft.values, extra: draft.extra || {} } : null;
        } catch { return null; }
    };

    // Start

    function begin(root) {
        dw.config = JSON.parse(root.dataset.config);
        if (!dw.app) {
            dw.fields = Object.fromEntries(dw.config.fields.map((field) => [field.name, field]));
            dw.store = makeStore();
            for (const part of PARTS) dw.parts[part](dw);
            dw.app = dw.makeTab();
        }
        root.replaceChildren(dw.app);
        root.removeAttribute("data-config"); // the token need not stand in the page
        root.dataset.ready = "1";
    }

    dw.parts = dw.parts || {};
    const looking = setInterval(() => {
        const root = document.getElementById("deforum_wan_page");
        // A host may make the element again; the app moves in with all its state.
        if (!root || root.dataset.ready || !PARTS.every((part) => part in dw.parts)) return;
        try {
            begin(root);
        } catch (error) {
            clearInterval(looking);
            root.replaceChildren(dw.h("div.dw-banner.dw-bad", {}, `The page code failed: ${error}. Reload the page.`));
            throw error;
        }
    }, 150);
})();
