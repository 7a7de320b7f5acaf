#!/usr/bin/env python3
"""The dashboards in Grafana's form, from what is written below: `monitoring/dashboards.py` writes monitoring/dashboards/*.json,
`--check` only says whether they are what it would write.

A panel is made for a question that an operator asks; its description says what the figure means and what to do about it.
`{}` in an expression stands for the chosen jobs and instances. Counters of several instances are added up; gauges that each
instance reads from the same database (devices, purge) are not: of those, the largest counts.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
SELECTOR = 'job=~"$job", instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
HEIGHT = 8

GREEN, ORANGE, RED = "green", "orange", "red"


def chosen(expression):
    """Puts the selector of the dashboard into each pair of braces that begins with nothing or with other matchers."""
    return re.sub(r"\{(?=[^}]*\})", lambda _: "{" + SELECTOR + ", ", expression).replace(", }", "}")


def quantile(q, metric, by=""):
    """A quantile of a histogram, over the instances."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{}}[$__rate_interval])))"


def quantiles(metric, *qs):
    """Several quantiles, as lines of one panel."""
    return [(f"p{round(q * 100)}", quantile(q, metric)) for q in qs]


def rate(metric, by="", matchers=""):
    """What happens a second, over the instances."""
    over = f" by ({by})" if by else ""
    return f"sum{over} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def targets(lines):
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "expr": chosen(expression),
            "legendFormat": legend,
            "editorMode": "code",
            "range": True,
        }
        for place, (legend, expression) in enumerate(lines)
    ]


def steps(*limits):
    """Colours from limits: `steps((5, ORANGE), (10, RED))` is green below 5."""
    first = {"color": GREEN, "value": None}
    return {"mode": "absolute", "steps": [first] + [{"color": colour, "value": value} for value, colour in limits]}


def stat(title, description, expression, unit="short", limits=(), words=None, legend="", width=4, decimals=None):
    """One figure, coloured by what it means. `words` gives values names: `{0: ("down", RED)}`."""
    mappings = []
    if words:
        options = {str(value): {"text": text, "color": colour, "index": place}
                   for place, (value, (text, colour)) in enumerate(words.items())}
        mappings = [{"type": "value", "options": options}]
    defaults = {"unit": unit, "thresholds": steps(*limits), "mappings": mappings}
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": "stat",
        "title": title,
        "description": description,
        "width": width,
        "height": 4,
        "targets": targets([(legend, expression)]),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": "name" if legend else "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def lines(title, description, series, unit="short", width=8, stacked=False, least=None):
    """Figures over time: pairs of a legend and an expression."""
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if stacked else 8, "showPoints": "never",
              "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
    defaults = {"unit": unit, "min": 0, "custom": custom}
    if least is not None:
        defaults["custom"]["axisSoftMax"] = least
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "width": width,
        "height": HEIGHT,
        "targets": targets(series),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def heatmap(title, description, metric, unit, width=8, snapshot=False):
    """How a histogram is distributed over time. A snapshot counts what is now, and each instance the same."""
    expression = f"sum by (le) (increase({metric}_bucket{{}}[$__rate_interval]))"
    if snapshot:
        expression = f"max by (le) ({metric}_bucket{{}})"
    [target] = targets([("{{le}}", expression)])
    return {
        "type": "heatmap",
        "title": title,
        "description": description,
        "width": width,
        "height": HEIGHT,
        "targets": [target | {"format": "heatmap"}],
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
            "yAxis": {"unit": unit},
            "tooltip": {"mode": "single", "yHistogram": True},
            "legend": {"show": True},
        },
    }


def row(title, *panels):
    return {"title": title, "panels": panels}


def variable(name, label, query):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def dashboard(name, title, description, *rows):
    """A whole dashboard: rows from top to bottom, the panels of a row from left to right, as many as fit."""
    panels, y = [], 0
    for part in rows:
        panels.append({"type": "row", "title": part["title"], "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        y += 1
        x = height = 0
        for panel in part["panels"]:
            panel = dict(panel)
            w, h = panel.pop("width"), panel.pop("height")
            if x + w > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(panel | {"datasource": DATASOURCE, "gridPos": {"x": x, "y": y, "w": w, "h": h}})
            x, height = x + w, max(height, h)
        y += height
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": f"multiend-{name}",
        "title": title,
        "description": description,
        "tags": ["multiend", "xmpp"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "multiend", "tags": ["multiend"], "asDropdown": False,
                   "includeVars": True, "keepTime": True}],
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1},
            variable("job", "Job", "label_values(multiend_build_info, job)"),
            variable("instance", "Instance", 'label_values(multiend_build_info{job=~"$job"}, instance)'),
        ]},
        "panels": panels,
    }


