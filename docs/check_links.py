"""Checks the links within the built site: `python docs/check_links.py docs/_build`.

Every local address must lead to a file, and every fragment to an element with that id.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and name in ("id", "name"):
                self.ids.add(value)


def broken_links(site: Path) -> list[str]:
    """Returns "page: address" for each broken link within a site."""
    pages = {path: _Page() for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        page.feed(path.read_text("utf-8"))
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            found = target.is_file()
            if found and address.fragment and target in pages:
                found = unquote(address.fragment) in pages[target].ids
            if not found:
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


if __name__ == "__main__":
    for line in (broken := broken_links(Path(sys.argv[1]).resolve())):
        print(f"broken link in {line}", file=sys.stderr)
    sys.exit(bool(broken))
