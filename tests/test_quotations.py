"""Every quotation of the paper stands in it word for word.

Each number of reports/paper.yml stands in the paper inside its quotation.

In a markdown cell or page, two or more words in quotation marks are a quotation of the paper, unless OTHERS
lists them. In a docstring or comment, where marks also stand around values, four words in a row make one.
Code stands in backticks. "…" and "[…]" mark an omission: the parts stand in the paper in this order.
Words in square brackets are an insertion.

The paper lies beside the repository, in ../shared. A clone without it compares with the quoted sentences,
in tests/data/paper_quotations.txt. To write that file anew: python tests/test_quotations.py [PAPER]
"""

import ast
import io
import json
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[1]
PAPER = PROJECT.parent/"shared"/"paper"/"iglovikov-2018.txt"
SENTENCES = Path(__file__).with_name("data")/"paper_quotations.txt"
OTHERS = set()  # texts in quotation marks that are not the paper's
FOUR_WORDS = re.compile(r"(?:[A-Za-z][a-z'-]*,? ){3}[A-Za-z]")
MARKS = re.compile(r"“([^”]*)”|\"([^\"]*)\"")
OMISSION = re.compile(r"…|\.\.\.|\[(?:…|[A-Za-z][^\]]*)\]")  # [0..239] and [−1, 1] are the paper's


@dataclass(frozen=True)
class Quotation:
    text: str
    file: str
    cell: str = ""

    def __str__(self) -> str:
        return f"{self.file}{':' if self.cell else ''}{self.cell}: “{self.text}”"


def plain(text: str) -> str:
    "Text without citations, formula marks and line breaks, its dashes and apostrophes alike"
    text = re.sub(r"\\text\{([^}]*)\}", r"\1", text).replace("\\times", "×").replace("$", "")
    text = re.sub(r"\s*\[\d+(?:,\s*\d+)*\](?!\w)", "", text)
    return " ".join(text.replace("−", "-").replace("’", "'").split())


def read_passages(path: Path) -> list[str]:
    "The paper's running text without headings, then its captions; or the quoted sentences"
    text = path.read_text(encoding="utf-8")
    if path == SENTENCES: return text.splitlines()
    text = text[text.index("Abstract."):text.index("\nReferences\n")]
    paragraphs = [plain(part) for part in re.split(r"\n\s*\n", text)]
    captions = [part for part in paragraphs if re.match(r"Fig\. \d\.", part)]
    headings = [part for part in paragraphs if re.fullmatch(r"\d(\.\d)? [A-Z][^.]*", part)]
    return [" ".join(part for part in paragraphs if part and part not in captions + headings), *captions]


def find_part(part: str, text: str, start: int = 0) -> tuple[int, int] | None:
    "First and last character of a quotation's part from `start` on; the case of its first letter is free"
    words = plain(part).strip(" .,;:")
    first = f"[{words[0].upper()}{words[0].lower()}]" if words[0].isalpha() else re.escape(words[0])
    found = re.compile(rf"(?<!\w){first}{re.escape(words[1:])}(?!\w)").search(text, start)
    return found and found.span()


def find_quotation(text: str, passages: list[str]) -> list[tuple[int, int]] | None:
    "The spans of all parts of a quotation in the joined passages; None unless all stand there in order"
    joined, spans, start = "\n".join(passages), [], 0
    for part in OMISSION.split(text):
        if not part.strip(" .,;:"): continue
        span = find_part(part, joined, start)
        if span is None: return None
        spans.append(span)
        start = span[1]
    return spans or None


def marked_texts(markdown: str) -> list[str]:
    "What stands in quotation marks outside of code, tags and addresses"
    for code in (r"```.*?```", r"`[^`]*`", r"<[a-zA-Z/!][^>]*>", r"\]\([^)]*\)"):
        markdown = re.sub(code, " ", markdown, flags=re.DOTALL)
    paragraphs = re.split(r"\n\s*\n", markdown)
    return [curly or straight for paragraph in paragraphs for curly, straight in MARKS.findall(paragraph)]


def quoted_texts(markdown: str) -> list[str]:
    "The marked texts of two words or more that OTHERS does not list"
    return [text for text in marked_texts(markdown) if len(text.split()) > 1 and text not in OTHERS]


