"""Where the embedded engine and OPA are known to differ, expression by expression.

The classes are in `CAVEATS` and in docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Mapping

KNOWN: Mapping[str, tuple[str, ...]] = {
    "array.slice": (
        "array.slice([1,2,3],0.5,2)",
        "array.slice([1,2,3], input.odd[3], 2)",
        "array.slice([1,2,3], input.odd[4], 2)",
        "array.slice([1,2,3], 1, input.odd[3])",
        "array.slice([1,2,3], 1, input.odd[4])",
    ),
    "base64.decode": ('base64.decode("YQ==\\n")',),
    "count": ('count("é𝒳")',),
    "format_int": ("format_int(input.odd[4], 16)",),
    "graph.reachable": ('graph.reachable({"a":{"b"},"b":null},{"a"})',),
    "json.unmarshal": (
        'json.unmarshal("1e999")',
        'json.unmarshal("\\"\\\\ud800\\"")',
        'json.unmarshal("18446744073709551617")',
    ),
    "lower": (
        'lower("İ")',
        'lower("ΑΣ")',
    ),
    "net.cidr_contains": (
        'net.cidr_contains("::ffff:10.0.0.0/104","10.0.0.1")',
        'net.cidr_contains("10.0.0.0/8","::ffff:10.0.0.1")',
    ),
    "regex.find_all_string_submatch_n": (
        'regex.find_all_string_submatch_n("a(x*)b", "axxbab", input.odd[4])',
    ),
    "regex.find_n": ('regex.find_n("a.", "abacad", input.odd[4])',),
    "regex.is_valid": (
        'regex.is_valid("{")',
        "regex.is_valid([{1}, 0][input.zero])",
    ),
    "regex.replace": ('regex.replace("foo","(","x")',),
    "semver.compare": ('semver.compare("v1.2.3","1.2.3")',),
    "sprintf": (
        'sprintf("%d",["a"])',
        'sprintf("%s",[1])',
        'sprintf("%d",[1.5])',
        'sprintf("%d",[true])',
        'sprintf("%v",[set()])',
        'sprintf(input.odd[5], ["a",1,true])',
        'sprintf(input.odd[6], ["a",1,true])',
        'sprintf(input.odd[7], ["a",1,true])',
        'sprintf("%s %d %v", input.odd[8])',
        'sprintf("%s %d %v", input.odd[10])',
    ),
    "substring": (
        'substring("abc",1.5,1)',
        'substring("abcdef", input.odd[3], 2)',
        'substring("abcdef", input.odd[4], 2)',
        'substring("abcdef", 1, input.odd[3])',
        'substring("abcdef", 1, input.odd[4])',
    ),
    "sum": ("sum([0.1,0.2])",),
    "time.parse_rfc3339_ns": (
        'time.parse_rfc3339_ns("2020-02-29 12:00:00Z")',
        'time.parse_rfc3339_ns("2020-02-29t12:00:00z")',
        'time.parse_rfc3339_ns("2016-12-31T23:59:60Z")',
        'time.parse_rfc3339_ns("2020-02-29T12:00:00,5Z")',
    ),
    "to_number": (
        'to_number(" 3")',
        'to_number("18446744073709551617")',
        'to_number("3 ")',
    ),
    "upper": (
        'upper("ß")',
        'upper("ŉ")',
    ),
}
