"""An audit as SARIF 2.1.0, for code scanning: one result for each kind of finding, without a recovered word."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .report import Report
from .summary import Finding, findings

VERSION = "2.1.0"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
}
# GitHub's scale of 0 to 10
_SCORE = {"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "2.0"}


def sarif(report: Report) -> dict[str, Any]:
    """The document."""
    found = [one for one in findings(report) if one.severity != "none"]
    driver = {
        "name": "embinv audit",
        "version": report.as_dict()["versions"]["embinv"],
        "informationUri": "https://github.com/embinv/embinv",
        "rules": [_rule(one) for one in found],
    }
    run = {
        "tool": {"driver": driver},
        "results": list(_results(report, found)),
        "invocations": [{"executionSuccessful": True, "startTimeUtc": report.date}],
        "properties": {"source_digest": report.sample.digest, "seed": report.seed, "rows": len(report.sample.rows)},
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.rule,
        "name": finding.name,
        "shortDescription": {"text": finding.title},
        "fullDescription": {"text": finding.why},
        "help": {"text": finding.advice},
        "defaultConfiguration": {"level": _LEVEL[finding.severity]},
        "properties": {
            "security-severity": _SCORE[finding.severity],
            "tags": [
                "security",
                "privacy",
                "external/cwe/cwe-200",
                "OWASP-LLM08-2025",
                "OWASP-LLM09-2026",
                "AML.T0024.001",
                "AISVS-C8",
            ],
        },
    }


def _results(report: Report, found: list[Finding]) -> Iterator[dict[str, Any]]:
    name, collection = report.source["name"], report.source.get("collection")
    for index, finding in enumerate(found):
        # two collections of one store are two places
        place = f"{finding.rule} {name}" + (f" {collection}" if collection else "")
        mark = hashlib.blake2b(place.encode(), digest_size=16).hexdigest()
        yield {
            "ruleId": finding.rule,
            "ruleIndex": index,
            "level": _LEVEL[finding.severity],
            "message": {"text": finding.sentence},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(name)},
                        "region": {"startLine": 1},
                    }
                }
            ],
            "partialFingerprints": {"embinvFinding/v1": mark},
            "properties": {"severity": finding.severity},
        }


def _uri(name: str) -> str:
    """A source as a relative path; GitHub refuses a whole file in which a place has another scheme than its checkout.

    Args:
        name: a path, or a store's URL without its password.
    """
    scheme, has_scheme, rest = name.partition(":")
    if "://" in name:
        parts = urlsplit(name)
        path = f"{parts.hostname or ''}{parts.path}"
    else:
        path = rest if has_scheme and rest and scheme.isidentifier() and not Path(name).exists() else name
        whole = Path(path).resolve()
        path = str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else path)
    return quote(Path(path).as_posix().lstrip("/"))
