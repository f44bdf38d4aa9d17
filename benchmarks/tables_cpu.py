"""Tables of what was measured on a CPU."""

from __future__ import annotations

from page_parts import load, ms, note, ratio, table, two

SMALL = ("lenet5", "resnet20_cifar")  # their images are not decoded


def against_torch(found: dict) -> str:
    """Step times of jaxcnn and PyTorch, in training and inference, by dtype."""
    torch = found["machine"]["torch"]
    parts = [
        "Time of a step of jaxcnn relative to the same step of PyTorch "
        f"{torch['versions']['torch']} ({torch['threads']} threads); below 1, jaxcnn is faster. "
        "*best* is PyTorch's fastest form in that row: eager, channels-last or compiled. Brackets "
        f"give the smallest and the largest ratio of a round. {_processes(found['rows'])} "
        "LeNet-5 and the CIFAR networks use 32 x 32 images."
    ]
    for mode, title in (("train", "Training step"), ("infer", "Inference")):
        for dtype in sorted({row["dtype"] for row in found["rows"]}):
            rows = [r for r in found["rows"] if (r["mode"], r["dtype"]) == (mode, dtype)]
            if rows:
                mean = found["summary"][f"{mode} {dtype}"]
                header = ["network", "batch", "jaxcnn ms", "PyTorch eager ms", "best ms", "best",
                          "ratio to eager", "", "ratio to best"]  # fmt: skip
                lines = [_torch_row(row) for row in rows]
                lines.append(["geometric mean", "", "", "", "", "", two(mean["ratio"]),
                              "", two(mean["ratio_to_best"])])  # fmt: skip
                parts += [f"{title}, {dtype}:", table(header, lines, left=(0, 5))]
    return "\n\n".join([*parts, *note(found)])


def _processes(rows: list[dict]) -> str:
    """How many processes a row comes from, and how they started: both affect a ratio."""
    counts = sorted({row["pairs"] for row in rows})
    pairs = " or ".join(map(str, counts)) + (" pair" if counts == [1] else " pairs")
    return (
        f"Each row comes from {pairs} of new processes; jaxcnn's processes read their compiled "
        "step from the cache."
    )


def _torch_row(row: dict) -> list[str]:
    forms = row["forms"]
    eager = forms.get("eager", forms[row["best"]])
    ends = f"[{two(eager['ratio_min'])}, {two(eager['ratio_max'])}]"
    times = [ms(forms["jaxcnn"]), ms(eager), ms(forms[row["best"]])]
    return [f"`{row['model']}`", str(row["batch"]), *times, row["best"],
            two(row["ratio"]), ends, two(row["ratio_to_best"])]  # fmt: skip


def training_cpu(found: dict) -> str:
    """What each optimization of a small network's step gains."""
    lines = []
    for name, row in found["rows"].items():
        base = row["all optimizations"]
        lines.append([f"`{name}`", "all optimizations", ms(base), "1", ""])
        lines += [["", form, ms(one), *ratio(one)] for form, one in row.items() if one != base]
    text = (
        "Steps with batch size 128 as in `train.py`, and with one optimization turned off. A ratio "
        "above 1 is the gain from that optimization."
    )
    return text + "\n\n" + table(["network", "variant", "ms", "ratio", ""], lines, 2)


def ops_steps(found: dict) -> str:
    """What each implementation of `jaxcnn.ops` gains in a whole training step."""
    lines = []
    for given, row in found["rows"].items():
        name, batch, size = given.split(",")
        base = row["all optimizations"]
        lines.append([f"`{name}`", batch, size, "all implementations", ms(base), "1", ""])
        lines += [
            ["", "", "", kind, ms(one), *ratio(one)] for kind, one in row.items() if one != base
        ]
    text = (
        "Training steps in float32, and with the plain operations in place of one kind of "
        "implementation. A ratio above 1 is what that kind gains. GoogLeNet comes from three "
        "rounds, the others from five. In ResNet-20, 16 to 16 channels were still folded."
    )
    header = ["network", "batch", "pixels", "variant", "ms", "ratio", ""]
    return text + "\n\n" + table(header, lines, (0, 3))


def grouped_conv(found: dict) -> str:
    """XLA's grouped convolution and the package's."""
    header = ["layer", "groups", "forward: XLA ms", "jaxcnn ms", "ratio",
              "gradients: XLA ms", "jaxcnn ms", "ratio"]  # fmt: skip
    lines = []
    for row in found["rows"]:
        line = [row["layer"], str(row["groups"])]
        for part in (row["forward"], row["gradients"]):
            line += [ms(part["native"]), ms(part["ours"]), f"{part['native']['ratio']:.1f}"]
        lines.append(line)
    batch = found["rows"][0]["batch"]
    text = f"Time of XLA's implementation relative to that of `jaxcnn.ops`, batch size {batch}."
    return text + "\n\n" + table(header, lines)