def code_texts(source: str) -> list[str]:
    "Docstrings and comments of a code cell"
    source = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)
    nodes = ast.walk(ast.parse(source))
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return docstrings + [comment for comment in comments if not comment.startswith("#|")]


def notebook_quotations(path: Path) -> list[Quotation]:
    "Quotations in the markdown, the docstrings and the comments of a notebook"
    found, file = [], str(path.relative_to(PROJECT))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown": texts = quoted_texts(source)
        elif cell["cell_type"] == "code":
            texts = [text for part in code_texts(source) for text in quoted_texts(part)]
            texts = [text for text in texts if FOUR_WORDS.search(text)]
        else: continue
        found += [Quotation(text, file, cell["id"]) for text in texts]
    return found


def number_quotation(key: str, value: float) -> Quotation:
    "A number of reports/paper.yml inside the paper's words around it"
    return Quotation(STATED[key]["quote"].format(value), "reports/paper.yml", key)


def all_quotations() -> list[Quotation]:
    "Quotations of the paper in notebooks, pages and reports/paper.yml"
    folders = [PROJECT/name for name in ("nbs", "reports", "howto", "play")]
    notebooks = [path for folder in folders for path in sorted(folder.rglob("[0-9i]*.ipynb"))]
    found = [quotation for path in notebooks for quotation in notebook_quotations(path)]
    for path in (PROJECT/"README.md", *sorted((PROJECT/"tools"/"site").glob("*.md"))):
        texts = quoted_texts(path.read_text(encoding="utf-8"))
        found += [Quotation(text, str(path.relative_to(PROJECT))) for text in texts]
    quotes = PAPER_FILE["quotes"]
    found += [Quotation(quote["text"], "reports/paper.yml", key) for key, quote in quotes.items()]
    return found + [number_quotation(key, entry["value"]) for key, entry in STATED.items()]


PAPER_FILE = yaml.safe_load((PROJECT/"reports"/"paper.yml").read_text(encoding="utf-8"))
STATED = {key: entry for key, entry in PAPER_FILE["values"].items() if entry["value"] is not None}
QUOTATIONS = all_quotations()
SOURCES = [path for path in (PAPER, SENTENCES) if path.is_file()]


def sentence_spans(passages: list[str]) -> list[tuple[int, int]]:
    "First and last character of each sentence of the joined passages"
    joined = "\n".join(passages)
    ends = [match.end() for match in re.finditer(r"(?<!Fig)(?<!al)(?<!Eq)[.!?]\s+(?=[A-Z])|\n", joined)]
    return list(zip([0, *ends], [*ends, len(joined)], strict=True))


def quoted_sentences(quotations: list[Quotation], passages: list[str]) -> list[str]:
    "The sentences around all quotations, in order; what one quotation joins stays on one line"
    joined, spans = "\n".join(passages), sentence_spans(passages)
    found = [span for quotation in quotations for span in find_quotation(quotation.text, passages) or []]
    lines = []
    for start, end in sorted(found):
        touched = [span for span in spans if span[0] < end and start < span[1]]
        first, last = touched[0][0], touched[-1][1]
        if lines and first < lines[-1][1]: lines[-1] = (lines[-1][0], max(last, lines[-1][1]))
        else: lines.append((first, last))
    return [joined[first:last].strip() for first, last in lines]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_quotations_stand_in_the_paper_word_for_word(source):
    passages = read_passages(source)
    wrong = [str(quotation) for quotation in QUOTATIONS if find_quotation(quotation.text, passages) is None]
    advice = " (python tests/test_quotations.py adds sentences of the paper)" if source == SENTENCES else ""
    assert not wrong, f"not in {source.name}{advice}:\n" + "\n".join(wrong)


def test_quoted_sentences_are_the_papers():
    if not PAPER.is_file(): pytest.skip("the paper's text is not beside the repository")
    text = "\n".join(read_passages(PAPER))
    assert [line for line in read_passages(SENTENCES) if line not in text] == []


