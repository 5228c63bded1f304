"""Files that a user may name by mistake, beside a few that are as they should be."""

import gzip
import json
from pathlib import Path

SENTENCE = "the {} saw a {} near the {} and the {} was happy"
WORDS = "fish bird cat dog tree house garden river".split()


def write_files(folder: Path) -> None:
    """Write text.txt, texts.jsonl, texts.json and samples.jsonl, which are good, and files with every kind of fault."""
    lines = [SENTENCE.format(*(WORDS[(3 * i + k * k) % len(WORDS)] for k in range(4))) for i in range(60)]
    whole = {"text.txt": "\n".join(lines), "empty.txt": "", "blank.txt": " \n\n \t\n", "binary.txt": "a\0b",
             "word.txt": "fish", "short.txt": "a fish", "broken.jsonl": '{"text": "a fish"}\n{"text": \n',
             "fields.jsonl": '{"words": "a fish"}\n', "one.json": '{"text": "a fish"}', "broken.json": '[{"text": ',
             "texts.jsonl": "".join(json.dumps({"text": line}) + "\n" for line in lines),
             "texts.json": json.dumps(lines), "empty.jsonl": "",
             "samples.jsonl": '{"tokens": ["a", "b"], "label": "a"}\n{"tokens": ["b", "a"], "label": "b"}\n',
             "label.jsonl": '{"tokens": ["a", "b"], "label": "truck"}\n',
             "mixed.jsonl": '{"tokens": ["a", 1], "label": "a"}\n', "list.jsonl": '{"tokens": "ab", "label": "a"}\n'}
    for name, text in whole.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "latin.txt").write_bytes("café au lait\n".encode("latin-1") * 9)
    (folder / "text.txt.gz").write_bytes(gzip.compress(b"a fish and a bird " * 99)[:40])
    (folder / "folder").mkdir()
    (folder / "done").mkdir()  # the results of a run of minitx topics
    (folder / "cut").mkdir()  # a checkpoint that was cut off
    (folder / "cut" / "checkpoint.npz").write_bytes(b"PK\3\4")
    for name, text in {"broken": "steps = ", "options": "steps = 0", "stray": "stesp = 3",
                       "table": "[associate]\nsteps = 3"}.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    asked = {"command": "topics", "asked": {"seed": "x"}}
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    done = {"command": "topics", "configuration": {"seed": 7}}
    (folder / "done" / "results.json").write_text(json.dumps(done), encoding="utf-8")
