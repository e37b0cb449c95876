// What scrolls by itself can be scrolled by keyboard too.
function reachable() {
  const boxes = "mjx-container[display='true'], .idea, figure, .cell_output";
  for (const box of document.querySelectorAll(boxes))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}

window.addEventListener("load", () => {
  reachable();
  window.MathJax?.startup?.promise.then(reachable);
  // Sphinx calls the entries of its list of references by a role that browsers gave up.
  for (const entry of document.querySelectorAll("[role='doc-biblioentry']"))
    entry.setAttribute("role", "listitem");
});
window.addEventListener("resize", reachable);