def overview():
    return dashboard(
        "overview", "multiend: overview",
        "Is multiend well, and what is it doing? Details are in the dashboards of the directory and of the archive.",
        row(
            "Is it well?",
            stat("Connection", "Whether every instance is connected to its XMPP server. If not, /readyz says why.",
                 "min(multiend_link_up{})", words={0: ("down", RED), 1: ("up", GREEN)}, width=3),
            stat("Prekeys", "Held back: the database is older than it was, and nobody has said yet whether it was restored "
                 "from a backup. Run `multiend admin restore-epoch`.",
                 "max(multiend_directory_unconfirmed{})", words={0: ("handed out", GREEN), 1: ("HELD BACK", RED)},
                 width=3),
            stat("Database", "Whether the database answered when it was last asked.", "min(multiend_store_up{})",
                 words={0: ("down", RED), 1: ("up", GREEN)}, width=3),
            stat("Fullest queue", "Stanzas, requests, claims or messages that wait, of what their queue takes. A full one "
                 "makes who fills it wait, back to the server's socket.",
                 "max(multiend_queue_length{} / multiend_queue_limit{})", unit="percentunit",
                 limits=((0.3, ORANGE), (0.8, RED)), width=3),
            stat("Dead letters", "Messages that could not be stored for their own sake, set aside for you: `multiend admin "
                 "dead-letters list`.", 'max(multiend_store_waiting{what="dead-letters"})', limits=((1, RED),), width=3),
            stat("Oldest expired message", "How long expired messages wait to be removed. Nobody can read them, but they "
                 "are still on the disk.", "max(multiend_archive_purge_lag_seconds{})", unit="s",
                 limits=((900, ORANGE), (3600, RED)), width=3),
            stat("Messages lost, 24 h", "Could neither be stored nor be set aside; they were not acknowledged.",
                 'sum(increase(multiend_archive_dead_letters_total{result="lost"}[24h]))', limits=((1, RED),), width=3,
                 decimals=0),
            stat("Versions", "The versions that run. Two for longer than an upgrade takes are a mistake.",
                 "count by (version) (multiend_build_info{})", legend="{{version}}", width=3),
        ),
        row(
            "What users get",
            lines("Prekeys asked for", "Claims a second, by result. Fresh and repeat are health; last resort means that a "
                  "device has run out of prekeys; refused, that somebody asks for too much.",
                  [("{{result}}", rate("multiend_directory_claims_total", "result"))], unit="cps"),
            lines("Messages stored", "Copies that came into archives a second, by class. A message between two local users "
                  "is two copies.", [("{{class}}", rate("multiend_archive_copies_total", "class", 'result="stored"'))],
                  unit="cps", stacked=True),
            lines("Archive queries", "Queries a second, by how they ended. Unavailable and failed are the database's doing.",
                  [("{{outcome}}", rate("multiend_archive_queries_total", "outcome"))], unit="cps"),
            lines("Time to answer", "From a request read to its answer handed to the link: what clients feel.",
                  quantiles("multiend_door_request_seconds", 0.5, 0.95, 0.99), unit="s"),
            lines("Time until stored", "From a message accepted to a message durable. Until then it is not passed on.",
                  quantiles("multiend_archive_ingest_lag_seconds", 0.5, 0.95, 0.99), unit="s"),
            lines("Errors that clients see", "Stanzas answered with an error, a second, by condition. item-not-found and "
                  "forbidden are daily life, internal-server-error never is; resource-constraint means limits, full queues, "
                  "or a database that is away.",
                  [("{{condition}}", rate("multiend_door_refused_total", "condition"))], unit="cps"),
            lines("Queues", "What waits, by queue: before the database (archive, claims) or before the server (outbound).",
                  [("{{queue}}", "sum by (queue) (multiend_queue_length{})")], width=12, least=10),
            lines("Waits longest", "Messages that are being stored; notices to devices (while the link is down they wait).",
                  [("messages", "max(multiend_archive_oldest_waiting_seconds{})"),
                   ("notices", 'max(multiend_store_oldest_waiting_seconds{what="notices"})')], unit="s", width=12),
        ),
        row(
            "Link to the XMPP server",
            lines("Stanzas in", "Received and handed on, a second, by kind.",
                  [("{{kind}}", rate("multiend_link_stanzas_in_total", "kind"))], unit="cps", width=6),
            lines("Stanzas out", "Written to the server, a second, by kind.",
                  [("{{kind}}", rate("multiend_link_stanzas_out_total", "kind"))], unit="cps", width=6),
            lines("Bytes", "Read from and written to the server, a second.",
                  [("in", rate("multiend_link_bytes_in_total")), ("out", rate("multiend_link_bytes_out_total"))],
                  unit="Bps", width=6),
            lines("Trouble", "Connections made again, and stanzas refused unread because they are beyond [limits], an hour.",
                  [("connections made again", "sum(increase(multiend_link_reconnects_total{}[1h]))"),
                   ("refused: {{reason}}", "sum by (reason) (increase(multiend_link_refused_total{}[1h]))")], width=6),
        ),
        row(
            "Database",
            lines("Slowest operations", "The five operations with the highest p95, waits for a connection and repetitions "
                  "included.", [("{{operation}}", "topk(5, " + quantile(0.95, "multiend_store_operation_seconds",
                                                                     "operation") + ")")], unit="s"),
            lines("Wait for a connection", "Time until the pool has a free connection. Rises with too few connections "
                  "(database_pool) or with slow transactions.", quantiles("multiend_store_pool_wait_seconds", 0.5, 0.95, 0.99),
                  unit="s"),
            lines("Errors and repetitions", "Operations that failed (the log says why), and transactions run again since they "
                  "lost against another, which is harmless in small numbers; a second.",
                  [("failed: {{operation}}", "topk(5, " + rate("multiend_store_errors_total", "operation") + ")"),
                   ("again: {{operation}}", "topk(5, " + rate("multiend_store_retries_total", "operation") + ")")],
                  unit="cps"),
            lines("Connections", "Of the pool: busy and idle, and how many there may be.",
                  [("{{state}}", "sum by (state) (multiend_store_pool_connections{})"),
                   ("waiting for one", "sum(multiend_store_pool_waiting{})")], width=12),
            lines("Size", "Of the database on the disk, indexes included.", [("database", "max(multiend_store_database_bytes{})")],
                  unit="bytes", width=12),
        ),
        row(
            "Process",
            lines("CPU", "Processor seconds a second; 1 is one core.",
                  [("{{instance}}", "rate(process_cpu_seconds_total{}[$__rate_interval])")], unit="short"),
            lines("Memory", "Resident memory. Every queue and cache is bounded: steady growth is a fault.",
                  [("{{instance}}", "process_resident_memory_bytes{}")], unit="bytes"),
            lines("Open files", "Share of the open files that the process may have.",
                  [("{{instance}}", "process_open_fds{} / process_max_fds{}")], unit="percentunit", least=0.2),
        ),
    )


