"""`jaxcnn evaluate`: errors of runs and weights on a test set, alone and together."""

from __future__ import annotations

import argparse

EXPLANATION = """\
Prints the errors of each network on a test set, every example counted once.

WHAT is a run's directory, the directory of an ensemble (all of its members), a file of weights or
published weights. Append @VIEW to choose the protocol, in place of --protocol and --size:
  RUN@10crop            a protocol (below)
  RUN@10crop:256        and the size of the network's input
  RUN@dense:224:256,384 and the shorter sides that images are resized to, in place of the protocol's
The same network may be given several times, tested in several ways.

protocols, at shorter sides that are in proportion for other sizes than 224:
  center, flip     the central crop; and its mirror image
  10crop           corners and center, mirrored (Krizhevsky 2012, He 2015)
  144crop          256, 288, 320, 352; three squares; six crops, mirrored (Szegedy 2014)
  150crop          256, 384, 512; a grid of 25, mirrored (Simonyan 2014)
  dense, dense3    the whole image at 256; at 256, 384, 512, mirrored (Simonyan 2014)
  dense5           the whole image at 224, 256, 384, 480, 640, mirrored (He 2015)

Of networks with a box head, on data with boxes, the localization error is printed too (class right
and intersection over union at least 0.5), always by the central crop.

Of several networks, --ensemble adds the mean of their probabilities, the mean of their logits and
the mean normalized by image. --fit 0.5 also adds weighted sums, with weights learned on that
fraction of the examples: weighted by class, by accuracy, by convex optimization, and greedy
selection. All errors are then computed on the remaining examples."""


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="test runs and weights by a paper's protocol, alone and as an ensemble",
        description=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: jaxcnn evaluate runs/a runs/b@144crop vgg16.safetensors@dense3 "
        "--data folder:photos --ensemble",
    )
    parser.add_argument("what", metavar="WHAT", nargs="+", help="WHAT or WHAT@VIEW, see above")
    parser.add_argument("--data", metavar="SOURCE", help="default: the first run's own test set")
    parser.add_argument("--data-dir", metavar="DIR", help="directory of the data")
    parser.add_argument("--split", help="(default: the run's own test split, or test)")
    parser.add_argument(
        "--protocol", default="center", metavar="VIEW", help="see above (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, help="of the input (default: the weights' own)")
    parser.add_argument("--crop", type=float, help="share of the shorter side that is shown")
    parser.add_argument(
        "--batch-size", type=int, default=64, help="views at once (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "newest"), default="best", help="of runs (default: best)"
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="average the networks' predictions, too"
    )
    parser.add_argument(
        "--as",
        dest="like",
        metavar="FILE",
        help="the networks together, each tested as a file of configs/ensembles says",
    )
    parser.add_argument(
        "--fit", type=float, default=0.0, metavar="SHARE", help="of examples to learn weights on"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=0, metavar="N", help="95 %% intervals of N samples"
    )
    parser.add_argument("--classes", action="store_true", help="errors by class, of the last row")
    parser.add_argument(
        "--confusion", metavar="PNG", help="save a confusion matrix of the last row"
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")


def run(args: argparse.Namespace) -> None:
    import json

    import numpy as np

    from jaxcnn._files import any_path
    from jaxcnn.cli import common
    from jaxcnn.evaluation import request, tables
    from jaxcnn.reporting import figures

    common.quiet()
    if not 0 <= args.fit < 1:
        raise ValueError(f"--fit is {args.fit:g}; it must be at least 0 and below 1")
    for option, least in (("batch_size", 1), ("bootstrap", 0)):
        if (value := getattr(args, option)) < least:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is {value}; it must be {least} or more")
    if args.confusion:
        figures.picture_path(args.confusion)
    if args.json:
        figures.table_path(args.json)
    if args.crop is not None and not 0 < args.crop <= 1:
        raise ValueError(f"--crop is {args.crop:g}; it must be above 0 and at most 1")
    networks, ensemble = request.read(args.what, args.like, args.protocol, args.size)
    if ensemble and ensemble.combination in tables.LEARNED and not args.fit:
        raise ValueError(
            f"{args.like} uses the combination {ensemble.combination!r}; give the fraction of the "
            "examples to fit it on, such as --fit 0.2"
        )
    entries = request.open_all(networks, args.checkpoint)
    given = (args.data, args.data_dir, "test") if args.data else None
    source, folder, split = request.test_data(entries, given)
    split = args.split or split
    test_set = request.open_requested(entries, source, args.data_dir or folder, split)
    answers, labels = request.predict_all(networks, entries, test_set, args.crop, args.batch_size)
    kept, rows = np.arange(len(labels)), list(zip([n.label for n in networks], answers))
    if args.ensemble or args.fit or ensemble:
        together, kept = tables.combinations(np.stack(answers), labels, args.fit)
        if ensemble:  # its own last, which is the one that is looked at more closely
            together.sort(key=lambda row: row[0] == ensemble.combination)
        rows += together
    table = [
        tables.row(name, found[kept], labels[kept], bootstrap=args.bootstrap)
        for name, found in rows
    ]
    for row, network in zip(table, networks):
        row |= {"what": network.what, "protocol": str(network.view)}
    for row, entry in zip(table, entries):
        row |= {"checkpoint": entry.checkpoint, "step": entry.step}
    best = min(row["top1_error"] for row in table[: len(entries)])
    views = {str(network.view) for network in networks}
    shown = views.pop() if len(views) == 1 else "several protocols"
    print(f"{source} ({split}), {shown}, {len(kept):,} examples")
    for text in dict.fromkeys(request.notes(networks, entries, (source, folder, split))):
        print(text)
    print()
    print(tables.text(table, best if len(rows) > len(entries) else None))
    for label, errors in request.localization_errors(
        networks, entries, test_set, args.crop, args.batch_size
    ).items():
        top1, top5 = (100 * error for error in errors.values())
        print(f"\nlocalization error of {label}: top-1 {top1:.2f} %, top-5 {top5:.2f} % (center)")
        next(row for row in table if row["name"] == label).update(errors)
    about = {"data": source, "split": split, "protocol": shown, "examples": len(kept)}
    if ensemble:
        print(f"\nthe entry's own: {ensemble.combination}; published: {ensemble.published}")
        if ensemble.unverified:
            print(f"unverified: {ensemble.unverified}")
        about |= {
            "combination": ensemble.combination,
            "published": ensemble.published,
            "unverified": ensemble.unverified,
        }
    last = rows[-1][1][kept]
    if args.classes:
        print(f"\n{rows[-1][0]}\n\n" + tables.class_text(last, labels[kept], test_set.class_names))
    if args.confusion:
        tables.draw_confusion(last, labels[kept], test_set.class_names, args.confusion)
        print(f"\n{args.confusion}: {rows[-1][0]}")
    if args.json:
        any_path(args.json).write_text(
            json.dumps({**about, "rows": table}, indent=1) + "\n", "utf-8"
        )
