"""The threats of docs/threat-model.md, each with the sentence that its tests would refute.

`@pytest.mark.threat("T-07")` ties a test to a threat. tests/house/test_threats.py fails when a
threat has no test, a mark names no threat, or the document and this list differ.
"""

from __future__ import annotations

THREATS: dict[str, str] = {
    "T-01": "A caller's OS user that can read the gateway's keys or ledger goes unnoticed.",
    "T-02": "A forged, expired, revoked or unknown key is taken for a caller or an operator.",
    "T-03": "A caller learns that a tool exists which policy does not let it see.",
    "T-04": "A web page reaches the gateway through DNS rebinding, a foreign Origin or Host.",
    "T-05": "A flood or an oversize request takes the gateway from the others.",
    "T-06": "Two parsers read one request differently.",
    "T-07": "What runs after an approval is not what was approved.",
    "T-08": "One approval lets two runs go.",
    "T-09": "Whoever asked, or on whose behalf it was asked, approves.",
    "T-10": "A run starts on a decision that policy, tool, key or freeze has since overtaken.",
    "T-11": "An argument's value becomes an option, a second argument, a shell word or a path.",
    "T-12": "A policy engine that gives no usable answer lets a call through.",
    "T-13": "A policy's constraint gives a call more than the catalog or the caller asked for.",
    "T-14": "An effect happens of which no durable intent tells.",
    "T-15": "One grant, or one call that must run once, runs twice.",
    "T-16": "A command reaches the host's files, processes or privileged kernel surface.",
    "T-17": "A command takes the machine's memory, processes, disk, CPU or time from the others.",
    "T-18": "Something of a run outlives it: a process, a mount, a control group, a directory.",
    "T-19": "A command reaches a network.",
    "T-20": "A command reads the gateway's environment, arguments or open files.",
    "T-21": "An entry of the log is edited, deleted or moved and the log still verifies.",
    "T-22": "A log is truncated or forked and a held receipt or checkpoint does not show it.",
    "T-23": "A tool's output reaches the caller oversize, malformed or with what it must not hold.",
    "T-24": "A caller's words are shown to an approver, or taken by policy, as fact.",
    "T-25": "The target changes between preview and run, and the run goes on.",
    "T-26": "A secret or a caller's value stands in a log line, an error or a span.",
    "T-27": "A policy that crashes, hangs or devours memory takes the gateway with it.",
    "T-28": "A bundle that was changed, or signed by another, comes into force as policy.",
    "T-29": "Something else than the configured OPA server is believed when it answers.",
    "T-30": "A caller carries what it read in one system into another, unseen by policy.",
    "T-31": "Whoever asks what is allowed learns what is hidden, or makes something happen.",
    "T-32": "A run reaches a destination, or does there what, its plan does not name.",
    "T-33": "A run, its output or a log gets a secret that is injected for it or outlives it.",
    "T-34": "What a run was lent outlives it.",
    "T-35": "The egress proxy or the keeper serves a run whose fence has passed.",
    "T-36": "Something of one run reaches another through a slot made ahead of need.",
    "T-37": "A base, a mount or a link leads the making of a sandbox astray.",
    "T-38": "Whoever has taken over the gateway makes the keeper lend or sign what the ledger does not "
    "have.",
    "T-39": "A call of one caller, or of one kind, meets the process or the data of another in a "
    "session.",
    "T-40": "An MCP server that fails, floods, lies or is silent costs more than its own call, or its "
    "call is recorded as what it was not.",
    "T-43": "A server changes what a tool says it is after it was accepted, and the tool goes on being "
    "offered or called.",
    "T-44": "A server's tool takes the name, or the place, of another's.",
    "T-41": "An operator's url, a name in it, or a word of a server leads the gateway to an address "
    "that it must not reach.",
    "T-42": "A caller's token or headers, or another call's token, reach an MCP server.",
    "T-45": "Shadow mode is taken for enforcement, or lets go what it was not switched on for.",
    "T-46": "A result carries to the caller what policy's rule about results would not have let by.",
    "T-47": "A request state that this gateway never gave is taken for one of a server's questions.",
    "T-48": "A request state is used twice, too late, by another caller, or for another call.",
    "T-49": "A server's question passes for Remit's, asks for what the caller never declared, or leads "
    "its client astray.",
    "T-50": "A caller reads, or a model is given, what a server has beside its tools and nobody listed, "
    "accepted or let it see.",
    "T-51": "A code, a state or a consent of one person is used by another, or for another.",
    "T-52": "An authorization server, or a resource, passes for another one.",
    "T-53": "A page, a link or a question leads a person to give a consent that another gets the use of, "
    "or to a place that Remit did not mean.",
    "T-54": "A caller is told that something changed which it may not read, or is told on after it no "
    "longer may.",
    "T-57": "A publisher's `server.json`, or whoever changes it, decides what a gateway starts, "
    "shows or reaches.",
}
