window.dash_clientside = Object.assign({}, window.dash_clientside, {
    theme: {
        // The stored choice, else what the system prefers; a click changes it.
        toggle: function (clicks, stored) {
            const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
            const current = stored || system;
            return clicks ? (current === "dark" ? "light" : "dark") : current;
        },
        apply: function (theme) {
            document.body.dataset.agThemeMode = theme || "light";
            return [theme || "light", theme === "dark" ? "Light" : "Dark"];
        },
    },
});
