"Build the site of a run from reports and notebooks: with Quarto where it is installed, else with smalldocs"
import argparse
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from latex2mathml.converter import convert
from site_pages import assemble

FORMULA = re.compile(r'<span class="math (inline|display)">\s*\\[(\[](.*?)\\[)\]]\s*</span>', re.S)
# Scripts of other servers, which no page needs: those of smalldocs for formulas, those of Quarto for widgets
REMOTE = re.compile(r'<script[^>]+\bsrc="(?:https?:)?//[^>]*>\s*</script>\s*|<link[^>]*katex[^>]*>'
                    r"|<script[^>]*>\s*define\('jquery'.*?</script>\s*", re.S)
CURRENT = re.compile(r'<a\b[^>]*\bnav-link\b[^>]*\baria-current="page"[^>]*>')
UNDESCRIBED = re.compile(r"<h[1-6]\b[^>]*>(.*?)</h[1-6]>|<img (?![^>]*\balt=)", re.S)
NAVIGATION = {"navbar": "Site", "quarto-secondary-nav": "Place", 'id="quarto-sidebar"': "Pages",
              'id="TOC"': "On this page", "page-navigation": "Previous and next page"}
OURS = re.compile("html-math-method|execute.enabled")  # formulas become MathML here, and nothing is executed


def mathml(match) -> str:
    "A formula as MathML, which needs no script; the one of smalldocs would come from another server"
    return convert(html.unescape(match[2]).strip(), display="block" if match[1] == "display" else "inline")


def described(text: str) -> str:
    "A page whose pictures have a text for those who do not see them: the heading above"
    heading = ""
    def describe(match):
        nonlocal heading
        if match[1] is None: return f'<img alt="Figure: {heading}" '
        heading = re.sub(r"<[^>]*>|\"", "", match[1]).strip()
        return match[0]
    return UNDESCRIBED.sub(describe, text)


def named(text: str) -> str:
    "A page whose navigations have names, whose toggles are buttons, and whose empty cells are no headings"
    def name(opening):
        found = next((name for key, name in NAVIGATION.items() if key in opening[0]), None)
        unnamed = found and "aria-label" not in opening[0]
        return opening[0].replace("<nav", f'<nav aria-label="{found}"') if unnamed else opening[0]
    def head(row):
        headings = re.search("<th[^>]*>[^<]", row[0])
        return re.sub("<th([^>]*)></th>", r"<td\1></td>", row[0]) if headings else row[0]
    text = re.sub(r'(<a\b[^>]*) role="navigation"', r'\1 role="button"', text)
    return re.sub(r"<tr\b.*?</tr>", head, re.sub(r"<nav\b[^>]*>", name, text), flags=re.S)


def tidied(page: Path) -> str:
    "A rendered page without remote scripts, for those who see it and those who do not; one page is current"
    def marked(link):
        target = page.parent/re.search(r'\bhref="([^"#]*)', link[0])[1]
        if target.resolve() == page.resolve(): return link[0]
        return link[0].replace(' aria-current="page"', "").replace("nav-link active", "nav-link")
    text = page.read_text(encoding="utf-8")
    return named(described(CURRENT.sub(marked, REMOTE.sub("", FORMULA.sub(mathml, text)))))


def render(folder: Path, renderer: str) -> Path:
    "Render the sources in `folder`; returns the folder of the finished site"
    # `--quiet` would silence the errors of Quarto, too
    command = {"quarto": ["quarto", "render", folder, "--log-level", "warning"],
               "smalldocs": [sys.executable, "-m", "smalldocs.cli", "render", "--quiet", folder]}[renderer]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode: sys.exit(f"The site could not be rendered: {(done.stderr or done.stdout).strip()}")
    for line in done.stderr.splitlines():
        if not OURS.search(line): print(f"  {line}", file=sys.stderr)
    site = folder/"rendered"
    for page in site.rglob("*.html"): page.write_text(tidied(page), encoding="utf-8")
    index = site/"search.json"
    if index.is_file():
        entries = json.dumps(json.loads(index.read_text(encoding="utf-8")))
        (site/"search.js").write_text(f"window.searchIndex = {entries};", encoding="utf-8")
    return site


def publish(site: Path, out: Path):
    "Replace the old site by the finished one, so that no page is ever partial"
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists(): out.rename(old)
    site.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def main(arguments=None):
    "`build_site.py --root work/phantom --out work/phantom/site`"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("work/phantom"),
                        help="workspace of the run whose reports are shown")
    parser.add_argument("--out", type=Path,
                        help="folder of the finished site (default: site/ in the workspace)")
    parser.add_argument("--renderer", choices=["quarto", "smalldocs"],
                        default="quarto" if shutil.which("quarto") else "smalldocs",
                        help="default: Quarto where it is installed")
    chosen = parser.parse_args(arguments)
    out = (chosen.out or chosen.root/"site").absolute()
    building = out.with_name(out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)  # of a build that was cut short
    building.mkdir(parents=True)
    assemble(chosen.root, building)
    publish(render(building, chosen.renderer), out)
    shutil.rmtree(building)
    print(f"The site: {(out/'index.html').as_uri()}")


if __name__ == "__main__": main()
