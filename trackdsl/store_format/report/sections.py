"""The sections of a report that are lists and tables: parameters, failures, files, code, environment, and others."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence

from trackdsl._core.escaping import markup, printable
from trackdsl._core.readable import duration, number
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.report.files import ListedFile
from trackdsl.store_format.report.material import SYSTEM, Material
from trackdsl.store_format.report.node import RunNode, walk
from trackdsl.store_format.report.shown_files import ShownFile, kind_of
from trackdsl.store_format.tags import BRANCH_TAG, COMMIT_TAG, REPOSITORY_TAG, SOURCE_NAME_TAG, TRACEBACK_TAG, USER_TAG

_MOST_FAILURES, _MOST_FUNCTIONS, _MOST_LEFT_OUT = 20, 60, 100
#: Tracebacks that need not be opened.
_MOST_OPEN = 3
#: Stages of one kind in a table, and its columns.
_MOST_COMPARED, _MOST_COLUMNS, _MOST_KINDS = 50, 14, 20
#: Longer tables are folded.
_FOLDED = 15
_LONGEST_TEXT, _LONGEST_CODE = 400, 20_000
_LEFT_OUT = re.compile(
    r"trackdsl\.(omitted|truncated|refused|renamed|infinite|param\.later)\.(?P<name>.*)|"
    r"trackdsl\.(lost_events|missing_segments|damaged_records|parent\.missing|closed_early|ended)",
    re.DOTALL,
)
_NUMBERS = re.compile(r"\d+")
_TOO_LARGE = "Figures and tables that are too large for this page, or cannot be read, are only named."
_NO_SCRIPTS = (
    "They need scripts, and only the report's own may run here, or they are too large. Open them on MLflow's page of "
    "their run, under Artifacts, or save them with <code>mlflow artifacts download -r RUN -a FILE -d .</code>"
)


def params_html(tree: RunNode) -> str:
    """The parameters of the root run, and of stages of one kind next to each other."""
    parts = []
    if tree.params:
        parts.append(table(["parameter", "value"], [(key, cut(text)) for key, text in sorted(tree.params.items())]))
    kinds: dict[str, list[RunNode]] = {}
    for run in walk(tree):
        if run is not tree and (run.params or run.metrics):
            kinds.setdefault(_NUMBERS.sub("#", str(call_of(run.tags).get("function") or run.name)), []).append(run)
    several = {kind: runs for kind, runs in kinds.items() if len(runs) > 1}
    alone = [runs[0] for runs in kinds.values() if len(runs) == 1]
    parts += [_compared(kind, runs) for kind, runs in list(several.items())[:_MOST_KINDS]]
    if alone:
        rows = [(run.name, _pairs(run.params), _metrics(run), duration(run.duration)) for run in alone[:_MOST_COMPARED]]
        head = "<h3>Stages that ran once</h3>" if parts else ""
        parts.append(f"{head}{table(['stage', 'parameters', 'metrics', 'time'], rows, numbers={3})}")
    left_out = max(0, len(several) - _MOST_KINDS) + max(0, len(alone) - _MOST_COMPARED)
    if left_out:
        parts.append(f'<p class="quiet">and {left_out:,} more kinds of stages</p>')
    return "".join(parts)


def _pairs(params: Mapping[str, str]) -> str:
    return cut(", ".join(f"{key} = {cut(text, 80)}" for key, text in params.items()))


def _metrics(run: RunNode) -> str:
    return cut(", ".join(f"{key} {number(run.metrics[key])}" for key in _own_metrics(run)))


def _own_metrics(run: RunNode) -> list[str]:
    return [key for key in sorted(run.metrics) if not key.startswith(SYSTEM)]


def _compared(kind: str, runs: Sequence[RunNode]) -> str:
    """Stages of one kind: what they have in common in one line, and what differs in a table."""
    shown = runs[:_MOST_COMPARED]
    params = list(dict.fromkeys(key for run in shown for key in run.params))
    same = {key: runs[0].params[key] for key in params if len({run.params.get(key) for run in runs}) == 1}
    varying = [key for key in params if key not in same]
    columns = [*varying, *dict.fromkeys(key for run in shown for key in _own_metrics(run))][:_MOST_COLUMNS]
    rows = [[run.name, *(_cell(run, key) for key in columns), duration(run.duration)] for run in shown]
    content = table(["stage", *columns, "time"], rows, numbers={*range(1 + len(varying), 2 + len(columns))})
    if len(runs) > len(shown):
        content += f'<p class="quiet">and {len(runs) - len(shown):,} more</p>'
    if len(rows) > _FOLDED:
        content = folded(f"{len(rows)} of {len(runs):,} next to each other", content)
    common = f'<p class="quiet">{markup(_pairs(same))}</p>' if same else ""
    return f"<h3>{markup(cut(kind.rpartition('.')[2], 100))} &times; {len(runs):,}</h3>{common}{content}"


def _cell(run: RunNode, key: str) -> str:
    if key in run.metrics and key not in run.params:
        return number(run.metrics[key])
    return cut(run.params.get(key, ""), 80)


def failures_html(tree: RunNode, names: Mapping[str, str]) -> str:
    """Every exception once, where it was raised; those that differ only in numbers are counted."""
    found: dict[tuple[str, str], list[RunNode]] = {}
    for run in walk(tree):
        if run.failure is None or any(child.failure == run.failure for child in run.children):
            continue  # It went up from a run below.
        found.setdefault((_NUMBERS.sub("#", run.failure), _NUMBERS.sub("#", run.name)), []).append(run)
    parts: list[str] = []
    for runs in list(found.values())[:_MOST_FAILURES]:
        more = f' <span class="quiet">and {len(runs) - 1:,} more like it</span>' if len(runs) > 1 else ""
        failure = cut(runs[0].failure or "")
        open_ = " open" if len(parts) < _MOST_OPEN else ""
        text = printable_lines(runs[0].tags.get(TRACEBACK_TAG, ""), _LONGEST_CODE)
        parts.append(
            f'<details class="failure"{open_}><summary><b>{markup(names.get(runs[0].run_id, runs[0].name))}</b>{more}'
            f'<span class="bad">{markup(failure)}</span></summary><pre>{text}</pre></details>'
        )
    if len(found) > _MOST_FAILURES:
        parts.append(f'<p class="quiet">and {len(found) - _MOST_FAILURES:,} more kinds of failures</p>')
    return "".join(parts)


def files_html(material: Material, names: Mapping[str, str]) -> str:
    """Figures and tables, and the names of the other files."""
    ordered = sorted(material.files, key=lambda file: (file.image is None, file.page is None))
    parts = [_shown_file(file, names) for file in ordered]
    shown = f'<div class="files">{"".join(parts)}</div>' if parts else ""
    pages = [one for one in material.listed if kind_of(one.path) == "page"]
    others = [one for one in material.listed if one not in pages]
    if pages:
        shown += f"<h3>Interactive figures and pages</h3><p>{_NO_SCRIPTS}</p>{_listed(pages, names)}"
    if not others:
        return shown
    count = f"{len(others):,} files that are" if len(others) > 1 else "1 file that is"
    large = any(kind_of(one.path) for one in others)
    why = f'<p class="quiet">{_TOO_LARGE}</p>' if large else ""
    return shown + folded(f"{count} not shown here", why + _listed(others, names))


def _listed(files: Sequence[ListedFile], names: Mapping[str, str]) -> str:
    rows = [(names.get(one.run.run_id, one.run.name), one.path, one.run.run_id, _size(one.size)) for one in files]
    return table(["stage", "file", "run", "size"], rows, numbers={3})


def _shown_file(file: ShownFile, names: Mapping[str, str]) -> str:
    caption = (
        f"<figcaption><b>{markup(cut(file.path, 120))}</b> "
        f'<span class="quiet">{markup(names.get(file.run.run_id, file.run.name))}</span></figcaption>'
    )
    if file.image is not None:
        if file.scaled is not None:
            width, height = file.scaled
            caption += f'<p class="quiet">smaller than the file, which has {width:,} &times; {height:,} pixels</p>'
        return f'<figure class="file">{caption}<img src="{markup(file.image)}" alt="{markup(cut(file.path))}"></figure>'
    if file.page is not None:
        # Without any permission: no scripts, forms, or windows. The policy of the report applies inside too.
        frame = f'<iframe sandbox srcdoc="{html.escape(file.page)}" title="{markup(cut(file.path))}"></iframe>'
        return f'<figure class="file page">{caption}{frame}</figure>'
    rows, columns = file.more
    left = [f"{count:,} more {what}" for count, what in ((rows, "rows"), (columns, "columns")) if count]
    more = f'<p class="quiet">and {" and ".join(left)}</p>' if left else ""
    return f'<figure class="file wide">{caption}{table(file.columns, file.rows)}{more}</figure>'


def code_html(material: Material) -> str:
    """The functions of the stages: their files, the hashes of their source, and the source if it is kept."""
    found: dict[tuple[str, str, str], int] = {}
    for run in walk(material.tree):
        call = call_of(run.tags)
        if call.get("function"):
            key = str(call["function"]), str(call.get("file") or ""), str(call.get("source_hash") or "")
            found[key] = found.get(key, 0) + 1
    seen = {digest for _, _, digest in found}
    parts = [_program(material, seen)]
    parts += [_function(*key, count, material, seen) for key, count in list(found.items())[:_MOST_FUNCTIONS]]
    if len(found) > _MOST_FUNCTIONS:
        parts.append(f'<p class="quiet">and {len(found) - _MOST_FUNCTIONS:,} more functions</p>')
    return "".join(parts)


def _program(material: Material, seen: set[str]) -> str:
    """The program's file, if the root run is a block: see `Stored.code`."""
    uses = {} if material.changes is None else material.changes.code.get("", {})
    texts = {name: material.sources[key] for name, key in uses.items() if key in material.sources.keys() - seen}
    seen.update(uses.values())
    if not texts:
        return ""
    source = "\n\n".join(f"# {name}\n{text.rstrip()}" for name, text in texts.items())[:_LONGEST_CODE]
    head = f"<b>{markup(cut(next(iter(texts))))}</b> at its top level"
    return folded(head, f"<pre>{printable_lines(source, _LONGEST_CODE)}</pre>")


