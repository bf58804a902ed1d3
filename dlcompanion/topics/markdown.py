"""The reStructuredText that the pages are written in, as Markdown for notebooks.

Only what the pages use is known. What is not known is refused, so that no notebook
shows raw markup.
"""

import re
import textwrap
from pathlib import PurePosixPath

#: Commands of the formulas that MathJax does not know, and what they stand for.
MACROS = {"R": r"\mathbb{R}", "E": r"\mathbb{E}"}

_DIRECTIVE = re.compile(r"( *)\.\. ([a-z-]+)::(?: +(.*))?")
_RULE = re.compile(r"([=\-~^\"'])\1+")
_INLINE = re.compile(
    r"``(?P<literal>.+?)``"
    r"|:(?P<role>[a-z:]+):`(?P<text>[^`]+)`"
    r"|`(?P<words>[^`<]+)\s+<(?P<url>[^`>]+)>`__?"
    r"|`(?P<emphasis>[^`]+)`"
    r"|\\ ",
    re.DOTALL,
)
_TARGET = re.compile(r"(?P<words>.+?)\s*<(?P<target>[^>]+)>", re.DOTALL)
_CODE = {"class", "func", "meth", "mod", "attr", "data", "exc", "obj"}
_NOTES = {"note", "tip", "hint", "important", "warning", "caution", "seealso"}


class Converter:
    r"""Markdown of the text of one script.

    Args:
        titles: Dict of slug to the title of the topic.
        cite: Function of a key of the bibliography that returns authors and year as a
            pair of strings.

    Example:
        >>> convert = Converter({}, lambda key: ("Zhang et al.", "2019"))
        >>> print(convert("The idea\n--------\nOf :cite:t:`z`: :math:`k` steps."))
        # The idea
        <BLANKLINE>
        Of Zhang et al. (2019): $k$ steps.
    """

    def __init__(self, titles, cite):
        self.titles = titles
        self.cite = cite
        self._rules = []  # the signs under headings, in the order of their levels

    def __call__(self, text):
        """Convert a text; headings have the levels of the texts before."""
        lines, out, plain = text.splitlines(), [], []
        while lines:
            line = lines.pop(0)
            directive = _DIRECTIVE.fullmatch(line)
            if directive:
                out += [*self._inline(plain), *self._directive(directive, lines)]
                plain = []
            elif plain and plain[-1].strip() and _RULE.fullmatch(line.strip()):
                title = plain.pop()
                out += [*self._inline(plain), *self._heading(title, line.strip()[0])]
                plain = []
            else:
                plain.append(line)
        out += self._inline(plain)
        return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n")

    def _heading(self, title, sign):
        if sign not in self._rules:
            self._rules.append(sign)
        level = "#" * (self._rules.index(sign) + 1)
        return ["", *self._inline([f"{level} {title}"]), ""]

    def _directive(self, match, lines):
        """Take the body of a directive away from the lines, and convert it."""
        indent, name, argument = match[1], match[2], match[3] or ""
        body = []
        while lines and (not lines[0].strip() or lines[0].startswith(f"{indent}  ")):
            body.append(lines.pop(0))
        options, body = _options(textwrap.dedent("\n".join(body)).splitlines())
        body = "\n".join(body).strip("\n")
        if name == "math":
            made = _display(f"{argument}\n\n{body}")
        elif name in ("code-block", "code"):
            made = f"```{argument}\n{body}\n```"
        elif name == "figure":  # the notebook stands alone, without the picture
            made = f"*Drawing on the page of the site.* {options.get('alt', '')}\n\n"
            made = (made + self(body)).rstrip()
        elif name == "dropdown":
            title = " ".join(self._inline([argument]))
            inner = self(body)
            made = f"<details>\n<summary>{title}</summary>\n\n{inner}\n\n</details>"
        elif name in _NOTES:
            inner = self("\n\n".join(filter(None, [argument, body])))
            word = "See also" if name == "seealso" else name.capitalize()
            made = textwrap.indent(f"**{word}**\n\n{inner}", "> ", lambda line: True)
        else:
            raise ValueError(
                "A directive of a page is one that notebooks can show, too. "
                f"Received: .. {name}::"
            )
        return ["", *textwrap.indent(made, indent).splitlines(), ""]

    def _inline(self, lines):
        return _INLINE.sub(self._role, "\n".join(lines)).splitlines()

    def _role(self, match):
        if match["literal"]:
            return f"`{match['literal']}`"
        if match["url"]:
            return f"[{_line(match['words'])}]({match['url']})"
        if match["emphasis"]:
            return f"*{match['emphasis']}*"
        if not match["role"]:  # "\ " joins what stands beside it
            return ""
        role, text = match["role"].removeprefix("py:"), _line(match["text"])
        if role == "math":
            return f"${_spelled(text)}$"
        if role in ("cite:p", "cite:t"):
            return self._citation(role, text)
        titled = _TARGET.fullmatch(text)
        words, target = titled.groups() if titled else (None, text)
        if role in _CODE:
            short = target.rpartition(".")[2] if target[0] == "~" else target
            return f"`{words or short}`"
        if role in ("doc", "ref"):
            return self._page(words, target)
        if role == "term":
            return words or target
        raise ValueError(
            "A role of a page is one that notebooks can show, too. "
            f"Received: :{role}:`{text}`"
        )

    def _citation(self, role, keys):
        cited = [self.cite(key.strip()) for key in keys.split(",")]
        if role == "cite:t":
            return ", ".join(f"{names} ({year})" for names, year in cited)
        return "(" + "; ".join(f"{names}, {year}" for names, year in cited) + ")"

    def _page(self, words, target):
        """A link to the notebook of a page; the words of a page that is none."""
        page = re.search(r"(?:^|/|_)plot_(\w+?)(?:\.py)?$", target)
        if page:
            words = words or self.titles.get(page[1], page[1])
            return f"[{words}](plot_{page[1]}.ipynb)"
        return words or f"the page *{PurePosixPath(target).name}* of the site"


def _options(lines):
    """The options at the top of a directive as a dict, and the lines after them."""
    options, name = {}, None
    while lines and lines[0].strip():
        option = re.fullmatch(r":([\w-]+): *(.*)", lines[0])
        if option:
            name, words = option.groups()
            options[name] = words
        elif name and lines[0].startswith(" "):
            options[name] += f" {lines[0].strip()}"
        else:
            break
        lines = lines[1:]
    return options, lines


def _line(text):
    return " ".join(text.split())


def _spelled(formula):
    names = "|".join(MACROS)
    spelled = rf"\\({names})(?![A-Za-z])"
    return re.sub(spelled, lambda match: MACROS[match[1]], formula)


def _display(formulas):
    """Formulas in lines of their own, from paragraphs of them."""
    made = []
    for formula in re.split(r"\n\s*\n", formulas):
        formula = _spelled(formula.strip())
        if "\\\\" in formula:  # several lines, as Sphinx sets them
            formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
        if formula:
            made.append(f"$$\n{formula}\n$$")
    return "\n\n".join(made)
