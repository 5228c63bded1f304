"""--quick makes smaller only what was not typed, and says in one line what that is."""

import pytest

from minitx.associations import command as associate
from minitx.base.options import quick_line, read_options
from minitx.next_token import command as automaton
from minitx.topics import command_documents, command_text


@pytest.mark.parametrize(("kind", "typed", "says", "not_said"), [
    (associate.Options, {}, "--steps 12", "--words"), (associate.Options, {"steps": 50}, "--windows 64", "--steps"),
    (command_documents.Options, {"seeds": 2}, "a tenth of the steps", "--seeds"),
    (command_documents.Options, {}, "--seeds 1", "--topics"),
    (command_text.Options, {"text": "a.txt", "topics": 290}, "--vocabulary 300", "--topics"),
    (command_text.Options, {"text": "a.txt", "vocabulary": 700}, "4 masked copies", "--vocabulary"),
    (automaton.GeneratedOptions, {}, "--steps 400", "--vocabulary"),
])
def test_what_was_typed_wins(kind, typed, says, not_said):
    options = read_options(kind, typed | {"quick": True})
    assert {name: getattr(options, name) for name in typed} == typed
    line = quick_line(options, typed | {"quick": True})
    assert line.startswith("--quick: training is cut short; this run has ")
    assert says in line
    assert not_said not in line
    assert "\n" not in line


def test_without_quick_nothing_is_said():
    assert quick_line(associate.Options(), {}) is None
