"""From the output folder of a run to a folder in another tool's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ssra_engine.auditing.findings import audit_of
from ssra_engine.durable import TEMPORARY, put_folder, remove, writing
from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.evaluation.outputs import open_outputs
from ssra_engine.export.files import Files
from ssra_engine.export.layouts import LAYOUTS
from ssra_engine.export.rows import open_export

__all__ = ["export_run"]


def export_run(
    folder: str | Path,
    layout: str,
    output: str | Path,
    *,
    corpus: Sequence[str] = (),
    audit: str | Path | None = None,
    dev: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> list[str]:
    """Write the kept queries of a finished run in a layout; the folder appears whole or not at all.

    Args:
        folder: output folder of the run.
        layout: one of `layouts.LAYOUTS`.
        output: a folder that does not exist yet.
        corpus: the documents of the run; by default the files that it recorded.
        audit: labelled file or folder of an audit, whose agreement goes into the card of the layout
            dataset; by default ``audit`` or ``audit.csv``, where that is an audit of this run.
        dev: share of the queries in the split dev, for layouts with splits (beir, mteb, dataset).
        test: the same for the split test.
        seed: of the split.

    Returns:
        names of the files, in order.

    Raises:
        ConfigError: an unknown layout, or shares that leave nothing for training.
        StoreError: `folder` is not a finished run, or `output` exists or cannot be written.
        DataError: the documents are not those of the run, or `audit` is not of it.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no format '{layout}'. Choose one of {', '.join(LAYOUTS)}.")
    if dev < 0 or test < 0 or dev + test >= 1:
        raise ConfigError(f"dev and test are shares that add up to less than 1, got {dev}, {test}.")
    output = Path(output)
    if output.exists():
        raise StoreError(f"{output}: is there already. Give another --output, or remove it.")
    if audit is not None and layout != "dataset":
        raise ConfigError(f"the card of format '{layout}' tells no agreement; leave out --audit.")
    export = open_export(open_outputs(Path(folder)), corpus, dev=dev, test=test, seed=seed)
    if layout == "dataset":
        export = replace(export, audit=audit_of(export.outputs, audit))

    def fill(empty: Path) -> None:
        with writing(output), Files(empty) as files:
            LAYOUTS[layout](export, files)

    try:
        put_folder(output, fill)
    finally:
        remove(output.with_name(output.name + TEMPORARY))
    return sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
