"""Drawings: the graph against the layer table, folding, towers, heads, and text without overlap."""

import functools
import itertools
import xml.dom.minidom

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.analysis.drawing import LEVELS, draw
from jaxcnn.analysis.field_pictures import draw_kernels, draw_receptive_fields
from jaxcnn.analysis.graph import read_graph
from jaxcnn.analysis.graph_edits import (
    attach,
    block_graph,
    blocks,
    fold,
    groups,
    layers_only,
    main_path_first,
    split_towers,
)
from jaxcnn.analysis.trace import trace
from jaxcnn.cli import main
from jaxcnn.reporting.graph_layout import Box, Frame, place

# One of each kind; all are drawn by the slow test.
SOME = ("lenet5_1998", "alexnet", "resnet20_cifar")


@functools.cache
def graph_of(name, **options):
    return read_graph(trace(name, None, options, endpoints=True))


def kinds(graph, *wanted):
    return sum(node.kind in wanted for node in graph.nodes.values())


# --- the graph ------------------------------------------------------------------------------------


def squeezed(shape):
    return tuple(n for n in shape if n > 1)


def check_layers(name):
    """Convolutions and dense layers of the graph are those of the layer table, and no others."""
    graph = graph_of(name)
    heads = {key for key, node in graph.nodes.items() if node.path[:1] and "head" in node.path[0]}
    found = [
        (node.shape, node.channels)
        for key, node in graph.nodes.items()
        if node.kind in ("conv", "dense") and key not in heads
    ]
    rows = [r for r in jaxcnn.summarize(name).rows if r.kind.startswith(("conv", "dense"))]
    assert [squeezed(shape) for shape, _ in found] == [squeezed(row.shape) for row in rows]
    assert all(channels == shape[-1] for shape, channels in found)


@pytest.mark.parametrize("name", SOME)
def test_layers_are_those_of_the_table(name):
    check_layers(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", jaxcnn.list_models())
def test_layers_of_all_networks(name):
    check_layers(name)


@pytest.mark.slow
def test_branches_and_sums():
    graph = graph_of("resnet50")
    sums = [node for node in graph.nodes.values() if node.kind == "add"]
    assert len(sums) == 3 + 4 + 6 + 3 and all(len(node.inputs) == 2 for node in sums)
    assert kinds(graph, "norm") == 53 and kinds(graph, "act") == 49
    assert kinds(graph_of("plain34"), "add") == 0
    modules = [n for n in graph_of("googlenet").nodes.values() if n.kind == "concat"]
    assert [len(node.inputs) for node in modules] == [4] * 9
    gates = [n for n in graph_of("se_resnet50").nodes.values() if n.kind == "multiply"]
    assert len(gates) == 16
    scaled = [n for n in graph_of("inception_resnet_v2").nodes.values() if n.kind == "scale"]
    assert len(scaled) in (39, 40)  # the factor of the last block is 1


def test_preactivation_comes_before_the_convolution():
    graph = graph_of("resnet50_v2")
    for node in graph.nodes.values():
        if node.path[-1:] == ("conv2",):
            before = graph.nodes[node.inputs[0]]
            assert (before.kind, graph.nodes[before.inputs[0]].kind) == ("act", "norm")


def test_heads_are_no_ancestors_of_the_logits():
    graph = graph_of("googlenet")
    assert sorted(graph.heads) == ["aux1", "aux2"]
    assert graph.nodes[graph.output].path == ("fc",)
    assert graph_of("googlenet", aux_heads=False).heads == {}


class Odd(nn.Module):
    """What networks of one's own may do: swish, GroupNorm, zeros for channels, a long shortcut."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        first = nn.Conv(4, (3, 3), name="first")(x)
        y = nn.GroupNorm(2, name="norm")(first)
        y = y * nn.sigmoid(y)
        y = nn.Conv(4, (3, 3), name="second")(y)
        y = jnp.concatenate([y, jnp.zeros_like(y)], -1)
        y = nn.silu(nn.Conv(4, (1, 1), name="third")(y)) + first
        return nn.Dense(self.num_classes, name="fc")(y.mean((1, 2)))


def test_graph_of_ones_own():
    graph = read_graph(trace(Odd(), (8, 8, 3), endpoints=True))
    labels = [node.label for node in graph.nodes.values()]
    assert labels == [
        *("image", "3×3 conv", "norm", "sigmoid", "3×3 conv", "zero channels", "1×1 conv", "silu"),
        *("+", "global average pool", "dense"),
    ]


# --- edits ----------------------------------------------------------------------------------------


def test_folding_keeps_the_number_of_layers():
    graph = layers_only(graph_of("resnet50"))
    folded, counts = fold(graph)
    found = groups(folded, counts)
    assert [g.count for g in found] == [1, 2, 1, 3, 1, 5, 1, 2]
    assert found[1].name == "stage1_block2…3"
    convs = sum(g.count * sum(folded.nodes[key].kind == "conv" for key in g.keys) for g in found)
    assert convs + 1 == kinds(graph, "conv") == 53
    assert folded.nodes[folded.output] == graph.nodes[graph.output]


def test_blocks_of_other_sizes_are_not_folded():
    """VGG-19's last two blocks have the same layers, on feature maps of 28x28 and 14x14."""
    folded, counts = fold(layers_only(graph_of("vgg19")))
    assert counts == {} and kinds(folded, "conv") == 16


@pytest.mark.slow
def test_dual_paths_are_folded_though_the_dense_path_grows():
    folded, counts = fold(layers_only(graph_of("dpn92")))
    assert [g.count for g in groups(folded, counts)] == [1, 2, 1, 3, 1, 19, 1, 2]


def test_towers():
    graph = split_towers(layers_only(graph_of("alexnet")))
    convs = [node for node in graph.nodes.values() if node.kind == "conv"]
    assert [node.channels for node in convs] == [48, 48, 128, 128, 192, 192, 192, 192, 128, 128]
    assert [len(node.inputs) for node in convs] == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1]
    plain = layers_only(graph_of("alexnet_owt"))
    assert split_towers(plain) is plain


