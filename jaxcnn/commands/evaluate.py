"""`jaxcnn evaluate`: errors of runs and weights on a test set, alone and together."""

from __future__ import annotations

import argparse
import functools


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="test runs and weights by a paper's protocol, alone and as an ensemble",
        description="Prints the errors of each network on a test set, every example counted once. "
        "Of several, --ensemble adds the mean of their probabilities and of their logits; with "
        "--fit 0.5 also sums whose weights are learnt on that share of the examples, and all "
        "errors are those of the rest.",
        epilog="example: jaxcnn evaluate runs/a runs/b vgg16.safetensors --data folder:photos "
        "--protocol 10crop --ensemble",
    )
    parser.add_argument(
        "what", metavar="WHAT", nargs="+", help="a run's directory, a file, or published weights"
    )
    parser.add_argument("--data", metavar="SOURCE", help="default: the first run's own test set")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lie")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument(
        "--protocol",
        default="center",
        metavar="NAME",
        help="center, flip, 10crop, 144crop, 150crop, dense, dense3, dense5 (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, help="of the input (default: the weights' own)")
    parser.add_argument("--crop", type=float, help="share of the shorter side that is shown")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--checkpoint", choices=("best", "newest"), default="best")
    parser.add_argument("--ensemble", action="store_true", help="the networks together, too")
    parser.add_argument("--fit", type=float, default=0.0, metavar="SHARE", help="see above")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="95 %% intervals")
    parser.add_argument("--classes", action="store_true", help="errors by class")
    parser.add_argument("--confusion", metavar="PNG", help="draw who is taken for whom")
    parser.add_argument("--json", metavar="FILE", help="write everything")


def run(args: argparse.Namespace) -> None:
    import dataclasses
    import json
    from pathlib import Path

    import numpy as np
    from absl import logging
    from rich.console import Console
    from rich.progress import Progress

    from jaxcnn.evaluation import evaluate, protocols, tables

    logging.set_verbosity(logging.FATAL)  # Orbax's; what matters is raised and shown
    protocol = protocols.find(args.protocol)
    if not 0 <= args.fit < 1 or args.batch_size < 1 or args.bootstrap < 0:
        raise ValueError("--fit must be in [0, 1), --batch-size 1 or more, --bootstrap 0 or more")
    entries = [evaluate.open_entry(what, args.checkpoint) for what in args.what]
    own = next((entry.data for entry in entries if entry.data), None)
    if args.data:
        own = args.data, args.data_dir, args.split
    elif own is None:
        raise ValueError("say on what to test: --data SOURCE, such as --data folder:photos")
    source, folder, split = own
    test_set = evaluate.open_test_set(source, split, args.data_dir or folder)
    for entry in entries:
        if entry.classes != test_set.num_classes:
            raise ValueError(
                f"{entry.name} knows {entry.classes} classes, {source} has {test_set.num_classes}"
            )
    console = Console(stderr=True)
    answers, labels = [], np.zeros(0, np.int32)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        for entry in entries:
            size, crop = args.size or entry.how.size, args.crop or entry.how.crop
            options = {"dense": True} if protocol.dense and hasattr(entry.make(), "dense") else {}
            task = bar.add_task(entry.name, total=len(test_set))
            found, labels = evaluate.probabilities(
                entry.make(**options),
                entry.variables,
                test_set,
                dataclasses.replace(entry.how, size=size, crop=crop),
                protocol,
                batch_size=args.batch_size,
                progress=functools.partial(_show, bar, task),
            )
            answers.append(found)
    kept = np.arange(len(labels))
    rows = list(zip(args.what, answers))
    if args.ensemble or args.fit:
        together, kept = tables.combinations(np.stack(answers), labels, args.fit)
        rows += together
    table = [
        tables.row(name, found[kept], labels[kept], bootstrap=args.bootstrap)
        for name, found in rows
    ]
    best = min(row["top1_error"] for row in table[: len(entries)])
    print(f"{source} ({split}), {args.protocol}, {len(kept):,} examples\n")
    print(tables.text(table, best if len(rows) > len(entries) else None))
    last = rows[-1][1][kept]
    if args.classes:
        print(f"\n{rows[-1][0]}\n\n" + tables.class_text(last, labels[kept], test_set.class_names))
    if args.confusion:
        tables.draw_confusion(last, labels[kept], test_set.class_names, args.confusion)
        print(f"\n{args.confusion}: {rows[-1][0]}")
    if args.json:
        about = {"data": source, "split": split, "protocol": args.protocol, "examples": len(kept)}
        Path(args.json).write_text(json.dumps({**about, "rows": table}, indent=1) + "\n", "utf-8")


def _show(bar, task, done: int) -> None:
    bar.update(task, completed=done)
