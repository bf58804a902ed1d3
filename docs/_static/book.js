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

  // the topic map: show only written topics, and of these those that contain every word
  const place = document.querySelector("p.filter");
  if (place) {
    const field = document.createElement("input");
    field.type = "search";
    field.className = "filter";
    field.placeholder = "Filter: attention, gradient …";
    field.setAttribute("aria-label", "Show only topics that contain these words");
    const label = document.createElement("label");
    label.className = "switch";
    const planned = document.createElement("input");
    planned.type = "checkbox";
    label.append(planned, " Show planned topics too");
    const status = document.createElement("p");
    status.className = "muted";
    status.setAttribute("role", "status");
    place.replaceWith(field, label, status);
    const show = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const counts = { written: 0, planned: 0 };
      for (const list of document.querySelectorAll("section > ul.topic-map")) {
        let found = 0;
        for (const item of list.children) {
          const kind = item.classList.contains("is-planned") ? "planned" : "written";
          const text = item.textContent.toLowerCase();
          const matches = words.every((word) => text.includes(word));
          item.hidden = !matches || (kind === "planned" && !planned.checked);
          counts[kind] += matches;
          found += matches && !item.hidden;
        }
        list.parentElement.hidden = words.length > 0 && found === 0;
      }
      const hidden = planned.checked || !counts.planned ? "" : " (not shown)";
      status.textContent = `${counts.written} written, ${counts.planned} planned${hidden}`;
    };
    field.addEventListener("input", show);
    planned.addEventListener("change", show);
    show();
  }
});

// a figure opens at its full size: by click, tap or Enter, and closes by Escape too
document.addEventListener("DOMContentLoaded", () => {
  const figures = document.querySelectorAll(
    "img.sphx-glr-single-img, img.sphx-glr-multi-img, figure.drawing > img");
  if (!figures.length) return;
  const dialog = document.createElement("dialog");
  dialog.className = "figure";
  dialog.setAttribute("aria-label", "Figure");
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  const frame = document.createElement("div");
  frame.tabIndex = 0; // so that arrow keys scroll a large figure
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Enlarged figure");
  const large = document.createElement("img");
  large.alt = "";
  frame.append(large);
  dialog.append(close, frame);
  dialog.addEventListener("click", (event) => {
    if (event.target !== frame) dialog.close();
  });
  document.body.append(dialog);

  for (const image of figures) {
    const box = document.createElement("div");
    box.className = "enlarge";
    const button = document.createElement("button");
    button.type = "button";
    image.replaceWith(box);
    box.append(button);
    button.append(image);
    const measure = () => box.style.setProperty("--width", `${image.naturalWidth}px`);
    if (image.complete) measure();
    else image.addEventListener("load", measure);
    button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
    button.addEventListener("click", () => {
      large.src = image.src;
      large.srcset = image.srcset;
      large.alt = image.alt;
      large.style.setProperty("--width", `${image.naturalWidth}px`);
      dialog.showModal(); // the browser gives the focus back when it closes
    });
  }
});

// a search that finds nothing offers words that are nearly the same, or each word alone
addEventListener("load", () => {
  const results = document.getElementById("search-results");
  if (!results) return;
  const distance = (a, b) => {  // insertions, deletions, exchanges and swaps
    const rows = [[...Array(b.length + 1).keys()]];
    for (let i = 1; i <= a.length; i++) {
      rows.push([i]);
      for (let j = 1; j <= b.length; j++) {
        const exchange = rows[i - 1][j - 1] + (a[i - 1] !== b[j - 1]);
        rows[i][j] = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, exchange);
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
          rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
    return rows[a.length][b.length];
  };
  const link = (query) => {
    const found = document.createElement("a");
    found.href = `?q=${encodeURIComponent(query)}`;
    found.textContent = query;
    return found;
  };
  const offer = () => {
    const { indexentries, alltitles, terms, titleterms } = Search._index;
    const known = (word) => {
      const stem = new Stemmer().stemWord(word);
      return stem in terms || stem in titleterms;
    };
    const said = [...Object.keys(indexentries), ...Object.keys(alltitles)];
    const words = new Set(said.join(" ").toLowerCase().match(/[a-z]{4,}/g));
    const near = (word) => {
      if (known(word) || stopwords.has(word)) return word;
      const limit = word.length < 6 ? 1 : 2;
      const ranked = [...words].map((other) => [distance(word, other), other])
        .filter(([steps]) => steps <= limit).sort();
      return ranked[0]?.[1] ?? word;
    };
    const query = new URLSearchParams(location.search).get("q").toLowerCase();
    const asked = splitQuery(query);
    const line = document.createElement("p");
    const corrected = asked.map(near);
    const single = asked.filter((word) => known(word) && !stopwords.has(word));
    if (corrected.join() !== asked.join()) line.append("Did you mean ", link(corrected.join(" ")), "?");
    else if (single.length > 1) {
      line.append("No page has all of these words. One of them: ");
      single.forEach((word, n) => line.append(n ? ", " : "", link(word)));
    }
    if (line.textContent) results.append(line);
  };
  const look = () => {
    if (!/did not match/.test(results.querySelector(".search-summary")?.textContent)) return;
    observer.disconnect();
    offer();
  };
  const observer = new MutationObserver(look);
  observer.observe(results, { childList: true, subtree: true, characterData: true });
  look();
});