def directory():
    handed = 'result=~"fresh|repeat|last-resort"'
    return dashboard(
        "directory", "multiend: directory",
        "Device lists, bundles and prekeys: is every prekey handed out once, do devices keep up their stock, which are dead?",
        row(
            "Claims",
            stat("Empty answers although in stock", "A fault of multiend if it is not 0: please report it.",
                 "sum(multiend_directory_empty_while_stocked_total{})", limits=((1, RED),), width=6),
            stat("Last resorts, 24 h", "Share of the prekeys handed out that had been handed out before, because a device had "
                 "no other left.",
                 'sum(increase(multiend_directory_claims_total{result="last-resort"}[24h])) / '
                 f"(sum(increase(multiend_directory_claims_total{{{handed}}}[24h])) > 0) or vector(0)",
                 unit="percentunit", limits=((0.05, ORANGE), (0.2, RED)), width=6),
            stat("Refused, 24 h", "Claims beyond a limit. One client that goes astray, or somebody who tries to empty stocks.",
                 'sum(increase(multiend_directory_claims_total{result=~"refused-.*"}[24h]))',
                 limits=((100, ORANGE), (10000, RED)), width=6, decimals=0),
            stat("New identity keys, 24 h", "Devices that came back with another identity key: reinstalled, or not what they "
                 "seem.", "sum(increase(multiend_directory_identity_changes_total{}[24h]))", limits=((50, ORANGE),), width=6,
                 decimals=0),
            lines("Claims by result", "Fresh: never issued before. Repeat: the same requester asked again and got the same.",
                  [("{{result}}", rate("multiend_directory_claims_total", "result", handed))], unit="cps", stacked=True),
            lines("Claims that got nothing", "No bundle: the device has none. No prekey: strict claims, or an empty stock. "
                  "Refused: by the limit of a device, requester or domain, or by the reserve.",
                  [("{{result}}", rate("multiend_directory_claims_total", "result", 'result!~"fresh|repeat|last-resort"'))],
                  unit="cps"),
            lines("Claims by protocol", "Which OMEMO your users speak.",
                  [("{{protocol}}", rate("multiend_directory_claims_total", "protocol"))], unit="cps", stacked=True),
        ),
        row(
            "Stock",
            stat("Devices without prekeys", "Devices with a bundle whose prekeys are all issued. Who asks gets the last resort.",
                 'max by (protocol) (multiend_directory_stock_prekeys_bucket{le="0"})', unit="short", width=6,
                 limits=((1, ORANGE),)),
            stat("Age of these figures", "Since the last walk over all devices.",
                 "time() - max(multiend_census_walked_timestamp_seconds{} > 0)", unit="s", width=6),
            stat("Time of a walk", "Over all devices. It never takes more than a fifth of one connection.",
                 "max(multiend_census_walk_seconds{})", unit="s", width=6),
            stat("Prekeys of a device (median)", "Unissued, over all devices with a bundle.",
                 "histogram_quantile(0.5, max by (le) (multiend_directory_stock_prekeys_bucket{}))", width=6, decimals=0),
            heatmap("Prekeys of devices", "How the stock is distributed: devices by their unissued prekeys.",
                    "multiend_directory_stock_prekeys", "short", width=12, snapshot=True),
            lines("Prekeys in and out", "New prekeys that devices published, and those given away as fresh; an hour. Over a day "
                  "they are about the same.",
                  [("published", "sum(increase(multiend_directory_prekeys_added_total{}[1h]))"),
                   ("given away", 'sum(increase(multiend_directory_claims_total{result="fresh"}[1h]))')], width=12),
        ),
        row(
            "Lists and bundles",
            lines("Bundles", "Published bundles, by protocol and result.",
                  [("{{protocol}}, {{result}}", rate("multiend_directory_bundles_total", "protocol, result"))], unit="cps"),
            lines("Bundles refused", "An hour, by what is wrong with them. Mostly one reason: one client does it wrong. "
                  "signature: also somebody who forges.",
                  [("{{protocol}}, {{reason}}",
                    "sum by (protocol, reason) (increase(multiend_directory_bundles_refused_total{}[1h]))")]),
            lines("Device lists", "Published lists. Merged: the list left out a device that its sender had never seen, which "
                  "would have been lost without multiend.",
                  [("{{protocol}}, {{result}}", rate("multiend_directory_lists_total", "protocol, result"))], unit="cps"),
        ),
        row(
            "Devices and their lives",
            lines("Devices", "Devices in lists, and in quarantine, as of the last look (directory.lifecycle.interval).",
                  [("{{protocol}}, {{state}}", "max by (protocol, state) (multiend_directory_devices{})")], stacked=True),
            lines("What a dry run would do", "With directory.lifecycle.mode = \"dry-run\": devices that are due. Look here "
                  "before you set it \"on\".",
                  [("quarantine: {{cause}}", "max by (cause) (multiend_directory_would_quarantine_devices{})"),
                   ("remove", "max(multiend_directory_would_remove_devices{})")]),
            lines("Quarantined, removed, revived", "An hour. A jump in quarantined: many fell silent at once; did a client or "
                  "the server stop working? Many revived: directory.lifecycle.unseen_limit is too short.",
                  [("quarantined: {{cause}}", "sum by (cause) (increase(multiend_directory_quarantined_total{}[1h]))"),
                   ("removed", "sum(increase(multiend_directory_removed_total{}[1h]))"),
                   ("revived", "sum(increase(multiend_directory_revived_total{}[1h]))"),
                   ("signs of life lost", "sum(increase(multiend_directory_signs_lost_total{}[1h]))")]),
        ),
        row(
            "Notices and histories",
            lines("Notices", "Sent to devices and subscribers, or moot since there was nobody or nothing to tell; an hour.",
                  [("{{kind}}, {{result}}", "sum by (kind, result) (increase(multiend_directory_notices_total{}[1h]))")],
                  width=12),
            lines("Histories read", "By clients that check them. Not on chain: a client knew another history than ours, as "
                  "after a restore from a backup.",
                  [("{{result}}", "sum by (result) (increase(multiend_directory_histories_total{}[1h]))")], width=12),
        ),
    )