def _function(function: str, file: str, digest: str, count: int, material: Material, seen: set[str]) -> str:
    """A function with its source, and that of what it uses of its project: each once, with the first that uses it."""
    uses = {} if material.changes is None else material.changes.code.get(f"{function} {digest}", {})
    others = {name: key for name, key in uses.items() if key in material.sources.keys() - seen}
    seen.update(others.values())
    texts = [material.sources[digest]] if digest in material.sources else []
    texts += [f"# {name}\n{material.sources[key]}" for name, key in list(others.items())[:_MOST_FUNCTIONS]]
    times = f", {count:,} runs" if count > 1 else ""
    where = f'<span class="quiet">{markup(cut(file))} {markup(digest[:12])}{times}</span>'
    head = f"<b>{markup(cut(function))}</b> {where}"
    if not texts:
        return f'<p class="code">{head}</p>'
    source = "\n\n".join(text.rstrip() for text in texts)[:_LONGEST_CODE]
    return folded(head, f"<pre>{printable_lines(source, _LONGEST_CODE)}</pre>")


def environment_html(material: Material) -> str:
    """The section about the machine and the program that recorded the run."""
    tags, call, stored = material.tree.tags, call_of(material.tree.tags), material.changes
    commit = tags.get(COMMIT_TAG, "")
    dirty = ", with changes that are not committed" if call.get("git_dirty") else ""
    programs = {(one.get("host"), one.get("pid")) for one in (call_of(run.tags) for run in walk(material.tree))}
    hosts = sorted({str(host) for host, _ in programs if host})
    rows = [
        ("program", tags.get(SOURCE_NAME_TAG)),
        ("user", tags.get(USER_TAG)),
        ("git commit", commit and f"{commit}{dirty}"),
        ("git branch", tags.get(BRANCH_TAG)),
        ("git repository", tags.get(REPOSITORY_TAG)),
        ("machines", ", ".join(hosts[:20])),
        ("processes", str(len(programs - {(None, None)}) or "")),
        ("Python", stored.python if stored is not None else None),
        ("trackdsl", call.get("version")),
        ("run", material.tree.run_id),
    ]
    content = table(["", ""], [(name, cut(str(text))) for name, text in rows if text], head=False)
    own = {key: text for key, text in tags.items() if not key.startswith(("mlflow.", "trackdsl."))}
    if own:
        content += (
            f"<h3>Tags</h3>{table(['tag', 'value'], [(key, cut(text)) for key, text in sorted(own.items())[:200]])}"
        )
    packages = None if stored is None else material.sources.get(stored.packages or "")
    if packages:
        text = f"<pre>{printable_lines(packages, _LONGEST_CODE)}</pre>"
        content += folded(f"{len(packages.splitlines()):,} packages", text)
    return content


