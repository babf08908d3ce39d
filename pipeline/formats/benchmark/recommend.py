"""Recommends formats by their measured costs, in sentences; ignores differences below the noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.wording import join_names

Entry = Mapping[str, Any]
Entries = Mapping[str, Entry]

_NOISE = 1.1  # smaller ratios are noise
_UNSTABLE_NOISE = 2.0  # the same for times that are not stable
_NOISE_SECONDS = 0.1  # shorter differences of times that are measured once are noise
_LARGE_BYTES = 100_000_000  # of weights; above it the time to load a .pb matters


@dataclass(frozen=True)
class _Criterion:
    """A criterion for choosing a format.

    Args:
        name: its name in "No difference above noise in …".
        best: the beginning of the sentence on the best formats.
        value: a format's number, given all formats; smaller is better.
        text: a format's number for readers.
        noise: smaller ratios of two numbers are noise.
    """

    name: str
    best: str
    value: Callable[[Entry, Entries], float]
    text: Callable[[Entry], str]
    noise: float = _NOISE


def recommend(formats: Entries, left_out: Collection[str] = ()) -> str:
    """Recommends formats by criterion, and warns if a `.pb` loads slowly.

    Args:
        formats: the formats of costs.json, by name.
        left_out: formats not to recommend, because they are not proven equal.

    Returns:
        Sentences with the numbers behind them.
    """
    known = {name: entry for name, entry in formats.items() if not entry["problem"] and name not in left_out}
    sentences = _compare(known) if len(known) > 1 else [_no_comparison(formats, known)]
    sentences += _load_warning(known)
    unstable = [name for name, entry in known.items() if not entry["is_stable"]]
    if unstable:
        sentences.append(
            f"The times of {join_names(unstable)} did not settle; more [costs] seconds, or a quieter machine, tell "
            "more."
        )
    refused = [name for name in formats if name in left_out]
    if refused:
        sentences.append(f"Left out: {join_names(refused)}, not proven equal.")
    return " ".join(sentences)


def _no_comparison(formats: Entries, known: Entries) -> str:
    if known:
        return f"There are numbers of {join_names(list(known))} alone, so nothing to compare."
    problems = {entry["problem"] for entry in formats.values() if entry["problem"]}
    return f"No costs are known: {problems.pop()}." if len(problems) == 1 else "No costs are known."


def _compare(known: Entries) -> list[str]:
    """Names the best formats for each criterion in which formats differ."""
    sentences, alike = [], []
    for criterion in _criteria(known):
        values = {name: criterion.value(entry, known) for name, entry in known.items()}
        least = min(values.values())
        best = [name for name, value in values.items() if value <= least * criterion.noise]
        others = sorted((name for name in known if name not in best), key=values.__getitem__)
        if not others:
            alike.append(criterion.name)
            continue
        other = "checkpoint" if "checkpoint" in others else others[0]
        first = min(best, key=values.__getitem__)
        numbers = f"{criterion.text(known[first])} ({other}: {criterion.text(known[other])})"
        sentences.append(f"{criterion.best}: {join_names(best)}, {numbers}.")
    if alike:
        sentences.append(f"No difference above noise in {join_names(alike)}.")
    return sentences


def _criteria(known: Entries) -> list[_Criterion]:
    sizes = sorted(set.intersection(*({int(size) for size in entry["batches"]} for entry in known.values())))
    noise = _noise(known)
    return [
        *(_speed_criteria(sizes[0], sizes[-1], noise) if sizes else []),
        _Criterion(
            "memory", "Smallest memory", lambda entry, _: float(entry["peak_bytes"]), lambda e: _bytes(e["peak_bytes"])
        ),
        _Criterion(
            "start",
            "Fastest start",
            _start_seconds,
            lambda e: f"{_short(e['import_seconds'] + _load_seconds(e))} s",
            noise,
        ),
    ]


def _noise(known: Entries) -> float:
    """Returns the ratio of two times below which their difference is noise."""
    return _NOISE if all(entry["is_stable"] for entry in known.values()) else _UNSTABLE_NOISE


def _speed_criteria(smallest: int, largest: int, noise: float) -> list[_Criterion]:
    """Returns the criteria latency at the smallest batch size, and throughput at the largest."""

    def p50(entry: Entry) -> float:
        return float(entry["batches"][str(smallest)]["p50_ms"])

    def rate(entry: Entry) -> float:
        return float(entry["batches"][str(largest)]["rows_per_second"])

    def rate_text(entry: Entry) -> str:
        return f"{_short(rate(entry))} rows/s at batch {largest}"

    return [
        _Criterion(
            "latency",
            "Lowest latency",
            lambda entry, _: p50(entry),
            lambda entry: f"{_short(p50(entry))} ms at batch {smallest}",
            noise,
        ),
        _Criterion("throughput", "Highest throughput", lambda entry, _: 1 / rate(entry), rate_text, noise),
    ]


def _start_seconds(entry: Entry, known: Entries) -> float:
    """Returns seconds from a new process to the first output.

    The import time of the same library varies between processes: an import counts as the shortest one that takes at
    least half its time.
    """
    imports = [float(other["import_seconds"]) for other in known.values()]
    return min(seconds for seconds in imports if seconds >= entry["import_seconds"] / 2) + _load_seconds(entry)


def _load_seconds(entry: Entry) -> float:
    """Returns seconds from the import to the first output, which includes work that a session delays until then."""
    return float(entry["load_seconds"] + entry["first_answer_seconds"])


def _load_warning(known: Entries) -> list[str]:
    """Warns if the `.pb` is slower to load than its checkpoint, and names the quickest format to load."""
    if not {"checkpoint", "frozen"} <= known.keys():
        return []
    frozen, checkpoint = known["frozen"], known["checkpoint"]
    ratio = _load_seconds(frozen) / _load_seconds(checkpoint)
    if ratio < _noise(known) or _load_seconds(frozen) - _load_seconds(checkpoint) < _NOISE_SECONDS:
        return []
    sentences = [
        f"The .pb takes {_short(_load_seconds(frozen))} s to load and to answer first, {_short(ratio)} times as long "
        f"as its checkpoint ({_short(_load_seconds(checkpoint))} s), and {_bytes(frozen['peak_bytes'])} of memory "
        f"({_bytes(checkpoint['peak_bytes'])})."
    ]
    if checkpoint["size_bytes"] >= _LARGE_BYTES:
        quickest = min(known, key=lambda name: _start_seconds(known[name], known))
        sentences.append(
            f"With {_bytes(checkpoint['size_bytes'])} of weights take {quickest} instead where processes start often: "
            f"{_short(_load_seconds(known[quickest]))} s, {_bytes(known[quickest]['peak_bytes'])}."
        )
        if "mmap" not in known:
            sentences.append("The format mmap (--formats) was not measured; it loads at any size at once.")
    return sentences


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
