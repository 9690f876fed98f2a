"""An audit as SARIF 2.1.0, for code scanning: one result for each kind of finding, without a recovered word."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .report import Report
from .summary import Finding, findings

VERSION = "2.1.0"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "none": "none"}
# GitHub's scale of 0 to 10
_SCORE = {"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "2.0", "none": "0.0"}


def sarif(report: Report) -> dict[str, Any]:
    """The document."""
    found = list(findings(report))
    driver = {
        "name": "embinv audit",
        "version": report.as_dict()["versions"]["embinv"],
        "informationUri": "https://github.com/embinv/embinv",
        "rules": [_rule(one) for one in found],
    }
    run = {
        "tool": {"driver": driver},
        "results": list(_results(report, found)),
        "invocations": [{"executionSuccessful": True}],
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
            "tags": ["security", "privacy", "external/cwe/cwe-200", "OWASP-LLM08-2025", "AML.T0024.001"],
        },
    }


def _results(report: Report, found: list[Finding]) -> Iterator[dict[str, Any]]:
    for index, finding in enumerate(found):
        mark = hashlib.blake2b(f"{finding.rule} {report.source['name']}".encode(), digest_size=16).hexdigest()
        yield {
            "ruleId": finding.rule,
            "ruleIndex": index,
            "level": _LEVEL[finding.severity],
            "message": {"text": finding.sentence},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(report.source["name"])},
                        "region": {"startLine": 1},
                    }
                }
            ],
            "partialFingerprints": {"embinvFinding/v1": mark},
            "properties": {"severity": finding.severity},
        }


def _uri(name: str) -> str:
    """A path relative to the working folder where it lies below it, as code scanning wants it; else what was given."""
    path = Path(name)
    if "://" in name or not path.exists():
        return name
    here = Path.cwd()
    return (
        path.resolve().relative_to(here).as_posix() if path.resolve().is_relative_to(here) else path.resolve().as_uri()
    )
