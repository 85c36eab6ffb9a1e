"Vocabulary: terms that the project no longer uses do not come back, in code, prose, outputs and files"
import re
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [path for folder in ("nbs", "reports", "howto", "play")
             for path in sorted((PROJECT/folder).rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
# CHANGELOG.md and the released files in boneage/ keep their words: they name what was renamed.
FILES = [path for pattern in ("*.md", "*.yml", "*.ini", "*.cff", "Makefile", "Snakefile", "boneage/**/*.md",
                              "reports/**/*.y*ml", "tests/**/*.py", "tools/**/*.*", "benchmarks/*.*")
         for path in sorted(PROJECT.glob(pattern))
         if path.is_file() and path.suffix != ".pyc"
         and path.name not in ("CHANGELOG.md", "test_language.py")]

# Term: (pattern, what to write instead). A word may be part of an identifier: `plate_shape`, `said_unseen`.
WORD = r"(?<![a-z]){}(?![a-z])"
TERMS = {
    "plate": (WORD.format("plates?"), "radiograph, or image where pixels are meant"),
    "look": (WORD.format("looks")
             + r"|\b(?:next|first|second|last|another) look\b|looked at again|_look\b|\blook_",
             "pass, refinement pass, crop, test-time augmentation"),
    "speak": (WORD.format("(?:speaks?|spoken|spoke)"), "output, predict"),
    "unseen": (WORD.format("unseen") + r"|\b(?:had|has|have) (?:not|never) seen\b", "held-out, out-of-fold"),
    "words": (r"(?-i:[a-z]_words\b|\bwords_[a-z])", "summarise_*, *_table, format_*; name what is held"),
    "vote": (WORD.format("(?:voters?|voted|cross_votes?|cross_voted)"),
             "members, ensemble prediction, cross-fitted"),
    "belief": (WORD.format("(?:beliefs?|believed|believes?)"), "predicted distribution, accepted"),
    "said": (r"(?<![a-z])said(?:_[a-z]+|\b)", "predicted, stated; name what is held"),
    "fresh network": (r"\bfresh (?:networks?|weights)\b|\bfresh_network", "newly initialised network"),
    "floor": (r"\bthe floor\b", "baseline: median age of the sex"),
    "grey range": (r"\bgrey range as it (?:comes|came)\b", "exposure"),
    "ways of the release": (r"\b(?:ways|steps) of the release\b", "variant, ablation"),
    "stage": (r"\bstages? of (?:a|the|each|every|its|one) (?:run|pipeline|work|network|notebook)"
              r"|\b(?:pipeline|earlier|later|previous|next) stages?\b|\b(?:run|killed|pipeline)_stages?\b",
              "pipeline step, network block; stage is a stage of development"),
    "draw": (r"\b(?:draws?|drawing|drew) (?:a|the|one|each|every|another|\w+teen|\d+) phantoms?\b"
             r"|\bphantoms? (?:is|are|was|were) drawn\b|\bdraw_phantoms?\b", "generate, sample"),
    "left out": (r"\bthat left (?:it|them) out\b|\b(?:fifth|third|fold)s? left out\b",
                 "fold, split, out-of-fold"),
    "person": (
        r"\b(?:networks?|models?|ensembles?|members?|functions?|regions?|files?|tables?|readers?|profiles?)"
               r" (?:says?|tells?|asks?|knows?|sees|thinks?|answers?)\b",
               "compute, return, predict, hold, read"),
}
# What keeps its word: anatomy, and the keys of released files where they are renamed
ALLOWED = re.compile(r"growth[ _-]plates?|atlas(?:'s|’s|es['’])?[ _-]plates?", re.I)
OLD_KEYS = re.compile(r'\bRENAMED\s*=|\bcurrent_names\(|"view": \{', re.I)
PATTERNS = {term: (re.compile(pattern, re.I), instead) for term, (pattern, instead) in TERMS.items()}


def found_terms(text: str) -> list[tuple[int, str, str]]:
    "Line number, line and hint for each banned term of a text; none where it renames old keys"
    if OLD_KEYS.search(text): return []
    lines = [(number, line.strip(), ALLOWED.sub("", line))
             for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line[:100], f"{match[0]!r}: {instead}") for number, line, checked in lines
            for pattern, instead in PATTERNS.values() for match in pattern.finditer(checked)]


def printed(output) -> str:
    "The text of a stored output, without its pictures"
    data = output.get("data", {})
    texts = [output.get("text", ""),
             *(data.get(kind, "") for kind in ("text/plain", "text/markdown", "text/html"))]
    return "\n".join(texts)


def problems(path: Path) -> list[str]:
    "Banned terms of a file, a line each: file:cell:line: text"
    place = path.relative_to(PROJECT)
    if path.suffix != ".ipynb":
        return [f"{place}:{number}: {line}  [{hint}]" for number, line, hint in found_terms(path.read_text())]
    found = []
    for cell in nbformat.read(path, 4).cells:
        texts = {"": cell.source} | {" output": "\n".join(map(printed, cell.get("outputs", [])))}
        found += [f"{place}:{cell.get('id')}{part}:{number}: {line}  [{hint}]"
                  for part, text in texts.items() for number, line, hint in found_terms(text)]
    return found


@pytest.mark.parametrize("path", [*NOTEBOOKS, *FILES], ids=lambda path: str(path.relative_to(PROJECT)))
def test_banned_terms_stay_away(path):
    found = problems(path)
    assert found == [], "\n" + "\n".join(found)


BANNED = """the plate is bright / plate_regions(plates) / two looks at the key points / the next look /
no_look / what the network speaks / unseen.csv / radiographs that they had not seen / held_words / a voter
/ voted / beliefs / said = predict(x) / said_unseen / a fresh network / the floor of 30 months / the grey
range as it comes / the ways of the release / each stage of a run / earlier stages / draw a phantom /
phantoms are drawn / networks that left it out / the network answers in pixels / the profile says which"""
GOOD = """growth plates close / growth_plate / the atlas's plates / x.view(-1) / overlook / template /
np.floor(x) / words / the stage of puberty / developmental stages / what a radiologist looked for"""


@pytest.mark.parametrize("phrase", " ".join(BANNED.split()).split(" / "))
def test_banned_phrases_are_found(phrase):
    assert found_terms(phrase), phrase


@pytest.mark.parametrize("phrase", " ".join(GOOD.split()).split(" / "))
def test_other_senses_are_left_alone(phrase):
    assert found_terms(phrase) == [], phrase
