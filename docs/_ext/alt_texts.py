"""Figures with the alt text that the script gives them.

A cell that draws has one comment for each of its figures, in their order::

    # alt: Left, test loss against the learning rate; right, the same for accuracy.
    plt.show()

Without one sphinx-gallery takes the titles of the axes, and where there are none the
name of the file, which tells nobody anything.
"""

import re

COMMENT = re.compile(r"^[ \t]*# alt: (.*(?:\n[ \t]*# (?!alt: ).*)*)", re.MULTILINE)
IMAGE = re.compile(r"(\.\. image-sg:: .*\n\s+:alt: ).*|(\.\. video:: .*\n)")


def texts(code):
    r"""The alt texts of a cell, each on one line.

    Example:
        >>> texts("plot()\n# alt: a line\n# that rises\nplt.show()")
        ['a line that rises']
    """
    return [re.sub(r"\s*\n[ \t]*# ", " ", text) for text in COMMENT.findall(code)]


def scrape(block, block_vars, gallery_conf):
    """What sphinx-gallery's scraper makes of a cell, with the script's alt texts."""
    from sphinx_gallery.scrapers import matplotlib_scraper

    rst = matplotlib_scraper(block, block_vars, gallery_conf)
    given = texts(block[1])
    drawn = len(IMAGE.findall(rst))
    if given and len(given) != drawn:
        raise ValueError(
            f"A cell has one '# alt:' comment for each of its figures. "
            f"{block_vars['src_file']} draws {drawn} there. Received: {given}"
        )
    left = iter(given)

    def with_text(match):
        if match[1]:
            return match[1] + next(left)
        return f"{match[2]}   :alt: {next(left)}\n"

    return IMAGE.sub(with_text, rst) if given else rst


def _get_sg_image_scraper():
    return scrape