def forms(found: dict) -> str:
    """Single operations with the usual implementation and with the package's."""
    lines = [
        [row["operation"], ms(row["usual"]), ms(row["ours"]), *ratio(row["usual"])]
        for row in found["rows"]
    ]
    text = (
        "Forward and backward pass of a single operation; above 1, the package's implementation is "
        "faster."
    )
    return text + "\n\n" + table(["operation", "usual ms", "jaxcnn ms", "ratio", ""], lines)


def floors(found: dict) -> str:
    """XLA's own convolution kernels compared with a matrix product."""
    kinds = {"forward": "forward", "kernel": "gradient of the kernel", "images": "of the images"}
    lines = []
    for row in found["rows"]:
        batch, size, channels, features, kernel, stride = row["case"]
        shape = f"{batch}x{size}x{size}x{channels} to {features}, {kernel}x{kernel}/{stride}"
        shares = [f"{row[kind]['share']:.0%}" for kind in kinds]
        lines.append([row["convolution"], shape, f"{row['peak_gflops']:.0f}", *shares])
    text = (
        "The rate of each convolution on its own, with XLA's kernel, as a fraction of the rate of "
        "a matrix product on one core. No implementation built on that kernel can be faster."
    )
    header = ["convolution", "shape", "product GFLOP/s", *kinds.values()]
    return text + "\n\n" + table(header, lines, 2)


def startup(found: dict) -> str:
    """Import, initialization, compilation, and what the compilation cache saves."""
    rows = dict(found["rows"])
    took = rows.pop("import")
    text = (
        f"`import jaxcnn` takes {took['jaxcnn']:.2f} s and `import jax, flax.linen` "
        f"{took['jax, flax.linen']:.2f} s: JAX is imported when jaxcnn is first used."
    )
    if "jaxcnn.create_model" in took:
        text += (
            f" Importing it and creating a network takes {took['jaxcnn.create_model']:.2f} s, "
            f"{took['ratio']:.2f} times as long as importing JAX and Flax."
        )
    if whole := rows.pop("command", None):
        kinds = {"off": "without a cache", "cold": "with an empty one", "warm": "with a full one"}
        times = [f"{whole[f'first step, {k}']:.1f} s {how}" for k, how in kinds.items()]
        text += f" A short `jaxcnn train` makes its first step after {', '.join(times)}."
    header = ["network", "initialize: `jit` s", "jaxcnn s", "from the cache s",
              "compile the step s", "from the cache s"]  # fmt: skip
    keys = ("initialize, usual", "initialize, cold", "initialize, warm", "compile, cold",
            "compile, warm")  # fmt: skip
    lines = [[f"`{name}`", *(f"{row[key]:.2f}" for key in keys)] for name, row in rows.items()]
    return text + "\n\n" + table(header, lines)


def members(found: dict) -> str:
    """Several seeds in one program."""
    lines = []
    for name, row in found["rows"].items():
        for way, one in row.items():
            compiled = one.get("compile_seconds")
            seconds = f"{one['seconds']:.1f} s" if compiled is None else f"{ms(one)} ms"
            compiling = "" if compiled is None else f"{compiled:.1f}"
            lines.append([name, way, str(one.get("members", "")), seconds, *ratio(one), compiling])
    text = (
        "One training step of all members: one after another (*sequential*) or in one program "
        "(*vmap*)."
    )
    header = ["network", "variant", "members", "time", "ratio", "", "compile s"]
    return text + "\n\n" + table(header, lines, 2)


