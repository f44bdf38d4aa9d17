"""Tables of what was measured on a GPU."""

from __future__ import annotations

import statistics

from page_parts import compiled, ms, note, rate, ratio, table, two


def gpu(found: dict) -> str:
    """Small networks, large ones in bfloat16, and seeds under vmap."""
    lines = []
    for row in found["rows"]:
        remark = ""
        if "minutes" in row:
            remark = f"{row['minutes']:.2f} min for {row['steps']:,} steps"
        elif row["subject"] == "run":
            first, error = row["first_step_seconds"], 100 * row["test_error"]
            remark = (
                f"{row['steps']:,} steps in {row['seconds']:.0f} s, the first after {first:.0f} s: "
            )
            remark += f"test error {error:.2f} %"
        elif row["subject"] == "seeds":
            remark = f"{row['members']} seeds at {two(row['ratio'])} of as many runs"
            remark += f" ({row['form']})" if "form" in row else ""
        lines.append([
            row["subject"], f"`{row['model']}`", str(row["batch"]), row["dtype"],
            f"{row['steps_per_s']:,.1f}" if "steps_per_s" in row else "",
            f"{row['images_per_s']:,.0f}" if "images_per_s" in row else "", remark,
        ])  # fmt: skip
    header = ["subject", "network", "batch", "type", "steps/s", "images/s", ""]
    return "\n\n".join([table(header, lines, 2), *note(found)])


def gpu_against_torch(found: dict) -> str:
    """Step times of jaxcnn and PyTorch on a GPU, and throughput relative to ResNet-50."""
    torch = found["machine"]["torch"]["versions"]["torch"]
    parts = []
    for mode, name in (("train", "training"), ("infer", "inference")):
        if rows := [row for row in found["rows"] if row["mode"] == mode]:
            parts.append(_gpu_steps(rows, name, torch))
    return "\n\n".join([*parts, *note(found)])


def _gpu_steps(rows: list[dict], name: str, torch: str) -> str:
    """Step times of one mode."""
    text = (
        f"Time of a step of jaxcnn in {name} relative to the same step of PyTorch {torch}; below "
        "1, jaxcnn is faster. The reference is the faster of eager channels-last and "
        "`torch.compile` "
        "of the network (default mode, without CUDA graphs). Where no compiled time is given, it "
        "was not measured and the ratio is to eager. Medians of "
        f"{rows[0]['rounds']} alternating rounds. *relative to ResNet-50*: images/s divided by "
        "those of ResNet-50, for jaxcnn, PyTorch eager "
        "and PyTorch compiled."
    )
    base = next((row for row in rows if row["model"] == "resnet50"), None)
    forms = ("jaxcnn", "channels_last", "compile")
    lines = []
    for row in rows:
        relative = [
            two(rate(row, form) / rate(base, form))
            for form in forms
            if base and form in row["forms"] and form in base["forms"]
        ]
        times = [ms(row["forms"][form]) if form in row["forms"] else "" for form in forms]
        lines.append([
            f"`{row['model']}`", str(row["batch"]), row["dtype"], *times,
            f"{rate(row, 'jaxcnn'):,.0f}", *ratio(row), ", ".join(relative),
        ])  # fmt: skip
    header = ["network", "batch", "type", "jaxcnn ms", "eager ms", "compile ms",
              "images/s", "ratio", "", "relative to ResNet-50"]  # fmt: skip
    if ratios := compiled(rows):
        mean = two(statistics.geometric_mean(ratios))
        lines.append(["geometric mean where both", *[""] * 6, mean, "", ""])
    return f"{text}\n\n{table(header, lines, left=(0, 2))}"


def gpu_first_forms(found: dict) -> str:
    """Steps before there were GPU implementations, and with some that were tried."""
    header = ["network and variant", "batch", "type", "jaxcnn ms", "eager ms", "compile ms"]
    lines = []
    for row in found["rows"]:
        times = row["milliseconds"]
        shown = [f"{times[form]:,.1f}" if form in times else ""
                 for form in ("jaxcnn", "channels_last", "compile")]  # fmt: skip
        lines.append([row["form"], str(row["batch"]), row["dtype"], *shown])
    text = (
        "Times before there were GPU implementations (except of max pooling), and with single "
        "candidates. NOTES.md describes the outcome."
    )
    return "\n\n".join([text, table(header, lines, left=(0, 2)), *note(found)])
