// Before anything is painted: the theme that was chosen here. A classic script, because modules wait for the page.
(() => {
  try {
    const chosen = localStorage.getItem("palate:theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* a browser that keeps nothing has the system's theme */ }
})();
