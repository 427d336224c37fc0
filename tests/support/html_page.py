"""Parses an HTML page for tests."""

import html.parser


class Page(html.parser.HTMLParser):
    """The tags and addresses of a page, and its images without a text alternative; checks that all tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.without_alt = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = dict(attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.without_alt += tag == "img" and not attributes.get("alt")
        self.addresses += [str(attributes[name]) for name in ("src", "href") if name in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
