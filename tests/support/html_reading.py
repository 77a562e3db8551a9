"""HTML as a strict reader has it: every element that is opened is closed, in order."""

from html.parser import HTMLParser

_VOID = {"meta", "br", "hr", "img", "input", "link"}
# Of SVG, which close themselves.
_CLOSED = {"path", "circle", "polyline", "rect"}


class Reader(HTMLParser):
    """Reads a page.

    Attributes:
        elements: (tag, attributes) of each, in order.
        text: what is between them.
    """

    def __init__(self, page):
        super().__init__()
        self.elements, self._texts, self._open = [], [], []
        self.feed(page)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes), f"<{tag}> has an attribute twice"
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in _CLOSED
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data):
        self._texts.append(data)

    def count(self, tag, **attributes):
        """How many elements there are with these attributes (`class` is `kind`)."""
        wanted = {"class" if key == "kind" else key: value for key, value in attributes.items()}
        return sum(
            one == tag and all(has.get(key) == value for key, value in wanted.items())
            for one, has in self.elements
        )
