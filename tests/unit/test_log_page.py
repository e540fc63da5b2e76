"""docs/log.md knows each event that wants a look: whoever greps for a word of the log finds what it means."""
import glob, os, re

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
WRITERS = r"\b(?:log_event|log_obstacle|tell|warn)\("  # and those that hand an event on
EVENT = r'"([a-z]+\.[a-z_]+)"'
USUAL = re.compile(r"^(?:LOG_DEBUG|LOG_INFO|LOG_NOTICE),")


def events():
    """Those that are written at warning or above, or at a level that is computed: by name, where."""
    found = {}
    for path in sorted(p for folder in ("agent", "base", "config", "service") for p in glob.glob(os.path.join(ROOT, folder, "**", "*.c"), recursive=True)):
        if os.sep + "ctl" + os.sep in path:
            continue
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for call in re.finditer(WRITERS, text):
            words = text[call.end():text.index(";", call.end())]
            if not USUAL.match(words):
                head = re.split(r"LOG_FIELDS|, NULL,", words)[0]
                found.update({name: os.path.relpath(path, ROOT) for name in re.findall(EVENT, head)})
    return found


def page():
    with open(os.path.join(ROOT, "docs", "log.md"), encoding="utf-8") as f:
        return f.read()


def test_each_event_that_wants_a_look_is_explained():
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", page()))
    usual = {"request.end", "operation.done", "channel.up", "channel.retry"}
    missing = {name: where for name, where in events().items() if name not in named | usual}
    assert not missing and len(events()) > 40, missing


def test_each_event_that_is_explained_exists():
    sources = ""
    for path in (p for folder in ("agent", "base", "config", "service") for p in glob.glob(os.path.join(ROOT, folder, "**", "*.c"), recursive=True)):
        with open(path, encoding="utf-8") as f:
            sources += f.read()
    first = [row.split("|")[1] for row in page().splitlines() if row.startswith("| `")]
    gone = [name for cell in first for name in re.findall(r"`([a-z]+\.[a-z_]+)`", cell) if f'"{name}"' not in sources]
    assert len(first) > 40 and not gone, gone
