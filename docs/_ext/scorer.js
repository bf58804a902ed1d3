// How the search ranks: as Sphinx does, but a page of the gallery stands before a term
// of the glossary of the same name.
var Scorer = {
  score: ([docname, , , , score, , kind]) =>
    score + (kind === "index" && docname.startsWith("gallery/") ? 1 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
