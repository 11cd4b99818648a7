"""Reads what is on a page: its tags, its words, and whether it is nothing but our own HTML."""

from html.parser import HTMLParser

from app.widgets import navigation
from lfp.util.sanitize import visible
from tests.conftest import ROOT

PAGES = (
    "overview", "accuracy", "validation", "features", "feature", "inputs", "pairs", "disagreements", "drift", "runs",
    "queue", "try_it", "about",
)  # fmt: skip

VOID = {"br", "hr", "img", "meta", "link", "input"}
ALLOWED = {
    "a", "b", "br", "code", "dd", "details", "div", "dl", "dt", "h1", "h4", "h5", "h6", "i", "li", "ol", "p", "pre",
    "s", "section",
    "small", "span", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


class Reader(HTMLParser):
    """Keeps tags, attributes and text, and whether tags close in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def is_tame(html):
    """Nothing but our own tags, each closed, no handlers, no links elsewhere, no hidden characters."""
    reader = Reader(html)
    assert reader.open == []
    assert set(reader.tags) <= ALLOWED
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "srcdoc")]
    assert all(
        not value.startswith(("http", "javascript", "data:", "//"))
        for name, value in reader.attributes
        if name == "href"
    )
    assert visible(html) == html
    return reader


STYLE = f"<style>{(ROOT / 'app/components/html/style.css').read_text(encoding='utf-8')}</style>"
SCRIPT = f"<script>{navigation.SCRIPT}</script>"


def parts_of(at):
    """HTML that a page puts on screen, element by element, without the explorer's own style sheet and shortcuts."""
    bodies = [element.proto.body for element in at.get("html")]
    assert STYLE in bodies, "the style sheet is not written as this module expects, so it would be read as the page's"
    return [body for body in bodies if body not in (STYLE, SCRIPT)]


def words_of(at):
    """All HTML that the page puts on screen."""
    return "\n".join(parts_of(at))


def whole(at):
    """The same, of a page that has not failed."""
    assert not at.exception
    return words_of(at)


def tame(at):
    """The same, of a page that shows nothing but our own tags."""
    for body in parts_of(at):
        is_tame(body)
    return whole(at)
