// How the search ranks: as Sphinx does, but a page of the gallery stands before a term
// of the glossary of the same name and before pages that only list what others say,
// and most of all if the question contains one of its names: "is my vae good?".
const isPage = (docname) => /^gallery\/\w+\/plot_/.test(docname);
let asked, named;
const isNamed = (docname) => {
  const query = new URLSearchParams(location.search).get("q") ?? "";
  if (query !== asked) {
    const words = ` ${query.toLowerCase().split(/[^\w-]+/).join(" ")} `;
    named = new Set(Object.entries(Search._index.indexentries)
      .filter(([entry]) => words.includes(` ${entry} `))
      .flatMap(([, places]) => places.map(([file]) => Search._index.docnames[file])));
    asked = query;
  }
  return named.has(docname);
};
var Scorer = {
  score: ([docname, , , , score, , kind]) => {
    if (!isPage(docname)) return score;
    if (kind === "index") return score + 1;
    return score + (kind !== "text" ? 0 : isNamed(docname) ? 6 : 2);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
