"""The verdict as JUnit's XML, one test case per check."""

from __future__ import annotations

from xml.etree import ElementTree

from .facts import ReportFacts
from .verdict import Check, checks, failed_checks, headline, is_check_passed, is_passed, reason, reasons, worst
from .wording import visible


def junit(facts: ReportFacts) -> str:
    """A `testsuites` document that CI servers understand.

    A run that failed without a failed check (it compared nothing, say) gets a failed case of its own: an empty
    suite would be green.
    """
    is_unexplained = not is_passed(facts) and not failed_checks(facts)
    counts = {
        "tests": str(len(checks(facts)) + is_unexplained),
        "failures": str(len(failed_checks(facts)) + is_unexplained),
        "errors": "0",
        "skipped": "0",
    }
    model = visible(str(facts.verdict.get("model", facts.name)))
    root = ElementTree.Element("testsuites", {"name": visible(facts.name), **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": model, **counts})
    for check in checks(facts):
        _add_case(suite, model, check)
    if is_unexplained:
        case = ElementTree.SubElement(suite, "testcase", classname=model, name="verdict")
        failure = ElementTree.SubElement(case, "failure", message=visible(headline(facts)), type="ValidationFailed")
        failure.text = visible("\n".join(reasons(facts)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ElementTree.Element, model: str, check: Check) -> None:
    name = visible(f"{check['format']}.{check['check']}.{check['output']}")
    case = ElementTree.SubElement(suite, "testcase", classname=model, name=name)
    if is_check_passed(check):
        return
    lines = [reason(check), *filter(None, [worst(check)])]
    message = visible("; ".join(line.rstrip(".") for line in lines))
    failure = ElementTree.SubElement(case, "failure", message=message, type="ValidationFailed")
    failure.text = visible("\n".join(lines))