def small_sets(found: dict) -> str:
    """Time from the start of Python to the first step."""
    lines = [
        [f"`{row['source']}`", f"{row['examples']:,}", f"{row['first_step_seconds']:.1f}",
         f"{row['images_per_s']:,.0f}"]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["dataset", "images", "first step after s", "images/s"]
    text = (
        f"`{found['network']}`, batch size {found['batch']}; times are measured from the start of "
        "Python."
    )
    return text + "\n\n" + table(header, lines)


def input_pipeline(found: dict) -> str:
    """Decoding and cropping on one core."""
    lines = [
        [row["name"], f"{row['images_per_s']:,.0f}", two(row["speed"]),
         f"[{two(row['speed_min'])}, {two(row['speed_max'])}]"]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["pipeline", "images/s on one core", "speed relative to Pillow", ""]
    size = found["size"]
    text = f"{found['files']} photos, resized to {size} x {size} pixels, on one core."
    return "\n\n".join(part for part in (text, table(header, lines), limits(found)) if part)


def limits(pipeline: dict) -> str:
    """One sentence: whether decoding or the step limits a run on photos, for each network."""
    found = load("against_torch")
    if found is None:
        return ""
    decoded = next(r["images_per_s"] for r in pipeline["rows"] if r["name"] == "jaxcnn")
    rates = {
        row["model"]: row["batch"] / row["forms"]["jaxcnn"]["seconds"]
        for row in found["rows"]
        if row["mode"] == "train" and row["dtype"] == "float32" and row["model"] not in SMALL
    }
    if not rates:
        return ""
    cores = found["machine"]["torch"]["threads"]
    device = " ".join(found["machine"]["devices"]).replace("cpu", "a CPU")
    listed = ", ".join(
        f"`{name}` {rate:,.1f}" for name, rate in sorted(rates.items(), key=lambda r: -r[1])
    )
    by_input = [f"`{name}`" for name, rate in rates.items() if rate > decoded]
    verdict = (
        f"one core of decoding limits {', '.join(by_input)}, the step all others"
        if by_input
        else "the step limits all of them, and decoding takes at most "
        f"{max(rates.values()) / decoded:.0%} of a core"
    )
    return (
        f"One core decodes {decoded:,.0f} images/s. Training on {device} with {cores} threads "
        f"consumes, in images/s: {listed}. So {verdict}."
    )


def evaluation(found: dict) -> str:
    """Evaluations and predictions relative to the network alone."""
    text = (
        "Throughput of whole evaluations, in views per second, relative to running the network "
        "alone on batches in memory: 50,000 random images, and photos that threads read, decode "
        "and resize on the cores on which the network computes."
    )
    lines = [
        [f"`{row['model']}`", row["source"], row["protocol"], f"{row['alone']:,.1f}",
         f"{row['whole']:,.1f}", two(row["ratio"]),
         f"[{two(row['ratio_min'])}, {two(row['ratio_max'])}]"]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["network", "images", "protocol", "views/s alone", "views/s in all", "ratio", ""]
    return f"{text}\n\n{table(header, lines, left=(0, 1, 2))}"


def memory(found: dict) -> str:
    """Peak memory of training steps relative to PyTorch's, with and without rematerialization."""
    torch = found["machine"]["torch"]["versions"]["torch"]
    text = (
        "Peak memory of a training step in float32, by the allocators of XLA and of PyTorch "
        f"{torch} (in the layout that needs less). *cheap* is `remat=cheap`, which stores only "
        "BatchNorm's statistics and the outputs of most convolutions; its time is that of a step "
        "of 4 images relative to the step without it."
    )
    lines = []
    for row in found["rows"]:
        sizes = {form: one["bytes"] for form, one in row["forms"].items()}
        least = min(sizes["eager"], sizes["channels_last"])
        cheap = row["forms"]["cheap"]
        lines.append([
            f"`{row['model']}`", str(row["batch"]),
            *(f"{size / 2**20:,.0f}" for size in (least, sizes["jaxcnn"], sizes["cheap"])),
            two(sizes["jaxcnn"] / least), two(sizes["cheap"] / least), *ratio(cheap),
        ])  # fmt: skip
    header = ["network", "batch", "PyTorch MiB", "jaxcnn MiB", "cheap MiB", "ratio",
              "ratio of cheap", "time of cheap", ""]  # fmt: skip
    return f"{text}\n\n{table(header, lines)}"


def long_run(found: dict) -> str:
    """A long run that logs, evaluates and saves all the time."""
    often, rarely = (found["rows"][kind] for kind in ("often", "rarely"))
    text = (
        f"`{found['network']}`, {found['steps']:,} steps of {found['batch']} digits. *often* logs, "
        f"evaluates and saves a checkpoint every {found['every']} steps, *rarely* at the end only. "
        "Resident memory and open files of the process are medians of the second and of the last "
        "quarter of the run."
    )
    lines = [
        [kind, f"{row['steps_s']:.1f}", f"{1e3 * row['steps_s'] / found['steps']:.2f}",
         f"{row['evaluation_s']:.1f}", f"{row['checkpoints_s']:.1f}", f"{row['whole_s']:.1f}",
         f"{row['memory_mib'][0]:,.0f}, {row['memory_mib'][1]:,.0f}",
         f"{row['files'][0]:.0f}, {row['files'][1]:.0f}"]
        for kind, row in (("often", often), ("rarely", rarely))
    ]  # fmt: skip
    header = ["kind", "steps s", "ms a step", "evaluation s", "checkpoints s", "run s", "MiB",
              "open files"]  # fmt: skip
    return f"{text}\n\n{table(header, lines)}"
