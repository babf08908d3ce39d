"""Which format to take by what was measured, in sentences; what differs by less than noise is not called different."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Mapping[str, Any]
Entries = Mapping[str, Entry]

_NOISE = 1.1  # a ratio below it is no difference
_UNSETTLED = 2.0  # nor is one below this between times that did not settle
_NOISE_SECONDS = 0.1  # nor is a shorter time in what is measured once
_LARGE_BYTES = 100_000_000  # of weights; from here on loading a .pb is what counts


@dataclass(frozen=True)
class _Criterion:
    """Something to choose by.

    Args:
        name: what it is, behind "no difference in".
        best: the beginning of a sentence on the best.
        value: the number of a format among all, the smaller the better.
        text: the number of a format as people read it.
        noise: the ratio below which two numbers do not differ.
    """

    name: str
    best: str
    value: Callable[[Entry, Entries], float]
    text: Callable[[Entry], str]
    noise: float = _NOISE


def recommend(formats: Entries, left_out: Collection[str] = ()) -> str:
    """Says which format is best at what, and what speaks against a `.pb`.

    Args:
        formats: the formats of costs.json, by name.
        left_out: those that are not to be recommended, for they are not proven equal.

    Returns:
        Sentences, with the numbers that they rest on.
    """
    known = {name: entry for name, entry in formats.items() if not entry["problem"] and name not in left_out}
    sentences = _choices(known) if len(known) > 1 else [_nothing_to_choose(formats, known)]
    sentences += _loading(known)
    unstable = [name for name, entry in known.items() if not entry["is_stable"]]
    if unstable:
        sentences.append(
            f"The times of {_listed(unstable)} did not settle; more [costs] seconds, or a quieter machine, tell more."
        )
    refused = [name for name in formats if name in left_out]
    if refused:
        sentences.append(f"Left out: {_listed(refused)}, not proven equal.")
    return " ".join(sentences)


def _nothing_to_choose(formats: Entries, known: Entries) -> str:
    if known:
        return f"There are numbers of {_listed(list(known))} alone, so nothing to compare."
    problems = {entry["problem"] for entry in formats.values() if entry["problem"]}
    return f"No costs are known: {problems.pop()}." if len(problems) == 1 else "No costs are known."


def _choices(known: Entries) -> list[str]:
    """For each criterion the formats that are best by more than noise."""
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
        sentences.append(f"{criterion.best}: {_listed(best)}, {numbers}.")
    if alike:
        sentences.append(f"No difference above noise in {_listed(alike)}.")
    return sentences


def _criteria(known: Entries) -> list[_Criterion]:
    sizes = sorted(set.intersection(*({int(size) for size in entry["batches"]} for entry in known.values())))
    noise = _noise(known)
    return [
        *(_of_runs(sizes[0], sizes[-1], noise) if sizes else []),
        _Criterion(
            "memory", "Smallest memory", lambda entry, _: float(entry["peak_bytes"]), lambda e: _bytes(e["peak_bytes"])
        ),
        _Criterion("start", "Fastest start", _start, lambda e: f"{_short(e['import_seconds'] + _load(e))} s", noise),
    ]


def _noise(known: Entries) -> float:
    """The ratio below which two times do not differ."""
    return _NOISE if all(entry["is_stable"] for entry in known.values()) else _UNSETTLED


def _of_runs(smallest: int, largest: int, noise: float) -> list[_Criterion]:
    """Latency at the smallest batch size, and throughput at the largest."""

    def p50(entry: Entry) -> float:
        return float(entry["batches"][str(smallest)]["p50_ms"])

    def rate(entry: Entry) -> float:
        return float(entry["batches"][str(largest)]["rows_per_second"])

    def told_rate(entry: Entry) -> str:
        return f"{_short(rate(entry))} rows/s at batch {largest}"

    return [
        _Criterion(
            "latency",
            "Lowest latency",
            lambda entry, _: p50(entry),
            lambda entry: f"{_short(p50(entry))} ms at batch {smallest}",
            noise,
        ),
        _Criterion("throughput", "Highest throughput", lambda entry, _: 1 / rate(entry), told_rate, noise),
    ]


def _start(entry: Entry, known: Entries) -> float:
    """Seconds from a new process to the first answer.

    How long the same library takes to import varies from process to process: an import that is less than twice as long
    as another one counts as long as that.
    """
    imports = [float(other["import_seconds"]) for other in known.values()]
    return min(seconds for seconds in imports if seconds >= entry["import_seconds"] / 2) + _load(entry)


def _load(entry: Entry) -> float:
    """Seconds from the import to the first answer: what a session puts off when it loads, it does then."""
    return float(entry["load_seconds"] + entry["first_answer_seconds"])


def _loading(known: Entries) -> list[str]:
    """What speaks against the `.pb`: that it is slower to load than its checkpoint, and what is not."""
    if not {"checkpoint", "frozen"} <= known.keys():
        return []
    frozen, checkpoint = known["frozen"], known["checkpoint"]
    ratio, seconds = _load(frozen) / _load(checkpoint), _load(frozen) - _load(checkpoint)
    if ratio < _noise(known) or seconds < _NOISE_SECONDS:
        return []
    sentences = [
        f"The .pb takes {_short(_load(frozen))} s to load and to answer first, {_short(ratio)} times as long as its "
        f"checkpoint ({_short(_load(checkpoint))} s), and {_bytes(frozen['peak_bytes'])} of memory "
        f"({_bytes(checkpoint['peak_bytes'])})."
    ]
    if checkpoint["size_bytes"] >= _LARGE_BYTES:
        quickest = min(known, key=lambda name: _start(known[name], known))
        sentences.append(
            f"With {_bytes(checkpoint['size_bytes'])} of weights take {quickest} instead where processes start often: "
            f"{_short(_load(known[quickest]))} s, {_bytes(known[quickest]['peak_bytes'])}."
        )
        if "mmap" not in known:
            sentences.append("The format mmap (--formats) was not measured; it loads at any size at once.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
