"Check a built site: links lead to pages, ids are unique, nothing comes from other servers, no raw markup"
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
           "embed": "src", "object": "data", "link": "href"}
REMOTE = re.compile(r"^\s*(?:https?:)?//", re.I)
REMOTE_IN_STYLE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])\s*((?:https?:)?//[^'\")\s]+)", re.I)
REMOTE_IN_SCRIPT = re.compile(r"(?:import\s[^;]*?|fetch\(\s*|import\(\s*)['\"](https?://[^'\"]+)", re.I)
LITERALS = {"a directive": re.compile(r"^\s*#\|", re.M), "a shortcode": re.compile(r"\{\{<"),
            "an open block": re.compile(r"^:::", re.M),
            "a variable without value": re.compile(r"\?var:"),
            "a reference": re.compile(r"@(?:fig|tbl|eq|sec)-\w"),
            "a raw formula": re.compile(r"\\[(\[]|\$\$")}
WIDGET = "application/vnd.jupyter.widget"


class PageReader(HTMLParser):
    "Links, fetched addresses, ids and the text of one page"
    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.fetched, self.text = Counter(), [], [], []
        self.scripts, self.styles, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        if has.get("id"): self.ids[has["id"]] += 1
        if tag == "a" and has.get("href"): self.links.append(has["href"])
        if has.get(FETCHED.get(tag)): self.fetched.append(has[FETCHED[tag]])
        self.styles.append(has.get("style") or "")
        if tag in ("script", "style"): self.inside.append(tag)
        if tag == "script" and WIDGET in (has.get("type") or ""): self.fetched.append("https://a live widget")

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag: self.inside.pop()

    def handle_data(self, text):
        if not self.inside: self.text.append(text)
        else: (self.scripts if self.inside[-1] == "script" else self.styles).append(text)


def check_page(page: PageReader, file: Path, site: Path, pages: dict[Path, PageReader]) -> list[str]:
    "The problems of one page, a sentence each"
    problems = []
    for address in {*page.links, *page.fetched}:
        if re.match(r"^[a-z][a-z+.-]*:|^//|^\?", address, re.I): continue
        path, _, fragment = address.partition("#")
        target = (file.parent/unquote(path)).resolve() if path else file
        if target.is_dir(): target = target/"index.html"
        if not target.is_relative_to(site): problems.append(f"link out of the site: {address}")
        elif not target.is_file(): problems.append(f"broken link: {address}")
        elif fragment and target in pages and unquote(fragment) not in pages[target].ids:
            problems.append(f"link to a place that the page does not have: {address}")
    problems += [f"fetched from elsewhere: {address}" for address in page.fetched if REMOTE.match(address)]
    problems += [f"fetched from elsewhere: {address}" for style in page.styles
                 for address in REMOTE_IN_STYLE.findall(style)]
    problems += [f"fetched from elsewhere: {address}" for script in page.scripts
                 for address in REMOTE_IN_SCRIPT.findall(script)]
    problems += [f"the same id twice: {name}" for name, count in page.ids.items() if count > 1]
    text = "".join(page.text)
    problems += [f"{what} on the page: {text[m.start():m.start() + 60].strip()!r}"
                 for what, pattern in LITERALS.items() for m in pattern.finditer(text)]
    return problems


def check_site(site: Path) -> list[str]:
    "The problems of a site, one sentence each; empty if there are none"
    site = site.resolve()
    pages = {file: PageReader(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    if site/"index.html" not in pages: return [f"{site}: no index.html"]
    problems = [f"{file.relative_to(site)}: {problem}" for file, page in pages.items()
                for problem in check_page(page, file, site, pages)]
    for sheet in sorted(site.rglob("*.css")):
        problems += [f"{sheet.relative_to(site)}: fetched from elsewhere: {a}"
                     for a in REMOTE_IN_STYLE.findall(sheet.read_text(encoding="utf-8"))]
    return problems


if __name__ == "__main__":
    found = check_site(Path(sys.argv[1]))
    print("\n".join(found) or "All links lead to pages, and nothing comes from other servers.")
    sys.exit(bool(found))
