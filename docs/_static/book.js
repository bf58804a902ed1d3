// Names that a screen reader needs and the theme leaves out, and two conveniences.
// without a server the search may not read the pages that it found, only name them
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("li.has-children > details > summary")) {
    const link = summary.parentElement.parentElement.querySelector("a");
    summary.setAttribute("aria-label", "Show pages under " + link.textContent.trim());
  }
  for (const button of document.querySelectorAll("button.search-button-field"))
    button.removeAttribute("aria-label");

  // a wide block that scrolls must be reachable by keyboard
  const focusable = () => {
    const wide = "div.highlight pre, .pst-scrollable-table-container, div.math, mjx-container";
    for (const box of document.querySelectorAll(wide)) {
      const over = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (over && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
    }
  };
  focusable();
  addEventListener("load", () => {
    focusable();
    window.MathJax?.startup?.promise?.then(focusable);
  });

  // the tags of the gallery are buttons, for the keyboard too
  addEventListener("load", () => {
    const label = document.querySelector("#sg-tag-list .sphx-glr-tag-label");
    if (label) label.textContent = "Show only";
    for (const tag of document.querySelectorAll(".sphx-glr-tag, #sphx-glr-tag-clear")) {
      tag.setAttribute("role", "button");
      tag.tabIndex = 0;
      tag.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        tag.click();
      });
    }
  });

  // the topic map: show only the topics that contain every word
  const place = document.querySelector("p.filter");
  if (place) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Filter: attention done …";
    field.setAttribute("aria-label", "Show only topics that contain these words");
    place.replaceWith(field);
    field.className = "filter";
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const section of document.querySelectorAll("section > ul.topic-map")) {
        let shown = 0;
        for (const item of section.children) {
          const text = item.textContent.toLowerCase();
          item.hidden = !words.every((word) => text.includes(word));
          shown += !item.hidden;
        }
        section.parentElement.hidden = shown === 0;
      }
    });
  }
});