def archive():
    return dashboard(
        "archive", "multiend: archive",
        "Messages in, messages read, messages forgotten: does the archive keep up?",
        row(
            "Storing",
            lines("Copies stored", "A second, by class: content is encrypted, key-transport repairs sessions, signal is "
                  "receipts and the like.",
                  [("{{class}}", rate("multiend_archive_copies_total", "class", 'result="stored"'))], unit="cps", stacked=True),
            lines("Copies not stored", "Duplicates are retries and harmless. Unwanted: by preferences or retention. Rejected: "
                  "see dead letters.",
                  [("{{result}}", rate("multiend_archive_copies_total", "result", 'result!="stored"'))], unit="cps"),
            lines("Never meant for an archive", "Messages that no archive keeps, a second, by reason.",
                  [("{{reason}}", rate("multiend_archive_skipped_total", "reason"))], unit="cps"),
            lines("Messages waiting", "Accepted and not yet stored. At archive.ingest_queue, reading from the server stops.",
                  [("{{instance}}", "multiend_archive_queue_messages{}")], least=10),
            lines("Time until stored", "From a message accepted to a message durable.",
                  quantiles("multiend_archive_ingest_lag_seconds", 0.5, 0.95, 0.99), unit="s"),
            lines("Batch", "Messages stored in one transaction. Always at archive.batch_max: the database is the bottleneck.",
                  quantiles("multiend_archive_batch_messages", 0.5, 0.95)),
            heatmap("Time to store a batch", "How long storing transactions take.", "multiend_archive_append_seconds", "s"),
            lines("Put off", "Times that storing was put off since the database was away, an hour. Nothing is lost by it.",
                  [("{{instance}}", "increase(multiend_archive_append_retries_total{}[1h])")]),
            lines("Dead letters", "Messages that cannot be stored for their own sake, an hour. Set aside: `multiend admin "
                  "dead-letters list`.",
                  [("{{result}}", "sum by (result) (increase(multiend_archive_dead_letters_total{}[1h]))"),
                   ("wait for you", 'max(multiend_store_waiting{what="dead-letters"})')]),
        ),
        row(
            "Reading",
            lines("Queries", "A second, by how they ended.",
                  [("{{outcome}}", rate("multiend_archive_queries_total", "outcome"))], unit="cps"),
            lines("Time to answer (p95)", "By kind of query.",
                  [("{{kind}}", quantile(0.95, "multiend_archive_query_seconds", "kind"))], unit="s"),
            lines("Messages in a page", "Small pages and many queries: a client pages needlessly finely.",
                  quantiles("multiend_archive_page_copies", 0.5, 0.95)),
            lines("Bytes in a page", "After trimming.", quantiles("multiend_archive_page_bytes", 0.5, 0.95), unit="bytes"),
            lines("Bytes spared", "Left out of answers, a second: headers for other devices, and messages omitted.",
                  [("trimmed", rate("multiend_archive_trimmed_bytes_total"))], unit="Bps"),
            lines("Not readable for who asked", "Encrypted messages without a header for the asking device, an hour, what it has "
                  "sent itself among them: given all the same, or omitted (archive.unreadable). Many more than it sends: "
                  "senders do not know the device; is its list right?",
                  [("given", "sum(increase(multiend_archive_not_for_viewer_total{}[1h]))"),
                   ("omitted", "sum(increase(multiend_archive_omitted_total{}[1h]))")]),
            heatmap("How far devices were behind", "Messages that a device had not read when it said how far it has.",
                    "multiend_archive_cursor_lag_messages", "short", width=12),
            heatmap("How far devices are behind", "Now, of the devices that say how far they have read. What is unread when it "
                    "expires, that device never gets.", "multiend_archive_unread_copies", "short", width=12, snapshot=True),
        ),
        row(
            "Forgetting",
            lines("Purged", "An hour. Expired: copies; bodies: bytes that no copy needs any more; trimmed: placeholders that "
                  "were no longer needed.",
                  [("{{what}}", "sum by (what) (increase(multiend_archive_purged_total{}[1h]))")]),
            lines("Still to be purged", "Expired copies on the disk, which nobody can read any more.",
                  [("copies", "max(multiend_archive_purge_backlog{})")]),
            lines("Oldest of them", "Should stay around archive.purge_interval.",
                  [("waits", "max(multiend_archive_purge_lag_seconds{})"),
                   ("runs that failed, 1 h", "sum(increase(multiend_archive_purge_failures_total{}[1h]))")], unit="s"),
        ),
    )


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit("usage: monitoring/dashboards.py [--check]")
    stale = []
    for name, content in [("overview", overview()), ("directory", directory()), ("archive", archive())]:
        path = HERE / "dashboards" / f"{name}.json"
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not what monitoring/dashboards.py writes; run it: {', '.join(stale)}")


if __name__ == "__main__":
    main()
