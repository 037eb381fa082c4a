"""How packages are fetched without root: what apt and dpkg are asked, and what becomes of it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.demo.apt_packages import AptPackages, library_path
from agent.demo.processes import ProcessFailed


class FakeApt:
    """Does what apt and dpkg would: an archive a package, and in it one program of its name."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.update_fails = self.install_fails = False

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))
        if command[0] == "dpkg":
            _, _, archive, tree = command
            programs = Path(tree, "usr/bin")
            programs.mkdir(parents=True, exist_ok=True)
            (programs / Path(archive).stem).write_text("program")
        elif command[-1] == "update":
            if self.update_fails:
                raise ProcessFailed("apt-get ended with code 100: no such host")
        elif self.install_fails:
            raise ProcessFailed("apt-get ended with code 100: Unable to locate package")
        else:
            archives = Path(next(word for word in command if "Archives" in word).rpartition("=")[2])
            assert (archives / "partial").is_dir()
            for package in command[command.index("--yes") + 1 :]:
                (archives / f"{package}.deb").touch()

    def configuration(self) -> str:
        (option,) = (word for word in self.commands[0] if word.startswith("--config-file="))
        return Path(option.partition("=")[2]).read_text()


@pytest.fixture
def apt() -> FakeApt:
    return FakeApt()


def test_packages_are_unpacked_and_not_installed(apt: FakeApt, tmp_path: Path) -> None:
    tree = AptPackages(tmp_path, apt).fetch(["server", "client"])

    assert sorted(path.name for path in (tree / "usr/bin").iterdir()) == ["client", "server"]
    assert not list(tree.rglob("*.deb"))
    install = apt.commands[1]
    assert "--download-only" in install
    assert install[-2:] == ["server", "client"]
    assert [command[:2] for command in apt.commands[2:]] == [["dpkg", "--extract"], ["dpkg", "--extract"]]


def test_everything_that_apt_writes_is_in_the_folder(apt: FakeApt, tmp_path: Path) -> None:
    packages = AptPackages(tmp_path, apt)
    packages.fetch(["server"])

    written = [line for line in apt.configuration().splitlines() if line.startswith("Dir::")]
    assert len(written) == 3
    assert all(f'"{tmp_path}/' in line for line in written)
    packages.close()
    assert not list(tmp_path.rglob("apt.conf"))


def test_hooks_of_the_machine_are_not_run(apt: FakeApt, tmp_path: Path) -> None:
    packages = AptPackages(tmp_path, apt)
    packages.fetch(["server"])

    for hook in ("APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success", "DPkg::Post-Invoke"):
        assert f"#clear {hook};" in apt.configuration().splitlines()


def test_lists_are_fetched_once_for_several_packages_and_never_for_kept_ones(apt: FakeApt, tmp_path: Path) -> None:
    packages = AptPackages(tmp_path, apt)
    packages.fetch(["server"])
    packages.fetch(["other"])
    assert sum(command[-1] == "update" for command in apt.commands) == 1

    asked = len(apt.commands)
    AptPackages(tmp_path, apt).fetch(["server"], lambda: pytest.fail("it was fetched again"))
    assert len(apt.commands) == asked


def test_one_source_out_of_reach_does_not_stop_what_others_have(apt: FakeApt, tmp_path: Path) -> None:
    apt.update_fails = True

    tree = AptPackages(tmp_path, apt).fetch(["server"])

    assert (tree / "usr/bin/server").exists()


def test_a_package_that_is_not_to_be_had_says_both_reasons(apt: FakeApt, tmp_path: Path) -> None:
    apt.update_fails = apt.install_fails = True

    with pytest.raises(ProcessFailed, match=r"Unable to locate package; and the update before it: .*no such host"):
        AptPackages(tmp_path, apt).fetch(["server"])


def test_libraries_of_a_tree_are_found_wherever_the_package_put_them(tmp_path: Path) -> None:
    for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/mysql"):
        (tmp_path / folder).mkdir(parents=True)

    found = library_path(tmp_path)

    assert found == {"LD_LIBRARY_PATH": f"{tmp_path}/usr/lib/x86_64-linux-gnu:{tmp_path}/lib/x86_64-linux-gnu"}
