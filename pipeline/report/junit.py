"""The verdict as JUnit XML, one test case per check."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from .facts import ReportFacts
from .gist import Check
from .verdict import checks, failed_checks, headline, is_check_passed, is_passed, reason, reasons, worst
from .wording import printable


def junit(facts: ReportFacts) -> str:
    """Writes the `testsuites` document for CI servers.

    A run that failed without a failed check (because it compared nothing, for example) gets its own failed case:
    CI servers would show an empty suite as passed.
    """
    is_unexplained = not is_passed(facts) and not failed_checks(facts)
    skipped = facts.verdict.get("skipped") or {}
    counts = {
        "tests": str(len(checks(facts)) + len(skipped) + is_unexplained),
        "failures": str(len(failed_checks(facts)) + is_unexplained),
        "errors": "0",
        "skipped": str(len(skipped)),
    }
    validation = next((stage for stage in facts.stages if stage.stage == "validation"), None)
    if validation is not None and validation.seconds is not None:
        counts["time"] = f"{validation.seconds:.3f}"
    model = printable(str(facts.verdict.get("model", facts.name)))
    root = ElementTree.Element("testsuites", {"name": printable(facts.name), **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": model, **counts})
    if validation is not None and validation.made:
        suite.set("timestamp", printable(validation.made))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(facts):
        ElementTree.SubElement(properties, "property", name=printable(name), value=printable(value))
    speeds = facts.verdict.get("rows_per_second") or {}
    for check in checks(facts):
        # All outputs are compared in the same pass.
        speed = speeds.get(check["format"]) if check["check"] == "equal" else None
        _add_case(suite, model, check, check["rows"] / speed if speed and check.get("rows") else None)
    for name, why in skipped.items():
        case = ElementTree.SubElement(suite, "testcase", classname=model, name=printable(str(name)))
        ElementTree.SubElement(case, "skipped", message=printable(str(why)))
    if is_unexplained:
        case = ElementTree.SubElement(suite, "testcase", classname=model, name="verdict")
        failure = ElementTree.SubElement(case, "failure", message=printable(headline(facts)), type="ValidationFailed")
        failure.text = printable("\n".join(reasons(facts)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(facts: ReportFacts) -> Iterator[tuple[str, str]]:
    """Lists the provenance of the model: command, versions, digests."""
    yield "command", facts.command
    run = {"host": facts.run.host, "commit": facts.run.commit, "version.freeze-pipeline": facts.run.version}
    yield from ((name, value) for name, value in run.items() if value)
    yield from ((f"version.{library}", version) for library, version in facts.versions.items())
    yield from ((f"proof.{format}", found["word"]) for format, found in (facts.verdict.get("proofs") or {}).items())
    yield from ((f"digest.{stage.stage}", stage.digest) for stage in facts.stages)
    yield from ((f"sha256.{label}", digest) for label, digest in facts.inputs.items())


def _add_case(suite: ElementTree.Element, model: str, check: Check, seconds: float | None) -> None:
    name = printable(f"{check['format']}.{check['check']}.{check['output']}")
    case = ElementTree.SubElement(suite, "testcase", classname=model, name=name)
    if seconds is not None:
        case.set("time", f"{seconds:.3f}")
    if is_check_passed(check):
        return
    lines = [reason(check), *filter(None, [worst(check)])]
    message = printable("; ".join(line.rstrip(".") for line in lines))
    failure = ElementTree.SubElement(case, "failure", message=message, type="ValidationFailed")
    failure.text = printable("\n".join(lines))