def test_normalizations_are_attached_but_for_preactivation():
    def parts(name):
        graph = graph_of(name)
        keys = dict(blocks(graph))["stage1_block2",]
        block, strips = attach(main_path_first(block_graph(graph, keys)))
        return [
            " ".join(n.label for n in (node, *strips.get(key, ())))
            for key, node in block.nodes.items()
        ]

    norm = "batch norm"
    assert parts("resnet18") == [
        "input", f"3×3 conv {norm} relu", f"3×3 conv {norm}", "+", "relu"
    ]  # fmt: skip
    assert parts("resnet18_v2") == [
        "input", f"{norm} relu", "3×3 conv", f"{norm} relu", "3×3 conv", "+"
    ]  # fmt: skip


# --- layout ---------------------------------------------------------------------------------------


def test_a_chain_is_a_column_and_a_shortcut_a_line_at_its_right():
    boxes = {key: Box(1, 0.2) for key in range(4)}
    placed = place(boxes, [(0, 1), (1, 2), (2, 3), (0, 3)], [3])
    assert len({round(box.x, 6) for box in placed.boxes.values()}) == 1
    ys = [box.y for box in placed.boxes.values()]
    assert ys == sorted(ys) and len(placed.curves) == 3
    [line] = placed.lines
    assert max(x for x, _ in line) > boxes[1].right and line[-1] == (boxes[3].right, boxes[3].y)


def test_branches_do_not_overlap_and_columns_are_broken_between_groups():
    pytest.importorskip("grandalf")
    boxes, edges = {0: Box(1, 0.2)}, []
    frames = []
    for block in range(6):  # two branches, and an edge that passes a row
        a, b, c, d = (4 * block + i for i in (1, 2, 3, 4))
        boxes |= {key: Box(1, 0.2) for key in (a, b, c, d)}
        edges += [(a - 1, a), (a, b), (a - 1, c), (b, d), (c, d), (a, d)]
        frames.append(Frame((a, b, c, d), 0.5))
    placed = place(boxes, edges, [24], frames=frames, max_height=4)
    for one, other in itertools.combinations(placed.boxes.values(), 2):
        assert (
            one.right <= other.left
            or other.right <= one.left
            or (one.bottom <= other.top or other.bottom <= one.top)
        )
    assert len({round(frame.left, 3) for frame in placed.frames.values()}) > 1
    assert placed.extent[:2] == pytest.approx((0, 0), abs=1e-9)


def test_the_line_to_the_next_column_passes_below_a_head():
    """As below the first auxiliary head of GoogLeNet."""
    boxes = {key: Box(1, 0.2) for key in range(12)}
    edges = [*itertools.pairwise(range(6)), (1, 6), *itertools.pairwise(range(6, 12))]
    placed = place(boxes, edges, [5], heads=[11], max_height=1.2)
    [link] = placed.links
    head = [placed.boxes[key] for key in range(6, 12)]
    assert min(y for _, y in link) < head[-1].bottom < max(y for _, y in link)
    for (x0, y0), (x1, y1) in itertools.pairwise(link):
        left, right, top, bottom = *sorted((x0, x1)), *sorted((y0, y1))
        for box in head:
            assert right < box.left or box.right < left or bottom < box.top or box.bottom < top


# --- pictures -------------------------------------------------------------------------------------


