"""`jaxcnn evaluate`: tests runs and weights, alone and as an ensemble."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from jaxcnn.evaluation.request import Network
    from jaxcnn.training.ensemble.described import Ensemble

_MOST = 1_000_000  # views per batch, samples
_FEWEST = 100  # samples
EXPLANATION = """\
Prints the errors of each network on a test set. Every example is counted exactly once.

WHAT is a run's directory, the directory of an ensemble (all of its members), a file of weights or
published weights. Append @VIEW to choose the protocol, in place of --protocol and --image-size:
  RUN@10crop            a protocol (below)
  RUN@10crop:256        a protocol and the input size of the network
  RUN@dense:224:256,384 a protocol, a size, and the shorter sides that images are resized to
The same network may be given several times with different protocols.

protocols, with the shorter sides for an input of 224 pixels, which scale with the input size:
  center, flip     the central crop; and its mirror image
  10crop           corners and center, mirrored (Krizhevsky 2012, He 2015)
  144crop          256, 288, 320, 352; three squares; six crops, mirrored (Szegedy 2014)
  150crop          256, 384, 512; a grid of 25, mirrored (Simonyan 2014)
  dense, dense3    the whole image at 256; at 256, 384, 512, mirrored (Simonyan 2014)
  dense5           the whole image at 224, 256, 384, 480, 640, mirrored (He 2015)

For networks with a box head, on data with boxes, the localization error of the central crop is
printed as well: a prediction is right if its class is, and its box has an intersection over union
of at least 0.5.

--ensemble adds the mean of the networks' probabilities, the mean of their logits and the mean
normalized by image. --fit 0.5 also adds weighted sums, with weights learned on that fraction of the
examples: weighted by class, by accuracy, by convex optimization, and greedy selection. All errors
in the table are then computed on the remaining examples."""


def register(subparsers) -> None:
    """Adds `jaxcnn evaluate` to the commands."""
    parser = subparsers.add_parser(
        "evaluate",
        help="test runs and weights with a paper's protocol, alone and as an ensemble",
        description=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: jaxcnn evaluate runs/a runs/b@144crop vgg16.safetensors@dense3 "
        "--data folder:photos --ensemble",
    )
    parser.add_argument("what", metavar="WHAT", nargs="+", help="WHAT or WHAT@VIEW, see above")
    parser.add_argument(
        "--data", metavar="SOURCE", help="test data (default: those of the first run)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="directory of the data")
    parser.add_argument(
        "--split", help="split of the data (default: the run's test split, or test)"
    )
    parser.add_argument(
        "--protocol", metavar="VIEW", help="see above (default: center; with --as, the paper's)"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="S",
        help="height and width of views (default: that of the weights)",
    )
    parser.add_argument("--crop", type=float, help="fraction of the shorter side that is visible")
    parser.add_argument(
        "--batch-size", type=int, default=64, help="views per batch (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "newest"),
        default="best",
        help="checkpoint of runs (default: best)",
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="average the networks' predictions, too"
    )
    parser.add_argument(
        "--as",
        dest="like",
        metavar="FILE",
        help="combine the networks as a file of configs/ensembles describes",
    )
    parser.add_argument(
        "--fit",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="fraction of the examples to fit the ensemble's weights on",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=0,
        metavar="N",
        help="95 %% confidence intervals from N samples",
    )
    parser.add_argument(
        "--classes", action="store_true", help="print errors by class for the last row"
    )
    parser.add_argument(
        "--confusion", metavar="PNG", help="save a confusion matrix of the last row"
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")


def run(args: argparse.Namespace) -> None:
    """Tests the networks and prints a table of errors."""
    from jaxcnn.cli import common
    from jaxcnn.evaluation import request, tables

    common.quiet()
    _check_options(args)
    networks, ensemble = request.read(
        args.what, args.like, args.protocol or "center", args.image_size
    )
    _check_fit(args, ensemble)
    entries = request.open_all(networks, args.checkpoint)
    given = (args.data, args.data_dir, "test") if args.data else None
    source, folder, split = request.test_data(entries, given)
    folder, split = args.data_dir or folder, args.split or split
    test_set = request.open_requested(entries, source, folder, split)
    answers, labels = request.predict_all(networks, entries, test_set, args.crop, args.batch_size)
    rows, labels = _with_combinations(args, networks, answers, labels, ensemble)
    table = [tables.row(name, found, labels, bootstrap=args.bootstrap) for name, found in rows]
    for row, network, entry in zip(table, networks, entries):
        row |= {"what": network.what, "protocol": str(network.view)}
        row |= {"checkpoint": entry.checkpoint, "step": entry.step}
    views = {str(network.view) for network in networks}
    shown = views.pop() if len(views) == 1 else "several protocols"
    print(f"{source} ({split}), {shown}, {len(labels):,} examples")
    remarks = request.notes(networks, entries, (source, folder, split), test_set)
    for text in dict.fromkeys(remarks):
        print(text)
    best = min(row["top1_error"] for row in table[: len(entries)])
    print("\n" + tables.text(table, best if len(rows) > len(entries) else None))
    errors_of = request.localization_errors(networks, entries, test_set, args.crop, args.batch_size)
    for label, errors in errors_of.items():
        top1, top5 = (100 * error for error in errors.values())
        print(
            f"\nlocalization error of {label}: top-1 {top1:.2f} %, top-5 {top5:.2f} % (center, "
            f"{len(test_set):,} examples)"
        )
        if len(labels) == len(test_set):
            next(row for row in table if row["name"] == label).update(errors)
    about = {"data": source, "split": split, "protocol": shown, "examples": len(labels)}
    if ensemble:
        about |= _print_ensemble(ensemble)
    _show_classes(args, *rows[-1], labels, test_set.class_names)
    if args.json:
        _write_json(args.json, {**about, "rows": table})


def _check_options(args: argparse.Namespace) -> None:
    """Raises ValueError if an option is out of range or a file cannot be written."""
    from jaxcnn._files import check_distinct, output_path
    from jaxcnn.reporting import figures

    if args.like and args.protocol:
        raise ValueError(
            f"--protocol is {args.protocol}, but with --as the file names the protocol of each "
            "network; append @VIEW to a network to replace it"
        )
    if not 0 <= args.fit < 1:
        raise ValueError(f"--fit is {args.fit:g}; it must be at least 0 and below 1")
    for option, least in (("batch_size", 1), ("bootstrap", 0)):
        if not least <= (value := getattr(args, option)) <= _MOST:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is {value}; it must be {least} to {_MOST:,}")
    if 0 < args.bootstrap < _FEWEST:
        raise ValueError(f"--bootstrap is {args.bootstrap}; it must be 0, or at least {_FEWEST}")
    if args.confusion:
        figures.picture_path(args.confusion)
    if args.json:
        output_path(args.json)
    check_distinct(args.confusion, args.json)
    if args.crop is not None and not 0.01 <= args.crop <= 1:
        raise ValueError(f"--crop is {args.crop:g}; it must be 0.01 to 1")


def _check_fit(args: argparse.Namespace, ensemble: Ensemble | None) -> None:
    """Raises ValueError if an ensemble's weights must be fitted and no examples are set aside."""
    from jaxcnn.evaluation import tables

    if ensemble and ensemble.combination in tables.LEARNED and not args.fit:
        raise ValueError(
            f"{args.like} uses the combination {ensemble.combination!r}; give the fraction of the "
            "examples to fit it on, such as --fit 0.2"
        )


