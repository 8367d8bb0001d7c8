// On paper nothing can be unfolded: code and solutions are open when a page is printed.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  document.querySelectorAll(".toggle-hidden").forEach((node) => node.classList.remove("toggle-hidden"));
});

// Boxes that scroll are reached by the keyboard.
const reach = () => {
  for (const node of document.querySelectorAll("pre, .pst-scrollable-table-container, .math"))
    if (node.scrollWidth > node.clientWidth + 1) node.tabIndex = 0;
};
addEventListener("load", () => { reach(); window.MathJax?.startup?.promise?.then(reach); });
addEventListener("resize", reach);
