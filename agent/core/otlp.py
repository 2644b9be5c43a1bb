"""Records as OpenTelemetry logs: the JSON form of OTLP 1.x (`ExportLogsServiceRequest` of opentelemetry-proto).

In that form 64-bit numbers are texts and names are lowerCamelCase.  Every log record has the attribute `log.record.uid`
with the event's id (semantic conventions, "General logs attributes"), so a receiver can drop what came twice; which
course and which student's telemetry it is stands in the resource.  Nothing of the moment of sending is in it: what is
sent again is the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: SEVERITY_NUMBER_INFO and _WARN of opentelemetry/proto/logs/v1/logs.proto.
_INFO, _WARN = 9, 13

_LARGEST_FIXED64, _LARGEST_INT64 = 2**64 - 1, 2**63 - 1

#: Keys of a record's line that become something else than an attribute of the same name.
_ELSEWHERE = frozenset(("id", "event", "at", "number"))


def logs(lines: Sequence[Mapping[str, Any]], resource: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The request for these records, each as `core.export.public` gives it (and `core.privacy` left of it).

    `resource` are attributes of all of them (with `service.name`: semantic conventions, "Service"), `version` is the
    agent's.
    """
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeLogs": [
                    {
                        "scope": {"name": "learnpack-agent", "version": version},
                        "logRecords": [_record(line) for line in lines],
                    }
                ],
            }
        ]
    }


def _record(line: Mapping[str, Any]) -> dict[str, Any]:
    is_gap = line["event"] == "gap"
    at = _nanoseconds(line["at"])
    attributes = {
        "log.record.uid": line["id"],
        **{f"learnpack.{key}": value for key, value in line.items() if key not in _ELSEWHERE},
    }
    return {
        "timeUnixNano": at,
        "observedTimeUnixNano": at,  # the agent saw it then
        "severityNumber": _WARN if is_gap else _INFO,
        "severityText": "WARN" if is_gap else "INFO",
        "eventName": f"learnpack.{line['event']}",
        "body": {"stringValue": _words(line)},
        "attributes": _attributes(attributes),
    }


def _words(line: Mapping[str, Any]) -> str:
    step, code = line.get("step_slug"), line.get("exit_code")
    words = [line["event"], *([step] if step else []), *([f"exit code {code}"] if code is not None else [])]
    return " ".join(words)


def _nanoseconds(ms: int) -> str:
    """As fixed64 takes it: one moment beyond would make a collector refuse the whole request."""
    return str(min(max(0, ms) * 1_000_000, _LARGEST_FIXED64))


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is not known is absent: OTLP has no null for an attribute."""
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -_LARGEST_INT64 <= value <= _LARGEST_INT64:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value if one is not None]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes(value)}}
    return {"stringValue": str(value)}
