"""The generated pages of the site, and the check of its links."""

import functools
import re
from pathlib import Path

import api_names
import api_pages
import check_links
import docstrings
import family_pages
import pages
import pytest

import jaxcnn
from jaxcnn.models import FAMILIES

ROOT = Path(__file__).parents[1]


def test_the_table_on_the_site_has_a_row_for_every_network():
    page = pages.edit("networks", (ROOT / "docs" / "networks.md").read_text("utf-8"))
    rows = re.findall(r"^\| \[`(\w+)`\]\(families/(\w+)\.md\)(.*)\|$", page, re.M)
    assert [name for name, _, _ in rows] == jaxcnn.list_models()
    assert {family for _, family, _ in rows} == set(FAMILIES)
    assert {rest.count(" |") for _, _, rest in rows} == {12}
    [resnet50] = [rest for name, _, rest in rows if name == "resnet50"]
    assert " | ImageNet | 2015 | 224 | 50 | 25.6 | 102 | 4,089 | 23.87 | 7.138 | " in resnet50
    assert "(families/resnet.md#published-weights)" in resnet50


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_of_a_family(family):
    page = family_pages.family_page(family, ["network", "block"])
    ids = [name for name in jaxcnn.list_models() if jaxcnn.model_info(name).family == family]
    networks = page.split("\n## Networks\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", networks, re.M) == ids
    assert "](https://" in page.split("\n```")[0]  # the paper
    assert "## Details and deviations from the paper" in page or family == "inception_resnet"
    assert f"{{figure}} {family}_network.svg" in page
    assert f"({family}.md)" in family_pages.index_page()


def test_the_reference_has_an_entry_for_what_each_package_exports():
    page = functools.cache(api_pages.module_page)
    for name in api_names.FACES:
        module = api_names.modules()[name]
        exports = page(name).split("| name |  |")[1].split("\n\n")[0]
        assert exports.count("\n") - 1 >= len(api_names.members(module))
        for member, full in api_names.scope(module).items():
            home = page(full.rpartition(".")[0])
            kind = r"(?:function|class|data)"
            assert re.search(rf"{{py:{kind}}} {full.rpartition('.')[2]}\b", home), member


def test_names_become_links():
    link = api_names.link
    assert link("see `jaxcnn.models.create_model`") == (
        "see {py:obj}`jaxcnn.models.create_model <jaxcnn.create_model>`"
    )
    assert link("`jaxcnn.layers.Network.conv`") == (
        "{py:obj}`jaxcnn.layers.Network.conv <jaxcnn.layers.Network>`"
    )
    for same in ("`jaxcnn.nothing`", "`conv`", "# `jaxcnn.draw`", "```sh\n`jaxcnn.draw`\n```"):
        assert link(same) == same
    assert link("`conv`", {"conv": "jaxcnn.ops.conv"}) == "{py:obj}`conv <jaxcnn.ops.conv>`"
    assert link("(arXiv 1409.1556)") == "([arXiv 1409.1556](https://arxiv.org/abs/1409.1556))"


def test_docstrings_as_markdown():
    doc = "Adds.\n\nArgs:\n  a: one,\n    in two lines.\n\nRaises:\n  ValueError: no."
    assert docstrings.markdown(f"{doc}\n\n  >>> add(1)\n  2") == (
        "Adds.\n\n\n**Args**\n\n- `a`: one,\n  in two lines.\n\n\n**Raises**\n\n- `ValueError`: "
        "no.\n\n\n```pycon\n>>> add(1)\n2\n```"
    )
    assert docstrings.markdown("Do:\n\n    x = 1\n\n    y = 2\n\nThen.") == (
        "Do:\n\n\n```text\nx = 1\n\ny = 2\n```\n\nThen."
    )


def test_links_within_the_site_are_checked(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="https://x.org/">x</a>')
    (tmp_path / "b.html").write_text('<p id="there"><a href="a.html">a</a><a href="#here">b</a>')
    assert check_links.broken_links(tmp_path) == ["b.html: #here"]
    (tmp_path / "a.html").write_text('<img src="c.png">')
    assert check_links.broken_links(tmp_path) == ["a.html: c.png", "b.html: #here"]
