"""`tfopt version`: what is installed, and nothing else."""

from __future__ import annotations

from importlib import metadata

from tfopt_server.commands import version


def test_what_is_installed_has_a_line_each(capsys):
    assert version.main([], {}) == 0
    found = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert found["tfopt"] == metadata.version("tfopt")
    assert found["numpy"] == metadata.version("numpy")
    installed = {d.metadata["Name"].lower().replace("_", "-") for d in metadata.distributions()}
    assert set(found) == installed & set(version.PACKAGES)
