"""Work that threads do ahead of its use."""

import threading

import pytest

from jaxcnn.data.loader import ahead


def test_results_are_in_order_and_an_error_is_in_its_place():
    first = threading.Event()

    def function(i):
        if i == 0:
            assert first.wait(60)  # later items are done before it
        if i == 3:
            first.set()
            raise ValueError("three")
        return i

    results = ahead.map_ahead(function, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def threads():
    return {t for t in threading.enumerate() if t.name.startswith("jaxcnn-ahead")}


def test_items_are_taken_only_so_far_ahead(monkeypatch):
    monkeypatch.setattr(ahead, "cores", lambda: 1)
    taken = []
    results = ahead.map_ahead(str, (taken.append(i) or i for i in range(100)))
    assert next(results) == "0" and len(taken) == 9
    further = ahead.map_ahead(str, (taken.append(i) or i for i in range(100)), ahead=40)
    assert next(further) == "0" and len(taken) == 9 + 41
    running = threads()
    results.close()
    assert len(running) == 2 and len(threads() & running) == 1
    further.close()
    assert not threads() & running
