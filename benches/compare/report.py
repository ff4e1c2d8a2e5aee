"""Makes the Markdown of results.json."""
from statistics import median

# What each ratio says, and whether more of it is better.
KINDS = {
    "faster": ("{:.2f}x faster", True),
    "longer": ("{:.2f}x as long", False),
    "memory": ("{:.2f}x the memory", False),
    "gigabytes": ("{:.1f} GB", False),
    "whole": ("{:.2f}x per multiply-add", False),
    "product": ("{:.2f}x per multiply-add of the product alone", False),
}
UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}


def number(text: str) -> float | None:
    """Of a metric such as 4.56 B or 117.56ms."""
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzµABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(digits):].strip()
    return float(digits) * UNITS[unit] if unit in UNITS else None


def verdict(goal: dict) -> str:
    value, must, aim = goal["value"], goal["must"], goal["aim"]
    meets = lambda bound: value >= bound if KINDS[goal["kind"]][1] else value <= bound
    if must is None:
        return ""
    return "aim" if aim is not None and meets(aim) else "must" if meets(must) else "**missed**"


def bound(goal: dict, name: str) -> str:
    return "" if goal[name] is None else f"{goal[name]:g}"


def seconds(side: dict | None) -> str:
    if side is None:
        return ""
    wall, digits = side["wall"], 2 if median(side["wall"]) < 20 else 1
    span = f" ({min(wall):.{digits}f}-{max(wall):.{digits}f})" if len(wall) > 1 else ""
    return f"{median(wall):.{digits}f} s{span}"


def memory(side: dict | None) -> str:
    return "" if side is None else f"{median(side['peak']) / 1000:.2f} GB"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def again(row: dict) -> str:
    return f"`--only {row['name']}`"


def result_lines(row: dict) -> list[str]:
    if "failed" in row:
        return [line(row["what"], row["rival"], "**failed**", *[""] * 7, again(row))]
    ours, theirs = row["ours"], row.get("theirs")
    return [
        line(row["what"], row["rival"], KINDS[goal["kind"]][0].format(goal["value"]), bound(goal, "must"),
             bound(goal, "aim"), verdict(goal), seconds(ours), seconds(theirs), memory(ours), memory(theirs),
             again(row))
        for goal in row["goals"]
    ]


def cost_lines(rows: list[dict]) -> list[str]:
    """A line for each data set whose multiply-adds were counted, from the row where it is ours, else theirs."""
    lines = {}
    for side, at in (("ours", 0), ("theirs", 1)):
        for row in rows:
            if not row.get("work") or row["work"][at]["data"] in lines:
                continue
            work, wall = row["work"][at], median(row[side]["wall"])
            count, product = work["multiply_adds"], work["product"]
            lines[work["data"]] = line(
                work["data"], f"{work['entries'] / 1e6:.2f} M", f"{count / 1e9:.3f} G", f"{wall:.2f} s",
                f"{wall / count * 1e9:.2f} ns", f"{product:.2f} s", f"{count / product / 1e6:,.0f} M")
    order = ["d1m", "d20m", "d200m"]
    place = lambda name: (order.index(name) if name in order else len(order), name)
    return [lines[name] for name in sorted(lines, key=place)]


def notes(rows: list[dict]) -> list[str]:
    text = []
    for row in rows:
        text += [f"**{row['name']}**, {row['date']}, lakeside {row['lakeside']}."
                 + (f" Others used {row['busy']:.0%} of the machine." if row["busy"] > 0.1 else "")
                 + (f" Failed: {row['failed']}" if "failed" in row else "")
                 + (f" {row['check'][0].upper()}{row['check'][1:]}." if row.get("check") else "")]
        if row.get("commands"):
            text += ["```sh", *row["commands"], "```"]
        text += [""]
    return text


def section(machine: str, rows: list[dict]) -> list[str]:
    states = sorted({f"lakeside {row['lakeside']}, {row['with']}" for row in rows})
    dates = sorted({row["date"] for row in rows})
    text = [f"## {machine}", "", f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {'; '.join(states)}.", ""]
    text += [line("what", "against", "ratio", "must", "aim", "met", "ours, wall", "theirs, wall", "our memory",
                  "their memory", "again"), line(*["---"] * 11)]
    text += [cells for row in rows for cells in result_lines(row)]
    costs = cost_lines(rows)
    if costs:
        text += ["", "### What a multiply-add costs", "",
                 "Whole process by the wall clock; the product alone in seconds of cores (`product_time` times threads).",
                 "Each pair of entities is summed once: half as many multiply-adds as in the full product.", "",
                 line("data", "pairs of user and item", "multiply-adds", "whole", "per multiply-add", "product",
                      "multiply-adds per second and core"), line(*["---"] * 7), *costs]
    return text + ["", "### What was run", "", *notes(rows)]


def markdown(results: dict) -> str:
    rows = [results["rows"][name] for name in results["order"] if name in results["rows"]]
    text = ["# Results", "",
            "Made by `benches/compare/compare.py`; do not edit. Whole processes, Parquet to Parquet, ours and theirs",
            "in turn, medians (and least to most) of the counted runs; ratios are medians of the ratios of pairs. The",
            "last column repeats a row: `python benches/compare/compare.py DATA --lakeside BINARY --only NAME`.", ""]
    for machine in dict.fromkeys(row["machine"].split(";")[0] for row in rows):
        here = [row for row in rows if row["machine"].split(";")[0] == machine]
        text += section(here[-1]["machine"], here)
    return "\n".join(text).rstrip() + "\n"


def brief(row: dict) -> str:
    """A line for whoever waits."""
    if "failed" in row:
        return f"{row['name']}: failed: {row['failed']}"
    goals = ((KINDS[goal["kind"]][0].format(goal["value"]), verdict(goal)) for goal in row["goals"])
    ratios = ", ".join(" ".join(filter(None, words)) for words in goals)
    times = " against ".join(filter(None, (seconds(row["ours"]), seconds(row.get("theirs")))))
    return "; ".join(filter(None, (f"{row['name']}: {ratios}", times, row["check"])))
