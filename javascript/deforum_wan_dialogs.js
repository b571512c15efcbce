// Notices at the edge of the page, questions in front of it, files in and out.

(function () {
    "use strict";
    const parts = ((window.deforumWan = window.deforumWan || {}).parts = window.deforumWan.parts || {});

    parts.dialogs = function (dw) {
        const { h } = dw;
        const notices = h("div.dw-notices", { role: "status", "aria-live": "polite" });
        dw.notices = notices;

        // kind: "" | "bad".  Notes of several lines stay longer.
        dw.say = function (text, kind, lines) {
            const close = () => notice.remove();
            const list = (lines || []).length ? h("ul", {}, lines.slice(0, 12).map((line) => h("li", {}, line))) : null;
            const notice = h("div.dw-notice" + (kind === "bad" ? ".dw-bad" : ""), {}, h("div", {}, text, list),
                h("button.dw-plain", { type: "button", title: "Close", "aria-label": "Close", onclick: close }, "×"));
            notices.append(notice);
            while (notices.children.length > 4) notices.firstChild.remove();
            setTimeout(close, kind === "bad" || list ? 15000 : 5000);
        };

        dw.complain = (error) => dw.say(error.message || String(error), "bad");

        // A dialog with what `make(close)` returns.  Escape closes it, and focus goes back to where it was.
        dw.dialog = function (title, make, wide) {
            const before = document.activeElement;
            const close = () => {
                document.removeEventListener("keydown", escape, true);
                box.remove();
                if (before && before.focus) before.focus();
            };
            // On the document: who clicked beside the controls has the focus nowhere in here.
            const escape = (event) => {
                if (event.key !== "Escape" || dw.app.lastElementChild !== box) return;
                event.stopPropagation();
                close();
            };
            const body = h("div.dw-dialog-body");
            const panel = h("div.dw-dialog" + (wide ? ".dw-wide" : ""), { role: "dialog", "aria-modal": "true", "aria-label": title },
                h("div.dw-dialog-head", {}, h("b", {}, title),
                    h("button.dw-plain", { type: "button", title: "Close (Escape)", "aria-label": "Close", onclick: close }, "×")),
                body);
            const box = h("div.dw-backdrop", {
                onmousedown: (event) => event.target === box && close(),
                onkeydown: (event) => {
                    if (event.key === "Tab") keepFocus(event, panel);
                    event.stopPropagation();
                },
            }, panel);
            dw.fill(body, make(close));
            dw.app.append(box);
            document.addEventListener("keydown", escape, true);
            const first = body.querySelector("input, textarea, select, button") || panel.querySelector("button");
            first.focus();
            return close;
        };

        function keepFocus(event, panel) {
            const can = [...panel.querySelectorAll("button, input, select, textarea, a[href], video")]
                .filter((element) => !element.disabled);
            const edge = event.shiftKey ? can[0] : can[can.length - 1];
            if (document.activeElement !== edge) return;
            event.preventDefault();
            (event.shiftKey ? can[can.length - 1] : can[0]).focus();
        }

        // One line of text; act(text) may throw: its words are shown and the dialog stays.
        dw.ask = function (title, label, value, verb, act, more) {
            dw.dialog(title, (close) => {
                const input = h("input", { type: "text", value: value || "", "aria-label": label });
                const problem = h("div.dw-error", { role: "alert" });
                const go = async () => {
                    try {
                        await act(input.value.trim());
                        close();
                    } catch (error) { problem.textContent = error.message; }
                };
                input.addEventListener("keydown", (event) => event.key === "Enter" && go());
                return [h("label.dw-field", {}, h("span.dw-label", {}, label), input), more, problem,
                    h("div.dw-row.dw-end", {}, dw.button("Cancel", "", close), dw.button(verb, "", go, "dw-primary"))];
            });
        };

        dw.confirm = function (title, words, verb, act) {
            dw.dialog(title, (close) => [h("p", {}, words), h("div.dw-row.dw-end", {}, dw.button("Cancel", "", close),
                dw.button(verb, "", async () => { close(); await act(); }, "dw-danger"))]);
        };

        // Files

        dw.save = function (name, text) {
            const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
            h("a", { href: url, download: name }).click();
            setTimeout(() => URL.revokeObjectURL(url), 10000);
        };

        dw.download = (path, query) => h("a", { href: dw.fileUrl(path, { download: 1, ...query }), download: "" }).click();

        dw.pickFiles = function (accept, several, act) {
            const input = h("input", { type: "file", accept, multiple: several, hidden: true });
            input.addEventListener("change", async () => {
                input.remove();
                try { await act([...input.files]); } catch (error) { dw.complain(error); }
            });
            dw.app.append(input);
            input.click();
        };
    };
})();
