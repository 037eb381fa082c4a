"""What the demo keeps between runs is used only as it was made."""

import threading
from pathlib import Path

import pytest

from agent.demo.cache import cached, is_sealed


def make_program(tree: Path) -> None:
    (tree / "bin").mkdir()
    (tree / "bin" / "server").write_text("program")
    (tree / "bin" / "alias").symlink_to("server")


def make_nothing(tree: Path) -> None:
    pytest.fail(f"{tree} was made again")


def test_a_tree_is_made_once(tmp_path: Path) -> None:
    tree = cached(tmp_path / "cache" / "server", make_program)

    assert (tree / "bin" / "server").read_text() == "program"
    assert cached(tree, make_nothing) == tree


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda tree: (tree / "bin/server").write_text("programme"), id="changed"),
        pytest.param(lambda tree: (tree / "bin/server").unlink(), id="missing"),
        pytest.param(lambda tree: (tree / "bin/more").touch(), id="added"),
        pytest.param(lambda tree: (tree / "SHA256SUMS.json").write_text("{"), id="seal unreadable"),
        pytest.param(lambda tree: (tree / "SHA256SUMS.json").unlink(), id="seal missing"),
    ],
)
def test_a_harmed_tree_is_made_again(tmp_path: Path, harm) -> None:
    tree = cached(tmp_path / "server", make_program)
    harm(tree)
    assert not is_sealed(tree)

    cached(tree, make_program)

    assert is_sealed(tree)
    assert sorted(path.name for path in (tree / "bin").iterdir()) == ["alias", "server"]
    assert (tree / "bin/server").read_text() == "program"


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    tree = cached(tmp_path / "server", make_program)
    (tree / "bin/alias").unlink()
    (tree / "bin/alias").symlink_to("/bin/true")

    assert not is_sealed(tree)


def test_a_tree_that_was_interrupted_is_never_used(tmp_path: Path) -> None:
    def fail_half_way(tree: Path) -> None:
        (tree / "half").touch()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cached(tmp_path / "server", fail_half_way)
    assert not (tmp_path / "server").exists()

    tree = cached(tmp_path / "server", make_program)
    assert not (tree / "half").exists()


def test_two_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    made: list[Path] = []
    inside = threading.Event()
    go_on = threading.Event()

    def make_slowly(tree: Path) -> None:
        made.append(tree)
        inside.set()
        assert go_on.wait(10)
        make_program(tree)

    threads = [threading.Thread(target=cached, args=(tmp_path / "server", make_slowly)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)

    assert len(made) == 1
    assert is_sealed(tmp_path / "server")
