"""Tables of studies on CIFAR-10."""

from __future__ import annotations

import statistics

from page_parts import machine, table, two


def cifar_studies(found: dict) -> str:
    """The number of runs and the hours of each study; the errors are in docs/studies.md."""
    lines = [
        [f"`{name}`", str(sum(row["seeds"] for row in study["rows"])),
         f"{study['minutes'] / 60:.1f}", study["machine"]["date"]]
        for name, study in found["rows"].items()
    ]  # fmt: skip
    text = "Errors and figures are in [docs/studies.md](../docs/studies.md)."
    return f"{text}\n\n{table(['study', 'runs', 'hours', 'date'], lines)}"


def small_photos(found: dict) -> str:
    """The last errors of each network and start, by commit."""
    lines = []
    for row in found["rows"]:
        last = [errors[-1] for errors in row["errors"]]
        each = ", ".join(two(error) for error in last)
        lines.append([row["recipe"], row["commit"], two(statistics.fmean(last)), each])
    text = (
        "Test errors in percent after the last epoch. `vgg_a_bn` and `resnet18`, which are narrow, "
        "train for 10 epochs on ten classes of Tiny ImageNet (5,000 photos, resized from 64 to 96 "
        "and 80 pixels), `pretrain`, a ResNet-18, for 20 epochs on the same photos of 64 pixels, "
        "and `scratch` and `finetuned` for 12 epochs on cats and dogs (560 photos)."
    )
    return f"{text}\n\n{table(['recipe', 'commit', 'mean', 'seeds'], lines, (0, 1, 3))}"


def sections(found: dict | None) -> str:
    """Table and figure of each study, for docs/studies.md."""
    if found is None:
        return "Not measured yet."
    parts = []
    for name, study in found["rows"].items():
        header = ["", "test error, %", "training error, %"]
        lines = [
            [row["run"], f"{row['test_error']:.2f} ± {row['test_error_std']:.2f}",
             f"{row['train_error']:.2f}"]
            for row in study["rows"]
        ]  # fmt: skip
        one = study["rows"][0]
        text = (
            f"`{study['command']}`: {one['steps']:,} steps, {one['seeds']} seeds (± is their "
            f"standard deviation), {study['minutes']:.0f} minutes on {machine(study['machine'])} "
            f"After {study['source']}."
        )
        figure = f"![Error curves](_static/studies/{name}.png)"
        parts += [f"### {study['title']}", text, table(header, lines), figure]
    return "\n\n".join(parts)