def left_out_html(material: Material, names: Mapping[str, str], hidden: int) -> str:
    """The section about what the runs could not record, and what this page does not show."""
    rows = list(_left_out(material.tree, names))
    parts = []
    if rows:
        parts.append(table(["stage", "what", "why"], rows[:_MOST_LEFT_OUT]))
    if len(rows) > _MOST_LEFT_OUT:
        parts.append(f'<p class="quiet">and {len(rows) - _MOST_LEFT_OUT:,} more</p>')
    sentences = [*material.left_out]
    if hidden:
        sentences.append(f"{hidden:,} runs are in the timeline and in groups of the tree, and not listed one by one.")
    if sentences:
        parts.append(f"<p>Not on this page:</p><ul>{''.join(f'<li>{markup(text)}</li>' for text in sentences)}</ul>")
    return "".join(parts)


def _left_out(tree: RunNode, names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for run in walk(tree):
        for key, text in run.tags.items():
            if key.startswith("trackdsl.") and (found := _LEFT_OUT.fullmatch(key)):
                what = found["name"] or found[3]
                kind = f" ({found[1]})" if found[1] else ""
                yield names.get(run.run_id, run.name), f"{cut(what, 120)}{kind}", cut(text)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: set[int] | None = None, head: bool = True
) -> str:
    """A table that scrolls by itself where it is too wide; columns with these positions are aligned right."""
    right = [' class="number"' if at in (numbers or ()) else "" for at in range(max(len(columns), 1))]
    names = "".join(f"<th{right[at]}>{markup(cut(name, 80))}</th>" for at, name in enumerate(columns))
    top = f"<thead><tr>{names}</tr></thead>" if head else ""
    body = "".join(f"<tr>{_cells(row, right)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str], right: Sequence[str]) -> str:
    return "".join(f"<td{right[at] if at < len(right) else ''}>{markup(cell)}</td>" for at, cell in enumerate(row))


def folded(head: str, body: str) -> str:
    """Markup that is hidden below a line of markup until that is opened."""
    return f"<details><summary>{head}</summary>{body}</details>"


def printable_lines(text: str, longest: int) -> str:
    """Text with its lines, escaped; the end of what is too long is kept, as that of a traceback counts most."""
    cut_ = text if len(text) <= longest else f"…\n{text[-longest:]}"
    return "\n".join(markup(line.expandtabs(4)) for line in cut_.splitlines())


def cut(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Text without control characters that is no longer than this."""
    short = printable(text)
    return short if len(short) <= longest else f"{short[: longest - 1]}…"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = round(size / 1000, 1)  # type: ignore[assignment]
    return f"{size:,.3g} GB"
