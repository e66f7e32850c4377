// A classic script, loaded in the head: the theme must be there before the first paint.
"use strict";

(() => {
  const root = document.documentElement;
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;

  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme")?.addEventListener("click", () => {
      const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
      root.dataset.theme = theme;
      localStorage.setItem("theme", theme);
      dispatchEvent(new Event("themechange"));
    });
  });
})();
