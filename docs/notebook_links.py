"""A hook of mkdocs: a link from a notebook to another leads to its page, as on GitHub to its file.

mkdocs-jupyter leaves it as it stands.
"""

import re


def on_page_content(html: str, page, config, files) -> str:
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="([\w-]+)\.ipynb(#[^"]*)?"', r'href="../\1/\2"', html)