def _with_combinations(
    args: argparse.Namespace,
    networks: Sequence[Network],
    answers: Sequence[np.ndarray],
    labels: np.ndarray,
    ensemble: Ensemble | None,
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """Adds the requested combinations to the networks' probabilities f32[N,K].

    Returns:
      (name, probabilities) of each row, and the labels i32[N]; without the examples that the
      combinations were fitted on.
    """
    import numpy as np

    from jaxcnn.evaluation import tables

    rows = [(network.label, answer) for network, answer in zip(networks, answers)]
    if not (args.ensemble or args.fit or ensemble):
        return rows, labels
    combined, kept = tables.combinations(np.stack(answers), labels, args.fit)
    if ensemble:  # its combination last: --classes and --confusion show the last row
        combined.sort(key=lambda row: row[0] == ensemble.combination)
    return [(name, answer[kept]) for name, answer in (*rows, *combined)], labels[kept]


def _print_ensemble(ensemble: Ensemble) -> dict[str, Any]:
    """Prints how a published ensemble was combined, and its published error; returns both."""
    print(f"\ncombined as published: {ensemble.combination}; published: {ensemble.published}")
    if ensemble.unverified:
        print(f"unverified: {ensemble.unverified}")
    return {name: getattr(ensemble, name) for name in ("combination", "published", "unverified")}


def _show_classes(
    args: argparse.Namespace,
    name: str,
    answer: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Prints the errors by class and draws the confusion matrix of a row, if requested."""
    from jaxcnn.evaluation import tables

    if args.classes:
        print(f"\n{name}\n\n" + tables.class_text(answer, labels, class_names))
    if args.confusion:
        tables.draw_confusion(answer, labels, class_names, args.confusion)
        print(f"\n{args.confusion}: {name}")


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    import json

    from jaxcnn._files import write_output

    write_output(path, json.dumps(content, indent=1) + "\n")