def read_sections(path: Path) -> dict[str, str]:
    "The paper's text by section, such as `Section 2.1`, and its captions by figure"
    text, found, section = path.read_text(encoding="utf-8"), {}, "Abstract"
    text = text[text.index("Abstract."):text.index("\nReferences\n")]
    for part in (plain(part) for part in re.split(r"\n\s*\n", text)):
        if heading := re.fullmatch(r"(\d(?:\.\d)?) [A-Z][^.]*", part): section = f"Section {heading[1]}"
        else:
            key = part[:6] if re.match(r"Fig\. \d\.", part) else section
            found[key] = f"{found.get(key, '')} {part}".strip()
    return found


def test_numbers_and_sentences_stand_in_their_section():
    if not PAPER.is_file(): pytest.skip("the paper's text is not beside the repository")
    sections = read_sections(PAPER)
    quoted = [(entry["section"], number_quotation(key, entry["value"])) for key, entry in STATED.items()]
    quoted += [(entry["section"], Quotation(entry["text"], "reports/paper.yml", key))
               for key, entry in PAPER_FILE["quotes"].items()]
    places = [(re.match(r"Abstract|Section \d(\.\d)?|Fig\. \d", section)[0], quotation)
              for section, quotation in quoted]
    wrong = [f"{section}: {quotation}" for section, quotation in places
             if find_quotation(quotation.text, [sections[section]]) is None]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_changed_word_is_noticed(source):
    passages = read_passages(source)
    standing = [quotation.text for quotation in QUOTATIONS if find_quotation(quotation.text, passages)]
    assert len(standing) > 50
    for text in standing:
        parts = [part.split() for part in OMISSION.split(text) if part.strip(" .,;:")]
        for part in parts:
            for i, word in enumerate(part):
                part[i] = re.sub(r"\w+", lambda match: match[0] + "s", word)
                changed = " … ".join(" ".join(words) for words in parts)
                if part[i] != word: assert find_quotation(changed, passages) is None, changed
                part[i] = word


def other_values(value: float) -> list[float]:
    "Wrong values that resemble a right one: a neighbour, a slip of a digit, a tenth, ten times as much"
    step = 1 if value == int(value) else 0.01
    changed = [value - step, value + step, value + 10*step, value*10, value//10, round(value)]
    return [other for other in changed if other != value]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("key", STATED)
def test_a_changed_number_is_noticed(key, source):
    passages, value = read_passages(source), STATED[key]["value"]
    assert STATED[key]["quote"].count("{") == 1, "the number has one place in its quotation"
    assert find_quotation(number_quotation(key, value).text, passages)
    for other in other_values(value):
        assert find_quotation(number_quotation(key, other).text, passages) is None, other


def test_every_quoted_sentence_has_a_place_in_a_report():
    paths = sorted((PROJECT/"reports").glob("*.ipynb"))
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    code = "".join("".join(cell["source"]) for report in reports for cell in report["cells"]
                   if cell["cell_type"] == "code")
    assert [key for key in PAPER_FILE["quotes"] if f'"{key}"' not in code] == []


def test_an_unstated_number_has_no_quotation():
    unstated = {key: entry["quote"] for key, entry in PAPER_FILE["values"].items() if key not in STATED}
    assert unstated and set(unstated.values()) == {None}


def test_omissions_keep_the_order():
    passages = ["We train U-Net [11] often. Then we stop.", "Fig. 1. A hand."]
    assert find_quotation("we train U-Net … Then we stop.", [plain(passage) for passage in passages])
    assert find_quotation("Then we stop … we train U-Net", passages) is None
    assert find_quotation("train [the network] often", passages)
    assert find_quotation("train often", passages) is None
    assert find_quotation("we stop. Fig. 1", passages) is None  # a passage's end is no omission
    assert marked_texts('`"code"` says "a quotation" and “another”') == ["a quotation", "another"]


if __name__ == "__main__":
    paper = Path(sys.argv[1]) if len(sys.argv) > 1 else PAPER
    SENTENCES.parent.mkdir(exist_ok=True)
    passages = read_passages(paper)
    SENTENCES.write_text("\n".join(quoted_sentences(QUOTATIONS, passages)) + "\n", encoding="utf-8")
    for quotation in QUOTATIONS:
        if find_quotation(quotation.text, passages) is None: print("not in the paper:", quotation)