def check_text(figure):
    """No text overlaps another, or leaves its box or the figure."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    [axes] = figure.axes
    texts = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
    texts = [(text, box) for text, box in texts if text]
    edge = figure.bbox
    for text, box in texts:
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1, text
        assert edge.y0 <= box.y0 and box.y1 <= edge.y1, text
    texts.sort(key=lambda item: item[1].x0)
    for i, (text, box) in enumerate(texts):
        for other, beside in itertools.islice(texts, i + 1, None):
            if beside.x0 >= box.x1:
                break
            high = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            wide = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            assert min(high, wide) < 1.5, (text, other)  # the boxes include room for accents
    for patch in axes.patches:
        if type(patch).__name__ == "FancyBboxPatch" and patch.get_zorder() == 3:
            rim = patch.get_window_extent(renderer)
            for text, box in texts:
                inside = rim.contains(*np.mean(box.get_points(), 0))
                assert not inside or (rim.x0 < box.x0 and box.x1 < rim.x1), text


def check_drawing(name, level):
    try:
        drawing = draw(name, level=level)
    except ValueError as error:
        assert level == "block" and "no block" in str(error) and "res" not in name
    else:
        check_text(drawing.figure)
        assert drawing.figure.get_size_inches()[0] <= 14


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SOME)
def test_text_does_not_overlap(name, level):
    pytest.importorskip("grandalf")
    check_drawing(name, level)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", jaxcnn.list_models())
def test_text_of_all_networks_does_not_overlap(name, level):
    check_drawing(name, level)


def test_side_by_side_and_unfolded():
    drawing = draw("plain34", "resnet34", "vgg19", unfold=True)
    check_text(drawing.figure)
    svg = drawing._repr_svg_()
    xml.dom.minidom.parseString(svg)
    assert svg == drawing.to_svg()  # the same every time
    assert drawing.title == "plain34, resnet34, vgg_e"


OWN = """
import flax.linen as nn

class Net(nn.Module):
    num_classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.relu(nn.Conv(8, (3, 3), (2, 2))(x))
        y = y + nn.Conv(8, (3, 3))(y)
        return nn.Dense(self.num_classes)(y.mean((1, 2)))
"""


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(OWN)
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        assert main(["draw", "nets.py:Net", "--image-size", "16", "--out", f"x{suffix}"]) == 0
        assert (tmp_path / f"x{suffix}").read_bytes().startswith(start)
    assert main(["draw", "lenet5", "--level", "stage", "--out", "x.html"]) == 0
    page = (tmp_path / "x.html").read_text()
    assert (
        page.startswith("<!doctype html>") and page.count("<svg") == 1 and "http-equiv" not in page
    )
    assert main(["summary", "lenet5", "--plot", "costs.png"]) == 0
    assert (tmp_path / "costs.png").read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out.splitlines()[-1] == "costs.png"


@pytest.mark.parametrize(
    "argv, word",
    [
        (["resnex50"], "resnet50"),
        (["lenet5", "--out", "x.gif"], ".html"),
        (["lenet5", "--out", "nowhere/x.svg"], "nowhere"),
        (["lenet5", "--level", "block"], "no block"),
        (["lenet5", "--block", "conv1"], "'block'"),
        (["resnet20_cifar", "--level", "block", "--block", "stage1_blok1"], "stage1_block1"),
        (["lenet5", "--level", "stage", "--unfold"], "'network'"),
        (["lenet5", "--image-size", "20"], "28x28"),
    ],
)
def test_mistakes(argv, word, capsys):
    assert main(["draw", *argv]) == 2
    err = capsys.readouterr().err
    assert word in err and err.count("\n") == 1


# --- receptive fields -----------------------------------------------------------------------------


def test_labels_of_receptive_fields_are_inside_the_picture():
    photo = np.full((300, 400, 3), 127, np.uint8)
    figure = draw_receptive_fields("googlenet", photo)
    figure.draw_without_rendering()
    renderer, [axes] = figure.canvas.get_renderer(), figure.axes
    frame = axes.get_window_extent()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == 2  # of the stem and stage 1
    for box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
    assert "stage2" in axes.get_xlabel() and "stage3" in axes.get_xlabel()
    fields = [p for p in axes.patches if p.get_edgecolor()[:3] != (0, 0, 0)]
    centers = np.array(
        [np.add(p.get_xy(), (p.get_width() / 2, p.get_height() / 2)) for p in fields]
    )
    assert np.abs(centers - 111.5).max() <= 8  # half a stride


def test_kernels():
    figure = draw_kernels()
    rows = [[axes.get_title() for axes in figure.axes[i : i + 3]] for i in (0, 3)]
    assert rows[0] == ["pixels: 5×5", "after 3×3: 3×3", "after 3×3: 1×1"]
    assert rows[1] == ["pixels: 5×5", "after 5×5: 1×1", ""]
    assert [figure.axes[i].get_xlabel() for i in (0, 3)] == [
        "weights: 9C² + 9C² = 18C²", "weights: 25C²",
    ]  # fmt: skip
